"""Compact bilinear and kernel pooling against scikit-learn, and the kernels they stand for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.metrics.pairwise import rbf_kernel

from skfisher import CompactBilinearPooling, JointClassifier, PowerL2Normalizer


@pytest.fixture
def bags(rng):
    return [rng.normal(size=(t, 6)) for t in (1, 3, 20, 7, 300)]


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_encodings_are_the_means_of_the_features_of_sklearn(bags, degree):
    sketch = PolynomialCountSketch(
        degree=degree, gamma=1, coef0=0, n_components=37, random_state=3
    ).fit(bags[0])
    encoder = CompactBilinearPooling(37, degree=degree, random_state=3).fit(bags)
    assert_array_equal(encoder.buckets_, sketch.indexHash_)
    assert_array_equal(encoder.signs_, sketch.bitHash_)
    expected = np.stack([sketch.transform(bag).mean(axis=0) for bag in bags])
    scale = np.abs(expected).max()
    assert_allclose(encoder.transform(bags), expected, rtol=0, atol=4e-15 * scale)
    narrow = encoder.transform([bag.astype(np.float32) for bag in bags])
    assert narrow.dtype == np.float32
    assert_allclose(narrow, expected, rtol=0, atol=1e-6 * scale)


def test_normalisation_is_that_of_the_normaliser(bags):
    plain = CompactBilinearPooling(37, random_state=3).fit_transform(bags)
    for normalize, power in (("power-l2", 0.5), ("l2", 1.0)):
        found = CompactBilinearPooling(37, normalize=normalize, random_state=3).fit_transform(bags)
        expected = PowerL2Normalizer(power=power).fit_transform(plain)
        assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_inner_products_are_those_of_second_moments_on_average(bags):
    moments = np.stack([(bag.T @ bag / len(bag)).ravel() for bag in bags])
    exact = moments @ moments.T
    found = []
    for seed in range(400):
        z = CompactBilinearPooling(64, random_state=seed).fit_transform(bags)
        found.append(z @ z.T)
    spread = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - exact) < 5 * spread + 1e-12).all()


def test_kernel_pooling_is_close_to_the_mean_of_the_kernel(bags):
    gamma = 0.5
    unit = [bag / np.linalg.norm(bag, axis=1, keepdims=True) for bag in bags]
    exact = np.array([[rbf_kernel(a, b, gamma=gamma).mean() for b in unit] for a in unit])
    found = []
    for seed in range(60):
        z = CompactBilinearPooling(
            128, degree=5, kernel="rbf", gamma=gamma, random_state=seed
        ).fit_transform(bags)
        found.append(z @ z.T)
    spread = np.std(found, axis=0) / np.sqrt(len(found))
    # what the orders beyond the fifth would add is at most exp(-1) / 6!
    assert (np.abs(np.mean(found, axis=0) - exact) < 5 * spread + np.exp(-1) / 720).all()
    # one with so many entries is close by itself
    z = CompactBilinearPooling(
        2**15, degree=5, kernel="rbf", gamma=gamma, random_state=0
    ).fit_transform(bags)
    assert np.abs(z @ z.T - exact).max() < 0.02


def test_orders_have_names_and_places(bags):
    encoder = CompactBilinearPooling(4, degree=3, kernel="rbf", gamma=2.0, random_state=0)
    z = encoder.fit_transform(bags)
    names = list(encoder.get_feature_names_out())
    assert names[:3] == ["constant", "mean_d0", "mean_d1"]
    assert names[7:] == [f"order{p}_{i}" for p in (2, 3) for i in range(4)]
    assert z.shape == (5, len(names))
    assert_allclose(z[:, 0], np.exp(-2))  # beta_0
    mean = np.stack([(b / np.linalg.norm(b, axis=1)[:, None]).mean(axis=0) for b in bags])
    assert_allclose(z[:, 1:7], np.exp(-2) * 2 * mean)  # beta_1
    first = CompactBilinearPooling(4, degree=1, kernel="rbf", random_state=0).fit(bags)
    assert list(first.get_feature_names_out()) == names[:7]
    assert first.transform(bags).shape == (5, 7)


def test_a_descriptor_of_zeros_is_no_fault(bags):
    bags[0] = np.zeros((1, 6))
    z = CompactBilinearPooling(8, kernel="rbf", random_state=0).fit_transform(bags)
    assert_allclose(z[0], np.exp(-1) * (np.arange(len(z[0])) == 0))


def test_what_is_too_large_is_named(bags):
    encoder = CompactBilinearPooling(8, random_state=0).fit(bags)
    bags[2][4, 1] = 1e200
    with pytest.raises(ValueError, match=r"X\[2\] has a descriptor with an entry of size 1e\+200"):
        encoder.transform(bags)


@pytest.mark.parametrize("kernel", [None, "rbf"])
def test_descriptors_are_trained_through_it(kernel):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    mixing = np.array([np.eye(4), np.eye(4)[[1, 0, 3, 2]]])  # of equal means and traces
    scales = np.array([2.0, 1.0, 0.5, 1.0])
    X = [rng.normal(size=(12, 4)) * scales @ mixing[c] for c in y]
    encoder = CompactBilinearPooling(16, kernel=kernel, random_state=0)
    model = JointClassifier(encoder, max_iter=15, batch_size=10, random_state=0).fit(X, y)
    assert model.history_["loss"][-1] < 0.8 * model.history_["loss"][0]
    assert model.transform(X).shape == (60, 16 if kernel is None else 1 + 4 + 16)

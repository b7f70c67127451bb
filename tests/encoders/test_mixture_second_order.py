"""Gaussian embeddings under a mixture against loops, at the edges, and trained."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import sqrtm
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize

from skfisher import DiagonalGaussianMixture, JointClassifier, MixtureSecondOrderPooling
from skfisher.codebooks.em import Mixture


def with_mixture(weights, means, variances, **options):
    mixture = DiagonalGaussianMixture(len(weights))
    mixture.weights_, mixture.means_, mixture.variances_ = map(
        np.asarray, (weights, means, variances)
    )
    return MixtureSecondOrderPooling(len(weights), mixture=mixture, **options)


@pytest.fixture
def mixture(rng):
    return Mixture(np.array([0.3, 0.7]), rng.normal(size=(2, 3)), rng.uniform(0.5, 2, (2, 3)))


def reference(bag, mixture, power):
    mean = mixture.weights @ mixture.means
    scale = np.sqrt(mixture.weights @ (mixture.variances + mixture.means**2) - mean**2)
    joint = GaussianMixture(len(mixture.weights), covariance_type="diag")
    joint.weights_, joint.means_, joint.covariances_ = mixture
    joint.precisions_cholesky_ = mixture.variances**-0.5
    posteriors = joint.predict_proba(bag)
    z = np.column_stack([(bag - mean) / scale, np.ones(len(bag))])
    triangles = []
    for k in range(len(mixture.weights)):
        m = (posteriors[:, k, None] * z).T @ z / len(bag)
        values, vectors = np.linalg.eigh(m)
        values = np.where(values > 1e-12 * values[-1], values, 0)
        root = (vectors * values**power) @ vectors.T
        triangles.append((root * np.where(np.eye(len(m)), 1, np.sqrt(2)))[np.triu_indices(len(m))])
    return np.concatenate(triangles)


@pytest.mark.parametrize("power", [0.3, 0.5])
def test_encodings_are_those_of_loops(rng, mixture, power):
    bags = [rng.normal(size=(t, 3)) for t in (1, 2, 3, 30, 500)]
    encoder = with_mixture(*mixture, power=power, normalize=None).fit(bags)
    expected = np.stack([reference(bag, mixture, power) for bag in bags])
    # powers of eigenvalues near 0 are steep
    assert_allclose(encoder.transform(bags), expected, atol=2e-7)
    assert_allclose(encoder.transform(bags)[-2:], expected[-2:], atol=1e-12)


def test_one_component_is_the_gaussian_embedding(rng):
    bags = [rng.normal(size=(20, 2)) + 3 for _ in range(5)]
    encoder = MixtureSecondOrderPooling(1, normalize=None).fit(bags)
    rows = np.concatenate(bags)
    assert_allclose(encoder.means_[0], rows.mean(axis=0))
    y = (bags[0] - rows.mean(axis=0)) / rows.std(axis=0)
    z = np.column_stack([y, np.ones(20)])
    root = sqrtm(z.T @ z / 20)
    found = encoder.transform(bags[:1])[0]
    names = list(encoder.get_feature_names_out())
    assert names == [
        "second_k0_d0_d0", "second_k0_d0_d1", "mean_k0_d0",
        "second_k0_d1_d1", "mean_k0_d1", "weight_k0",
    ]  # fmt: skip
    assert_allclose(found[[0, 3, 5]], np.diag(root))
    assert_allclose(found[[1, 2, 4]], np.sqrt(2) * root[[0, 0, 1], [1, 2, 2]])


def test_an_offset_of_a_thousand_deviations_costs_no_digits(rng, mixture):
    bags = [np.float32(rng.normal(size=(t, 3)) + 1000) for t in (5, 40, 300)]
    means = mixture.means + 1000
    encoder = with_mixture(mixture.weights, means, mixture.variances).fit(bags)
    narrow = encoder.transform(bags)
    assert narrow.dtype == np.float32
    assert_allclose(narrow, encoder.transform([np.float64(bag) for bag in bags]), atol=2e-6)


def test_short_bags_constant_dimensions_and_duplicates_are_finite(rng):
    bags = [np.column_stack([rng.normal(size=(t, 4)), np.full(t, 7.0)]) for t in (1, 1, 2, 30)]
    bags.append(np.repeat(bags[0], 9, axis=0))
    for dtype in (np.float32, np.float64):
        x = [bag.astype(dtype) for bag in bags]
        z = MixtureSecondOrderPooling(2, random_state=0).fit_transform(x)
        assert np.isfinite(z).all()
        assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-6)
        assert_allclose(z[4], z[0], atol=1e-5 if dtype == np.float32 else 1e-7)
    one = MixtureSecondOrderPooling(2, random_state=0).fit_transform([b[:, :1] for b in bags])
    assert one.shape == (5, 2 * 3)


def test_a_component_that_no_descriptor_is_near_is_a_block_of_zeros(rng, mixture):
    far = mixture._replace(means=mixture.means + np.array([[0.0], [1e3]]))
    bags = [rng.normal(size=(6, 3)) for _ in range(3)]
    for how in ("l2", "intra"):
        encoder = with_mixture(*far, normalize=how).fit(bags)
        z = encoder.transform(bags)
        assert np.isfinite(z).all()
        assert np.abs(z[:, encoder.blocks() == 1]).max() < 1e-6
        assert_allclose(np.linalg.norm(z, axis=1), 1)


def test_normalisation_is_of_all_or_of_each_component(rng, mixture):
    bags = [rng.normal(size=(6, 3)) for _ in range(3)]
    plain = with_mixture(*mixture, normalize=None).fit(bags).transform(bags)
    assert_allclose(with_mixture(*mixture).fit(bags).transform(bags), normalize(plain))
    halves = np.hstack([normalize(plain[:, :10]), normalize(plain[:, 10:])])
    intra = with_mixture(*mixture, normalize="intra").fit(bags).transform(bags)
    assert_allclose(intra, normalize(halves))


def test_parts_make_a_mixture_too(rng):
    encoder = MixtureSecondOrderPooling(2, random_state=0)
    parts = [[rng.normal(size=(20, 3)) for _ in range(10)] for _ in range(3)]
    for part in parts:
        encoder.partial_fit(part)
    again = DiagonalGaussianMixture(2, variance_floor=0.3, max_iter=2, random_state=0)
    for part in parts:
        again.partial_fit(part)
    assert_array_equal(encoder.means_, again.means_)
    assert encoder.transform(parts[0]).shape == (10, 20)


def test_too_long_an_encoding_is_refused_before_any_work():
    bags = [np.zeros((3, 800))] * 2
    with pytest.raises(
        ValueError, match=r"makes 1284804 numbers a bag.*DescriptorTransformer\(PCA"
    ):
        MixtureSecondOrderPooling(4).fit(bags)
    with pytest.raises(ValueError, match="lower n_components"):
        JointClassifier(MixtureSecondOrderPooling(4)).fit(bags, [0, 1])


def test_the_mixture_is_trained():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    turn = np.array([[1, 1], [1, -1]]) / np.sqrt(2)  # classes differ in a correlation
    X = [rng.normal(size=(15, 2)) * [1.5, 1.0] @ (turn if c else np.eye(2)) for c in y]
    model = JointClassifier(
        MixtureSecondOrderPooling(2), max_iter=10, batch_size=20, random_state=0
    ).fit(X, y)
    assert set(model.history_) >= {"loss", "smallest_weight"}
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    assert np.abs(model.means_ - model.baseline_.means_).max() > 1e-3
    assert_allclose(model.transform(X).mean(axis=0), 0, atol=0.2)  # centred
    frozen = JointClassifier(MixtureSecondOrderPooling(2), max_iter=0, random_state=0).fit(X, y)
    assert_array_equal(frozen.means_, model.baseline_.means_)

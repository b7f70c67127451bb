"""Principal coordinates of descriptors."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skfisher import Bags
from skfisher.layers.whitening import CLIP, Whitening, principal_axes, whiten, whiten_bags
from skfisher.parallel.units import Where


@pytest.fixture
def bags(rng):
    x = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)) + 50
    return Bags(x, [0, 10, 40], [10, 40, 60])


def test_axes_are_those_of_pca(bags):
    mean, axes = principal_axes(bags, equal=True)
    pca = PCA(whiten=True).fit(bags.values)
    np.testing.assert_allclose(mean, pca.mean_)
    expected = pca.components_.T / np.sqrt(pca.explained_variance_ * 59 / 60)
    np.testing.assert_allclose(np.abs(axes), np.abs(expected), rtol=1e-8)
    z = (bags.values - mean) @ axes
    np.testing.assert_allclose(z.T @ z / 60, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("equal", [True, False])
def test_white_descriptors_keep_their_axes(rng, equal):
    x = PCA(whiten=True).fit_transform(rng.laplace(size=(3000, 5)) @ rng.normal(size=(5, 5)))
    sample = rng.permutation(3000)[:2000]  # white to the precision of a sample, and in float32
    white = Bags.from_lengths((x[sample] + 3).astype(np.float32), [500, 1500])
    _, axes = principal_axes(white, equal=equal)
    np.testing.assert_allclose(axes, np.diag(np.diagonal(axes)))
    np.testing.assert_allclose(np.diagonal(axes), np.ones(5), atol=0.05)
    z = white.values @ axes
    assert z.var(axis=0).mean() == pytest.approx(1, rel=1e-5 if equal else 1e-3)


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_without_variance_are_zero(rng, equal, dtype):
    # Of which axes, rounding would decide: in another order they would be others.
    x = (rng.normal(size=(12, 12)) @ rng.normal(size=(12, 30)) + 10).astype(dtype)
    _, axes = principal_axes(Bags.from_lengths(x, [12]), equal=equal)
    _, other = principal_axes(Bags.from_lengths(x[::-1].copy(), [12]), equal=equal)
    np.testing.assert_array_equal((axes != 0).any(axis=0), np.arange(30) < 11)
    np.testing.assert_allclose(axes, other, rtol=1e-8, atol=1e-11)


def test_one_scale_keeps_distances(bags):
    mean, axes = principal_axes(bags, equal=False)
    z = (bags.values - mean) @ axes
    ratio = np.linalg.norm(z[0] - z[1]) / np.linalg.norm(bags.values[0] - bags.values[1])
    np.testing.assert_allclose(axes.T @ axes, ratio**2 * np.eye(4), atol=1e-9)
    assert z.var(axis=0).mean() == pytest.approx(1)


def test_only_descriptors_of_the_bags_count(bags):
    some = Bags(bags.values, [5, 30], [20, 55])
    rows = np.r_[5:20, 30:55]
    mean, _ = principal_axes(some, equal=True)
    np.testing.assert_allclose(mean, bags.values[rows].mean(axis=0))
    whitening = Whitening(mean, np.eye(4), False)
    np.testing.assert_allclose(whiten_bags(some, whitening).pack().values, bags.values[rows] - mean)


def test_constant_and_repeated_dimensions_stay_finite(rng):
    x = np.repeat(rng.normal(size=(50, 1)), 3, axis=1)
    x[:, 2] = 7
    mean, axes = principal_axes(Bags.from_lengths(x, [50]), equal=True)
    z = (x - mean) @ axes
    assert z[:, 0].var() == pytest.approx(1)
    assert np.abs(z[:, 1:]).max() < 1e-5
    _, flat = principal_axes(Bags.from_lengths(np.ones((5, 2)), [5]), equal=True)
    assert np.isfinite(flat).all()


def test_threads_change_no_bit(bags, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 7)
    one, two = (principal_axes(bags, equal=True, where=Where(n)) for n in (None, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.uint8, np.float32), (np.float32, np.float32), (int, np.float64)]
)
def test_dtypes_to_compute_in(dtype, expected):
    x = np.arange(6).reshape(3, 2).astype(dtype)
    z = whiten(x, Whitening(np.array([2.0, 3.0]), np.eye(2), False))
    assert z.dtype == expected
    assert z.tolist() == [[-2, -2], [0, 0], [2, 2]]


def test_the_squash_is_undone_by_tanh(rng):
    x = rng.normal(size=(20, 3))
    matrix = rng.normal(size=(3, 3))
    z = whiten(x, Whitening(np.zeros(3), 0.5 * np.eye(3), True, np.linalg.inv(matrix)))
    np.testing.assert_allclose(np.tanh(z @ matrix.T), np.clip(0.5 * x, -CLIP, CLIP), atol=1e-10)

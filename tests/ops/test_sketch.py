"""Sketches against the powers that they stand for, and scikit-learn's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.kernel_approximation import PolynomialCountSketch

from skfisher.arrays.libraries import to_host
from skfisher.ops.sketch import (
    WIDE,
    count_sketch,
    count_sketch_vjp,
    sketch_sums,
    sketch_sums_vjp,
    tensor_sketch,
)


def test_count_sketch_adds_signed_columns_by_bucket(rng):
    x = rng.normal(size=(5, 40)).astype(np.float32)
    buckets, signs = rng.integers(8, size=40), rng.choice([-1, 1], size=40)
    buckets[buckets == 3] = 4  # an empty bucket
    expected = np.zeros((5, 8))
    for j in range(40):
        expected[:, buckets[j]] += signs[j] * x[:, j]
    sketch = count_sketch(x, buckets, signs, 8)
    assert sketch.dtype == np.float32
    assert_allclose(sketch, expected, atol=1e-5)


def test_tensor_sketch_is_the_count_sketch_of_the_outer_product(rng):
    # under the bucket h1(i) + h2(j) mod m and the sign s1(i) s2(j)
    a, e = rng.normal(size=(5, 12)), rng.normal(size=(5, 9))
    for m in (7, 16):
        buckets = rng.integers(m, size=12), rng.integers(m, size=9)
        signs = rng.choice([-1, 1], size=12), rng.choice([-1, 1], size=9)
        expected = np.zeros((5, m))
        for i, j in np.ndindex(12, 9):
            bucket = (buckets[0][i] + buckets[1][j]) % m
            expected[:, bucket] += signs[0][i] * signs[1][j] * a[:, i] * e[:, j]
        assert_allclose(tensor_sketch((a, e), buckets, signs, m), expected, atol=1e-13)


def test_tensor_sketch_is_unbiased(rng):
    a, e = rng.normal(size=(4, 12)), rng.normal(size=(4, 9))
    exact = (a @ a.T) * (e @ e.T)
    products = []
    for _ in range(600):
        buckets = rng.integers(32, size=12), rng.integers(32, size=9)
        signs = rng.choice([-1, 1], size=12), rng.choice([-1, 1], size=9)
        z = tensor_sketch((a, e), buckets, signs, 32)
        products.append(z @ z.T)
    spread = np.std(products, axis=0) / np.sqrt(len(products))
    assert (abs(np.mean(products, axis=0) - exact) < 5 * spread + 1e-12).all()


def test_a_wide_count_sketch_is_that_of_its_halves(rng):
    x = rng.normal(size=(3, WIDE))
    buckets, signs = rng.integers(50, size=WIDE), rng.choice([-1, 1], size=WIDE)
    halves = [
        count_sketch(x[:, half], buckets[half], signs[half], 50)
        for half in (slice(0, WIDE // 2), slice(WIDE // 2, WIDE))
    ]
    assert_allclose(count_sketch(x, buckets, signs, 50), sum(halves), atol=1e-12)


def test_the_gradient_of_a_count_sketch_is_its_transpose(rng):
    x, g = rng.normal(size=(4, 9)), rng.normal(size=(4, 6))
    buckets, signs = rng.integers(6, size=9), rng.choice([-1, 1], size=9)
    d_x = count_sketch_vjp(g, buckets, signs)
    assert_allclose((g * count_sketch(x, buckets, signs, 6)).sum(), (d_x * x).sum())


def hashes_of_sklearn(degree, d, n_buckets, seed=0):
    sketch = PolynomialCountSketch(
        degree=degree, gamma=1, coef0=0, n_components=n_buckets, random_state=seed
    ).fit(np.zeros((1, d)))
    return sketch, (sketch.indexHash_, sketch.bitHash_, n_buckets)


# Bags of 1 to 40 descriptors: those of many go by their matrix, and so do short ones where the
# sketch is longer than the matrix.
@pytest.mark.parametrize(("d", "n_buckets"), [(3, 64), (12, 16), (20, 7), (1, 5)])
@pytest.mark.parametrize("degree", [2, 3])
def test_sums_are_those_of_sklearn(rng, xp, degree, d, n_buckets):
    lengths = np.array([1, 40, 2, 13, 5])
    stops = np.cumsum(lengths)
    starts = stops - lengths
    x = rng.normal(size=(stops[-1], d))
    sketch, hashes = hashes_of_sklearn(degree, d, n_buckets)
    expected = np.add.reduceat(sketch.transform(x), starts)
    found = to_host(sketch_sums(xp.asarray(x), starts, stops, *hashes))
    assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    narrow = to_host(sketch_sums(xp.asarray(x, dtype=np.float32), starts, stops, *hashes))
    assert narrow.dtype == np.float64
    assert_allclose(narrow, expected, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("degree", "d"), [(2, 3), (2, 30), (3, 4), (4, 3)])
def test_gradients_of_sums_are_central_differences(rng, xp, degree, d):
    lengths = np.array([1, 8, 3])
    stops = np.cumsum(lengths)
    starts = stops - lengths
    x, g = rng.normal(size=(stops[-1], d)), rng.normal(size=(3, 16))
    _, hashes = hashes_of_sklearn(degree, d, 16)
    d_x = to_host(sketch_sums_vjp(xp.asarray(g), xp.asarray(x), starts, stops, *hashes))
    for _ in range(3):
        direction, h = rng.normal(size=x.shape), 1e-6
        moved = [
            to_host(sketch_sums(xp.asarray(x + s * direction), starts, stops, *hashes))
            for s in (h, -h)
        ]
        difference = (g * (moved[0] - moved[1])).sum() / (2 * h)
        assert (d_x * direction).sum() == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_bags_may_overlap_lie_apart_and_be_long(rng):
    d, n_buckets = 40, 2**14
    x = rng.normal(size=(200, d))
    starts, stops = np.array([0, 100, 50]), np.array([70, 200, 53])
    for degree in (2, 3):  # 64 rows at a time, for the powers that are summed by rows
        sketch, hashes = hashes_of_sklearn(degree, d, n_buckets)
        rows = sketch.transform(x)
        sums = sketch_sums(x, starts, stops, *hashes)
        expected = np.stack([rows[a:b].sum(axis=0) for a, b in zip(starts, stops, strict=True)])
        assert_allclose(sums, expected, atol=1e-11)
        g = rng.normal(size=sums.shape)
        d_x = sketch_sums_vjp(g, x, starts, stops, *hashes)
        alone = sum(sketch_sums_vjp(g[[i]], x, starts[[i]], stops[[i]], *hashes) for i in range(3))
        assert_allclose(d_x, alone, atol=1e-10)
        assert (d_x[70:100] == 0).all()


def test_a_sum_depends_on_its_bag_alone(rng):
    x = rng.normal(size=(60, 16)).astype(np.float32)
    starts, stops = np.array([0, 1, 20, 45]), np.array([1, 20, 45, 60])
    for degree in (2, 3):
        _, hashes = hashes_of_sklearn(degree, 16, 32)
        together = sketch_sums(x, starts, stops, *hashes)
        for i in range(4):
            alone = sketch_sums(
                x[starts[i] : stops[i]], *np.array([[0], [stops[i] - starts[i]]]), *hashes
            )
            assert_array_equal(alone[0], together[i])

"""Maps of outer products against the outer products themselves."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.ops.outer_products import (
    count_sketch,
    energetic_pairs,
    pair_features,
    principal_axes,
    tensor_sketch,
)


def test_principal_axes_rotate_to_uncorrelated_coordinates(rng):
    x = rng.normal(size=(50, 6)) * np.arange(1, 7) + 2
    axes, energies = principal_axes(x.T @ x, 6)
    assert_allclose((x @ axes).T @ (x @ axes), np.diag(energies), atol=1e-10)
    assert (np.diff(energies) < 0).all()
    assert (axes[abs(axes).argmax(axis=0), np.arange(6)] > 0).all()
    few, largest = principal_axes(x.T @ x, 2)
    assert_array_equal(few, axes[:, :2])
    assert_array_equal(largest, energies[:2])


def test_all_pairs_of_all_axes_are_the_outer_product(rng):
    a, e = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
    left, right = (principal_axes(f.T @ f, f.shape[1])[0] for f in (a, e))
    features = pair_features(a, e, left, right, np.indices((4, 3)).reshape(2, -1))
    assert_allclose(features @ features.T, (a @ a.T) * (e @ e.T), atol=1e-12)


def test_pairs_with_most_energy_are_chosen_among_all_parts():
    first = np.array([8.0, 1.0]), np.array([3.0, 2.0])  # 24 16 3 2
    second = np.array([5.0, 4.0]), np.array([1.0])  # 5 4
    pairs, energies = energetic_pairs([first, second], 4)
    assert_array_equal(pairs[0], [[0, 0], [0, 1]])
    assert_array_equal(pairs[1], [[0, 1], [0, 0]])
    assert_array_equal(energies[0], [24, 16])
    assert_array_equal(energies[1], [5, 4])
    pairs, energies = energetic_pairs([first, second], 100)
    assert [len(e) for e in energies] == [4, 2]


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
        assert_allclose(tensor_sketch(a, e, buckets, signs, m), expected, atol=1e-13)


def test_tensor_sketch_is_unbiased(rng):
    a, e = rng.normal(size=(4, 12)), rng.normal(size=(4, 9))
    exact = (a @ a.T) * (e @ e.T)
    products = []
    for _ in range(600):
        buckets = rng.integers(32, size=12), rng.integers(32, size=9)
        signs = rng.choice([-1, 1], size=12), rng.choice([-1, 1], size=9)
        z = tensor_sketch(a, e, buckets, signs, 32)
        products.append(z @ z.T)
    spread = np.std(products, axis=0) / np.sqrt(len(products))
    assert (abs(np.mean(products, axis=0) - exact) < 5 * spread + 1e-12).all()

"""Maps of outer products against the outer products themselves."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.ops.outer_products import (
    energetic_pairs,
    pair_features,
    principal_axes,
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

"""Energies along directions: without labels, trained, and as a bilinear classifier."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher import JointClassifier, LowRankBilinearPooling


@pytest.fixture
def bags(rng):
    return [rng.normal(size=(t, 4)) * [1, 2, 3, 4] + 1 for t in (1, 3, 30, 600)]


def test_directions_are_principal_axes_and_then_random(bags):
    rows = np.concatenate(bags)
    axes = np.linalg.eigh(rows.T @ rows)[1]
    encoder = LowRankBilinearPooling(6, random_state=0).fit(bags)
    assert_allclose(np.abs(encoder.directions_[:4] @ axes[:, ::-1]), np.eye(4), atol=1e-8)
    assert_allclose(np.linalg.norm(encoder.directions_, axis=1), 1)
    few = LowRankBilinearPooling(2).fit(bags)
    assert_allclose(few.directions_, encoder.directions_[:2])
    energies = few.transform(bags)
    expected = [((bag @ few.directions_.T) ** 2).mean(axis=0) for bag in bags]
    assert_allclose(energies, expected)
    assert list(few.get_feature_names_out()) == ["energy_0", "energy_1"]
    narrow = few.transform([np.float32(bag) for bag in bags])
    assert narrow.dtype == np.float32
    assert_allclose(narrow, expected, rtol=1e-5)


def test_energies_in_all_pairs_of_axes_hold_the_second_moments(bags):
    # of rank D (D + 1) / 2 the random ones among them span all symmetric matrices
    encoder = LowRankBilinearPooling(10, random_state=0).fit(bags)
    squares = np.stack([np.outer(u, u).ravel() for u in encoder.directions_])
    assert np.linalg.matrix_rank(squares) == 10
    moments = np.stack([(bag.T @ bag / len(bag)).ravel() for bag in bags])
    assert_allclose(encoder.transform(bags), moments @ squares.T)


def test_what_is_too_large_is_named(bags):
    encoder = LowRankBilinearPooling(2).fit(bags)
    bags[2][4, 1] = 1e200
    with pytest.raises(ValueError, match=r"X\[2\] has a descriptor with an entry of size 1e\+200"):
        encoder.transform(bags)


def test_one_direction_is_found_for_the_labels():
    # classes differ in the variance along a direction that is no axis, and not the longest
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    u = np.array([1.0, -1.0, 1.0]) / np.sqrt(3)
    X = [rng.normal(size=(20, 3)) @ (np.eye(3) + c * np.outer(u, u)) for c in y]
    model = JointClassifier(
        LowRankBilinearPooling(2, random_state=0), feature_map="identity",
        max_iter=30, batch_size=20, random_state=0,
    ).fit(X, y)  # fmt: skip
    assert model.history_["loss"][-1] < 0.8 * model.history_["loss"][0]
    assert model.score(X, y) > max(0.9, model.baseline_.score(X, y))

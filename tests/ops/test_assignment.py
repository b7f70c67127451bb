"""Hard and soft assignment against plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances_argmin

from skfisher.ops.assignment import assignment_sums

from . import references

STARTS, STOPS = np.array([3, 0, 10]), np.array([10, 3, 400])


@pytest.fixture
def problem(rng):
    x, centres = rng.normal(size=(400, 5)), rng.normal(size=(7, 5))
    return x, centres, -0.5 * (centres**2).sum(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hard_assignment_is_to_the_nearest_centre(problem, dtype):
    x, centres, constant = (a.astype(dtype) for a in problem)
    s0, s1 = assignment_sums(x, STARTS, STOPS, centres, constant)
    labels = pairwise_distances_argmin(problem[0], problem[1])
    for bag, rows in enumerate(map(slice, STARTS, STOPS)):
        for k in range(7):
            members = x[rows][labels[rows] == k]
            assert s0[bag, k] == len(members)
            np.testing.assert_allclose(s1[bag, k], members.sum(axis=0), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_soft_assignment_is_a_softmax(problem, dtype):
    x, centres, constant = (a.astype(dtype) for a in problem)
    s0, s1 = assignment_sums(x, STARTS, STOPS, centres, constant, hard=False)
    for bag, rows in enumerate(map(slice, STARTS, STOPS)):
        a = np.array([references.softmax(centres @ row + constant) for row in x[rows]])
        np.testing.assert_allclose(s0[bag], a.sum(axis=0), rtol=1e-5)
        np.testing.assert_allclose(s1[bag], a.T @ x[rows], rtol=1e-4, atol=1e-4)


def test_equal_logits_go_to_the_first(xp):
    x = xp.ones((4, 3), dtype=np.float32)
    centres, constant = xp.ones((5, 3), dtype=np.float32), xp.zeros(5, dtype=np.float32)
    s0, s1 = assignment_sums(x, np.array([0, 3]), np.array([3, 4]), centres, constant)
    assert s0.tolist() == [[3, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert s1[:, 0].tolist() == [[3, 3, 3], [1, 1, 1]]
    counts, nothing = assignment_sums(
        x, np.array([0]), np.array([4]), centres, constant, with_moments=False
    )
    assert counts.tolist() == [[4, 0, 0, 0, 0]]
    assert nothing is None

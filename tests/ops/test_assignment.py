"""Hard and soft assignment against plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances_argmin

from skfisher.arrays.libraries import to_host
from skfisher.ops.assignment import assignment_sums, assignment_sums_vjp
from skfisher.ops.soft_assignment import Sums, soft_statistics

from . import references

STARTS, STOPS = np.array([3, 0, 10]), np.array([10, 3, 400])


@pytest.fixture
def problem(rng):
    x, centers = rng.normal(size=(400, 5)), rng.normal(size=(7, 5))
    return x, centers, -0.5 * (centers**2).sum(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hard_assignment_is_to_the_nearest_center(problem, dtype, xp):
    x, centers, constant = (xp.asarray(a, dtype=dtype) for a in problem)
    sums = assignment_sums(x, STARTS, STOPS, (centers, None, constant), hard=True, order=2)
    s0, s1, s2 = map(to_host, sums)
    labels = pairwise_distances_argmin(problem[0], problem[1])
    for bag, rows in enumerate(map(slice, STARTS, STOPS)):
        for k in range(7):
            members = to_host(x[rows])[labels[rows] == k]
            assert s0[bag, k] == len(members)
            np.testing.assert_allclose(s1[bag, k], members.sum(axis=0), atol=1e-4)
            np.testing.assert_allclose(s2[bag, k], (members**2).sum(axis=0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_soft_assignment_is_a_softmax(problem, dtype, xp):
    x, centers, constant = (xp.asarray(a, dtype=dtype) for a in problem)
    sums = assignment_sums(x, STARTS, STOPS, (centers, None, constant))
    assert sums.s2 is None
    s0, s1 = map(to_host, sums[:2])
    x, centers, constant = problem
    for bag, rows in enumerate(map(slice, STARTS, STOPS)):
        a = np.array([references.softmax(centers @ row + constant) for row in x[rows]])
        np.testing.assert_allclose(s0[bag], a.sum(axis=0), rtol=1e-5)
        np.testing.assert_allclose(s1[bag], a.T @ x[rows], rtol=1e-4, atol=1e-4)


def test_soft_sums_are_the_first_of_the_statistics(problem, rng, xp):
    x, centers, constant = map(xp.asarray, problem)
    coefficients = centers, xp.asarray(-rng.uniform(0.1, 1, size=(7, 5))), constant
    expected = soft_statistics(x, STARTS, STOPS, coefficients)
    for order in range(3):
        sums = assignment_sums(x, STARTS, STOPS, coefficients, order=order)
        assert [s is not None for s in sums] == [i <= order for i in range(3)]
        for found, whole in zip(sums[: order + 1], expected, strict=False):
            # kernels round otherwise where fewer columns lie side by side
            np.testing.assert_allclose(to_host(found), to_host(whole), rtol=1e-12, atol=1e-12)


def test_equal_logits_go_to_the_first(xp):
    x = xp.ones((4, 3), dtype=np.float32)
    centers, constant = xp.ones((5, 3), dtype=np.float32), xp.zeros(5, dtype=np.float32)
    coefficients = centers, None, constant
    s0, s1, _ = assignment_sums(x, np.array([0, 3]), np.array([3, 4]), coefficients, hard=True)
    assert s0.tolist() == [[3, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert s1[:, 0].tolist() == [[3, 3, 3], [1, 1, 1]]
    counts, *nothing = assignment_sums(
        x, np.array([0]), np.array([4]), coefficients, hard=True, order=0
    )
    assert counts.tolist() == [[4, 0, 0, 0, 0]]
    assert nothing == [None, None]


def test_the_way_back_through_a_hard_assignment_holds_it(problem, rng, xp):
    x, centers, constant = problem
    g = Sums(rng.normal(size=(3, 7)), rng.normal(size=(3, 7, 5)), rng.normal(size=(3, 7, 5)))
    there = Sums(*map(xp.asarray, g))
    coefficients = xp.asarray(centers), None, xp.asarray(constant)
    d_x, d_coefficients = assignment_sums_vjp(
        there, xp.asarray(x), STARTS, STOPS, coefficients, hard=True
    )
    labels = pairwise_distances_argmin(x, centers)
    for bag, rows in enumerate(map(slice, STARTS, STOPS)):
        expected = g.s1[bag][labels[rows]] + 2 * x[rows] * g.s2[bag][labels[rows]]
        np.testing.assert_allclose(to_host(d_x[rows]), expected, rtol=1e-12, atol=1e-12)
    assert d_coefficients[1] is None
    for d in d_coefficients[::2]:
        assert (to_host(d) == 0).all()

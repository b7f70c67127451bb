"""Losses of numbers: what does not count, and what is the same."""

import numpy as np
from numpy.testing import assert_array_equal

from skfisher.ops.regression_losses import (
    epsilon_insensitive,
    squared_epsilon_insensitive,
    squared_error,
)

RNG = np.random.default_rng(0)
TARGETS = RNG.normal(size=(20, 3))


def test_inside_the_tube_and_at_its_wall_nothing_counts():
    epsilon = np.array([0.5, 1.0, 0.25])  # powers of 2, so that the wall is hit
    for share in (-1, -0.5, 0, 1):
        for loss in (epsilon_insensitive, squared_epsilon_insensitive):
            terms, slopes = loss(share * epsilon + np.zeros((20, 3)), np.zeros((20, 3)), epsilon)
            assert not terms.any()
            assert not slopes.any()


def test_a_tube_of_no_width_leaves_absolute_and_squared_errors():
    decision = RNG.normal(size=(20, 3))
    terms, slopes = epsilon_insensitive(decision, TARGETS, 0.0)
    np.testing.assert_allclose(terms, abs(decision - TARGETS).sum(axis=1))
    assert_array_equal(slopes, np.sign(decision - TARGETS))
    for one, other in zip(
        squared_epsilon_insensitive(decision, TARGETS, 0.0),
        squared_error(decision, TARGETS),
        strict=True,
    ):
        assert_array_equal(one, other)

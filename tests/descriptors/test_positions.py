"""PositionAppender."""

import numpy as np
import pytest

from skfisher import Bags, PositionAppender


def test_position_is_relative_to_the_length_of_the_bag(rng):
    bags = Bags.from_list([rng.normal(size=(n, 2)) for n in (4, 1, 3)])
    found = PositionAppender(scale=2.0).fit_transform(bags[[2, 0, 1]])
    np.testing.assert_array_equal(found.lengths, [3, 4, 1])
    np.testing.assert_array_equal(found.values[:, :2], bags[[2, 0, 1]].pack().values)
    expected = [-2 / 3, 0, 2 / 3, -0.75, -0.25, 0.25, 0.75, 0]
    np.testing.assert_allclose(found.values[:, 2], expected, atol=1e-15)


def test_positions_are_written_block_by_block(rng):
    bags = [rng.normal(size=(n, 6)).astype(np.float32) for n in (40_000, 90_000)]
    found = PositionAppender().fit_transform(bags)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.values[:, :6], np.concatenate(bags))
    np.testing.assert_allclose(np.diff(found[1][:, 6]), 1 / 90_000, atol=1e-7)


def test_position_of_one_sample_of_a_table_is_zero(rng):
    found = PositionAppender().fit_transform(rng.normal(size=(5, 2)))
    assert found.shape == (5, 3)
    assert not found[:, 2].any()


@pytest.mark.parametrize("scale", [-1.0, np.inf, np.nan, 1e300, "1"])
def test_positions_stay_finite(rng, scale):
    with pytest.raises(ValueError, match="'scale' parameter of PositionAppender"):
        PositionAppender(scale=scale).fit(rng.normal(size=(2, 5, 2)))

"""Cells of series and of the plane."""

import numpy as np
import pytest

from skfisher.bags.cells import cells_of_plane, cells_of_series


def test_a_series_is_cut_into_runs_and_the_last_may_be_short():
    cells = cells_of_series(10, 4)
    assert cells.shape == (3, 1)
    assert cells.order is None
    np.testing.assert_array_equal(cells.places, [0, 1, 2])
    np.testing.assert_array_equal(cells.lengths, [4, 4, 2])
    np.testing.assert_array_equal(cells_of_series(8, 4).lengths, [4, 4])
    np.testing.assert_array_equal(cells_of_series(3, 4).lengths, [3])
    np.testing.assert_array_equal(cells_of_series(3, 10**300).lengths, [3])


def test_squares_of_the_plane_hold_their_descriptors():
    positions = np.random.default_rng(0).uniform(-3, 5, size=(60, 2))
    cells = cells_of_plane(positions, 1.7)
    expected = np.floor((positions - positions.min(axis=0)) / 1.7).astype(int)
    rows, columns = cells.shape
    assert (columns, rows) == tuple(expected.max(axis=0) + 1)
    assert sorted(cells.order) == list(range(60))
    first = 0
    for place, stop in zip(cells.places, cells.stops, strict=True):
        members = cells.order[first:stop]
        assert len(members)
        assert (np.diff(members) > 0).all()  # in the order of the bag
        assert (expected[members, 1] * columns + expected[members, 0] == place).all()
        first = stop
    assert first == 60
    assert (np.diff(cells.places) > 0).all()


def test_rounding_moves_no_descriptor_of_a_regular_grid():
    # 0.1 is no binary number: a position may be a little short of a border
    for dtype in (np.float32, np.float64):
        steps = (np.arange(12) * 0.1 + 0.7).astype(dtype).astype(np.float64)
        positions = np.column_stack([steps, np.zeros(12)])
        np.testing.assert_array_equal(cells_of_plane(positions, 0.3).lengths, [3, 3, 3, 3])


@pytest.mark.parametrize("far", [1e9, 1e300])
def test_positions_in_other_units_are_refused(far):
    positions = np.array([[0.0, 0.0], [far, -far]])
    with pytest.raises(ValueError, match=r"X\[7\] covers .* cells of side cell=1, .* raise cell"):
        cells_of_plane(positions, 1.0, "X[7]")

"""Windows are counted before they are encoded, bag by bag, in any number of units and threads."""

import numpy as np
import pytest

from skfisher.bags.bags import Bags
from skfisher.encoders.window_counts import count_windows, extent_of
from skfisher.layers.windows import Layout
from skfisher.parallel.units import Where

LENGTHS = [5, 1, 12, 3, 30, 9]


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 10)


@pytest.fixture
def bags(rng):
    return Bags.from_lengths(rng.uniform(size=(sum(LENGTHS), 4)), LENGTHS)


def test_the_extent_is_that_of_the_longest_side():
    bags = Bags.from_list([[[9.0, 0, 1], [9, 2, 1]], [[0.0, 5, 5], [0, 5, 8], [4, 6, 6]]])
    assert extent_of(bags) == 3


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_the_extent_of_many_bags(n_jobs, bags):
    wanted = max(np.ptp(bag[:, -2:], axis=0).max() for bag in bags)
    assert extent_of(bags, Where(n_jobs)) == wanted


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize(("n_positions", "cell"), [(0, 4), (2, 0.3)])
def test_counts_are_those_of_each_bag(n_jobs, n_positions, cell, bags):
    layout = Layout(n_positions, cell, window=2, stack=2)
    wanted = [layout.n_windows(layout.cells(bags, i)) for i in range(len(bags))]
    found = np.transpose(count_windows(layout, bags, Where(n_jobs)))
    assert found.tolist() == np.array(wanted).tolist()


def test_a_bag_that_reaches_too_far_is_named(bags):
    bags.values[[10, 15], -1] = [-1.7e308, 1.7e308]  # of the third bag
    with pytest.raises(ValueError, match=r"X\[2\] reaches further in the plane than float64"):
        extent_of(bags)


def test_a_bag_of_too_many_cells_is_named(bags):
    bags.values[30, -1] = 1e6  # of the fifth bag, which is not in the first unit
    with pytest.raises(ValueError, match=r"X\[4\] covers .* cells of side cell=0\.1"):
        count_windows(Layout(2, 0.1, window=2, stack=2), bags)

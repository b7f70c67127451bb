"""Windows that are drawn are the same, whichever bags without any are gone through."""

import numpy as np

from skfisher.bags.sampling import draw_rows
from skfisher.encoders.projections import draw_windows, rows_of


def test_rows_of_the_bags_drawn_of_are_those_drawn_of_all(rng):
    n_of_bags = rng.integers(0, 5, size=40)
    bags = np.split(np.arange(n_of_bags.sum()), np.cumsum(n_of_bags)[:-1])  # rows by number
    drawn = draw_windows(n_of_bags, 10, seed=0)
    assert len(drawn.bags) < 11
    found = rows_of((bags[i] for i in drawn.bags), drawn.rows)
    stops = np.cumsum(n_of_bags)
    wanted, owners = draw_rows(stops - n_of_bags, stops, 10, seed=0)
    assert found.tolist() == wanted.tolist()
    assert drawn.owners.tolist() == owners.tolist()

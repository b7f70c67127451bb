"""How far bags reach in the plane and how many windows they have, before any window is encoded.

For series the lengths of bags tell; in the plane it takes a pass over positions, by the executor.
"""

import functools

import numpy as np

from skfisher.arrays.libraries import asarray, to_host
from skfisher.bags.bags import Bags
from skfisher.bags.cells import cells_of_plane, cells_of_series
from skfisher.parallel.units import HERE, bag_units, cut_bags, map_units

__all__ = ["count_windows", "extent_of"]


def extent_of(bags, where=HERE):
    """Return how far the last two columns of a bag reach at most, over all bags.

    Parameters
    ----------
    bags : Bags
    where : Where

    Returns
    -------
    extent : float

    Raises
    ------
    ValueError
        If it is more than float64 holds; it names the bag.
    """
    extents = np.concatenate(list(_of_positions(_extents, bags, where)))
    if np.isinf(extents).any():
        raise ValueError(
            f"X[{int(np.isinf(extents).argmax())}] reaches further in the plane than float64 "
            "holds: rescale the positions, which are the last two columns."
        )
    return float(extents.max())


def count_windows(layout, bags, where=HERE):
    """Return how many windows of bags hold descriptors, and in how many stacks one does.

    Parameters
    ----------
    layout : Layout
    bags : Bags
        With positions, if the layout has any.
    where : Where

    Returns
    -------
    n_windows, n_stacks : int arrays of shape (n_bags,)

    Raises
    ------
    ValueError
        If a bag covers too many cells of the plane; it names the bag.
    """
    if layout.n_positions:
        found = _of_positions(
            functools.partial(_counts, layout), bags, where, beside=[np.arange(len(bags))]
        )
        counts = np.concatenate(list(found))
    else:
        cell, lengths = int(layout.cell), bags.lengths.tolist()
        counts = np.array([layout.n_windows(cells_of_series(n, cell)) for n in lengths])
    n_windows, n_stacks = counts.T
    return n_windows, n_stacks


def _of_positions(f, bags, where, *, beside=()):
    """Yield what a function returns for the positions of some bags after others, on the host."""
    positions = Bags._of(bags.values[:, -2:], bags.starts, bags.stops)
    units = bag_units(positions, cut_bags(positions.lengths, 1), where)
    for (found,) in map_units(f, units, beside=beside):
        yield to_host(found)


def _positions(x, starts, stops):
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield to_host(x[start:stop]).astype(np.float64)


def _extents(x, starts, stops):
    """Return how far each of some bags reaches along its longer side."""
    with np.errstate(over="ignore"):  # infinity, which is refused
        extents = [np.ptp(xy, axis=0).max() for xy in _positions(x, starts, stops)]
    return [asarray(np.array(extents), like=x)]


def _counts(layout, x, starts, stops, numbers):
    """Return the numbers of windows and of stacks of some bags, whose numbers are for messages."""
    counts = [
        layout.n_windows(cells_of_plane(xy, layout.cell, f"X[{i}]"))
        for i, xy in zip(numbers.tolist(), _positions(x, starts, stops), strict=True)
    ]
    return [asarray(np.array(counts), like=x)]

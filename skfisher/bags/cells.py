"""Cells of a bag: a series cut into runs of rows, or a plane into squares."""

from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import asarray, device_of, row_indices, to_host
from skfisher.bags.bags import Bags

__all__ = [
    "Cells",
    "cells_of_bags",
    "cells_of_plane",
    "cells_of_series",
    "check_beside_positions",
    "positions_of",
    "without_positions",
]

# A grid of more cells is one of positions in other units than `cell`.
MOST_CELLS = 2**16
# As a share of a cell: positions so little short of a border, by rounding, lie behind it.
ROUNDING = 1e-4


class Cells(NamedTuple):
    """The cells of a bag that hold descriptors, row by row of their grid."""

    shape: tuple  # rows and columns of the grid
    places: np.ndarray  # of each cell in the flattened grid, ascending
    lengths: np.ndarray  # how many descriptors each has
    stops: np.ndarray  # where it ends among the descriptors, in the order of cells
    order: np.ndarray | None  # of the descriptors; None if it is that of the bag


def cells_of_series(n_rows, cell):
    """Cut a series into cells of so many rows; the last may have fewer.

    Parameters
    ----------
    n_rows, cell : int

    Returns
    -------
    cells : Cells
        Of one column.
    """
    cell = min(cell, n_rows)
    n_cells = -(-n_rows // cell)
    lengths = np.full(n_cells, cell)
    lengths[-1] = n_rows - cell * (n_cells - 1)
    return Cells((n_cells, 1), np.arange(n_cells), lengths, lengths.cumsum(), None)


def cells_of_plane(positions, cell, name="X[0]"):
    """Cut the plane into squares, from the least x and y of a bag on.

    Parameters
    ----------
    positions : float64 array of shape (n, 2), on the host
        x and y of each descriptor.
    cell : float
        Side of a square.
    name : str
        Of the bag, in messages.

    Returns
    -------
    cells : Cells
        Rows are along y, columns along x.

    Raises
    ------
    ValueError
        If there are more than 65536 squares.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        places = (positions - positions.min(axis=0)) / cell
    columns, rows = (np.floor(places.max(axis=0) + ROUNDING) + 1).tolist()
    if not rows * columns <= MOST_CELLS:
        raise ValueError(
            f"{name} covers {rows:.0f} x {columns:.0f} cells of side cell={cell:g}, but "
            f"{MOST_CELLS} are the most: raise cell, in the units of the last two columns, or "
            "rescale these."
        )
    columns, rows = int(columns), int(rows)
    x, y = np.floor(places + ROUNDING).astype(np.int64).T
    flat = y * columns + x
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    stops = np.append(np.flatnonzero(np.diff(flat)) + 1, len(flat))
    return Cells((rows, columns), flat[stops - 1], np.diff(stops, prepend=0), stops, order)


def positions_of(bags, i):
    """Return the last two columns of bag `i`, in float64 on the host."""
    with device_of(bags.values):
        return to_host(bags[i][:, -2:]).astype(np.float64)


def check_beside_positions(bags, n_positions):
    """Raise ValueError if descriptors are positions and nothing else.

    Parameters
    ----------
    bags : Bags
    n_positions : int
    """
    if bags.n_features <= n_positions:
        raise ValueError(
            f"X[0] has {bags.n_features} features per descriptor, but with n_positions=2 the last "
            "two are positions, and there must be others: append positions, or set n_positions=0 "
            "for series."
        )


def without_positions(bags, n_positions):
    """Return bags without their last columns, without a copy.

    Parameters
    ----------
    bags : Bags
    n_positions : int
    """
    if not n_positions:
        return bags
    names = None if bags.feature_names is None else bags.feature_names[:-n_positions]
    descriptors = Bags._of(bags.values[:, :-n_positions], bags.starts, bags.stops)
    return descriptors._marked(bags.of_tensors, names)


def cells_of_bags(bags, grid, n_positions):
    """Cut every bag into the cells of one grid, as equal parts of where its descriptors lie.

    Parameters
    ----------
    bags : Bags
        None of them empty.
    grid : (int, int)
        Rows, along y, and columns, along x.
    n_positions : {0, 2}
        0: the rows of a bag are a series, and stretches have equally many, up to one. 2: the last
        two columns are x and y.

    Returns
    -------
    cells : Bags
        A bag for each cell that has descriptors, without positions.
    places : int array
        Which: their place in the flattened array (bags, rows, columns), ascending.
    """
    n_cells = grid[0] * grid[1]
    if n_cells == 1:
        return without_positions(bags, n_positions), np.arange(len(bags))
    if n_positions == 0:
        stops = bags.starts[:, None] + bags.lengths[:, None] * np.arange(n_cells + 1) // n_cells
        starts, stops = stops[:, :-1].ravel(), stops[:, 1:].ravel()
        places = np.flatnonzero(stops > starts)
        return bags._view(starts[places], stops[places]), places
    owners = np.repeat(np.arange(len(bags)), bags.lengths)
    keys = owners * n_cells + _cells_in_grid(bags, owners, grid)
    counts = np.bincount(keys, minlength=len(bags) * n_cells)
    places = np.flatnonzero(counts)
    rows = row_indices(bags.starts, bags.stops)[np.argsort(keys, kind="stable")]
    with device_of(bags.values):
        values = bags.values[asarray(rows, like=bags.values)]
    ordered = Bags._of_lengths(values, counts[places])
    ordered._marked(bags.of_tensors, bags.feature_names)
    return without_positions(ordered, n_positions), places


def _cells_in_grid(bags, owners, grid):
    """Return of every descriptor its cell, row by row of the grid over its bag."""
    with device_of(bags.values):
        xy = Bags._of(bags.values[:, -2:], bags.starts, bags.stops).pack().values
    xy = to_host(xy).astype(np.float64)
    shares = _shares(xy, np.cumsum(bags.lengths) - bags.lengths, owners)
    columns, rows = (
        np.minimum(np.floor(shares[:, axis] * n + ROUNDING).astype(np.int64), n - 1)
        for axis, n in enumerate(grid[::-1])
    )
    return rows * grid[1] + columns


def _shares(xy, begins, owners):
    """Return how far each position lies from the least to the largest of its bag, from 0 to 1."""
    low, high = np.minimum.reduceat(xy, begins), np.maximum.reduceat(xy, begins)
    with np.errstate(over="ignore"):
        extent = high - low
    if np.isinf(extent).any():  # further apart than the largest number
        return _shares(xy / 2, begins, owners)
    return (xy - low[owners]) / np.where(extent > 0, extent, 1)[owners]

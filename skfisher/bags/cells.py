"""Cells of a bag: a series cut into runs of rows, or a plane into squares."""

from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import device_of, to_host

__all__ = ["Cells", "cells_of_plane", "cells_of_series", "extent_of", "positions_of"]

# A grid of more cells is one of positions in other units than `cell`.
MOST_CELLS = 2**16
# As a share of a cell: positions so little short of a border, by rounding, lie behind it.
ROUNDING = 1e-4


class Cells(NamedTuple):
    """The cells of a bag that hold descriptors, row by row of their grid."""

    shape: tuple  # rows and columns of the grid
    places: np.ndarray  # of each cell in the flattened grid, ascending
    stops: np.ndarray  # where it ends among the descriptors, in the order of cells
    order: np.ndarray | None  # of the descriptors; None if it is that of the bag

    @property
    def lengths(self):
        """How many descriptors each cell has."""
        return np.diff(self.stops, prepend=0)


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
    stops = np.append(np.arange(cell, n_rows, cell), n_rows)
    return Cells((len(stops), 1), np.arange(len(stops)), stops, None)


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
    return Cells((rows, columns), flat[stops - 1], stops, order)


def extent_of(bags):
    """Return how far the last two columns of a bag reach at most, over all bags."""
    return max(float(np.ptp(positions_of(bags, i), axis=0).max()) for i in range(len(bags)))


def positions_of(bags, i):
    """Return the last two columns of bag `i`, in float64 on the host."""
    with device_of(bags.values):
        return to_host(bags[i][:, -2:]).astype(np.float64)

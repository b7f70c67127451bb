r"""Windows over a grid of cells: their sums, and neighbouring ones side by side.

Statistics that are sums over descriptors are sums over the cells that a window consists of,

.. math:: W_{ij} = \sum_{a < h} \sum_{b < w} C_{i + a, j + b},

so that overlapping windows cost no more than cells. A series is a grid of one column.

Grids of many bags at once are rows of cells, and an index that says which of them a window has.
"""

import itertools
import math

from skfisher.arrays.libraries import array_module, asarray, is_cupy, zeros

__all__ = [
    "rows_beside",
    "rows_beside_vjp",
    "stack_windows",
    "stack_windows_vjp",
    "sums_of_rows",
    "sums_of_rows_vjp",
    "window_sums",
    "window_sums_vjp",
]


# Sums of so many numbers are in cache when the next row is added to them.
CACHED_NUMBERS = 2**15


def window_sums(cells, size):
    """Return the sums of all windows of a size, each a cell further on than the one before.

    Terms are added one after the other, never taken off again: differences of running sums, the
    usual way to add up boxes, lose digits.

    Source: this project.

    Parameters
    ----------
    cells : array of shape (rows, columns, ...)
    size : (int, int)
        Rows and columns of a window; a grid that is smaller is one window in that direction.

    Returns
    -------
    sums : array of shape (max(1, rows - size[0] + 1), max(1, columns - size[1] + 1), ...)
    """
    for axis in (0, 1):
        n, n_windows = _extent(cells.shape[axis], size[axis])
        if n == 1:
            continue
        total = cells[_from(0, n_windows, axis)].copy()
        for first in range(1, n):
            total += cells[_from(first, n_windows, axis)]
        cells = total
    return cells


def window_sums_vjp(g, cells, size):
    """Return ``d_cells`` for the gradient `g` arriving at `window_sums`."""
    for axis in (1, 0):
        n, n_windows = _extent(cells.shape[axis], size[axis])
        shape = list(g.shape)
        shape[axis] = cells.shape[axis]
        d_cells = zeros(tuple(shape), like=g)
        for first in range(n):
            d_cells[_from(first, n_windows, axis)] += g
        g = d_cells
    return g


def stack_windows(codes, size):
    """Return the codes of neighbouring windows side by side, row by row.

    Source: Simonyan, Vedaldi and Zisserman (2013).

    Parameters
    ----------
    codes : array of shape (rows, columns, d)
    size : (int, int)
        How many rows and columns of windows; where there are fewer, the last is repeated.

    Returns
    -------
    stacked : array of shape (max(1, rows - size[0] + 1), max(1, columns - size[1] + 1), size * d)
    """
    return array_module(codes).concatenate(
        [codes[place] for place in _neighbours(codes.shape, size)], axis=2
    )


def stack_windows_vjp(g, codes, size):
    """Return ``d_codes`` for the gradient `g` arriving at `stack_windows`."""
    d_codes = zeros(codes.shape, like=g)
    width = codes.shape[2]
    for i, place in enumerate(_neighbours(codes.shape, size)):
        d_codes[place] += g[:, :, i * width : (i + 1) * width]
    return d_codes


def sums_of_rows(rows, index):
    """Return sums of some rows.

    Source: this project.

    Parameters
    ----------
    rows : array of shape (n, ...)
    index : int array of shape (m, s), on the host
        Numbers of the rows in each sum, in the order in which they are added; -1 for none. None
        stands in a column twice.

    Returns
    -------
    sums : array of shape (m, ...)
    """
    sums = zeros((len(index), *rows.shape[1:]), like=rows)
    for places, numbers, _ in _columns(index, rows):
        sums[places] += rows[numbers]
    return sums


def sums_of_rows_vjp(g, rows, index):
    """Return ``d_rows`` for the gradient `g` arriving at `sums_of_rows`."""
    d_rows = zeros(rows.shape, like=g)
    for places, numbers, _ in _columns(index, g):
        d_rows[numbers] += g[places]
    return d_rows


def rows_beside(rows, index):
    """Return some rows side by side.

    Parameters
    ----------
    rows : array of shape (n, d)
    index : int array of shape (m, s), on the host
        As for `sums_of_rows`; zeros stand in the place of none.

    Returns
    -------
    beside : array of shape (m, s * d)
    """
    beside = zeros((*index.shape, rows.shape[1]), like=rows)
    for places, numbers, i in _columns(index, rows):
        beside[places, i] = rows[numbers]
    return beside.reshape(len(index), -1)


def rows_beside_vjp(g, rows, index):
    """Return ``d_rows`` for the gradient `g` arriving at `rows_beside`."""
    g = g.reshape(*index.shape, rows.shape[1])
    d_rows = zeros(rows.shape, like=g)
    for places, numbers, i in _columns(index, g):
        d_rows[numbers] += g[places, i]
    return d_rows


def _columns(index, like):
    """Yield where an index names rows and which, by columns of some lines, and the column."""
    numbers_of_row = max(1, math.prod(like.shape[1:]))
    n_lines = len(index) if is_cupy(like) else max(1, CACHED_NUMBERS // numbers_of_row)
    for first in range(0, len(index), max(1, n_lines)):
        for i, column in enumerate(index[first : first + n_lines].T):
            there = column >= 0
            if there.all():
                yield slice(first, first + len(column)), asarray(column, like=like), i
            else:
                places = there.nonzero()[0]
                yield asarray(first + places, like=like), asarray(column[places], like=like), i


def _extent(n_cells, size):
    """Return how many cells a window has in a direction, and how many windows there are."""
    n = min(size, n_cells)
    return n, n_cells - n + 1


def _from(first, n, axis):
    return (slice(None),) * axis + (slice(first, first + n),)


def _neighbours(shape, size):
    """Yield for each place in a stack the slices of the windows that stand there."""
    along = []
    for n_windows, n in zip(shape[:2], size, strict=True):
        _, n_stacks = _extent(n_windows, n)
        firsts = [min(first, n_windows - n_stacks) for first in range(n)]
        along.append([slice(first, first + n_stacks) for first in firsts])
    return itertools.product(*along)

"""Windows of bags: which cells they consist of, and which of them stand side by side."""

import functools
import math
from typing import NamedTuple

import numpy as np

from skfisher.bags.cells import cells_of_plane, cells_of_series, positions_of, without_positions
from skfisher.ops.windows import stack_windows, window_sums

__all__ = [
    "Layout",
    "Windows",
    "joined",
    "joined_numbers",
    "on_grid",
    "windows_of",
    "windows_of_stacks",
]


# Tables of windows of so many numbers are kept, some hundreds of them.
KEPT_NUMBERS = 2**14


class Layout(NamedTuple):
    """How cells, windows and stacks of windows lie in bags."""

    n_positions: int  # 0: rows are a series; 2: the last two columns say where a descriptor is
    cell: float
    window: int
    stack: int

    def sides(self, n):
        """Return the rows and columns of what is `n` long; a series has one column."""
        return (n, n) if self.n_positions else (n, 1)

    def cells(self, bags, i):
        """Return the cells of bag `i`."""
        if self.n_positions:
            return cells_of_plane(positions_of(bags, i), self.cell, f"X[{i}]")
        return cells_of_series(int(bags.stops[i] - bags.starts[i]), int(self.cell))

    def descriptors(self, bags):
        """Return the bags without positions."""
        return without_positions(bags, self.n_positions)

    def n_windows(self, cells):
        """Return how many windows hold descriptors, and in how many stacks one does."""
        occupied = window_sums(on_grid(cells.lengths, cells.places, cells.shape), self._window) > 0
        return int(occupied.sum()), int(self.stacks(occupied).sum())

    def stacks(self, occupied):
        """Return in which stacks of windows, of which some hold descriptors, one does."""
        return stack_windows(occupied[:, :, None], self.sides(self.stack)).any(axis=2)

    @property
    def _window(self):
        return self.sides(self.window)


class Windows(NamedTuple):
    """Cells, windows and stacks of windows of some bags, each by number."""

    rows: np.ndarray | None  # the descriptors, cell by cell; None if that is their order
    starts: np.ndarray  # of the cells, among these rows
    stops: np.ndarray
    of_cells: np.ndarray  # (n_windows, w): the cells of each window; -1 for none
    of_windows: np.ndarray  # (n_stacks, s): the windows of each stack
    n_cells: np.ndarray  # of each bag
    n_stacks: np.ndarray


def windows_of(layout, bags, i):
    """Return the windows of bag `i`.

    Parameters
    ----------
    layout : Layout
    bags : Bags
        With positions, if the layout has any.
    i : int
    """
    first = int(bags.starts[i])
    cells = layout.cells(bags, i)
    n_cells, rows, place = len(cells.stops), None, first
    if cells.order is not None:
        rows, place = first + cells.order, 0
    if n_cells == cells.shape[0] * cells.shape[1]:
        of_cells, of_windows = _of_full_grid(layout, cells.shape)
    else:
        numbers = on_grid(np.arange(n_cells), cells.places, cells.shape, empty=-1)
        of_cells, of_windows = _of_grid(layout, numbers)
    borders = place + np.append(0, cells.stops)
    return Windows(
        rows, borders[:-1], borders[1:], of_cells, of_windows,
        np.array([n_cells]), np.array([len(of_windows)]),
    )  # fmt: skip


def _of_full_grid(layout, shape):
    if _is_small(shape, layout.sides(layout.window)):
        return _of_small_full_grid(layout, shape)
    return _of_grid(layout, np.arange(shape[0] * shape[1]).reshape(shape))


@functools.lru_cache(maxsize=256)
def _of_small_full_grid(layout, shape):
    return _of_grid(layout, np.arange(shape[0] * shape[1]).reshape(shape))


def _is_small(shape, size):
    """Tell whether a table of the windows of a grid is small enough to be kept for other bags."""
    sides = map(min, zip(size, shape, strict=True))
    return math.prod(shape) * math.prod(sides) <= KEPT_NUMBERS


def _of_grid(layout, numbers):
    """Return the cells of each window, and the windows of each stack, for a grid of numbers."""
    size = [min(pair) for pair in zip(layout.sides(layout.window), numbers.shape, strict=True)]
    of_cells = stack_windows(numbers[:, :, None], size)
    occupied = (of_cells >= 0).any(axis=2)
    return of_cells[occupied], windows_of_stacks(layout, occupied)


def windows_of_stacks(layout, occupied):
    """Return the windows of each stack, for a grid that says which windows hold descriptors."""
    if occupied.all() and _is_small(occupied.shape, layout.sides(layout.stack)):
        return _stacks_of_full_grid(layout, occupied.shape)
    return _stacks_of_grid(layout, occupied)


@functools.lru_cache(maxsize=256)
def _stacks_of_full_grid(layout, shape):
    return _stacks_of_grid(layout, np.ones(shape, dtype=bool))


def _stacks_of_grid(layout, occupied):
    numbers = np.full(occupied.shape, -1)
    numbers[occupied] = np.arange(occupied.sum())
    of_windows = stack_windows(numbers[:, :, None], layout.sides(layout.stack))
    return of_windows[(of_windows >= 0).any(axis=2)]


def joined(windows):
    """Return the windows of several bags as those of all of them."""
    if len(windows) == 1:
        return windows[0]
    parts = list(zip(*windows, strict=True))
    rows, starts, stops, of_cells, of_windows, n_cells, n_stacks = parts
    n_cells, n_stacks = np.concatenate(n_cells), np.concatenate(n_stacks)
    n_windows = np.array([len(index) for index in of_cells])
    if rows[0] is None:
        rows = None
    else:
        before = np.cumsum([0, *map(len, rows[:-1])])
        starts, stops = ([a + n for a, n in zip(b, before, strict=True)] for b in (starts, stops))
        rows = np.concatenate(rows)
    return Windows(
        rows, np.concatenate(starts), np.concatenate(stops),
        joined_numbers(of_cells, n_cells), joined_numbers(of_windows, n_windows),
        n_cells, n_stacks,
    )  # fmt: skip


def joined_numbers(parts, counts):
    """Return indices below each other, of what is counted through; narrow ones filled by -1."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.shape[1] for part in parts)
    whole = np.full((sum(map(len, parts)), width), -1)
    first, row = 0, 0
    for part, n in zip(parts, counts.tolist(), strict=True):
        rows = slice(row, row + len(part))
        whole[rows, : part.shape[1]] = np.where(part >= 0, part + first, -1)
        first, row = first + n, row + len(part)
    return whole


def on_grid(values, places, shape, empty=0):
    """Return what each cell that holds descriptors has on the grid of all cells."""
    if len(values) == shape[0] * shape[1]:  # no cell is empty
        return values.reshape(*shape, *values.shape[1:])
    grid = np.full((shape[0] * shape[1], *values.shape[1:]), empty, dtype=values.dtype)
    grid[places] = values
    return grid.reshape(*shape, *values.shape[1:])

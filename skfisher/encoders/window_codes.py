"""Fisher vectors of overlapping windows: the local layer of deep Fisher networks.

The sums of every cell are computed once, by the executor, and added up to those of windows. A bag
is worked on in bands of rows of windows, and codes of windows, which are long, are projected band
by band before they are kept: memory does not grow with the bag. What is computed of a bag follows
from it alone, so that it has the same bits in any company.
"""

import functools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import device_of, float_dtype
from skfisher.bags.bags import Bags
from skfisher.bags.cells import Cells
from skfisher.layers.encode import iter_sums
from skfisher.layers.windows import on_grid
from skfisher.ops.normalization import power_l2_normalize
from skfisher.ops.windows import stack_windows, window_sums
from skfisher.parallel.threads import map_in_order

__all__ = ["WindowCodes", "iter_window_codes", "stacked_codes"]

# Sums of a band, and of the bands that are worked on at a time; and descriptors of these.
BAND_NUMBERS = 2**18
GROUP_NUMBERS, GROUP_ROWS = 2**20, 2**17


class WindowCodes(NamedTuple):
    """The codes of the windows in a band of a bag."""

    bag: int
    occupied: np.ndarray  # (rows, columns): which windows hold descriptors
    codes: np.ndarray | None  # of these, row by row; None if they are not finite
    sums: tuple  # over the cells that no other band has, of all descriptors


class Band(NamedTuple):
    """Rows of windows of a bag, and the cells that they consist of."""

    bag: int
    cells: Cells
    chosen: slice  # of the cells that hold descriptors
    first: int  # place of the first cell
    shape: tuple  # of the grid of cells
    n_own: int  # of the chosen, those that no later band has

    @property
    def n_cells(self):
        """How many cells hold descriptors."""
        return self.chosen.stop - self.chosen.start


def iter_window_codes(chain, parameters, bags, layout, *, project=None):
    """Yield the codes of windows of bags, a band after the other, in order.

    Parameters
    ----------
    chain : Chain
        Of a Fisher layer alone; it says where to work.
    parameters : dict
    bags : Bags
        With positions, if the layout has any.
    layout : Layout
    project : callable, optional
        What codes of a band go through. By default they stay as long as they are.

    Yields
    ------
    codes : WindowCodes
    """
    n_numbers = chain.n_out(parameters)
    bands = (
        band
        for i in range(len(bags))
        for band in _bands(i, layout.cells(bags, i), layout, n_numbers)
    )
    prepared = chain.prepare(parameters, bags.dtype)
    code = functools.partial(
        _codes, chain.pooling, prepared.pooling, float_dtype(bags.dtype), layout, project
    )
    for group in _groups(bands, n_numbers):
        parts = _cells_as_bags(group, bags, layout)
        found = list(iter_sums(chain, prepared, parameters, parts))
        one = len(found) == 1
        sums = found[0] if one else tuple(map(np.concatenate, zip(*found, strict=True)))
        tasks = list(_tasks(group, sums, n_numbers))
        for some in map_in_order(code, tasks, n_jobs=chain.where.n_jobs):
            yield from some


def stacked_codes(bands, layout):
    """Return the codes of neighbouring windows of one bag side by side, of unit length.

    Parameters
    ----------
    bands : list of WindowCodes
        All of the bag.
    layout : Layout

    Returns
    -------
    stacked : array of shape (n_stacks, n_windows_of_a_stack * width)
        Windows without descriptors are zeros; stacks of nothing else are left out.
    """
    occupied = np.concatenate([band.occupied for band in bands])
    codes = np.concatenate([band.codes for band in bands])
    grid = np.zeros((*occupied.shape, codes.shape[1]), dtype=codes.dtype)
    grid[occupied] = codes
    stacks = stack_windows(grid, layout.sides(layout.stack))[layout.stacks(occupied)]
    return power_l2_normalize(stacks, power=1)


def _bands(bag, cells, layout, n_numbers):
    """Yield the bands of a bag, of as many rows of windows as bounded memory holds."""
    rows, columns = cells.shape
    height = min(layout.sides(layout.window)[0], rows)
    n_windows = rows - height + 1
    most = max(height, BAND_NUMBERS // (columns * n_numbers))
    for first in range(0, n_windows, most):
        last = min(first + most, n_windows)
        stop = last + height - 1
        borders = np.array([first, rows if last == n_windows else last, stop]) * columns
        low, own, high = np.searchsorted(cells.places, borders).tolist()
        shape = (stop - first, columns)
        yield Band(bag, cells, slice(low, high), first * columns, shape, own - low)


def _groups(bands, n_numbers):
    """Yield lists of bands that are worked on at a time."""
    group, n_cells, n_rows = [], 0, 0
    for band in bands:
        more_cells = band.shape[0] * band.shape[1]
        more_rows = int(band.cells.lengths[band.chosen].sum())
        if n_rows and (  # the last band of a bag always has some
            (n_cells + more_cells) * n_numbers > GROUP_NUMBERS or n_rows + more_rows > GROUP_ROWS
        ):
            yield group
            group, n_cells, n_rows = [], 0, 0
        group.append(band)
        n_cells, n_rows = n_cells + more_cells, n_rows + more_rows
    if group:
        yield group


def _cells_as_bags(group, bags, layout):
    """Return the cells of some bands as bags, in their order."""
    starts, stops, rows, n_rows = [], [], [], 0
    for bag, cells, chosen, *_ in group:
        ends = cells.stops[chosen]
        firsts = ends - cells.lengths[chosen]
        place = int(bags.starts[bag])
        if cells.order is not None:  # rows of a cell are gathered
            rows.append(place + cells.order[firsts[0] : ends[-1]] if len(ends) else ends)
            place = n_rows - int(firsts[0]) if len(ends) else 0
            n_rows += len(rows[-1])
        starts.append(place + firsts)
        stops.append(place + ends)
    values = bags.values
    if rows:
        with device_of(values):
            values = values[np.concatenate(rows)][:, : -layout.n_positions]
    return Bags(values, np.concatenate(starts), np.concatenate(stops))


def _tasks(group, sums, n_numbers):
    """Yield bands of as many columns, worked on in one step, and the sums of their cells."""
    first, some, n_cells = 0, [], 0
    for band in group:
        size = band.shape[0] * band.shape[1]
        other = some and band.shape[1] != some[0].shape[1]
        if other or (some and (n_cells + size) * n_numbers > BAND_NUMBERS):
            last = first + sum(b.n_cells for b in some)
            yield some, tuple(s[first:last] for s in sums)
            first, some, n_cells = last, [], 0
        some.append(band)
        n_cells += size
    yield some, tuple(s[first:] for s in sums)


@np.errstate(over="ignore", invalid="ignore")  # of what is not finite, and named
def _codes(pooling, q, dtype, layout, project, bands, sums):
    """Return the codes of the windows of some bands, for the sums of their cells."""
    # One grid below the other. Empty cells around what is smaller than a window add nothing.
    height, width = layout.sides(layout.window)
    columns = max(width, bands[0].shape[1])
    heights = np.array([max(height, band.shape[0]) for band in bands])
    tops = np.cumsum(heights) - heights
    places = []
    for band, top in zip(bands, tops.tolist(), strict=True):
        rows, column = np.divmod(band.cells.places[band.chosen] - band.first, band.shape[1])
        places.append((top + rows) * columns + column)
    places, shape = np.concatenate(places), (int(heights.sum()), columns)
    lengths = np.concatenate([band.cells.lengths[band.chosen] for band in bands])
    counts = window_sums(on_grid(lengths, places, shape), (height, width))
    occupied = counts > 0
    for top in tops[1:]:  # windows that reach from one grid into the next
        occupied[top - height + 1 : top] = False
    of_windows = [window_sums(on_grid(s, places, shape), (height, width))[occupied] for s in sums]
    codes = pooling.read(q, of_windows, counts[occupied]).astype(dtype, copy=False)
    codes = power_l2_normalize(codes, out=codes)
    found, first_code, first_cell = [], 0, 0
    for band, top, n_rows in zip(bands, tops.tolist(), heights.tolist(), strict=True):
        of_band = occupied[top : top + n_rows - height + 1]
        of_windows = codes[first_code : first_code + int(of_band.sum())]
        first_code += len(of_windows)
        if not np.isfinite(of_windows.sum()):
            of_windows = None
        elif project is not None and len(of_windows):
            of_windows = project(of_windows)
        own = tuple(s[first_cell : first_cell + band.n_own].sum(axis=0) for s in sums)
        first_cell += band.n_cells
        found.append(WindowCodes(band.bag, of_band, of_windows, own))
    return found

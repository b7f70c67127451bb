"""Fisher vectors of overlapping windows: the local layer of deep Fisher networks.

The sums of every cell are computed once, by the executor, and added up to those of windows. A bag
is worked on in bands of rows of windows, and codes of windows, which are long, are projected band
by band before they are kept: memory does not grow with the bag. What is computed of a bag follows
from it alone, so that it has the same bits in any company.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import device_of, float_dtype
from skfisher.bags.bags import Bags
from skfisher.bags.cells import Cells
from skfisher.layers.encode import iter_sums
from skfisher.layers.windows import joined_numbers, on_grid, windows_of_stacks
from skfisher.ops.normalization import power_l2_normalize
from skfisher.ops.windows import rows_beside, window_sums
from skfisher.parallel.threads import map_in_order

__all__ = ["Stacks", "WindowCodes", "iter_stacks", "iter_window_codes"]

# Sums of a band, and of the bands that are worked on at a time; and descriptors of these.
BAND_NUMBERS = 2**18
GROUP_NUMBERS, GROUP_ROWS = 2**20, 2**17
# Stacks of windows, and bags, that are projected at a time.
ROWS_AT_ONCE, BAGS_AT_ONCE = 2**14, 256


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


def iter_window_codes(chain, parameters, bags, layout, *, some=None, project=None):
    """Yield the codes of windows of bags, a band after the other, in order.

    Parameters
    ----------
    chain : Chain
        Of a Fisher layer alone; it says where to work.
    parameters : dict
    bags : Bags
        With positions, if the layout has any.
    layout : Layout
    some : int array, optional
        The numbers of the bags that are wanted, ascending; by default all.
    project : callable, optional
        What codes go through, given those of some bands and how many each has. By default they
        stay as long as they are.

    Yields
    ------
    codes : WindowCodes
    """
    n_numbers = chain.n_out(parameters)
    bands = (
        band
        for i in (range(len(bags)) if some is None else some.tolist())
        for band in _bands(i, layout.cells(bags, i), layout, n_numbers)
    )
    prepared = chain.prepare(parameters, bags.dtype)
    code = functools.partial(
        _codes, chain.pooling, prepared.pooling, float_dtype(bags.dtype), n_numbers, layout,
        project,
    )  # fmt: skip
    for group in _groups(bands, n_numbers):
        parts = _cells_as_bags(group, bags, layout)
        found = list(iter_sums(chain, prepared, parameters, parts))
        one = len(found) == 1
        sums = found[0] if one else tuple(map(np.concatenate, zip(*found, strict=True)))
        tasks = list(_tasks(group, sums, n_numbers))
        for some in map_in_order(code, tasks, n_jobs=chain.where.n_jobs):
            yield from some


class Stacks(NamedTuple):
    """Stacks of windows of some bags, one bag after the other."""

    sums: tuple  # of each bag, over all its descriptors
    codes: np.ndarray  # side by side, of unit length
    counts: np.ndarray  # of the stacks of each bag


def iter_stacks(bands, layout):
    """Yield the stacks of windows of some bags after others.

    Parameters
    ----------
    bands : iterable of WindowCodes
        Of bags in order.
    layout : Layout

    Yields
    ------
    stacks : Stacks
        Windows without descriptors are zeros; stacks of nothing else are left out.
    """
    sums, occupied, codes, n_rows = [], [], [], 0
    for _, of_bag in itertools.groupby(bands, lambda band: band.bag):
        of_bag = list(of_bag)
        parts = [band.sums for band in of_bag]
        sums.append(parts[0] if len(parts) == 1 else [sum(s) for s in zip(*parts, strict=True)])
        occupied.append(np.concatenate([band.occupied for band in of_bag]))
        codes += [band.codes for band in of_bag]
        n_rows += int(occupied[-1].sum())
        if n_rows >= ROWS_AT_ONCE or len(sums) >= BAGS_AT_ONCE:
            yield _stacks_of(sums, occupied, codes, layout)
            sums, occupied, codes, n_rows = [], [], [], 0
    if sums:
        yield _stacks_of(sums, occupied, codes, layout)


def _stacks_of(sums, occupied, codes, layout):
    numbers = [windows_of_stacks(layout, of_bag) for of_bag in occupied]
    numbers_of_all = joined_numbers(numbers, np.array([of_bag.sum() for of_bag in occupied]))
    beside = rows_beside(np.concatenate(codes), numbers_of_all)
    sums = tuple(map(np.stack, zip(*sums, strict=True)))
    return Stacks(sums, power_l2_normalize(beside, power=1), np.array([*map(len, numbers)]))


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
    return Bags._of(values, np.concatenate(starts), np.concatenate(stops))


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
def _codes(pooling, q, dtype, n_numbers, layout, project, bands, sums):
    """Return the codes of the windows of some bands, for the sums of their cells."""
    # One grid below the other. Empty cells below what is smaller than a window add nothing.
    height, width = layout.sides(layout.window)
    columns = bands[0].shape[1]
    height, width = min(height, max(band.shape[0] for band in bands)), min(width, columns)
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
    counts = counts[occupied]
    codes = np.empty((len(counts), n_numbers), dtype)
    pooling.read(q, of_windows, counts, out=codes)
    codes = power_l2_normalize(codes, out=codes)
    of_bands = [
        occupied[top : top + n_rows - height + 1]
        for top, n_rows in zip(tops.tolist(), heights.tolist(), strict=True)
    ]
    n_windows = np.array([of_band.sum() for of_band in of_bands])
    parts = np.split(codes, n_windows.cumsum()[:-1])
    finite = [True] * len(bands)
    if not np.isfinite(codes.sum()):
        finite = [bool(np.isfinite(part).all()) for part in parts]
    elif project is not None:
        parts = np.split(project(codes, n_windows), n_windows.cumsum()[:-1])
    own = [_own_sums(s, bands) for s in sums]
    return [
        WindowCodes(band.bag, of_band, part if is_finite else None, of_cells)
        for band, of_band, part, is_finite, *of_cells in zip(
            bands, of_bands, parts, finite, *own, strict=True
        )
    ]


def _own_sums(values, bands):
    """Return the sums over the cells that each band has alone."""
    sums, first = np.empty((len(bands), *values.shape[1:])), 0
    for band, out in zip(bands, sums, strict=True):
        np.add.reduce(values[first : first + band.n_own], axis=0, out=out)
        first += band.n_cells
    return sums

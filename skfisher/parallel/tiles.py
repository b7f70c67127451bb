"""Functions of some rows at a time, called for the rows of a unit."""

import numpy as np

from skfisher.arrays.libraries import is_cupy
from skfisher.bags.ragged import gather
from skfisher.ops.chunks import iter_row_chunks

__all__ = ["added", "rows_of_tiles", "sum_of_tiles"]


def added(total, part):
    """Return the sums of two lists, entry by entry."""
    return [a + b for a, b in zip(total, part, strict=True)]


def sum_of_tiles(f, n_rows, x, starts, stops):
    """Return the sums over a unit of what ``f(rows)`` returns."""
    total = None
    for block in _tiles(x, starts, stops, n_rows):
        part = f(block)
        total = part if total is None else added(total, part)
    return total


def rows_of_tiles(f, n_rows, x, starts, stops, out=None):
    """Return the rows of a unit, which ``f(rows)`` returns."""
    blocks = [] if out is None else None
    first = 0
    for block in _tiles(x, starts, stops, n_rows):
        rows = f(block)
        if out is None:
            blocks.append(rows)
        else:
            out[first : first + len(block)] = rows
        first += len(block)
    if out is not None:
        return out
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _tiles(x, starts, stops, n_rows):
    """Yield the rows of a unit: so many at a time on the host, on a GPU all of them."""
    if is_cupy(x):
        yield x[int(starts[0]) : int(stops[-1])]
        return
    for runs in iter_row_chunks(starts, stops, n_rows):
        ends = np.cumsum(runs[1] - runs[0])
        yield gather(x, *runs, ends, 0, int(ends[-1]))

"""How the descriptors of bags are cut into chunks that fit the cache.

The cuts follow from the bags' lengths and from K and D alone, never from the number
of threads, so that every sum is taken in the same order on every machine.
"""

from typing import NamedTuple

import numpy as np

from skfisher.backend import array_module, empty

__all__ = ["Chunk", "Frame", "chunk_rows", "fill_rows", "iter_chunks", "iter_row_chunks"]


class Frame(NamedTuple):
    """Affine coordinates ``y = (x - shift) / scale`` in which squares do not cancel."""

    shift: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)


class Chunk(NamedTuple):
    """Descriptors computed together: several whole bags, or one part of a long bag."""

    bags: slice  # the bags touched
    starts: np.ndarray  # rows of x, one entry a bag
    stops: np.ndarray
    first: bool  # the first and the last part of its bags
    last: bool

    @property
    def n_rows(self):
        return int((self.stops - self.starts).sum())


def chunk_rows(n_components, n_features):
    """Return the number of descriptors a chunk holds, for K components in D dimensions.

    Rows of ``[y, y^2, 1]`` and their K logits should stay in a core's second-level cache.
    """
    rows = 2**18 // (2 * n_features + n_components + 1)
    return int(min(max(rows, 128), 1024))


def chunk_bags(n_components, n_features):
    """Return the number of bags whose statistics, K (2D + 1) numbers each, share a chunk."""
    return max(1, 2**17 // (n_components * (2 * n_features + 1)))


def iter_chunks(starts, stops, n_components, n_features):
    """Cut bags into chunks: short bags together, long bags into parts of nearly equal length."""
    rows = chunk_rows(n_components, n_features)
    most_bags = chunk_bags(n_components, n_features)
    ends = np.cumsum(stops - starts)
    bag = 0
    while bag < len(starts):
        length = int(stops[bag] - starts[bag])
        if length <= rows:
            before = int(ends[bag]) - length
            last = int(np.searchsorted(ends, before + rows, side="right"))
            last = min(max(last, bag + 1), bag + most_bags)
            yield Chunk(slice(bag, last), starts[bag:last], stops[bag:last], True, True)
            bag = last
            continue
        borders = starts[bag] + np.linspace(0, length, -(-length // rows) + 1).astype(np.int64)
        for part in range(len(borders) - 1):
            yield Chunk(
                slice(bag, bag + 1),
                borders[part : part + 1],
                borders[part + 1 : part + 2],
                part == 0,
                part == len(borders) - 2,
            )
        bag += 1


def iter_row_chunks(starts, stops, rows):
    """Cut the descriptors of bags into chunks of `rows`, whatever bag they belong to.

    Yields ``(starts, stops)``, the runs of rows that make up a chunk.
    """
    # Bags that follow each other in memory are one run.
    opens = np.flatnonzero(np.append(True, starts[1:] != stops[:-1]))
    closes = np.append(opens[1:], len(starts)) - 1
    starts, stops = starts[opens], stops[closes]
    ends = np.cumsum(stops - starts)
    for low in range(0, int(ends[-1]), rows):
        high = min(low + rows, int(ends[-1]))
        first = int(np.searchsorted(ends, low, side="right"))
        last = int(np.searchsorted(ends, high, side="left"))
        run_starts, run_stops = starts[first : last + 1].copy(), stops[first : last + 1].copy()
        run_starts[0] = stops[first] - (ends[first] - low)
        run_stops[-1] = stops[last] - (ends[last] - high)
        yield run_starts, run_stops


def new_rows(n_rows, n_features, *, like, dtype):
    """Return a buffer for `fill_rows`, its last column set to 1."""
    buffer = empty((n_rows, 2 * n_features + 1), like=like, dtype=dtype)
    buffer[:, -1] = 1
    return buffer


def fill_rows(buffer, x, starts, stops, frame):
    """Write ``[y, y^2, 1]`` of the runs of `x` into `buffer` and return the rows written."""
    xp = array_module(x)
    n_features = x.shape[1]
    ends = np.cumsum(stops - starts)
    rows = buffer[: ends[-1]]
    y = rows[:, :n_features]
    if (starts[1:] == stops[:-1]).all():
        xp.subtract(x[starts[0] : stops[-1]], frame.shift, out=y)
    elif ends[-1] < 8 * len(starts):  # scattered short runs: one gather beats many slices
        index = np.arange(ends[-1]) + np.repeat(stops - ends, stops - starts)
        xp.subtract(x[index], frame.shift, out=y)
    else:
        for start, stop, end in zip(starts.tolist(), stops.tolist(), ends.tolist(), strict=True):
            xp.subtract(x[start:stop], frame.shift, out=y[end - (stop - start) : end])
    y /= frame.scale
    xp.multiply(y, y, out=rows[:, n_features:-1])
    return rows

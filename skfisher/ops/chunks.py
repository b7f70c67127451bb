"""How the descriptors of bags are cut into chunks: that fit the cache, or fill a GPU.

The cuts depend on the bags' lengths and on K and D alone, never on the number
of threads, so that every sum is taken in the same order on every machine.
"""

from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module, empty, is_cupy, row_indices

__all__ = [
    "Chunk",
    "Frame",
    "Rows",
    "chunk_rows",
    "equal_lengths",
    "iter_chunks",
    "iter_row_chunks",
]

# Numbers in the arrays of a chunk on a device: some milliseconds of work.
DEVICE_NUMBERS = 2**25


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
    def lengths(self):
        """Rows of each bag within the chunk."""
        return self.stops - self.starts

    @property
    def columns(self):
        """First and last row of each bag within the chunk."""
        ends = self.lengths.cumsum().tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))


def equal_lengths(lengths):
    """Return ``(n_bags, length)`` if bags are equally long, else None."""
    same = len(lengths) == 1 or bool((lengths == lengths[0]).all())
    return (len(lengths), int(lengths[0])) if same else None


def chunk_rows(n_components, n_features, *, like=None):
    """Return the number of descriptors a chunk holds, for K components in D dimensions.

    Enough rows that NumPy's overhead does not count, few enough that ``y``, ``y^2`` and
    the K logits stay in cache, and never more than 32 MiB of float32 numbers. On a device,
    that of the array `like`, enough that the time to launch kernels does not count.
    """
    width = 2 * n_features + n_components
    if is_cupy(like):
        return max(DEVICE_NUMBERS // width, 1)
    return int(min(max(2**19 // width, 1024), 2048, max(2**23 // width, 1)))


def chunk_bags(n_components, n_features, *, like=None):
    """Return the number of bags whose statistics, K (2D + 1) numbers each, share a chunk."""
    size = n_components * (2 * n_features + 1)
    if is_cupy(like):
        return max(1, min(1024, DEVICE_NUMBERS // size))
    return max(1, 2**16 // size)


def iter_chunks(starts, stops, n_components, n_features, *, like=None):
    """Cut bags into chunks: short bags together, long bags into parts of nearly equal length."""
    rows = chunk_rows(n_components, n_features, like=like)
    most_bags = chunk_bags(n_components, n_features, like=like)
    ends = (stops - starts).cumsum()
    if ends[-1] <= rows and len(starts) <= most_bags:
        yield Chunk(slice(0, len(starts)), starts, stops, True, True)
        return
    bag = 0
    while bag < len(starts):
        length = int(stops[bag] - starts[bag])
        if length <= rows:
            before = int(ends[bag]) - length
            last = int(ends.searchsorted(before + rows, side="right"))
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
    ends = (stops - starts).cumsum()
    for low in range(0, int(ends[-1]), rows):
        high = min(low + rows, int(ends[-1]))
        first = int(ends.searchsorted(low, side="right"))
        last = int(ends.searchsorted(high, side="left"))
        run_starts, run_stops = starts[first : last + 1].copy(), stops[first : last + 1].copy()
        run_starts[0] = stops[first] - (ends[first] - low)
        run_stops[-1] = stops[last] - (ends[last] - high)
        yield run_starts, run_stops


class Rows:
    """Reads runs of descriptors as ``y`` and ``y^2`` in a frame, in buffers of its own.

    Both arrays are contiguous, so that every pass over them is one flat loop, and products round
    in one way; where the frame is None and nothing is to be converted, ``y`` is a view of the
    descriptors.
    """

    def __init__(self, n_rows, x, frame, dtype):
        self._x = x
        self._frame = frame
        self._dtype = np.dtype(dtype)
        self._squares = empty((n_rows, x.shape[1]), like=x, dtype=dtype)
        self._y = None  # many callers never need it
        if frame is not None:
            # repeated for every row: broadcasting a short row is several times slower, in NumPy
            shape = (2, 1 if is_cupy(x) else n_rows, x.shape[1])
            self._shift, self._inverse_scale = repeated = empty(shape, like=x, dtype=dtype)
            repeated[0], repeated[1] = frame.shift, 1 / frame.scale

    def read(self, starts, stops):
        """Return ``y`` and ``y^2`` of the rows of these runs, valid until the next call."""
        xp = array_module(self._x)
        one_run = len(starts) == 1 or bool((starts[1:] == stops[:-1]).all())
        n = int(stops[-1] - starts[0]) if one_run else int((stops - starts).sum())
        as_it_is = self._frame is None and self._x.dtype == self._dtype
        if one_run and as_it_is and self._x.flags.c_contiguous:
            y = self._x[int(starts[0]) : int(stops[-1])]
        else:
            y = self._copy(starts, stops, n, one_run)
            if self._frame is not None:
                y -= self._shift[:n]
                y *= self._inverse_scale[:n]
        return y, xp.multiply(y, y, out=self._squares[:n])

    def _copy(self, starts, stops, n, one_run):
        x = self._x
        if self._y is None:
            self._y = empty(self._squares.shape, like=x, dtype=self._dtype)
        y = self._y[:n]
        if one_run:
            y[...] = x[int(starts[0]) : int(stops[-1])]
        elif is_cupy(x) or n < 8 * len(starts):  # one gather beats many slices of short runs
            y[...] = x[row_indices(starts, stops)]
        else:
            end = 0
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                begin, end = end, end + stop - start
                y[begin:end] = x[start:stop]
        return y

"""Arrays in a list as if they were one, stacked: a copy of all of them is never made."""

import ctypes
import operator

import numpy as np

__all__ = ["Scattered", "Stacked", "alike_lengths", "stacked_small"]


NDIM, DTYPE, SIZE, STRIDES = map(operator.attrgetter, ("ndim", "dtype", "size", "strides"))
# Arrays that have fewer numbers, up to so many bytes in all: to stack them takes less time than to
# look at each.
SMALL, STACKED_BYTES = 2**10, 2**25


def alike_lengths(arrays):
    """Return the lengths of arrays that are alike, or None if they are not.

    They are NumPy's, of numbers, two-dimensional, not empty, of one width and one dtype.
    """
    if not _are_plain(arrays):
        return None
    # In C over all arrays, as there may be very many of few descriptors, and without a tuple for
    # each: so many that live call the garbage collector.
    if len(set(map(DTYPE, arrays))) > 1 or set(map(NDIM, arrays)) != {2}:
        return None
    lengths, sizes = (np.fromiter(map(f, arrays), np.int64, len(arrays)) for f in (len, SIZE))
    is_alike = lengths.all() and (sizes == lengths * arrays[0].shape[1]).all()
    return lengths if is_alike else None


def stacked_small(arrays):
    """Return arrays that are alike, stacked, and their lengths, if they are small; else None."""
    if not _are_plain(arrays):
        return None
    size = sum(map(SIZE, arrays))
    if size >= SMALL * len(arrays) or size * arrays[0].itemsize > STACKED_BYTES:
        return None
    try:
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        values = np.concatenate(arrays, dtype=arrays[0].dtype, casting="no")
    except (TypeError, ValueError):  # of other dtypes, widths or dimensions
        return None
    return (values, lengths) if lengths.all() else None


def _are_plain(arrays):
    """Tell whether all are arrays of NumPy, and the first is one of descriptors."""
    if len(set(map(type, arrays))) != 1 or type(arrays[0]) is not np.ndarray:
        return False
    dtype, shape = arrays[0].dtype, arrays[0].shape
    is_number = dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative
    return is_number and len(shape) == 2 and shape[1] > 0


class Stacked:
    """The rows of arrays that are alike, one array after the other.

    What is asked for is copied, unless it lies in one array.

    Parameters
    ----------
    arrays : list of arrays
    stops : int array
        Where each of them ends.
    """

    ndim, device = 2, "cpu"

    def __init__(self, arrays, stops):
        self.arrays, self._ends = arrays, stops
        self.shape = int(self._ends[-1]), arrays[0].shape[1]
        self.dtype = arrays[0].dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            return self._run(*rows.indices(len(self))[:2])
        rows = np.asarray(rows)
        owners = np.searchsorted(self._ends, rows, side="right")
        found = np.empty((*rows.shape, self.shape[1]), dtype=self.dtype)
        for i in np.unique(owners).tolist():
            mine = owners == i
            array = self.arrays[i]
            found[mine] = array[rows[mine] - (self._ends[i] - len(array))]
        return found

    def _run(self, first, last):
        if last <= first:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        i, j = np.searchsorted(self._ends, [first, last - 1], side="right").tolist()
        offset = int(self._ends[i]) - len(self.arrays[i])
        if i == j:
            return np.ascontiguousarray(self.arrays[i][first - offset : last - offset])
        parts = list(self.arrays[i : j + 1])
        parts[0] = parts[0][first - offset :]
        parts[-1] = parts[-1][: last - int(self._ends[j - 1])]
        return np.concatenate(parts)

    def scattered(self):
        """Return the same rows with their addresses, or None if the strides of arrays differ."""
        alike = len(set(map(STRIDES, self.arrays))) == 1
        return Scattered(self.arrays, self._ends) if alike else None


class Scattered(Stacked):
    """Rows of arrays of the same strides, for kernels that are told where each bag lies.

    They copy nothing. What is asked for by index is copied as ever.
    """

    def __init__(self, arrays, stops):
        super().__init__(arrays, stops)
        self.strides = arrays[0].strides
        starts = stops - np.diff(stops, prepend=0)
        self._origins = _addresses(arrays) - starts * self.strides[0]

    def addresses(self, rows):
        """Return where some rows, given by index, lie in memory."""
        owners = np.searchsorted(self._ends, rows, side="right")
        return self._origins[owners] + rows * self.strides[0]


def _addresses(arrays):
    """Return where each of some arrays begins in memory."""
    try:  # in C over all arrays: four times as fast
        buffers = map(ctypes.c_char.from_buffer, arrays)
        return np.fromiter(map(ctypes.addressof, buffers), np.int64, len(arrays))
    except (TypeError, ValueError):  # one is read-only, or its rows do not lie side by side
        return np.array([array.ctypes.data for array in arrays], dtype=np.int64)

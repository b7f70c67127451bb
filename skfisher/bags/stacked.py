"""Arrays in a list as if they were one, stacked: a copy of all of them is never made."""

import numpy as np

__all__ = ["Stacked", "are_alike"]


def are_alike(arrays):
    """Tell whether arrays are NumPy's, of numbers, 2-D, not empty, of one width and one dtype."""
    first = arrays[0] if len(arrays) else None
    if type(first) is not np.ndarray or first.ndim != 2 or first.shape[1] == 0:
        return False
    dtype, width = first.dtype, first.shape[1]
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not dtype.isnative:
        return False
    return all(
        type(a) is np.ndarray and a.ndim == 2 and a.shape[1] == width and a.dtype == dtype
        for a in arrays
    ) and all(map(len, arrays))


class Stacked:
    """The rows of arrays that are alike, one array after the other.

    What is asked for is copied, unless it lies in one array.
    """

    ndim, device = 2, "cpu"

    def __init__(self, arrays):
        self.arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays])
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

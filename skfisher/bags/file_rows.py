"""Descriptors in many files, one bag each, that are opened when they are asked for."""

import contextlib
import zipfile
from pathlib import Path

import numpy as np

from skfisher.arrays.dense import as_dense, describe, odd_one_out
from skfisher.arrays.libraries import to_host
from skfisher.bags.feature_names import names_of
from skfisher.bags.npy import open_npy, read_header
from skfisher.bags.paths import naming, read_paths

__all__ = ["FileRows", "row_numbers"]


class FileRows:
    """The rows of the arrays in many files, one after the other, as `Bags` keep them.

    No file stays open, and no array is kept: there may be more files than a process may open, and
    more descriptors than fit into memory. What is asked for is copied.

    Parameters
    ----------
    paths : iterable of str or path-like
    reader : callable, default=None
        Returns the array of a path. By default ``.npy`` files are mapped, and of ``.npz`` files
        the one array that they hold is read.

    Attributes
    ----------
    paths : list of str
    lengths : int array of shape (n_files,)
    feature_names : ndarray of str, or None
        If the reader returns data frames.
    """

    ndim, device = 2, "cpu"

    def __init__(self, paths, reader=None):
        self.paths, self.reader = read_paths(paths), reader
        found = [self._look(path) for path in self.paths]
        shapes, dtypes, names = zip(*found, strict=True)
        lengths, widths = zip(*shapes, strict=True)
        self._check(widths, "has {} features per descriptor", "all bags must have the same width")
        self._check(dtypes, "holds {}", "convert all to one dtype")
        self._check(names, "has the feature names {}", "they must be the same in all")
        self.feature_names = None if names[0] is None else np.array(names[0], dtype=object)
        self.lengths = np.array(lengths, dtype=np.int64)
        self.dtype, self.shape = dtypes[0], (int(self.lengths.sum()), widths[0])
        self._width, self._columns = widths[0], slice(0, widths[0])
        self._ends = np.cumsum(self.lengths)

    def _look(self, path):
        """Return shape, dtype and column names of a file, by its header if that will do."""
        with naming(path):
            if self.reader is None and path.endswith(".npz"):
                with _only_member(path) as file:
                    dtype, shape, _ = read_header(file, "its array")
                array = np.broadcast_to(np.zeros((), dtype), shape)
                names = None
            else:
                array, names = self._open(path)
            if array.ndim != 2:
                raise ValueError(
                    f"it holds an array of shape {array.shape}, but a bag is an array of shape "
                    "(n_descriptors, n_features)"
                )
            if array.dtype.itemsize > 8:
                raise ValueError(f"it holds {array.dtype}: convert it to float64")
            return array.shape, array.dtype.newbyteorder("="), names

    def _open(self, path):
        """Return the array of a file, and the names of its columns."""
        if self.reader is not None:
            array = self.reader(path)
            names = names_of(array, path)
            array = to_host(as_dense(array, "its array"))
            return array, None if names is None else tuple(names)
        if path.endswith(".npz"):
            with _only_member(path) as file:
                return np.lib.format.read_array(file, allow_pickle=False), None
        return open_npy(Path(path), "r"), None

    def _check(self, found, text, remedy):
        odd, usual = odd_one_out(found)
        if odd is not None:
            odd, usual = (f"{self.paths[i]} {text.format(found[i])}" for i in (odd, usual))
            raise ValueError(f"{odd}, but {usual}: {remedy}.")

    def _read(self, i):
        """Return the array of a file, if it is still as it was."""
        with naming(self.paths[i]):
            array, _ = self._open(self.paths[i])
            found = array.shape, array.dtype.newbyteorder("=")
            wanted = (int(self.lengths[i]), self._width), self.dtype
            if found != wanted:
                raise ValueError(
                    f"it holds {found[1]} of shape {found[0]}, but when the bags were made it "
                    f"held {wanted[1]} of shape {wanted[0]}"
                )
        return np.asarray(array)[:, self._columns]  # np.memmap is slow to slice

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        return f"<rows of {len(self.paths)} files, shape={self.shape}, {self.dtype}>"

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key):
        """Return rows; ``[:, first:last]`` are all rows of some columns, in the files still."""
        if isinstance(key, tuple):
            return self._of_columns(*key)
        if isinstance(key, slice):
            return self._run(*key.indices(len(self)))
        rows = row_numbers(key, len(self))
        flat = rows.ravel()
        found = np.empty((flat.size, self.shape[1]), dtype=self.dtype)
        owners = np.searchsorted(self._ends, flat, side="right")
        order = np.argsort(owners, kind="stable")
        for of_file in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
            if len(of_file):
                i = int(owners[of_file[0]])
                begin = self._ends[i] - self.lengths[i]
                found[of_file] = self._read(i)[flat[of_file] - begin]
        return found.reshape(*rows.shape, self.shape[1])

    def _run(self, first, last, step):
        if step != 1:
            return self[np.arange(first, last, step)]
        found = np.empty((max(0, last - first), self.shape[1]), dtype=self.dtype)
        done = 0
        while done < len(found):  # copied file by file, so that none stays open
            i = int(np.searchsorted(self._ends, first + done, side="right"))
            begin = int(self._ends[i] - self.lengths[i])
            part = self._read(i)[first + done - begin : last - begin]
            found[done : done + len(part)] = part
            done += len(part)
        return found

    def _of_columns(self, rows, columns):
        if rows != slice(None) or not isinstance(columns, slice) or columns.step not in (None, 1):
            raise IndexError("rows of files are read by one index, or cut as [:, first:last].")
        first, last, _ = columns.indices(self.shape[1])
        some = object.__new__(type(self))
        vars(some).update(vars(self))
        some.shape = len(self), max(0, last - first)
        some._columns = slice(self._columns.start + first, self._columns.start + max(first, last))
        return some


def row_numbers(key, n_rows):
    """Return the rows that an index names, as NumPy would read it for an array of so many.

    Parameters
    ----------
    key : int, array-like of int, or mask
    n_rows : int

    Returns
    -------
    rows : int64 array
        Of the shape of the index, from 0 on; of a mask, those where it is True.

    Raises
    ------
    IndexError
        If it is something else, or names a row that does not exist.
    """
    rows = np.asarray(key)
    if rows.dtype == bool and rows.shape == (n_rows,):
        return np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" and rows.size:
        raise IndexError(
            f"rows are named by integers, a slice or a mask of shape ({n_rows},), not by "
            f"{describe(key)} of dtype {rows.dtype} and shape {rows.shape}."
        )
    rows = rows.astype(np.int64)
    rows = np.where(rows < 0, rows + n_rows, rows)
    if rows.size and not 0 <= rows.min() <= rows.max() < n_rows:
        raise IndexError(f"a row is out of bounds: there are {n_rows}.")
    return rows


@contextlib.contextmanager
def _only_member(path):
    """Open the one array in a file of NumPy's format for several."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            names = [name.removesuffix(".npy") for name in names]
            raise ValueError(
                f"it holds {len(names)} arrays: say which is the bag, for instance by "
                f"reader=lambda path: np.load(path)[{names[0] if names else 'name'!r}]"
            )
        with archive.open(names[0]) as file:
            yield file

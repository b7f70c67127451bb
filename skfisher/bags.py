"""The container of the package: many bags of descriptors in one array.

A bag is any number of d-dimensional descriptors. `Bags` stacks the descriptors of
all bags in one array and keeps where each bag starts and stops. A subset of bags is
a new pair of boundaries over the same array, so that splitting and searching copy no
descriptors.
"""

import mmap
import os
from pathlib import Path

import numpy as np
from scipy.sparse import issparse

from ._compat import get_namespace
from .backend import array_module, is_cupy, to_host

__all__ = ["Bags", "check_real"]

# Pickling a few bags of a memory-mapped array writes these descriptors, and not a
# reference to the file, up to this size.
PACK_MAPPED_BYTES = 64 * 2**20
SAVE_BYTES = 2**24


class Bags:
    """Bags of descriptors: ragged data over one array.

    A `Bags` behaves as a one-dimensional array of bags. Indexing with an integer
    gives a bag, an array of shape (n_descriptors, n_features) that is a view.
    Indexing with a slice, an array of integers, a mask or a list gives a `Bags` over
    the same `values`, as scikit-learn's splitters and searches need.

    Parameters
    ----------
    values : array of shape (n, n_features)
        The descriptors of all bags, stacked: a NumPy or CuPy array of booleans,
        integers or real numbers. Read-only arrays and memory maps are welcome; it is
        never written to, and not copied.
    starts, stops : array-like of int of shape (n_bags,)
        Bag `i` is ``values[starts[i]:stops[i]]``. Bags may overlap, repeat, and leave
        descriptors out.

    Attributes
    ----------
    values : array of shape (n, n_features)
        As given.
    starts, stops : ndarray of shape (n_bags,), int64
        As given, always on the host.
    shape : tuple
        ``(n_bags,)``.
    ndim : int
        Always 1.

    Raises
    ------
    TypeError
        If `values` are not real numbers, or `starts` and `stops` are not integers.
    ValueError
        If `values` is not two-dimensional or complex, or if a bag stops before it
        starts or reaches outside `values`.

    See Also
    --------
    Bags.from_list : Bags of a list of arrays.
    Bags.from_lengths : Bags of stacked descriptors.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import Bags
    >>> bags = Bags(np.arange(10.0).reshape(5, 2), starts=[0, 3], stops=[3, 5])
    >>> bags
    <Bags: 2 bags of 2 to 3 descriptors, 5 in all, 2 features, float64, cpu>
    >>> bags[1]
    array([[6., 7.],
           [8., 9.]])
    >>> bags[[1, 1, 0]].lengths
    array([2, 2, 3])
    """

    ndim = 1

    def __init__(self, values, starts, stops):
        if not is_cupy(values) and not isinstance(values, np.memmap):
            values = np.asarray(values)
        if values.ndim != 2:
            raise ValueError(
                f"values must have shape (n_descriptors, n_features), got {values.shape}."
            )
        check_real(values, "values")
        starts, stops = _indices(starts, "starts"), _indices(stops, "stops")
        if starts.shape != stops.shape:
            raise ValueError(
                "starts and stops must have one entry per bag: "
                f"got {len(starts)} starts and {len(stops)} stops."
            )
        wrong = (starts < 0) | (stops < starts) | (stops > len(values))
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(
                f"bag {i} starts at {starts[i]} and stops at {stops[i]}: "
                f"0 <= start <= stop <= {len(values)} is needed."
            )
        self._set(values, starts, stops)

    def _set(self, values, starts, stops):
        self.values = values
        self.starts = starts
        self.stops = stops
        self._packed = None

    def _view(self, starts, stops):
        """Return other bags over the same values; trusts its arguments."""
        view = object.__new__(Bags)
        view._set(self.values, starts, stops)
        return view

    # -- making

    @classmethod
    def from_list(cls, arrays):
        """Stack a list of arrays, one per bag.

        Parameters
        ----------
        arrays : iterable of array-like of shape (n_descriptors, n_features)
            One array per bag, all of one width. The descriptors are copied and get
            the dtype that holds them all.

        Returns
        -------
        bags : Bags

        Raises
        ------
        TypeError
            If a bag is sparse or not made of real numbers, or if some bags live on a
            GPU and others do not.
        ValueError
            If there is no bag, if a bag is complex or not two-dimensional, or if the
            widths differ. The message names the bag.

        Examples
        --------
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> Bags.from_list([np.zeros((3, 2)), np.ones((5, 2))]).lengths
        array([3, 5])
        """
        arrays = [_as_bag(array, i) for i, array in enumerate(arrays)]
        if not arrays:
            raise ValueError("The list holds no bags: at least 1 is needed to know the width.")
        width = arrays[0].shape[1]
        for i, array in enumerate(arrays):
            if array.shape[1] != width:
                raise ValueError(
                    f"X[{i}] has {array.shape[1]} features per descriptor, "
                    f"but X[0] has {width}: all bags must have the same width."
                )
            if is_cupy(array) != is_cupy(arrays[0]):
                raise TypeError(
                    f"X[{i}] is a {type(array).__module__} array, but X[0] is a "
                    f"{type(arrays[0]).__module__} array: keep all bags on one device."
                )
        values = array_module(arrays[0]).concatenate(arrays)
        return cls.from_lengths(values, [len(array) for array in arrays])

    @classmethod
    def from_lengths(cls, values, lengths):
        """Cut stacked descriptors into consecutive bags, without a copy.

        Parameters
        ----------
        values : array of shape (n, n_features)
            The descriptors of all bags, one bag after the other.
        lengths : array-like of int of shape (n_bags,)
            Number of descriptors of each bag; they sum to `n`.

        Returns
        -------
        bags : Bags

        Raises
        ------
        TypeError
            If `lengths` are not integers, or `values` not real numbers.
        ValueError
            If a length is negative or the lengths do not sum to `n`.

        Examples
        --------
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> Bags.from_lengths(np.arange(6.0).reshape(3, 2), [2, 1])[1]
        array([[4., 5.]])
        """
        lengths = _indices(lengths, "lengths")
        if (lengths < 0).any():
            i = int((lengths < 0).argmax())
            raise ValueError(f"lengths[{i}] is {lengths[i]}: a length cannot be negative.")
        stops = np.cumsum(lengths)
        total = int(stops[-1]) if len(stops) else 0
        if total != len(values):
            raise ValueError(f"lengths sum to {total}, but values has {len(values)} descriptors.")
        return cls(values, stops - lengths, stops)

    @classmethod
    def concatenate(cls, parts):
        """Join several `Bags` into one that has the bags of all, in order.

        Parts that share their `values` are joined without a copy. Otherwise the
        descriptors are copied and get the dtype that holds them all.

        Parameters
        ----------
        parts : iterable of Bags

        Returns
        -------
        bags : Bags

        Raises
        ------
        TypeError
            If a part is no `Bags`, or if some live on a GPU and others do not.
        ValueError
            If there are no parts, or if their widths differ.

        Examples
        --------
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> few = Bags.from_list([np.zeros((3, 2)), np.ones((5, 2))])
        >>> Bags.concatenate([few, few[:1]]).lengths
        array([3, 5, 3])
        """
        parts = list(parts)
        if not parts:
            raise ValueError("Nothing to concatenate: at least 1 Bags is needed.")
        for i, part in enumerate(parts):
            if not isinstance(part, Bags):
                raise TypeError(f"parts[{i}] is a {type(part).__name__}, not Bags.")
            if part.n_features != parts[0].n_features:
                raise ValueError(
                    f"parts[{i}] has {part.n_features} features per descriptor, but "
                    f"parts[0] has {parts[0].n_features}: all must have the same width."
                )
            if is_cupy(part.values) != is_cupy(parts[0].values):
                raise TypeError(f"parts[{i}] and parts[0] must be on one device.")
        if all(part.values is parts[0].values for part in parts):
            return parts[0]._view(
                np.concatenate([part.starts for part in parts]),
                np.concatenate([part.stops for part in parts]),
            )
        values = array_module(parts[0].values).concatenate([part.pack().values for part in parts])
        return cls.from_lengths(values, np.concatenate([part.lengths for part in parts]))

    # -- what is inside

    @property
    def shape(self):
        """``(n_bags,)``: to scikit-learn, a bag is a sample."""
        return self.starts.shape

    @property
    def lengths(self):
        """Number of descriptors of each bag, int64 of shape (n_bags,)."""
        return self.stops - self.starts

    @property
    def n_features(self):
        """Width of a descriptor."""
        return self.values.shape[1]

    @property
    def dtype(self):
        """Dtype of the descriptors."""
        return self.values.dtype

    @property
    def device(self):
        """Device the descriptors are on, as their library names it."""
        return self.values.device

    def __len__(self):
        return len(self.starts)

    def __iter__(self):
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            yield self.values[start:stop]

    def to_list(self):
        """Return the bags as a list of arrays, views of `values`."""
        return list(self)

    def __repr__(self):
        lengths = self.lengths
        text = f"<Bags: {len(self)} bags"
        if len(self):
            few, many = lengths.min(), lengths.max()
            text += f" of {few}" if few == many else f" of {few} to {many}"
            text += f" descriptors, {lengths.sum()} in all"
        text += f", {self.n_features} features, {self.dtype}, {self.device}"
        return text + (", memory-mapped>" if _is_mapped(self.values) else ">")

    # -- choosing bags

    def __getitem__(self, key):
        # The boundaries are NumPy arrays, so NumPy itself reads the key. scikit-learn
        # passes (indices, Ellipsis).
        key = tuple(map(_host_key, key)) if isinstance(key, tuple) else _host_key(key)
        starts, stops = self.starts[key], self.stops[key]
        if starts.ndim == 0:
            return self.values[int(starts) : int(stops)]
        if starts.ndim > 1:
            raise IndexError("Bags have one dimension: index them with one integer, slice or list.")
        return self._view(starts, stops)

    def take(self, indices, axis=0, out=None, mode="raise"):
        """Return the bags at the given positions, as :func:`numpy.take` does.

        scikit-learn calls it when array API dispatch is on.

        Parameters
        ----------
        indices : int or array-like of int
            Which bags; a mask of booleans works as in indexing.
        axis : {0, -1, None}, default=0
            Bags have one axis.
        out : None
            Not supported.
        mode : {"raise", "wrap", "clip"}, default="raise"
            What happens to indices out of range.

        Returns
        -------
        bags : Bags, or the array of one bag if `indices` is an integer
        """
        if axis not in (0, -1, None):
            raise ValueError(f"axis={axis!r} is out of bounds: bags have one dimension.")
        if out is not None:
            raise ValueError("Bags.take does not support out: bags are views, never written to.")
        indices = np.asarray(to_host(indices))
        if indices.dtype != bool:
            if indices.size == 0:
                indices = indices.astype(np.int64)
            indices = np.arange(len(self)).take(indices, mode=mode)
        return self[indices]

    # -- what scikit-learn, joblib and pickle ask

    def __array__(self, dtype=None, copy=None):
        raise TypeError("bags have no rectangular form; encode them first, or use .values")

    def __array_namespace__(self, *, api_version=None):
        return get_namespace(self.values)[0]

    # -- descriptors in order

    def blocks(self, n_rows):
        """Go through the descriptors of all bags, in order, in bounded memory.

        Parameters
        ----------
        n_rows : int
            Largest number of descriptors at a time.

        Yields
        ------
        block : array of shape (at most n_rows, n_features)
            A view where the descriptors lie side by side in `values`, else a copy.
        """
        for first in range(0, int(self.lengths.sum()), n_rows):
            yield self._rows(first, first + n_rows)

    def pack(self):
        """Return the same bags over values that hold their descriptors and no others.

        Returns
        -------
        bags : Bags
            Consecutive bags; `self` if they are so already. The descriptors are copied
            unless they lie side by side in `values`.
        """
        lengths = self.lengths
        packed = Bags.from_lengths(self._rows(0, int(lengths.sum())), lengths)
        same = len(packed.values) == len(self.values) and np.array_equal(packed.stops, self.stops)
        return self if same else packed

    def _rows(self, first, last):
        """Return descriptors first to last of all bags, counted bag after bag."""
        ends = np.cumsum(self.lengths)
        i, j = np.searchsorted(ends, first, "right"), np.searchsorted(ends, last, "left") + 1
        starts, stops, ends = self.starts[i:j].copy(), self.stops[i:j].copy(), ends[i:j]
        if len(starts) == 0:
            return self.values[:0]
        # Cut the outer two bags. `ends` tells where they stop in the order of all bags.
        starts[0] = max(starts[0], stops[0] - (ends[0] - first))
        stops[-1] = min(stops[-1], stops[-1] - (ends[-1] - last))
        filled = stops > starts
        starts, stops = starts[filled], stops[filled]
        if np.array_equal(starts[1:], stops[:-1]):
            return self.values[starts[0] : stops[-1]] if len(starts) else self.values[:0]
        lengths = stops - starts
        rows = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        rows += np.arange(len(rows))
        return self.values[array_module(self.values).asarray(rows)]

    def __getstate__(self):
        # joblib shares large arrays between workers by their identity: what is packed
        # once is kept, so that it is shared too.
        n_used = int(self.lengths.sum())
        small = 2 * n_used < len(self.values)
        if small and _is_mapped(self.values):
            # Workers open a mapped file without reading it; don't pull much into memory.
            small = n_used * self.n_features * self.dtype.itemsize <= PACK_MAPPED_BYTES
        if small and self._packed is None:
            self._packed = self.pack()
        source = self._packed if small else self
        return {"values": source.values, "starts": source.starts, "stops": source.stops}

    def __setstate__(self, state):
        self._set(state["values"], state["starts"], state["stops"])

    # -- files

    def save(self, folder):
        """Write the bags to plain ``.npy`` files that any program can read.

        ``values.npy`` holds the descriptors, one bag after the other, ``lengths.npy``
        the number of descriptors of each bag. Memory stays bounded, so bags over a
        memory map may be larger than memory, and may be saved to their own folder.

        Parameters
        ----------
        folder : str or path-like
            Created if missing; files of these names are replaced.

        See Also
        --------
        Bags.load : Open the folder again, memory-mapped.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lengths = self.lengths
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (int(lengths.sum()), self.n_features),
        }
        # Written beside and moved into place: the old file may be the one we read.
        beside = folder / f"values.{os.getpid()}.tmp"
        try:
            with open(beside, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                n_rows = max(1, SAVE_BYTES // max(1, self.n_features * self.dtype.itemsize))
                for block in self.blocks(n_rows):
                    to_host(block).tofile(file)
            os.replace(beside, folder / "values.npy")
        finally:
            beside.unlink(missing_ok=True)
        np.save(folder / "lengths.npy", lengths, allow_pickle=False)

    @classmethod
    def load(cls, folder, mmap_mode="r"):
        """Open bags that `save` wrote.

        Parameters
        ----------
        folder : str or path-like
        mmap_mode : {"r", "c", "r+", None}, default="r"
            How to map the descriptors, as in :func:`numpy.load`: by default they are read
            from the file when needed and cannot be written. None reads them now.

        Returns
        -------
        bags : Bags

        Raises
        ------
        FileNotFoundError
            If the folder does not hold the two files.
        ValueError
            If a file is damaged, holds Python objects, or does not fit the other one.

        See Also
        --------
        Bags.save : Write the folder.
        """
        folder = Path(folder)
        values = _load_array(folder / "values.npy", mmap_mode)
        lengths = _load_array(folder / "lengths.npy", None)
        try:
            return cls.from_lengths(values, lengths)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder} does not hold bags: {error}") from error


def check_real(array, name):
    """Refuse an array that is not made of real numbers.

    Parameters
    ----------
    array : array
    name : str
        What the message calls it.

    Raises
    ------
    TypeError
        If the dtype is object, string, or otherwise no number.
    ValueError
        If the dtype is complex.
    """
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}.")
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}: descriptors must be real numbers.")


def _as_bag(array, i):
    if issparse(array):
        raise TypeError(f"X[{i}] is sparse: bags must be dense, write X[{i}].toarray().")
    if not is_cupy(array):
        try:
            array = np.asarray(array)
        except ValueError as error:  # a ragged nested list
            raise ValueError(f"X[{i}] is not a rectangular array: {error}") from error
    check_real(array, f"X[{i}]")
    if array.shape == (0,):
        raise ValueError(
            f"X[{i}] is empty: every bag needs at least 1 descriptor. "
            "Drop it, or give it a zero descriptor."
        )
    if array.ndim != 2:
        hint = f" For a bag of one descriptor, write X[{i}][None, :]." if array.ndim == 1 else ""
        raise ValueError(
            f"X[{i}] has shape {array.shape}, but a bag is a two-dimensional array of shape "
            f"(n_descriptors, n_features).{hint}"
        )
    return array


def _indices(x, name):
    x = np.asarray(to_host(x))
    if x.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {x.shape}.")
    if x.size and x.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {x.dtype}.")
    return x.astype(np.int64, copy=False)


def _host_key(key):
    return to_host(key) if is_cupy(key) else key


def _is_mapped(array):
    while array is not None:
        if isinstance(array, np.memmap | mmap.mmap):
            return True
        array = getattr(array, "base", None)
    return False


def _load_array(path, mmap_mode):
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: Bags.save writes values.npy and lengths.npy to a folder."
        )
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a plain .npy file: {error}") from error

"""The container of the package: many bags of descriptors in one array.

A bag is any number of d-dimensional descriptors. `Bags` stacks the descriptors of
all bags in one array and keeps where each bag starts and stops. A subset of bags is
a new pair of boundaries over the same array, so that splitting and searching copy no
descriptors.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np

from skfisher.arrays.dense import as_dense, describe, listed
from skfisher.arrays.stacked import Stacked, alike_lengths, stacked_small
from skfisher.arrays.tensors import is_tensor
from skfisher.bags.feature_names import names_of, shared_names
from skfisher.bags.file_rows import FileRows
from skfisher.bags.forms import FormedBags
from skfisher.bags.indexing import IndexedBags
from skfisher.bags.mapped import MappedFile, by_path, has_path, is_mapped
from skfisher.bags.ragged import as_indices, gather, stack
from skfisher.bags.saving import SavedBags
from skfisher.bags.sharded_values import ShardedValues

__all__ = ["Bags"]

# Up to this size, pickling a few bags of a memory map writes their descriptors and not
# the whole map.
PACK_MAPPED_BYTES = 2**26


class Bags(FormedBags, IndexedBags, SavedBags):
    """Bags of descriptors: ragged data over one array.

    A `Bags` behaves as a one-dimensional array of bags. Indexing with an integer
    gives a bag, an array of shape (n_descriptors, n_features) that is a view.
    Indexing with a slice, an array of integers, a mask or a list gives a `Bags` over
    the same `values`, as scikit-learn's splitters and searches need.

    Parameters
    ----------
    values : array of shape (n, n_features)
        The descriptors of all bags, stacked: a NumPy or CuPy array of booleans, integers or real
        numbers, a PyTorch tensor, or a data frame. Read-only arrays and memory maps are fine:
        values are never written to, and arrays are not copied.
    starts, stops : array-like of int of shape (n_bags,)
        Bag `i` is ``values[starts[i]:stops[i]]``. Bags may overlap, repeat, and leave
        descriptors out.

    Attributes
    ----------
    values, starts, stops
        As given. The boundaries are int64 ndarrays on the host; for a tensor, `values` is the array
        that shares its memory.
    of_tensors : bool
        Whether the values came as tensors; estimators then return tensors too.
    feature_names : ndarray of str of shape (n_features,), or None
        Column names, if the values came as data frames whose names are all strings. Subsets
        keep them, files do not. Estimators compare them with those they were fitted on.
    shape, ndim : tuple, int
        ``(n_bags,)`` and 1.

    Raises
    ------
    TypeError
        If `values` are not real numbers, or `starts` and `stops` are not integers.
    ValueError
        If `values` is not two-dimensional, complex or has masked entries, or if a bag
        stops before it starts or reaches outside `values`.

    See Also
    --------
    Bags.from_list : Bags of a list of arrays.
    Bags.from_lengths : Bags of stacked descriptors.

    Notes
    -----
    Bags whose `values` are a memory map of a file, as those of :meth:`Bags.load`, are pickled as
    the path of that file, which is opened when descriptors are asked for; if it is missing there,
    or was changed, that is an error. Those in memory are pickled with their descriptors.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import Bags
    >>> bags = Bags(np.arange(10.0).reshape(5, 2), starts=[0, 3], stops=[3, 5])
    >>> bags
    <Bags: n_bags=2, n_descriptors=5 (2 to 3 a bag), n_features=2, float64, cpu>
    >>> bags[1]
    array([[6., 7.],
           [8., 9.]])
    >>> bags[[1, 1, 0]].lengths
    array([2, 2, 3])
    """

    of_tensors = False
    feature_names = None

    def __init__(self, values, starts, stops):
        self.of_tensors, self.feature_names = is_tensor(values), names_of(values, "values")
        if not isinstance(values, FileRows):
            values = as_dense(values, "values")
        if values.ndim != 2:
            raise ValueError(
                f"values must have shape (n_descriptors, n_features), got {values.shape}."
            )
        starts, stops = as_indices(starts, "starts"), as_indices(stops, "stops")
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
        if (np.cumsum(stops - starts) < 0).any():  # the sum wraps around
            raise ValueError("the bags hold 2^63 descriptors or more: int64 cannot count them.")
        self.values, self.starts, self.stops = values, starts, stops

    def _view(self, starts, stops):
        """Return other bags over the same values; trusts its arguments."""
        return Bags._of(self.values, starts, stops)._marked(self.of_tensors, self.feature_names)

    def _marked(self, of_tensors, feature_names):
        """Say of these bags, which nobody else has yet, what their values came as."""
        self.of_tensors, self.feature_names = of_tensors, feature_names
        return self

    def _as_tensors(self):
        return self._view(self.starts, self.stops)._marked(True, self.feature_names)

    @classmethod
    def from_list(cls, arrays):
        """Stack a list of arrays, one per bag.

        Parameters
        ----------
        arrays : iterable of array-like of shape (n_descriptors, n_features)
            One array or data frame per bag, all of one width, frames of the same columns in
            the same order. The descriptors are copied and get the dtype that holds them all.

        Returns
        -------
        bags : Bags

        Raises
        ------
        TypeError
            If a bag is sparse or not made of real numbers, or if some bags live on a
            GPU and others do not.
        ValueError
            If there is no bag, if a bag is complex, not two-dimensional or has masked entries,
            or if the widths or column names differ. The message names the bag.

        Examples
        --------
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> Bags.from_list([np.zeros((3, 2)), np.ones((5, 2))]).lengths
        array([3, 5])
        """
        if not isinstance(arrays, Iterator):
            arrays = listed(arrays, "arrays")
        if not isinstance(arrays, Iterable) or isinstance(arrays, str | bytes):
            raise TypeError(
                f"arrays is {describe(arrays)}, but a list of arrays of shape (n_descriptors, "
                "n_features) is needed, one per bag."
            )
        return cls._stacked(arrays)

    @classmethod
    def _stacked(cls, arrays, n_features=None, feature_names=None, name="X"):
        """Stack arrays; where they differ, blame those of another width or names than wanted."""
        arrays = list(arrays)
        bags = cls._of_alike(arrays)
        if bags is not None:
            return bags
        values, lengths = stack(arrays, name, n_features=n_features)
        names = shared_names(arrays, feature_names, name)
        bags = cls._of_lengths(values, np.array(lengths))
        return bags._marked(any(map(is_tensor, arrays)), names)

    @classmethod
    def _of_alike(cls, arrays, *, copy=True):
        """Stack arrays that are alike; return None if they are not.

        With ``copy=False`` they may stay where they are. Their `values` are then no array, but
        what `skfisher.parallel.units` reads.
        """
        if len(arrays) > 1 and (small := stacked_small(arrays)) is not None:
            return cls._of_lengths(*small)
        lengths = alike_lengths(arrays)
        if lengths is None:
            return None
        bags = cls._of_lengths(arrays[0], lengths)
        if len(arrays) > 1 or not arrays[0].flags.c_contiguous:
            stacked = Stacked(arrays, bags.stops)
            bags.values = stacked[:] if copy else stacked
        return bags

    @classmethod
    def _checked(cls, values, starts, stops):
        return cls(values, starts, stops)

    @classmethod
    def _of(cls, values, starts, stops):
        """Return bags without a check of what they are made of."""
        bags = object.__new__(cls)
        bags.values, bags.starts, bags.stops = values, starts, stops
        return bags

    @classmethod
    def _of_lengths(cls, values, lengths):
        """Cut values into consecutive bags; trusts its arguments."""
        stops = lengths.cumsum()
        return cls._of(values, stops - lengths, stops)

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
        lengths = as_indices(lengths, "lengths")
        if (lengths < 0).any():
            i = int((lengths < 0).argmax())
            raise ValueError(f"lengths[{i}] is {lengths[i]}: a length cannot be negative.")
        stops = np.cumsum(lengths)
        total = int(stops[-1]) if len(stops) else 0
        if (stops < 0).any():  # sums that wrapped around
            total = sum(lengths.tolist())
        if not hasattr(values, "ndim"):
            values = as_dense(values, "values")
        n_rows = len(values) if values.ndim else 0
        if total != n_rows:
            raise ValueError(f"lengths sum to {total}, but values has {n_rows} descriptors.")
        return cls._checked(values, stops - lengths, stops)

    @classmethod
    def concatenate(cls, parts):
        """Join several `Bags` into one that has the bags of all, in order.

        Parts that share their `values` are joined without a copy; others are promoted.

        Parameters
        ----------
        parts : iterable of Bags

        Returns
        -------
        bags : Bags

        Raises
        ------
        TypeError
            If a part is not a `Bags`, or if some live on a GPU and others do not.
        ValueError
            If there are no parts, or if their widths or feature names differ.
        """
        parts = list(parts)
        for i, part in enumerate(parts):
            if not isinstance(part, Bags):
                raise TypeError(f"parts[{i}] is a {type(part).__name__}, not Bags.")
        if parts and all(part.values is parts[0].values for part in parts):
            return parts[0]._view(
                np.concatenate([part.starts for part in parts]),
                np.concatenate([part.stops for part in parts]),
            )
        values, _ = stack([part.pack().values for part in parts], name="parts")
        names = shared_names(parts, name="parts")
        bags = cls.from_lengths(values, np.concatenate([part.lengths for part in parts]))
        return bags._marked(parts[0].of_tensors, names)

    @property
    def shape(self):
        """``(n_bags,)``: to scikit-learn, a bag is a sample."""
        return self.starts.shape

    @property
    def lengths(self):
        """Number of descriptors of each bag, int64 of shape (n_bags,)."""
        return self.stops - self.starts

    @property
    def n_descriptors(self):
        """Number of descriptors of all bags together; repeated ones count each time."""
        return int(self.lengths.sum())

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
        ends = np.cumsum(self.lengths)
        for first in range(0, self.n_descriptors, n_rows):
            yield gather(self.values, self.starts, self.stops, ends, first, first + n_rows)

    def pack(self):
        """Return the same bags over values that hold their descriptors and no others.

        Returns
        -------
        bags : Bags
            Consecutive bags; `self` if they already are. The descriptors are copied unless they lie
            side by side in `values`, and read if they are in files.
        """
        ends = np.cumsum(self.lengths)
        values = gather(self.values, self.starts, self.stops, ends, 0, self.n_descriptors)
        is_packed = len(values) == len(self.values) and np.array_equal(ends, self.stops)
        if is_packed and not isinstance(self.values, FileRows | ShardedValues):
            return self
        packed = Bags(values, ends - self.lengths, ends)
        return packed._marked(self.of_tensors, self.feature_names)

    def __sizeof__(self):
        # Dask sends what is large once to a worker, not with every task
        arrays = (self.starts, self.stops)
        if not is_mapped(self.values):
            arrays += (self.values,)
        return super().__sizeof__() + sum(getattr(array, "nbytes", 0) for array in arrays)

    def __getstate__(self):
        source = self.pack() if self._is_small_part() else self
        values = by_path(source.values)
        return {
            "_file" if isinstance(values, MappedFile) else "values": values,
            "starts": source.starts,
            "stops": source.stops,
            "of_tensors": source.of_tensors,
            "feature_names": source.feature_names,
        }

    def _is_small_part(self):
        """Tell whether to pickle the descriptors of these bags alone, without the others."""
        if isinstance(self.values, ShardedValues) or has_path(self.values):
            return False  # which are sent as paths
        small = 2 * self.n_descriptors < len(self.values)
        if is_mapped(self.values):
            # joblib's workers open its own maps themselves; reading much of one is worse.
            n_bytes = self.n_descriptors * self.n_features * self.dtype.itemsize
            small &= n_bytes <= PACK_MAPPED_BYTES
        return small

    @functools.cached_property
    def values(self):
        """The descriptors of bags that were sent as the path of a file, opened when asked for."""
        return self._file.open()

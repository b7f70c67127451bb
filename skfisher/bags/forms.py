"""Bags from and to the forms that data come in: tables, groups, padded arrays, lists."""

import numpy as np

from skfisher.arrays.dense import as_dense
from skfisher.arrays.libraries import asarray, to_host
from skfisher.arrays.tensors import is_tensor
from skfisher.bags.feature_names import names_of
from skfisher.bags.file_rows import FileRows

__all__ = ["FormedBags"]


class FormedBags:
    """Base class of `Bags`, with the methods that make bags of other forms, and others of bags."""

    @classmethod
    def from_groups(cls, values, groups):
        """Make a bag of the descriptors of each group.

        Parameters
        ----------
        values : array or data frame of shape (n, n_features)
            The descriptors, in any order.
        groups : array-like of shape (n,)
            The group of each: numbers or strings.

        Returns
        -------
        bags : Bags
            In the order in which groups first appear. Descriptors keep their order within a bag,
            and are copied unless those of a group lie side by side.
        keys : ndarray of shape (n_bags,)
            The group that each bag is of.

        Raises
        ------
        TypeError
            If `values` are not real numbers.
        ValueError
            If there are not as many groups as descriptors, or if one is missing.

        Examples
        --------
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> bags, keys = Bags.from_groups(np.arange(8.0).reshape(4, 2), ["b", "a", "b", "b"])
        >>> keys
        array(['b', 'a'], dtype='<U1')
        >>> bags[0]
        array([[0., 1.],
               [4., 5.],
               [6., 7.]])
        """
        names, of_tensors = names_of(values, "values"), is_tensor(values)
        values, groups = as_dense(values, "values"), np.asarray(to_host(groups))
        if groups.ndim != 1 or len(groups) != len(values):
            raise ValueError(
                f"groups has shape {groups.shape}, but values has {len(values)} descriptors: one "
                "group for each is needed."
            )
        order, lengths, firsts = _grouped(_codes(groups, "groups"))
        if not (order[1:] > order[:-1]).all():
            values = values[asarray(order, like=values)]
        return cls.from_lengths(values, lengths)._marked(of_tensors, names), groups[firsts]

    @classmethod
    def from_frame(cls, frame, by, columns=None):
        """Make a bag of the rows of each group of a data frame.

        Parameters
        ----------
        frame : data frame of pandas or polars, or table of pyarrow
            One descriptor per row.
        by : str or list of str
            The columns that say which bag a row is of.
        columns : list of str, default=None
            The columns of the descriptors; by default all others.

        Returns
        -------
        bags : Bags
            In the order in which groups first appear, with the names of the columns.
        keys : ndarray of shape (n_bags,), or (n_bags, len(by)) of objects for a list
            The values of `by` for each bag.

        Raises
        ------
        KeyError
            If the frame has no column of a name.
        TypeError
            If descriptors are not real numbers.
        ValueError
            If a value of `by` is missing.

        See Also
        --------
        Bags.from_groups : Does the same for an array and the groups of its rows.

        Examples
        --------
        >>> import pandas as pd
        >>> from skfisher import Bags
        >>> frame = pd.DataFrame({"who": ["ann", "ann", "bob"], "x": [1.0, 2, 3], "y": [4.0, 5, 6]})
        >>> bags, keys = Bags.from_frame(frame, by="who")
        >>> keys.tolist(), bags.lengths.tolist()
        (['ann', 'bob'], [2, 1])
        """
        every = list(getattr(frame, "column_names", getattr(frame, "columns", ())))
        keys = [by] if isinstance(by, str) else list(by)
        columns = [name for name in every if name not in keys] if columns is None else list(columns)
        for name in (*keys, *columns):
            if name not in every:
                raise KeyError(f"the frame has no column {name!r}; it has {every}.")
        if not columns:
            raise ValueError(f"the frame has no column beside {keys}: there are no descriptors.")
        groups = [_column(frame, name) for name in keys]
        codes = _codes(groups[0], keys[0])
        for name, column in zip(keys[1:], groups[1:], strict=True):
            of_column = _codes(column, name)
            codes = np.unique(codes * (of_column.max() + 1) + of_column, return_inverse=True)[1]
        selected = frame.select(columns) if hasattr(frame, "select") else frame[columns]
        if not hasattr(selected, "columns") or hasattr(frame, "column_names"):  # of pyarrow
            selected = selected.to_pandas()
        bags, _ = cls.from_groups(selected, codes)
        _, _, firsts = _grouped(codes)
        found = [group[firsts] for group in groups]
        if isinstance(by, str):
            return bags, found[0]
        table = np.empty((len(firsts), len(keys)), dtype=object)
        for j, column in enumerate(found):
            table[:, j] = column
        return bags, table

    @classmethod
    def from_padded(cls, x, lengths=None, *, mask=None):
        """Make bags of an array in which all bags are padded to one length.

        Parameters
        ----------
        x : array of shape (n_bags, n_most, n_features)
        lengths : array-like of int of shape (n_bags,), default=None
            Number of descriptors in each bag, which come before the padding. Nothing is copied.
        mask : array of bool of shape (n_bags, n_most), default=None
            True for descriptors, False for padding; instead of `lengths`.

        Returns
        -------
        bags : Bags

        Raises
        ------
        TypeError
            If `mask` is not of booleans, `lengths` not of integers, or `x` not of real numbers.
        ValueError
            If shapes do not fit, or if both or none of `lengths` and `mask` are given.

        Examples
        --------
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> Bags.from_padded(np.zeros((2, 5, 3)), lengths=[5, 2])
        <Bags: n_bags=2, n_descriptors=7 (2 to 5 a bag), n_features=3, float64, cpu>
        """
        of_tensors, x = is_tensor(x), as_dense(x, "x")
        if x.ndim != 3:
            raise ValueError(f"x must have shape (n_bags, n_most, n_features), got {x.shape}.")
        if (lengths is None) == (mask is None):
            raise ValueError("pass either lengths or mask, to tell descriptors from padding.")
        n_bags, n_most, width = x.shape
        rows, starts = x.reshape(n_bags * n_most, width), np.arange(n_bags) * n_most
        if mask is None:
            lengths = _lengths(lengths, n_bags, n_most)
            return cls._checked(rows, starts, starts + lengths)._marked(of_tensors, None)
        mask = np.asarray(to_host(mask))
        if mask.dtype != np.bool_:
            raise TypeError(f"mask must be of booleans, got {mask.dtype}.")
        if mask.shape != (n_bags, n_most):
            raise ValueError(f"mask must have shape {(n_bags, n_most)}, got {mask.shape}.")
        lengths = mask.sum(axis=1)
        if (mask == (np.arange(n_most) < lengths[:, None])).all():
            return cls._checked(rows, starts, starts + lengths)._marked(of_tensors, None)
        rows = rows[asarray(np.flatnonzero(mask), like=rows)]
        return cls.from_lengths(rows, lengths)._marked(of_tensors, None)

    @classmethod
    def from_files(cls, paths, reader=None):
        """Make bags of many files, one bag each, which are opened when they are processed.

        In every pass, estimators read the files again, some bags at a time; there is never an array
        of all descriptors. To read them once, write ``Bags.from_files(paths).pack()``.

        Parameters
        ----------
        paths : iterable of str or path-like
            Files of arrays of shape (n_descriptors, n_features), all of one width and dtype.
        reader : callable, default=None
            Function that returns the array, or data frame, at a path. By default, ``.npy`` files
            are mapped into memory, and the single array in a ``.npz`` file is read.

        Returns
        -------
        bags : Bags
            Its `values` are not an array, but can be indexed by rows like one. They are passed to
            other processes as paths.

        Raises
        ------
        FileNotFoundError
            If a file does not exist.
        TypeError
            If `paths` are not paths.
        ValueError
            If a file cannot be read, holds no such array, or another width, dtype or other column
            names than the rest. The message names the file.

        See Also
        --------
        Bags.load : Bags of a folder that `save` wrote: one file, which is faster to read.

        Notes
        -----
        The headers of ``.npy`` and ``.npz`` files say how long bags are; with a `reader`, files are
        read once to find out. Do not change the files: one whose array has another shape or dtype
        when it is read again is refused.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from skfisher import Bags
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(3):
        ...         np.save(f"{folder}/{i}.npy", np.ones((2 + i, 4)))
        ...     Bags.from_files(sorted(Path(folder).glob("*.npy")))
        <Bags: n_bags=3, n_descriptors=9 (2 to 4 a bag), n_features=4, float64, cpu, memory-mapped>
        """
        rows = FileRows(paths, reader)
        return cls._of_lengths(rows, rows.lengths)._marked(False, rows.feature_names)

    def to_list(self):
        """Return the bags as a list of arrays.

        Returns
        -------
        bags : list of arrays of shape (n_descriptors, n_features)
            Views of `values`, unless these are in files.
        """
        return list(self)

    def to_frame(self, *, bag="bag"):
        """Return a pandas data frame with a row for each descriptor.

        Parameters
        ----------
        bag : str, default="bag"
            The name of the first column, which holds the number of the bag.

        Returns
        -------
        frame : pandas.DataFrame
        """
        import pandas as pd

        names = self.feature_names
        if names is None:
            names = [f"d{j}" for j in range(self.n_features)]
        frame = pd.DataFrame(to_host(self.pack().values), columns=list(names))
        frame.insert(0, bag, np.repeat(np.arange(len(self)), self.lengths))
        return frame


def _column(frame, name):
    column = frame[name]
    return np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)


def _codes(groups, name):
    """Return the number of each group, in the order of their values."""
    missing = groups != groups  # NaN
    if groups.dtype == object:
        missing = np.array([g is None or g != g for g in groups], dtype=bool)
    if groups.dtype.kind in "mM":
        missing = np.isnat(groups)
    if missing.any():
        raise ValueError(f"{name}[{int(np.argmax(missing))}] is missing: which bag is it of?")
    return np.unique(groups, return_inverse=True)[1].reshape(-1)


def _grouped(codes):
    """Return rows by group, in the order of first appearance; the sizes; the first row of each."""
    _, firsts, codes = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), dtype=np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    codes = rank[codes]
    return np.argsort(codes, kind="stable"), np.bincount(codes), np.sort(firsts)


def _lengths(lengths, n_bags, n_most):
    lengths = np.asarray(to_host(lengths))
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got {lengths.dtype}.")
    if lengths.shape != (n_bags,):
        raise ValueError(f"lengths must have shape {(n_bags,)}, got {lengths.shape}.")
    wrong = (lengths < 0) | (lengths > n_most)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"lengths[{i}] is {lengths[i]}, but there are {n_most} rows a bag.")
    return lengths.astype(np.int64)

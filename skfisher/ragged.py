"""Arithmetic of ragged arrays: many arrays stacked in one, with their boundaries."""

from numbers import Integral

import numpy as np
from scipy.sparse import issparse

from skfisher.backend import array_module, asarray, device_of, is_cupy, row_indices, to_host
from skfisher.tensors import as_array, is_tensor

__all__ = ["as_indices", "check_real", "gather", "nesting", "stack"]

INT64 = np.iinfo(np.int64)


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


def as_indices(x, name):
    """Return a copy of `x` as int64 array on the host, or say what `name` must be."""
    try:
        given, x = x, np.asarray(to_host(x))
        if x.dtype.kind == "f" and not hasattr(given, "dtype"):
            x = np.asarray(given, dtype=object)  # a list of large integers would round
    except (OverflowError, ValueError) as error:  # a ragged list, or numbers no array holds
        raise ValueError(f"{name} must be a one-dimensional list of integers: {error}") from error
    if x.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {x.shape}.")
    if x.size and x.dtype.kind == "O":
        for i, entry in enumerate(x):
            if not isinstance(entry, Integral) or isinstance(entry, bool | np.bool_):
                raise TypeError(f"{name} must be integers, but {name}[{i}] is {entry!r:.40}.")
    elif x.size and x.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {x.dtype}.")
    if x.size and x.dtype.kind in "Ou":  # what int64 does not hold would wrap around
        too_large = (x > INT64.max) | (x < INT64.min if x.dtype.kind == "O" else False)
        if too_large.any():
            i = int(too_large.argmax())
            raise ValueError(f"{name}[{i}] is {x[i]}, which does not fit into 64 bits.")
    return x.astype(np.int64)


def nesting(x):
    """Return the number of dimensions of an array or nested list, read off its first entries."""
    depth = 0
    while isinstance(x, list | tuple) and len(x):
        depth, x = depth + 1, x[0]
    return depth + getattr(x, "ndim", 0)


def stack(arrays, name="X"):
    """Stack arrays of shape (n_descriptors, n_features), copying them.

    Parameters
    ----------
    arrays : iterable of array-like
    name : str, default="X"
        Messages call the arrays X[0], X[1], and so on.

    Returns
    -------
    values : array of shape (n, n_features)
        Of the dtype that holds all, in the library the arrays are in.
    lengths : list of int

    Raises
    ------
    TypeError
        If an array is sparse or not made of real numbers, or if they are on different
        devices.
    ValueError
        If there are none, one is complex or not two-dimensional, or the widths differ.
    """
    arrays = [_as_bag(array, f"{name}[{i}]") for i, array in enumerate(arrays)]
    if not arrays:
        raise ValueError("The list holds no bags: at least 1 is needed to know the width.")
    first = arrays[0]
    for i, array in enumerate(arrays):
        if array.shape[1] != first.shape[1]:
            raise ValueError(
                f"{name}[{i}] has {array.shape[1]} features per descriptor, "
                f"but {name}[0] has {first.shape[1]}: all bags must have the same width."
            )
        if is_cupy(array) != is_cupy(first):
            raise TypeError(
                f"{name}[{i}] is a {array_module(array).__name__} array, but {name}[0] is a "
                f"{array_module(first).__name__} array: keep all bags on one device."
            )
        if is_cupy(first) and array.device != first.device:
            raise TypeError(
                f"{name}[{i}] is on {array.device}, but {name}[0] is on {first.device}: keep all "
                "bags on one device."
            )
    with device_of(first):
        return array_module(first).concatenate(arrays), [len(array) for array in arrays]


def _as_bag(array, name):
    if issparse(array):
        raise TypeError(f"{name} is sparse: bags must be dense, write {name}.toarray().")
    if is_tensor(array):
        array = as_array(array, name)
    if not is_cupy(array):
        try:
            array = np.asarray(array)
        except ValueError as error:  # a ragged nested list
            raise ValueError(f"{name} is not a rectangular array: {error}") from error
    if array.shape == (0,):
        raise ValueError(
            f"{name} is empty: every bag needs at least 1 descriptor. "
            "Drop it, or give it a zero descriptor."
        )
    check_real(array, name)
    if array.ndim != 2:
        hint = f" For a bag of one descriptor, write {name}[None, :]." if array.ndim == 1 else ""
        raise ValueError(
            f"{name} has shape {array.shape}, but a bag is a two-dimensional array of shape "
            f"(n_descriptors, n_features).{hint}"
        )
    return array


def gather(values, starts, stops, ends, first, last):
    """Return descriptors first to last of all bags, counted bag after bag.

    Parameters
    ----------
    values : array of shape (n, n_features)
    starts, stops : ndarray of shape (n_bags,)
        Where each bag lies in `values`.
    ends : ndarray of shape (n_bags,)
        Where each bag ends in the count: ``np.cumsum(stops - starts)``.
    first, last : int

    Returns
    -------
    rows : array of shape (at most last - first, n_features)
        A view where the descriptors lie side by side in `values`, else a copy.
    """
    i, j = np.searchsorted(ends, first, "right"), np.searchsorted(ends, last, "left") + 1
    starts, stops, ends = starts[i:j].copy(), stops[i:j].copy(), ends[i:j]
    if len(starts):
        # Cut the outer two bags; `ends` tells where they stop in the order of all bags.
        starts[0] += max(0, first - (ends[0] - (stops[0] - starts[0])))
        stops[-1] -= max(0, ends[-1] - last)
    filled = stops > starts
    starts, stops = starts[filled], stops[filled]
    with device_of(values):
        if len(starts) == 0:
            return values[:0]
        if np.array_equal(starts[1:], stops[:-1]):
            return values[starts[0] : stops[-1]]
        return values[asarray(row_indices(starts, stops), like=values)]

"""Arithmetic of ragged arrays: many arrays stacked in one, with their boundaries."""

from numbers import Integral

import numpy as np

from skfisher.arrays.dense import as_dense, check_unmasked, listed, nesting, no_array, odd_one_out
from skfisher.arrays.exact import check_exact
from skfisher.arrays.libraries import (
    array_module,
    asarray,
    device_of,
    is_cupy,
    row_indices,
    to_host,
)

__all__ = ["as_indices", "gather", "stack"]

INT64 = np.iinfo(np.int64)


def as_indices(x, name):
    """Return a copy of `x` as int64 array on the host, or say what `name` must be."""
    if not hasattr(x, "dtype"):
        x = listed(x, name, of="integers")
    check_unmasked(x, name)
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


def stack(arrays, name="X", *, n_features=None):
    """Stack arrays of shape (n_descriptors, n_features), copying them.

    Parameters
    ----------
    arrays : iterable of array-like
    name : str, default="X"
        Messages call the arrays X[0], X[1], and so on.
    n_features : int, default=None
        The width that is wanted; where widths differ, messages blame an array of another one.
        By default one of another width than most.

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
        If there are none, one is complex or not two-dimensional, has masked entries, or if
        the widths differ.
    """
    arrays = [_as_bag(array, f"{name}[{i}]") for i, array in enumerate(arrays)]
    if not arrays:
        raise ValueError("The list holds no bags: at least 1 is needed to know the width.")
    places = [array.device if is_cupy(array) else None for array in arrays]
    odd, usual = odd_one_out([str(place) for place in places])
    if odd is not None:
        found, wanted = (
            f"on {places[i]}" if is_cupy(arrays[odd]) and is_cupy(arrays[usual])
            else f"a {array_module(arrays[i]).__name__} array"
            for i in (odd, usual)
        )  # fmt: skip
        raise TypeError(
            f"{name}[{odd}] is {found}, but {name}[{usual}] is {wanted}: keep all bags on one "
            "device."
        )
    odd, usual = odd_one_out([array.shape[1] for array in arrays], n_features)
    if odd is not None:
        raise ValueError(
            f"{name}[{odd}] has {arrays[odd].shape[1]} features per descriptor, but "
            f"{name}[{usual}] has {arrays[usual].shape[1]}: all bags must have the same width."
        )
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1 and np.result_type(*dtypes).kind == "f":
        for i, array in enumerate(arrays):
            check_exact(array, f"{name}[{i}]")
    with device_of(arrays[0]):
        xp = array_module(arrays[0])
        # of frames, whose columns lie side by side, NumPy makes an array that does so too
        values = xp.ascontiguousarray(xp.concatenate(arrays))
    return values, [len(array) for array in arrays]


def _as_bag(array, name):
    shape = "a bag is a two-dimensional array of shape (n_descriptors, n_features)"
    if array is None or (nesting(array) == 0 and not hasattr(array, "__len__")):
        raise no_array(array, name, shape)
    array = as_dense(array, name)
    if array.shape in ((0,), (0, 0)):
        raise ValueError(
            f"{name} is empty: every bag needs at least 1 descriptor. "
            "Drop it, or give it a zero descriptor."
        )
    if array.ndim != 2:
        hint = ""
        if array.ndim == 1:
            hint = f" For a bag of one descriptor, write {name}[None, :]."
        elif array.ndim == 3 and len(array) == 1:
            hint = f" Write {name}[0]."
        elif array.ndim == 3 and array.shape[2] == 1:
            hint = f" Write {name}[:, :, 0]."
        elif array.ndim == 3:
            hint = f" If it is bags of one size, pass it by itself, or *{name} in the list."
        raise ValueError(f"{name} has shape {array.shape}, but {shape}.{hint}")
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
    if len(starts) == 1:
        start = int(starts[0])
        with device_of(values):
            return values[start + first : min(start + last, int(stops[0]))]
    i, j = ends.searchsorted(first, "right"), ends.searchsorted(last, "left") + 1
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
        n = int((stops - starts).sum())
        if isinstance(values, np.ndarray) and n >= 8 * len(starts):  # else one gather is faster
            runs = zip(starts.tolist(), stops.tolist(), strict=True)
            return np.concatenate([values[start:stop] for start, stop in runs])
        return values[asarray(row_indices(starts, stops), like=values)]

"""Integers that float64, in which they are computed, does not hold: refused, never rounded."""

import numpy as np

__all__ = ["check_columns", "check_entries", "check_exact", "first_inexact", "inexact"]

# Up to here every integer is a float64 number.
LARGEST = 2**53


def check_exact(array, name):
    """Refuse integers that are not all float64 numbers, in which they would be computed.

    Parameters
    ----------
    array : array
    name : str
        What the message calls it.

    Raises
    ------
    ValueError
        Where one lies beyond 2**53.
    """
    where = first_inexact(array)
    if where is not None:
        raise inexact(array[where], f"{name}{list(where)}")


def first_inexact(array):
    """Return the place of the first integer beyond 2**53 in an array, or None."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8 or array.size == 0:
        return None
    if int(array.max()) <= LARGEST and int(array.min()) >= -LARGEST:
        return None
    beyond = array > LARGEST
    if array.dtype.kind == "i":
        beyond |= array < -LARGEST
    return tuple(int(i) for i in np.unravel_index(int(beyond.argmax()), array.shape))


def inexact(value, place):
    """Return the error that says what an integer beyond 2**53 is, and where."""
    return ValueError(
        f"{place} is {int(value)}: integers beyond 2**53 are not all float64 numbers, and would be "
        "rounded. Subtract what they have in common, or write .astype(np.float64) if the last "
        "digits do not matter."
    )


def check_columns(x, name):
    """Refuse a data frame or series of pandas or polars that float64 does not hold."""
    for j, column in enumerate(_columns_of_integers(x)):
        where = None if column is None else first_inexact(column)
        if where is not None:
            raise inexact(column[where], f"{name}{[*where, j] if len(x.shape) == 2 else [*where]}")


def _columns_of_integers(x):
    """Yield the columns of integers as arrays, 0 where one is missing, and None for others."""
    if hasattr(x, "get_columns"):  # polars
        for column in x.get_columns():
            yield column.fill_null(0).to_numpy() if column.dtype.is_integer() else None
        return
    for column in [x.iloc[:, j] for j in range(x.shape[1])] if x.ndim == 2 else [x]:
        dtype = getattr(column.dtype, "numpy_dtype", column.dtype)
        yield column.to_numpy(dtype=dtype, na_value=0) if dtype.kind in "iu" else None


def check_entries(entries, floats, name):
    """Refuse objects, an array or nested lists, that are integers and were rounded."""
    for where in np.argwhere(np.abs(floats) >= LARGEST).tolist():
        entry = entries
        for i in where:
            entry = entry[i]
        if isinstance(entry, int | np.integer) and abs(int(entry)) > LARGEST:
            raise inexact(entry, f"{name}{where}")

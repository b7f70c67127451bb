"""Dense arrays of real numbers, read from whatever has a rectangular form."""

from array import array as Buffer
from collections import Counter
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Set,
    ValuesView,
)
from numbers import Number

import numpy as np
from scipy.sparse import issparse

from skfisher.arrays.exact import check_columns, check_entries
from skfisher.arrays.libraries import is_cupy
from skfisher.arrays.tensors import as_array, is_tensor

__all__ = [
    "as_dense",
    "as_numpy",
    "check_real",
    "check_unmasked",
    "describe",
    "listed",
    "nesting",
    "no_array",
    "odd_one_out",
]


def as_dense(x, name="X"):
    """Read anything rectangular as an array of real numbers.

    Parameters
    ----------
    x : array, tensor, data frame or nested list
        Columns of pandas' own dtypes, booleans among numbers, and objects that are numbers are
        read as scikit-learn reads them in a table; what is missing there becomes NaN.
    name : str, default="X"
        What messages call it.

    Returns
    -------
    array : NumPy or CuPy array
        Not copied where it is an array already.

    Raises
    ------
    TypeError
        If it is sparse, or not made of numbers.
    ValueError
        If it is ragged, complex, a masked array with masked entries, or holds integers that
        would be rounded to be read.
    """
    if type(x) is np.ndarray and x.dtype.kind in "biuf":
        return x
    if issparse(x):
        raise TypeError(
            f"Sparse data was passed: {name} is sparse, but a dense array is needed. Write "
            f"{name}.toarray()."
        )
    if x is None or isinstance(x, str | bytes | Mapping | Set | Iterator) or describe(x) == "Bags":
        raise no_array(x, name, "an array of real numbers is needed")
    if is_tensor(x):
        x = as_array(x, name)
    elif not is_cupy(x):
        x = as_numpy(x, name)
    if x.dtype.kind == "O":
        x = _as_floats(x, name)
    check_real(x, name)
    return x


def as_numpy(x, name="X"):
    """Return a NumPy array of something on the host, of objects where NumPy has no dtype for it.

    Parameters
    ----------
    x : array-like
    name : str
        What messages call it.

    Raises
    ------
    TypeError
        If NumPy cannot read it.
    ValueError
        If it is ragged, or a masked array with masked entries.
    """
    if type(x) is np.ndarray:
        return x
    check_unmasked(x, name)
    if isinstance(x, np.memmap):
        return x
    if _is_sequence(x) and not isinstance(x, list | tuple | Buffer):
        x = list(x)  # NumPy reads few others
    dtype = _numpy_dtype(x)
    if dtype is not None:
        if dtype.kind != "f":
            return x.to_numpy(dtype=dtype)
        check_columns(x, name)
        return x.to_numpy(dtype=dtype, na_value=np.nan)
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from error
    except (NotImplementedError, TypeError) as error:
        raise TypeError(f"{name} is {describe(x)}, which is not an array: {error}") from error
    if array.dtype == np.float64 and isinstance(x, list | tuple):
        check_entries(x, array, name)
    if array.dtype == np.float64 and hasattr(x, "get_columns"):
        check_columns(x, name)
    return array


def _is_sequence(x):
    """Tell whether `x` holds members in order, and is no array, nor one in disguise."""
    return isinstance(x, Sequence | ValuesView) and not (
        isinstance(x, str | bytes) or hasattr(x, "shape")
    )


def _numpy_dtype(x):
    """Return the dtype that holds a data frame or series of pandas' own dtypes, else None."""
    dtypes = getattr(x, "dtypes", None)
    dtypes = [dtypes] if not isinstance(dtypes, Iterable) else list(dtypes)
    plain = [getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes]
    if not plain or not all(isinstance(d, np.dtype) and d.kind in "buif" for d in plain):
        return None
    if len(set(dtypes)) == 1 and plain[0] is dtypes[0]:
        return None  # as NumPy reads it, without a copy
    dtype = np.result_type(*plain)
    if dtype.kind != "f" and np.asarray(x.isna()).any():
        dtype = np.dtype(np.float64)
    return dtype


def _as_floats(x, name):
    try:
        floats = x.astype(np.float64)
    except (TypeError, ValueError) as error:
        floats = _one_by_one(x, name, error)
    check_entries(x, floats, name)
    return floats


def _one_by_one(x, name, fault):
    """Return objects as floats, NaN for what is missing, or name the one that is no number."""
    floats = np.empty(x.shape)
    for where in np.ndindex(x.shape):
        entry = x[where]
        if isinstance(entry, complex | np.complexfloating):
            raise ValueError(f"Complex data not supported: {name} holds {entry!r}.") from fault
        try:
            floats[where] = np.nan if _is_missing(entry) else entry
        except (TypeError, ValueError) as error:
            place = f" at {list(where)}" if where else ""
            raise TypeError(
                f"{name} has dtype object and is not all numbers: it holds {describe(entry)}"
                f"{place}, but real numbers are needed ({error})."
            ) from error
    return floats


def _is_missing(entry):
    """Tell whether an entry is pandas' NA, or another that is not known to equal itself."""
    if hasattr(entry, "__len__"):
        return False
    equal = entry == entry
    return not isinstance(equal, bool | np.bool_) or not equal


def check_real(array, name):
    """Refuse an array that is not made of real numbers that NumPy computes with.

    Parameters
    ----------
    array : array
    name : str
        What the message calls it.

    Raises
    ------
    TypeError
        If the dtype is object, string, date, structured, or one that another package added.
    ValueError
        If the dtype is complex.
    """
    dtype = array.dtype
    if dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {dtype}.")
    if dtype.kind in "buif" and dtype.isbuiltin != 2:
        return
    if dtype.names is not None:
        remedy = f"numpy.lib.recfunctions.structured_to_unstructured({name}).astype(np.float64)"
    elif dtype.isbuiltin == 2:
        remedy = f"{name}.astype(np.float32)"
    elif dtype.kind in "mM":
        remedy = f"{name}.astype(np.int64)"
    else:
        remedy = f"{name}.astype(np.float64)"
    raise TypeError(
        f"{name} has dtype {dtype}, but real numbers are needed: if that is what it holds, write "
        f"{remedy}."
    )


def check_unmasked(x, name):
    """Refuse masked arrays, also inside of lists, in which an entry is masked.

    Parameters
    ----------
    x : object
    name : str
        What the message calls it.

    Raises
    ------
    ValueError
        Where an entry is masked: what lies below a mask is no data.
    """
    if isinstance(x, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(x)
        if mask.dtype.names is None and mask.any():
            where = [int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape)]
            if where and not name.endswith("]"):
                name, where = f"{name}[{where[0]}]", where[1:]
            place = f" at {where}" if where else ""
            raise ValueError(
                f"{name} is masked{place}: masked entries are missing values. Leave them out, or "
                "fill them, for instance by .filled(0)."
            )
    elif isinstance(x, list | tuple):
        for i, member in enumerate(x):
            if isinstance(member, np.ma.MaskedArray | list | tuple):
                check_unmasked(member, f"{name}[{i}]")


def describe(x):
    """Say in a few words what an object is: None, empty, or of which type."""
    if x is None or x is np.ma.masked:
        return "None" if x is None else "masked"
    if isinstance(x, str | bytes | Number):
        return f"{x!r:.40}"
    kind = type(x).__name__
    if kind == "Bags":
        return kind
    return f"an {kind}" if kind[0] in "AEIOUaeiou" or kind[:2] == "nd" else f"a {kind}"


def no_array(x, name, wanted):
    """Return the error for something that is no array, with what to do about it if that is known.

    Parameters
    ----------
    x : object
    name : str
        What the message calls it.
    wanted : str
        A clause, such as "an image is an array of shape (height, width)".
    """
    remedy, is_member = "", name.endswith("]")
    if hasattr(x, "collect"):  # a data frame that is computed when it is asked for
        remedy = f" Write {name}.collect()."
    elif isinstance(x, Iterator):
        remedy = f" Write list({name})."
    elif isinstance(x, Mapping) and x and is_member:
        remedy = f" If it holds columns, write np.column_stack(list({name}.values()))."
    elif describe(x) == "Bags" and is_member:
        remedy = f" To add its bags to the list, write *{name}."
    elif _stands_for_nothing(x) and is_member:
        remedy = " Drop it."
    return TypeError(f"{name} is {describe(x)}, but {wanted}.{remedy}")


def _stands_for_nothing(x):
    if x is None or x is np.ma.masked:
        return True
    if hasattr(x, "__len__"):
        return getattr(x, "shape", None) != () and len(x) == 0
    return not hasattr(x, "__array__") and _is_missing(x)


def _as_list_of(x, name):
    """Return what to write for a list of what can only be iterated over; "" if it has no order."""
    if "GroupBy" in type(x).__name__:
        return f"[group for _, group in {name}]"
    if isinstance(x, ItemsView):
        return f"[value for _, value in {name}]"
    if isinstance(x, Set) and not isinstance(x, KeysView):
        return ""
    return f"list({name})"


def listed(x, name="X", *, of="2-D arrays, one per bag"):
    """Return a container of samples as a list; arrays and tables, which are no such, as they are.

    Parameters
    ----------
    x : object
        Sequences such as a deque, and the values of a dict or of a group in an HDF5 file, are
        containers; so are one-dimensional arrays of objects, and series of arrays or of lists.
    name : str, default="X"
        What messages call it.
    of : str
        What messages ask for a list of.

    Raises
    ------
    TypeError
        If it is something to iterate over that has no order, no length, or keys.
    """
    if type(x) is list or (type(x) is np.ndarray and x.dtype.kind in "biuf"):
        return x
    if isinstance(x, list | tuple | str | bytes) or issparse(x):
        return x
    if isinstance(x, Mapping):
        raise _no_list(x, name, of, f"list({name}.values())")
    if _is_sequence(x):
        return list(x)
    shape = getattr(x, "shape", None)
    if shape is None and isinstance(x, Iterable) and not hasattr(x, "__array__"):
        raise _no_list(x, name, of, _as_list_of(x, name))
    if hasattr(x, "to_numpy_ndarray"):  # tensors of one shape, which Arrow keeps flat
        return x.to_numpy_ndarray()
    if not isinstance(x, np.ndarray):
        for to_list in ("to_list", "to_pylist"):  # of pandas and Polars, and of Arrow
            if hasattr(x, to_list) and len(shape or [0]) == 1:
                if getattr(getattr(x, "dtype", None), "kind", "O") == "O":
                    return getattr(x, to_list)()
                return x
    if shape is not None and len(shape) == 1 and getattr(x.dtype, "kind", "O") == "O":
        return list(x)
    return x


def _no_list(x, name, of, remedy):
    also = f", such as {remedy}" if remedy else ""
    return TypeError(f"{name} is {describe(x)}: pass a list of {of}{also}.")


def nesting(x):
    """Return the number of dimensions of an array or nested list, read off its first entries."""
    depth = 0
    while _is_sequence(x) and not isinstance(x, ValuesView):
        depth += 1
        if not len(x):
            break
        x = x[0]
    shape = getattr(x, "shape", None)
    if shape is None and hasattr(x, "__array__"):
        try:
            shape = np.shape(x)
        except Exception:  # of another package, that this is no array after all
            shape = ()
    return depth + len(shape or ())


def odd_one_out(found, wanted=None):
    """Find an entry that is not like most of a list.

    Parameters
    ----------
    found : list of hashable
    wanted : object, default=None
        What entries should be; where none is, and by default, what most of them are.

    Returns
    -------
    odd, usual : int
        The first entry that is not, and the first that is; None, None if all are alike.
    """
    counts = Counter(found)
    if len(counts) < 2:
        return None, None
    if wanted not in counts:
        wanted = counts.most_common(1)[0][0]
    odd = next(i for i, value in enumerate(found) if value != wanted)
    return odd, found.index(wanted)

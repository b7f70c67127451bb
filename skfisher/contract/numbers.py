"""Numbers to be predicted of bags, read and checked."""

from numbers import Real

import numpy as np

from skfisher.contract.labels import as_target_array

__all__ = ["read_numbers"]

# The largest number whose square, and the sum of many, is finite.
LARGEST = 1e150


def read_numbers(y, n_bags=None, *, name="y"):
    """Read the numbers that are to be predicted.

    Parameters
    ----------
    y : array-like of shape (n_bags,) or (n_bags, n_targets)
    n_bags : int, optional
        How many there must be.
    name : str
        Of `y` in messages.

    Returns
    -------
    y : float64 array of the shape of `y`

    Raises
    ------
    TypeError
        If `y` has no order.
    ValueError
        If there are no numbers, or not one for each bag, or if some are missing, not finite, or
        too large to be squared.
    """
    if y is None:
        raise ValueError(f"requires y to be passed, but the target {name} is None")
    y = as_target_array(y, name, "numbers")
    if y.ndim == 0 or (n_bags is not None and len(y) != n_bags):
        found = "a single value" if y.ndim == 0 else f"{len(y)} values"
        raise ValueError(
            f"{name} has {found}, but X has {n_bags} bags: give one number per bag, or a row of "
            "numbers."
        )
    if y.ndim > 2 or y.size == 0:
        raise ValueError(
            f"{name} has shape {y.shape}, but (n_bags,) or (n_bags, n_targets) is needed."
        )
    if y.dtype.kind == "O":
        y = _of_objects(y, name)
    if y.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {y.dtype}.")
    if y.dtype.kind not in "iuf":
        kind = {"b": "booleans", "U": "strings", "T": "strings", "S": "bytes"}
        raise ValueError(
            f"{name} holds {kind.get(y.dtype.kind, y.dtype)}, but a regressor needs numbers: for "
            f"classes take JointClassifier, or write {name}.astype(float)."
        )
    y = y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~(abs(y) < LARGEST)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        value = y[place]
        found = "NaN" if np.isnan(value) else "infinity" if np.isinf(value) else f"{value:g}"
        wanted = f"numbers must be smaller than {LARGEST:g}. Take another unit."
        if not np.isfinite(value):
            wanted = "every bag needs a finite number. Drop bags without one."
        raise ValueError(f"{_entry(name, place)} is {found}: {wanted}")
    return y


def _of_objects(y, name):
    """Return objects that are numbers as floats."""
    for place in np.ndindex(y.shape):
        value = y[place]
        if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
            wanted = "every bag needs a number"
            if isinstance(value, str | bytes):
                wanted = "a regressor needs numbers; for classes take JointClassifier"
            raise ValueError(f"{_entry(name, place)} is {value!r}: {wanted}.")
    return y.astype(np.float64)


def _entry(name, place):
    return f"{name}[{', '.join(map(str, place))}]"

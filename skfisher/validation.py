"""Every error about the input, raised before any work.

A message names the sample, what was found, what was wanted, and the way out.
"""

import numpy as np
from sklearn import config_context
from sklearn.utils.validation import check_array, validate_data

from skfisher.backend import array_module, device_of, finished, is_cupy
from skfisher.bags import Bags
from skfisher.ragged import check_real, nesting

__all__ = ["check_bags", "check_table"]

FINITE_BLOCK_BYTES = 2**23
DEVICE_BLOCK_BYTES = 2**28


def check_bags(estimator, X, *, reset, min_descriptors=1):
    """Read the input of an estimator as bags, or say what is wrong with it.

    Parameters
    ----------
    estimator : estimator instance
        Named in messages. Its `n_features_in_`, `feature_names_in_` and
        `_fit_on_bags` are set if `reset`, else compared with.
    X : Bags, list of arrays, 3-D array, 2-D array or DataFrame
        As a list, tuple or one-dimensional object array of arrays of shape
        (n_descriptors, n_features): one bag each. As an array of shape
        (n_bags, n_descriptors, n_features): bags of one size, not copied if contiguous.
        As an array of shape (n, n_features) or a DataFrame: n bags of one descriptor.
    reset : bool
        True in `fit`, False in methods that need a fitted estimator.
    min_descriptors : int, default=1
        How many descriptors all bags together must have.

    Returns
    -------
    bags : Bags
        The values are finite, and of any real dtype up to float64; they are not
        converted, so that memory maps stay on disk.

    Raises
    ------
    TypeError
        If `X` holds sparse matrices, strings, objects or other things than numbers.
    ValueError
        If there is no bag, a bag is empty, not two-dimensional or of another width than the
        rest or than at `fit`, if there are complex numbers, NaN or infinity, or too
        few descriptors, or if `X` is 2-D although the estimator was fitted on bags.
    """
    on_bags = True
    if isinstance(X, Bags):
        bags = X
    else:
        members = _as_members(X)
        if members is not None:
            bags = Bags.from_list(members)
        elif getattr(X, "ndim", 0) == 3:
            bags = _cut_cube(X)
        else:
            on_bags = False
            bags = _cut_rows(estimator, X, reset)
    if bags.dtype.kind == "f" and bags.dtype.itemsize > 8:
        bags = Bags(bags.values.astype(np.float64), bags.starts, bags.stops)

    name = type(estimator).__name__
    if on_bags:
        _check_shape(bags, estimator, reset)
    n_descriptors = int(bags.lengths.sum())
    if n_descriptors < min_descriptors:
        who, remedy = name, "pass more data"
        if getattr(estimator, "n_components", None) == min_descriptors:
            who, remedy = f"n_components={min_descriptors}", f"lower n_components or {remedy}"
        raise ValueError(
            f"{who} needs at least {min_descriptors} descriptors to fit, got "
            f"{n_descriptors} in n_samples={len(bags)} bags: {remedy}."
        )
    with device_of(bags.values):
        _check_finite(bags)
    # Names and width; `values` stand for bags, whose features have no names.
    validate_data(estimator, bags.values if on_bags else X, reset=reset, skip_check_array=True)
    if reset:
        estimator._fit_on_bags = on_bags
    return bags


def check_table(estimator, X, y="no_validation", *, reset):
    """Read the input of an estimator of vectors: float32 or float64, finite, two-dimensional.

    As scikit-learn's ``validate_data``, which reads arrays on the host; on a device the same
    holds, and nothing leaves it.

    Parameters
    ----------
    estimator : estimator instance
    X : array-like of shape (n_samples, n_features)
    y : array-like, optional
        Labels; checked and dropped.
    reset : bool
        True in `fit`.

    Returns
    -------
    X : array of shape (n_samples, n_features)
    """
    if not is_cupy(X):
        options = {"reset": reset, "dtype": [np.float64, np.float32]}
        if isinstance(y, str):
            return validate_data(estimator, X, **options)
        return validate_data(estimator, X, y, multi_output=True, **options)[0]
    if X.ndim != 2:
        raise ValueError(f"X must be of shape (n_samples, n_features), got {X.shape}.")
    if 0 in X.shape:
        raise ValueError(
            f"X holds {X.shape[0]} sample(s) of {X.shape[1]} feature(s): at least 1 is required."
        )
    check_real(X, "X")
    X = X.astype(np.float32 if X.dtype == np.float32 else np.float64, copy=False)
    bad = ~array_module(X).isfinite(X).all(axis=1)
    if bad.any():
        raise ValueError(f"X[{int(bad.argmax())}] contains NaN or infinity.")
    return validate_data(estimator, X, reset=reset, skip_check_array=True)


def _as_members(X):
    """Return the list of bags that `X` is, or None if it is no such list."""
    if hasattr(X, "__next__") or type(X) in (dict, set):  # DOK matrices are dicts too
        raise TypeError(f"X is a {type(X).__name__}: pass a list of 2-D arrays, one per bag.")
    ndim = getattr(X, "ndim", None)
    if ndim == 1 and X.dtype.kind == "O":
        X = list(X)
    if not isinstance(X, list | tuple):
        return None
    if len(X) == 0:
        raise ValueError("X holds 0 sample(s): a minimum of 1 bag is required.")
    depths = {nesting(member) for member in X}
    if max(depths) >= 2:
        return X
    if depths == {1}:
        widths = [len(row) for row in X]
        for i, width in enumerate(widths):
            if width != widths[0]:
                raise ValueError(
                    f"X[{i}] has length {width}, but X[0] has {widths[0]}: a list of rows is "
                    "read as a 2-D array. To pass bags, make every member a 2-D array of "
                    "shape (n_descriptors, n_features)."
                )
    return None


def _cut_cube(X):
    if not is_cupy(X):
        X = np.asarray(X)
    if X.dtype == object:  # NumPy makes it of a list of equally long arrays
        try:
            X = X.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"X has dtype object and is not all numbers: {error}") from error
    check_real(X, "X")
    n_bags, n_descriptors, n_features = X.shape
    lengths = np.full(n_bags, n_descriptors)
    return Bags.from_lengths(X.reshape(n_bags * n_descriptors, n_features), lengths)


def _cut_rows(estimator, X, reset):
    """Read a 2-D array or DataFrame as bags of one descriptor, by scikit-learn's rules."""
    name = type(estimator).__name__
    if getattr(X, "ndim", 0) > 3:
        raise ValueError(
            f"X has {X.ndim} dimensions, but {name} takes bags: a list of 2-D arrays of shape "
            "(n_descriptors, n_features), or a 3-D array of bags of one size."
        )
    if not is_cupy(X):
        # Off, as check_array would else return arrays of other libraries as they are.
        with config_context(array_api_dispatch=False):
            X = check_array(X, ensure_all_finite=False, input_name="X", estimator=estimator)
    elif X.ndim < 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data using "
            "X.reshape(-1, 1) if it has one feature, or X.reshape(1, -1) if it is one sample."
        )
    if not reset and getattr(estimator, "_fit_on_bags", False):
        raise ValueError(
            f"X is two-dimensional, but {name} was fitted on bags: write [X] if X is one bag, "
            "or X[:, None, :] if each row is a bag of one descriptor."
        )
    return Bags.from_lengths(X, np.ones(len(X), dtype=np.int64))


def _check_shape(bags, estimator, reset):
    name = type(estimator).__name__
    if len(bags) == 0:
        raise ValueError(f"X holds 0 sample(s): {name} needs a minimum of 1 bag.")
    if bags.n_features == 0:
        raise ValueError(f"X has 0 feature(s) per descriptor: {name} needs a minimum of 1.")
    empty = bags.lengths == 0
    if empty.any():
        raise ValueError(
            f"X[{empty.argmax()}] is empty: every bag needs at least 1 descriptor. "
            "Drop it, or give it a zero descriptor."
        )
    wanted = bags.n_features if reset else getattr(estimator, "n_features_in_", bags.n_features)
    if bags.n_features != wanted:
        raise ValueError(
            f"X[0] has {bags.n_features} features per descriptor, but {name} is expecting "
            f"{wanted} features as input: it was fitted on descriptors of that width."
        )


def _check_finite(bags):
    """Refuse NaN and infinity, looking at the descriptors of the bags alone."""
    if bags.dtype.kind != "f":
        finished(bags.values)  # as floats are when looked at; threads may read them now
        return
    xp = array_module(bags.values)
    # on the host what fits the cache, on a device what makes few of them
    block_bytes = DEVICE_BLOCK_BYTES if is_cupy(bags.values) else FINITE_BLOCK_BYTES
    n_rows = max(1, block_bytes // (bags.n_features * bags.dtype.itemsize))
    # A sum is finite only if all its terms are; it is several times as fast as looking
    # at each, which is left for sums that overflow. float16 sums would do so at once.
    wide = np.float32 if bags.dtype.itemsize == 2 else None
    first = 0
    for block in bags.blocks(n_rows):
        with np.errstate(over="ignore", invalid="ignore"):
            total = block.sum(dtype=wide)
        if not xp.isfinite(total):
            bad = ~xp.isfinite(block)
            if bad.any():
                row = int(bad.any(axis=1).argmax())
                what = "NaN" if xp.isnan(block[row]).any() else "infinity"
                stops = np.cumsum(bags.lengths)
                i = int(np.searchsorted(stops, first + row, side="right"))
                descriptor = first + row - int(stops[i] - bags.lengths[i])
                raise ValueError(f"X[{i}] contains {what} in descriptor {descriptor}.")
        first += n_rows

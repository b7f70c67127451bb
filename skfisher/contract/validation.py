"""Every error about the input, raised before any work.

A message names the sample, what was found, what was wanted, and the way out.
"""

import math
from numbers import Number

import numpy as np
from sklearn.utils.validation import check_array

from skfisher.arrays.dense import as_dense, describe, listed, nesting, no_array, odd_one_out
from skfisher.arrays.exact import check_exact, first_inexact, inexact
from skfisher.arrays.libraries import array_module, device_of, finished, is_cupy
from skfisher.arrays.stacked import Stacked
from skfisher.bags.bags import Bags
from skfisher.bags.feature_names import check_features, names_of
from skfisher.bags.sharded_values import ShardedValues
from skfisher.contract.extremes import place_of
from skfisher.process_state import configured

__all__ = ["check_bags", "check_table"]

FINITE_BLOCK_BYTES = 2**23
DEVICE_BLOCK_BYTES = 2**28
STACKED_BLOCK_BYTES = 2**18
# Arrays of a list that have so many numbers are looked at one by one; and arrays up to this size,
# also beyond the one bag that is in them.
ONE_BY_ONE, SMALL = 2**10, 2**13
UNTRANSFORMED = (
    " If it came through a pipeline, the steps before have not transformed it: write "
    "sklearn.set_config(enable_metadata_routing=True) and make_pipeline(..., "
    "model.set_fit_request(X_val=True, y_val=True), transform_input=['X_val'])."
)


def check_bags(estimator, X, *, reset, min_descriptors=1, name="X", copy=True):
    """Read the input of an estimator as bags, or say what is wrong with it.

    Parameters
    ----------
    estimator : estimator instance
        Named in messages. Its `n_features_in_`, `feature_names_in_` and
        `_fit_on_bags` are set if `reset`, else compared with.
    X : Bags, list of arrays, 3-D array, 2-D array or DataFrame
        As a list, tuple or one-dimensional object array of arrays or data frames of shape
        (n_descriptors, n_features): one bag each. As an array of shape
        (n_bags, n_descriptors, n_features): bags of one size, not copied if contiguous.
        As an array of shape (n, n_features) or a DataFrame: n bags of one descriptor.
    reset : bool
        True in `fit`, False in methods that need a fitted estimator.
    min_descriptors : int, default=1
        How many descriptors all bags together must have.
    name : str, default="X"
        What messages call `X`.
    copy : bool, default=True
        Whether arrays in a list are stacked into one. Else `values` may be no array, but what
        `skfisher.parallel.units` reads.

    Returns
    -------
    bags : Bags
        The values are finite, and of any real dtype up to float64; they are not
        converted, so that memory maps stay on disk. Those of shards are checked when they are
        read; an estimator that reads them has ``_takes_shards``.

    Raises
    ------
    TypeError
        If `X` holds sparse matrices, strings, objects or other things than numbers, or is one of
        shards, which the estimator does not read.
    ValueError
        If there is no bag, a bag is empty, not two-dimensional or of another width than the
        rest or than at `fit`, if there are complex numbers, NaN, infinity, integers beyond
        2**53 or masked entries, too few descriptors, or other feature names than at `fit`, or if
        `X` is 2-D although the estimator was fitted on bags.
    """
    on_bags, X = True, listed(X, name)
    if isinstance(X, Bags):
        bags = X
    elif not isinstance(X, (list, tuple)) or (bags := Bags._of_alike(X, copy=copy)) is None:
        members = _as_members(X, name)
        if members is not None:
            seen = {} if reset else vars(estimator)
            bags = Bags._stacked(
                members, seen.get("n_features_in_"), seen.get("feature_names_in_"), name
            )
        elif len(getattr(X, "shape", ())) == 3:
            bags = _cut_cube(X, name)
        else:
            on_bags = False
            bags = _cut_rows(estimator, X, reset, name)
    if bags.dtype.kind == "f" and bags.dtype.itemsize > 8:
        values = bags.values.astype(np.float64)
        bags = Bags(values, bags.starts, bags.stops)._marked(bags.of_tensors, bags.feature_names)

    is_sharded = isinstance(bags.values, ShardedValues)
    if is_sharded and not getattr(estimator, "_takes_shards", False):
        raise _no_shards(estimator, X, name)
    if on_bags:
        _check_shape(bags, estimator, reset, name)
    if min_descriptors > 1 and bags.n_descriptors < min_descriptors:
        needy, remedy = type(estimator).__name__, "pass more data"
        n_components = getattr(estimator, "n_components", None)
        if n_components == min_descriptors or isinstance(n_components, tuple | list):
            needy, remedy = f"n_components={n_components}", f"lower n_components or {remedy}"
        raise ValueError(
            f"{needy} needs at least {min_descriptors} descriptors to fit, got "
            f"{bags.n_descriptors} in n_samples={len(bags)} bags: {remedy}."
        )
    if not is_sharded:  # which are looked at when they are read
        with device_of(bags.values):
            _check_finite(bags, name)
    # Names and width, by the rules for tables.
    check_features(estimator, bags.feature_names, bags.n_features, reset=reset)
    if reset:
        estimator._fit_on_bags = on_bags
    return bags


def _no_shards(estimator, X, name):
    """Return the error that says what to do with shards that an estimator does not read."""
    one_by_one = ""
    if hasattr(X, "iter_shards"):
        one_by_one = f", or shard.pack() for one shard of {name}.iter_shards() after the other"
    return TypeError(
        f"{name} is {describe(X)} of shards, which {type(estimator).__name__} does not read: pass "
        f"{name}.pack(), or some of the bags, if they fit memory{one_by_one}."
    )


def check_table(estimator, X, *, reset, dtype=(np.float64, np.float32), name="X"):
    """Read the input of an estimator of vectors: finite, two-dimensional, float32 or float64.

    As scikit-learn's ``validate_data``; an array on a device stays there.

    Parameters
    ----------
    estimator : estimator instance
    X : array-like of shape (n_samples, n_features)
    reset : bool
        True in `fit`.
    dtype : "numeric" or tuple of dtypes
        "numeric" leaves numbers as they are; others are converted to the first of the dtypes.
    name : str, default="X"
        What messages call `X`.

    Returns
    -------
    X : array of shape (n_samples, n_features)

    Raises
    ------
    TypeError
        If `X` is sparse, `Bags`, or not made of numbers.
    ValueError
        If `X` is not two-dimensional or empty, has complex numbers, NaN, infinity, integers
        beyond 2**53 or masked entries, or other features than at `fit`.
    """
    X = listed(X, name)
    names = names_of(X, name)
    X = _as_table(estimator, X, dtype, name)
    with device_of(X):
        _check_finite_table(X, name)
    check_features(estimator, names, X.shape[1], reset=reset)
    return X


def _check_finite_table(X, name):
    with np.errstate(over="ignore", invalid="ignore"):
        total = X.sum()  # finite only if all are
    xp = array_module(X)
    if not math.isfinite(total):
        bad = ~xp.isfinite(X)
        if bad.any():
            i = int(bad.any(axis=1).argmax())
            j = int(bad[i].argmax())
            what = "NaN" if xp.isnan(X[i, j]) else "infinity"
            raise ValueError(f"{name}[{i}] contains {what} in feature {j}: drop it, or fill it.")


def _as_members(X, name):
    """Return the list of bags that `X` is, or None if it is no such list."""
    if not isinstance(X, list | tuple):
        return None
    if len(X) == 0:
        raise ValueError(f"{name} holds 0 sample(s): a minimum of 1 bag is required.")
    depths = [nesting(member) for member in X]
    for i, member in enumerate(X):
        if isinstance(member, Bags) or (depths[i] == 0 and not isinstance(member, Number)):
            raise no_array(
                member,
                f"{name}[{i}]",
                "a bag is a two-dimensional array of shape (n_descriptors, n_features)",
            )
    return X if max(depths) >= 2 else None


def _cut_cube(X, name):
    X = as_dense(X, name)
    n_bags, n_descriptors, n_features = X.shape
    lengths = np.full(n_bags, n_descriptors)
    return Bags.from_lengths(X.reshape(n_bags * n_descriptors, n_features), lengths)


def _cut_rows(estimator, X, reset, name):
    """Read a 2-D array or DataFrame as bags of one descriptor, by scikit-learn's rules."""
    who = type(estimator).__name__
    names, table = names_of(X, name), _as_table(estimator, X, "numeric", name)
    if not reset and getattr(estimator, "_fit_on_bags", False):
        raise ValueError(
            f"{name} is two-dimensional, but {who} was fitted on bags: write [{name}] if {name} is "
            f"one bag, or {name}[:, None, :] if each row is a bag of one descriptor."
        )
    return Bags.from_lengths(table, np.ones(len(table), dtype=np.int64))._marked(False, names)


def _as_table(estimator, X, dtype, name):
    """Return `X` as a 2-D array of real numbers, finite or not, of a row and a column at least."""
    if _is_plain(X, dtype):
        return X  # scikit-learn's checks take as long as encoding a bag
    who = type(estimator).__name__
    takes_bags = estimator.__sklearn_tags__().input_tags.three_d_array
    wanted = "bags: a list of 2-D arrays of shape (n_descriptors, n_features), or a 3-D array"
    if not takes_bags:
        wanted = "a table of shape (n_samples, n_features): put it after the encoder"
    wanted = getattr(estimator, "_takes", wanted)
    if X is None or isinstance(X, str | bytes | Bags):
        raise TypeError(f"{name} is {describe(X)}, but {who} takes {wanted}.")
    column = _column_of_arrays(X)
    if column is not None:
        remedy = f"list({name}[:, {column}])"
        if hasattr(X, "columns"):
            label = repr(X.columns[column])
            remedy = f"{name}[{label}], and in a ColumnTransformer {label} in place of [{label}]"
        raise ValueError(
            f"{name} is a table whose column {column} holds arrays, but {who} takes {wanted}. To "
            f"pass that column, write {remedy}."
        )
    if isinstance(X, list | tuple):
        _check_rows(X, name, f"{who} takes {wanted}")
    X = as_dense(X, name)
    check_exact(X, name)
    if X.ndim > 2:
        raise ValueError(f"{name} has {X.ndim} dimensions, but {who} takes {wanted}.")
    if not is_cupy(X):
        # Off, as check_array would else return arrays of other libraries as they are.
        return configured(array_api_dispatch=False)(check_array)(
            X,
            dtype=dtype if dtype == "numeric" else list(dtype),
            ensure_all_finite=False,
            input_name=name,
            estimator=estimator,
        )
    if X.ndim < 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data using "
            "X.reshape(-1, 1) if it has one feature, or X.reshape(1, -1) if it is one sample."
        )
    if 0 in X.shape:
        raise ValueError(
            f"{name} holds {X.shape[0]} sample(s) of {X.shape[1]} feature(s): at least 1 is "
            "required."
        )
    if dtype == "numeric":
        return X
    return X.astype(np.float32 if X.dtype == np.float32 else np.float64, copy=False)


def _is_plain(X, dtype):
    """Tell whether `X` is what is wanted, without looking at its values."""
    if type(X) is not np.ndarray or X.ndim != 2 or X.size == 0 or not X.dtype.isnative:
        return False
    return X.dtype.kind in "fiu" if dtype == "numeric" else X.dtype in dtype


def _check_rows(X, name, wanted):
    """Refuse lists that are no rows of one length."""
    if any(nesting(row) >= 2 for row in X):
        raise ValueError(f"{name} is a list of arrays, but {wanted}.")
    if any(isinstance(row, tuple) and len(row) == 2 and nesting(row[1]) >= 2 for row in X):
        raise ValueError(
            f"{name} is a list of pairs, but {wanted}. Write [value for _, value in {name}]."
        )
    is_row = [bool(nesting(row)) or isinstance(row, list | tuple) for row in X]
    lengths = [len(row) if is_row[i] else None for i, row in enumerate(X)]
    if set(lengths) == {0}:
        raise ValueError(f"{name}[0] is empty, and so are all others, but {wanted}.")
    odd, usual = odd_one_out(lengths)
    if odd is None:
        return
    found, other = (
        f"has length {lengths[i]}" if is_row[i] else f"is {describe(X[i])}" for i in (odd, usual)
    )
    raise ValueError(
        f"{name}[{odd}] {found}, but {name}[{usual}] {other}: a list of rows is read as a 2-D "
        f"array, and {wanted}."
    )


def _column_of_arrays(X):
    """Return the number of the first column of a table that holds arrays, or None."""
    shape = getattr(X, "shape", ())
    if len(shape) != 2 or 0 in shape or getattr(X, "dtype", np.dtype(object)).kind != "O":
        return None
    row = np.asarray(X[:1])
    if row.dtype.kind != "O":
        return None
    return next((j for j, entry in enumerate(row[0]) if nesting(entry)), None)


def _check_shape(bags, estimator, reset, name):
    who = type(estimator).__name__
    if len(bags) == 0:
        raise ValueError(f"{name} holds 0 sample(s): {who} needs a minimum of 1 bag.")
    if bags.n_features == 0:
        raise ValueError(f"{name} has 0 feature(s) per descriptor: {who} needs a minimum of 1.")
    lengths = bags.lengths
    if not lengths.all():
        raise ValueError(
            f"{name}[{(lengths == 0).argmax()}] is empty: every bag needs at least 1 descriptor. "
            "Drop it, or give it a zero descriptor."
        )
    wanted = bags.n_features if reset else getattr(estimator, "n_features_in_", bags.n_features)
    if bags.n_features != wanted:
        raise ValueError(
            f"{name}[0] has {bags.n_features} features per descriptor, but {who} is expecting "
            f"{wanted} features as input: it was fitted on descriptors of that width."
            + (UNTRANSFORMED if name == "X_val" else "")
        )


def _check_finite(bags, name):
    """Refuse NaN, infinity and integers too large, looking at the descriptors of the bags alone."""
    # on the host what fits the cache, on a device what makes few of them
    block_bytes = DEVICE_BLOCK_BYTES if is_cupy(bags.values) else FINITE_BLOCK_BYTES
    if isinstance(bags.values, Stacked):
        block_bytes = STACKED_BLOCK_BYTES
    n_rows = max(1, block_bytes // (bags.n_features * bags.dtype.itemsize))
    if bags.dtype.kind != "f":
        finished(bags.values)  # as floats are when looked at; threads may read them now
        if bags.dtype.itemsize == 8:
            _check_exact(bags, n_rows, name)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if _is_surely_finite(bags):
            return
        xp = array_module(bags.values)
        # A sum is finite only if all its terms are; it is several times as fast as looking
        # at each, which is left for sums that overflow. float16 sums would do so at once.
        wide, first = np.float32 if bags.dtype.itemsize == 2 else None, 0
        for block in bags.blocks(n_rows):
            if not math.isfinite(xp.sum(block, dtype=wide)):
                _refuse_infinite(block, first, bags, name)
            first += len(block)


def _is_surely_finite(bags):
    """Tell whether descriptors are finite, of arrays that are best looked at one by one.

    Those of a list need not be stacked then. The sum of squares takes less time to call than the
    sum.
    """
    values = bags.values
    if bags.dtype.itemsize == 2:
        return False
    if isinstance(values, Stacked):
        is_fast = values.shape[0] * values.shape[1] >= ONE_BY_ONE * len(bags)
        return is_fast and math.isfinite(sum(map(np.vdot, values.arrays, values.arrays)))
    if not isinstance(values, np.ndarray) or values.size > SMALL or len(bags) > 1:
        return False
    return math.isfinite(np.vdot(values, values))


def _check_exact(bags, n_rows, name):
    """Refuse integers that float64, in which they are computed, does not hold."""
    first = 0
    for block in bags.blocks(n_rows):
        where = first_inexact(block)
        if where is not None:
            row, feature = where
            i, descriptor = place_of(first + row, bags)
            raise inexact(block[where], f"{name}[{i}][{descriptor}, {feature}]")
        first += len(block)


def _refuse_infinite(block, first, bags, name):
    """Name the first NaN or infinity in a block of descriptors, which begins at number `first`."""
    xp = array_module(block)
    bad = ~xp.isfinite(block)
    if bad.any():
        row = int(bad.any(axis=1).argmax())
        what = "NaN" if xp.isnan(block[row]).any() else "infinity"
        i, descriptor = place_of(first + row, bags)
        raise ValueError(f"{name}[{i}] contains {what} in descriptor {descriptor}.")

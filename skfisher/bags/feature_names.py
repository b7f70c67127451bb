"""Names of the features of descriptors, by scikit-learn's rules for columns of data frames."""

import numpy as np

from skfisher._compat import check_feature_names_in, get_feature_names
from skfisher.arrays.dense import odd_one_out
from skfisher.warning import warn_caller

__all__ = ["check_features", "names_in", "names_of", "shared_names"]

SHOWN = 5


def names_of(x, name="X"):
    """Return the names of the features of a data frame or `Bags`; None if they are no strings.

    Parameters
    ----------
    x : object
    name : str, default="X"
        What messages call it.

    Raises
    ------
    TypeError
        If some names are strings and others are not.
    ValueError
        If scikit-learn refuses them for another reason, such as two of one name.
    """
    if not hasattr(x, "columns"):  # bags have what their frames had
        return getattr(x, "feature_names", None)
    try:
        return get_feature_names(x)
    except Exception as error:  # of whatever package it reads data frames by
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {' '.join(str(error).split())}") from error


def shared_names(bags, wanted=None, name="X"):
    """Return the names that the features of all bags have, or None if they have no names.

    Parameters
    ----------
    bags : list of array-like
    wanted : ndarray of str, default=None
        Names seen in `fit`; where names differ, messages blame bags of others. By default one
        of other names than most.
    name : str, default="X"
        What messages call the list.

    Raises
    ------
    ValueError
        If two bags differ in their names, or in the order of them.
    """
    each = [names_of(bag, f"{name}[{i}]") for i, bag in enumerate(bags)]
    as_tuples = [() if names is None else tuple(names) for names in each]
    odd, usual = odd_one_out(as_tuples, None if wanted is None else tuple(wanted))
    if odd is None:
        return each[0] if each else None
    raise ValueError(
        f"The feature names of all bags should match. {name}[{odd}] has {_shown(each[odd])}, but "
        f"{name}[{usual}] has {_shown(each[usual])}: give all bags the same columns in the same "
        "order, or none of them names, by .to_numpy()."
    )


def _shown(names):
    if names is None:
        return "no feature names"
    return f"{names.tolist()[:SHOWN]}" + (" and more" if len(names) > SHOWN else "")


def check_features(estimator, names, n_features, *, reset):
    """Set or check names and number of features of an estimator, as scikit-learn's for a frame.

    Parameters
    ----------
    estimator : estimator instance
    names : ndarray of str, or None
        Of the features.
    n_features : int
    reset : bool
        True in `fit`: `feature_names_in_` and `n_features_in_` are set. Else they are compared.

    Raises
    ------
    ValueError
        If there are more or fewer than in `fit`, or other names or another order of them.
    """
    if reset:
        vars(estimator).pop("feature_names_in_", None)
        if names is not None:
            estimator.feature_names_in_ = names
        estimator.n_features_in_ = n_features
        return
    fitted, who = getattr(estimator, "feature_names_in_", None), type(estimator).__name__
    if (names is None) != (fitted is None):
        has = "X does not have valid" if names is None else "X has"
        seen = "with" if names is None else "without"
        warn_caller(f"{has} feature names, but {who} was fitted {seen} feature names")
    elif names is not None and not np.array_equal(names, fitted):
        raise ValueError(_difference(set(names), set(fitted)))
    wanted = getattr(estimator, "n_features_in_", n_features)
    if n_features != wanted:
        raise ValueError(
            f"X has {n_features} features, but {who} is expecting {wanted} features as input."
        )


def _difference(names, fitted):
    lines = ["The feature names should match those that were passed during fit."]
    for title, difference in [
        ("Feature names unseen at fit time:", names - fitted),
        ("Feature names seen at fit time, yet now missing:", fitted - names),
    ]:
        if difference:
            lines += [title, *(f"- {name}" for name in sorted(difference)[:SHOWN])]
            lines += ["- ..."] * (len(difference) > SHOWN)
    if len(lines) == 1:
        lines.append("Feature names must be in the same order as they were in fit.")
    return "\n".join(lines) + "\n"


def names_in(estimator, input_features, *, prefix="x"):
    """Read the `input_features` of ``get_feature_names_out``.

    Parameters
    ----------
    estimator : estimator instance
        Fitted.
    input_features : array-like of str, or None
        Names of the features of a descriptor. After a fit on bags a single name, where
        descriptors have more features, is that of the column the bags were in, which a
        ``ColumnTransformer`` passes; it says nothing of the features.
    prefix : str, default="x"
        Of the numbers of features that have no names.

    Returns
    -------
    names : ndarray of str objects
    """
    n_features, on_bags = estimator.n_features_in_, getattr(estimator, "_fit_on_bags", False)
    if input_features is not None and on_bags and np.size(input_features) == 1 != n_features:
        input_features = None
    if input_features is None and not hasattr(estimator, "feature_names_in_"):
        return np.asarray([f"{prefix}{j}" for j in range(n_features)], dtype=object)
    return check_feature_names_in(estimator, input_features)

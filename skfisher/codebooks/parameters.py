"""The parameters of a mixture that comes from elsewhere, checked before they are used."""

import numpy as np
from sklearn.mixture import GaussianMixture

from skfisher.arrays.dense import as_numpy
from skfisher.arrays.libraries import is_cupy, to_host
from skfisher.arrays.remembered import remembering
from skfisher.codebooks.em import Mixture

__all__ = ["parameters_of"]

# How far rounding may take the sum of the weights from 1: that of float32, and sums in it.
ROUNDING = 1e-5
LEAST_VARIANCE = float(np.finfo(np.float64).tiny)  # below, the inverse is not finite


def parameters_of(estimator, prefix=""):
    """Return the parameters of a mixture as float64 arrays, or say what is wrong with them.

    Parameters
    ----------
    estimator : estimator
        With ``weights_``, ``means_`` and ``variances_``, or scikit-learn's ``covariances_``, which
        someone may have set by hand.
    prefix : str, default=""
        Of the names of the attributes in messages.

    Returns
    -------
    mixture : Mixture
        Weights that miss a sum of 1 by rounding are divided by their sum.

    Raises
    ------
    ValueError
        If one is missing, shapes do not belong together, a number is not finite, a weight is
        negative, the weights do not sum to 1, or a variance is not positive.
    """
    last = "covariances_" if isinstance(estimator, GaussianMixture) else "variances_"
    attributes = ("weights_", "means_", last)
    names = [prefix + attribute for attribute in attributes]
    given = []
    for attribute, name in zip(attributes, names, strict=True):
        if not hasattr(estimator, attribute):
            raise ValueError(f"{name} is missing: a mixture has {', '.join(attributes)}.")
        values = getattr(estimator, attribute)
        values = to_host(values) if is_cupy(values) else as_numpy(values, name)
        given.append(values)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{name} has dtype {values.dtype}, but should hold real numbers.")
    weights_sum = _check(tuple(names), *given)
    weights, means, variances = (p.astype(np.float64, copy=False) for p in given)
    return Mixture(weights if weights_sum is None else weights / weights_sum, means, variances)


@remembering
def _check(names, weights, means, variances):
    """Check the parameters; return what to divide the weights by, or None."""
    _check_shapes([p.shape for p in (weights, means, variances)], names)
    dtype = weights.dtype
    weights, means, variances = (
        p.astype(np.float64, copy=False) for p in (weights, means, variances)
    )
    for values, name in zip((weights, means, variances), names, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum()
        if not np.isfinite(total):  # as it is where all are, unless it is too large
            _refuse(name, values, ~np.isfinite(values), "finite")
    if weights.min() < 0:
        _refuse(names[0], weights, weights < 0, "0 or more")
    if variances.min() < LEAST_VARIANCE:
        wanted = f"at least {LEAST_VARIANCE:.0e}, as a variance"
        _refuse(names[2], variances, variances < LEAST_VARIANCE, wanted)
    return _sum_to_divide_by(weights, dtype, names[0])


def _check_shapes(shapes, names):
    of_weights, of_means, of_variances = shapes
    together = len(of_means) == 2 and of_weights == of_means[:1] and of_variances == of_means
    if not together or 0 in of_means:
        found = [f"{name} has shape {shape}" for name, shape in zip(names, shapes, strict=True)]
        raise ValueError(
            f"{', '.join(found)}, but a mixture with diagonal covariances has the shapes "
            "(n_components,), (n_components, n_features) and (n_components, n_features)."
        )


def _refuse(name, values, wrong, wanted):
    if wrong.any():
        where = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"{name}{where} is {values[tuple(where)]:g}, but should be {wanted}.")


def _sum_to_divide_by(weights, dtype, name):
    total = float(weights.sum())
    rounding = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    if abs(total - 1) > max(ROUNDING, rounding):
        raise ValueError(
            f"{name} sums to {total:.9g}, but the weights of a mixture sum to 1: divide them by "
            "their sum."
        )
    exact = abs(total - 1) <= len(weights) * np.finfo(np.float64).eps
    return None if exact else total

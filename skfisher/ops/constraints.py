r"""Free parameters that keep a mixture valid: weights on the simplex, variances positive."""

import numpy as np

from skfisher.arrays.libraries import array_module

__all__ = [
    "floored_exp",
    "floored_exp_vjp",
    "floored_log",
    "normalized_sigmoid",
    "normalized_sigmoid_inverse",
    "normalized_sigmoid_vjp",
    "softmax",
    "softmax_vjp",
]


def softmax(logits):
    r"""Weights from logits.

    .. math:: w_k = \exp(\nu_k) / \sum_j \exp(\nu_j)

    Source: Sánchez et al. (2013), section 2.3.

    Parameters
    ----------
    logits : array of shape (k,)

    Returns
    -------
    weights : array of shape (k,), positive, of sum 1
    """
    xp = array_module(logits)
    e = xp.exp(logits - logits.max())
    return e / e.sum()


def softmax_vjp(g, logits):
    """Return ``d_logits`` for `g` of shape (k,) arriving at `softmax`."""
    weights = softmax(logits)
    h = weights * g
    return h - weights * h.sum()


def normalized_sigmoid(logits):
    r"""Weights from logits, by a normalised sigmoid.

    .. math:: w_k = s(\nu_k) / \sum_j s(\nu_j), \qquad s(\nu) = 1 / (1 + e^{-\nu})

    Source: Wieschollek et al. (2017), equation (11).

    Parameters
    ----------
    logits : array of shape (k,)

    Returns
    -------
    weights : array of shape (k,), positive, of sum 1
    """
    xp = array_module(logits)
    # log s(nu) = -log(1 + exp(-nu)), so that very negative logits keep their ratios
    return softmax(-xp.logaddexp(xp.zeros_like(logits), -logits))


def normalized_sigmoid_vjp(g, logits):
    """Return ``d_logits`` for `g` of shape (k,) arriving at `normalized_sigmoid`."""
    xp = array_module(logits)
    weights = normalized_sigmoid(logits)
    h = weights * g
    complement = xp.exp(-xp.logaddexp(xp.zeros_like(logits), logits))  # 1 - s(nu)
    return complement * (h - weights * h.sum())


def normalized_sigmoid_inverse(weights):
    """Return logits whose `normalized_sigmoid` is `weights`, the largest of them 0."""
    xp = array_module(weights)
    p = weights / (2 * weights.max())
    return xp.log(p) - xp.log1p(-p)


def floored_exp(log_excess, *, floor):
    r"""Variances above a floor.

    .. math:: v = \varepsilon + e^{\zeta}

    Source: Wieschollek et al. (2017), equation (12).

    Parameters
    ----------
    log_excess : array
    floor : float or array that broadcasts to `log_excess`
        In the units of the variances.

    Returns
    -------
    variances : array of the shape of `log_excess`
    """
    return array_module(log_excess).exp(log_excess) + floor


def floored_exp_vjp(g, log_excess, *, floor):  # noqa: ARG001, called as floored_exp is
    """Return ``d_log_excess`` for `g` arriving at `floored_exp`."""
    return array_module(log_excess).exp(log_excess) * g


def floored_log(variances, *, floor):
    """Return the logarithms whose `floored_exp` is `variances`, where these exceed the floor."""
    xp = array_module(variances)
    return xp.log(xp.maximum(variances - floor, float(np.finfo(variances.dtype).tiny)))

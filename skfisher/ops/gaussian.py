r"""Log densities and posteriors of a diagonal Gaussian mixture.

With ``l_tk = log w_k + log N(x_t; mu_k, v_k)`` the posteriors are the softmax of ``l``
over the components. Written as a matrix product,

.. math:: l = [X, X^2, 1] \, M', \qquad
          M_k = \left[\frac{\mu_k}{v_k}, \; -\frac{1}{2 v_k}, \; \log w_k
          - \tfrac12 \sum_d \left(\log 2 \pi v_{kd} + \frac{\mu_{kd}^2}{v_{kd}}\right)\right],

one product of the rows ``[x, x^2, 1]`` with the coefficients ``M`` gives all of them.
"""

import math

import numpy as np

from skfisher.backend import array_module
from skfisher.ops.chunks import Frame

__all__ = [
    "log_joint",
    "log_joint_vjp",
    "logit_coefficients",
    "logit_coefficients_vjp",
    "mixture_frame",
    "needs_float64",
    "posteriors",
    "posteriors_vjp",
    "softmax_rows",
    "to_frame",
]

LOG_2PI = math.log(2 * math.pi)


def logit_coefficients(weights, means, variances):
    r"""Return the coefficients ``M`` of the log joint density, equation (1) of this module.

    Source: Sánchez, Perronnin, Mensink and Verbeek (2013), section 2, expanded.

    Parameters
    ----------
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    coefficients : array of shape (k, 2 * d + 1), of the dtype of `means`
        Columns for ``x``, for ``x^2`` and for 1. A component of weight 0 gets a constant
        so low that its posteriors vanish, but finite.
    """
    xp = array_module(means)
    tiny = float(xp.finfo(means.dtype).tiny)
    constant = xp.log(xp.maximum(weights, tiny)) - 0.5 * (
        LOG_2PI + xp.log(variances) + means**2 / variances
    ).sum(axis=1)
    return xp.concatenate(
        [means / variances, -0.5 / variances, constant[:, None]], axis=1, dtype=means.dtype
    )


def logit_coefficients_vjp(g, weights, means, variances):
    """Return ``d_weights, d_means, d_variances`` for `g` (k, 2 * d + 1) at `logit_coefficients`.

    These are the terms in R0, R1, R2 of the Fisher vector's gradient: differentiate
    the columns of ``M`` one by one.
    """
    xp = array_module(means)
    d = means.shape[1]
    g1, g2, g0 = g[:, :d], g[:, d:-1], g[:, -1:]
    d_weights = _divide_or_zero(g0[:, 0], weights, xp)
    d_means = (g1 - means * g0) / variances
    d_variances = 0.5 * ((g2 - means * (2 * g1 - means * g0)) / variances - g0) / variances
    return d_weights, d_means, d_variances


def _divide_or_zero(numerator, weights, xp):
    # a component of weight 0 has no influence, hence no gradient
    return xp.where(weights > 0, numerator / xp.where(weights > 0, weights, 1), 0)


def log_joint(x, weights, means, variances):
    r"""Log joint density of descriptors and components.

    .. math:: l_{tk} = \log w_k - \tfrac12 \sum_d \left(\log 2 \pi v_{kd}
              + \frac{(x_{td} - \mu_{kd})^2}{v_{kd}}\right)

    Source: Wieschollek, Groh and Lensch (2017), section 3.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    log_joint : array of shape (n, k), of the dtype and library of `x`
        Computed about the mixture's centre, so a common offset of descriptors and
        means costs no digits; in float64 where float32 would not do.
    """
    frame, weights, local_means, local_variances, dtype = to_frame(x, weights, means, variances)
    y = (x.astype(dtype) - frame.shift) / frame.scale
    coefficients = logit_coefficients(weights, local_means, local_variances)
    d = x.shape[1]
    coefficients[:, -1] -= array_module(x).log(frame.scale).sum()
    coefficients = coefficients.astype(dtype)
    logits = y @ coefficients[:, :d].T
    logits += (y * y) @ coefficients[:, d:-1].T
    logits += coefficients[:, -1]
    return logits.astype(x.dtype, copy=False)


def log_joint_vjp(g, x, weights, means, variances):
    """Return ``d_x, d_weights, d_means, d_variances`` for `g` (n, k) at `log_joint`."""
    xp = array_module(x)
    frame, weights, local_means, local_variances, dtype = to_frame(x, weights, means, variances)
    d = x.shape[1]
    y = (x.astype(dtype) - frame.shift) / frame.scale
    g = g.astype(dtype, copy=False)
    sums = xp.concatenate([g.T @ y, g.T @ (y * y), g.sum(axis=0)[:, None]], axis=1)
    d_weights, d_means, d_variances = logit_coefficients_vjp(
        sums.astype(np.float64), weights, local_means, local_variances
    )
    coefficients = logit_coefficients(weights, local_means, local_variances).astype(dtype)
    d_x = (g @ coefficients[:, :d] + 2 * y * (g @ coefficients[:, d:-1])) / frame.scale
    return (
        d_x.astype(x.dtype, copy=False),
        d_weights.astype(x.dtype),
        (d_means / frame.scale).astype(x.dtype),
        (d_variances / frame.scale**2).astype(x.dtype),
    )


def softmax_rows(logits):
    """Return the softmax of each row, and its normaliser in two parts, ``max`` and ``log sum``.

    Their sum is the log-likelihood of the row. As one float32 number it would round at
    the size of the maximum, often in the hundreds.
    """
    xp = array_module(logits)
    largest = logits.max(axis=1, keepdims=True)
    e = xp.exp(logits - largest)
    total = e.sum(axis=1, keepdims=True)
    return e / total, largest[:, 0], xp.log(total[:, 0])


def posteriors(x, weights, means, variances):
    r"""Posterior probabilities of the components, the softmax of `log_joint` over k.

    .. math:: \gamma_{tk} = \frac{w_k \mathcal N(x_t; \mu_k, v_k)}
              {\sum_j w_j \mathcal N(x_t; \mu_j, v_j)}

    Source: Sánchez et al. (2013), equation (15); Wieschollek et al. (2017), section 3.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    posteriors : array of shape (n, k), of the dtype and library of `x`
    """
    return softmax_rows(log_joint(x, weights, means, variances))[0]


def posteriors_vjp(g, x, weights, means, variances):
    """Return ``d_x, d_weights, d_means, d_variances`` for `g` (n, k) at `posteriors`."""
    p = posteriors(x, weights, means, variances)
    # Dividing by the sum of p, 1 to rounding, keeps the rows of the result at sum 0.
    mean = (p * g).sum(axis=1, keepdims=True) / p.sum(axis=1, keepdims=True)
    return log_joint_vjp(p * (g - mean), x, weights, means, variances)


def mixture_frame(weights, means, variances):
    """Return the mixture's own mean and, rounded to powers of two, standard deviations.

    Descriptors are computed with in these coordinates: the expanded square of the log
    density loses digits as the square of offset / deviation. Powers of two rescale
    without rounding. The shift is a float32 number, so that it is the same in both dtypes.
    """
    xp = array_module(means)
    share = (weights / weights.sum())[:, None]
    shift = (share * means).sum(axis=0).astype(np.float32).astype(np.float64)
    spread = xp.sqrt((share * (variances + (means - shift) ** 2)).sum(axis=0))
    return Frame(shift, xp.exp2(xp.round(xp.log2(spread))))


# Largest squared distance of a component from the centre, in its own standard deviations
# and averaged over the dimensions, at which float32 logits are good to about 1e-4.
_FLOAT32_REACH = 32.0


def needs_float64(means, variances):
    """Tell whether these parameters, in the mixture's frame, ask for more than float32.

    The error of a float32 logit grows with the sum over dimensions of
    ``means**2 / variances``: components far from the centre, or very narrow.
    """
    return bool((means**2 / variances).mean(axis=1).max() > _FLOAT32_REACH)


def to_frame(x, weights, means, variances):
    """Return the mixture's frame, the parameters in it (float64), and the dtype to work in.

    Returns
    -------
    frame : Frame, of that dtype
    weights, means, variances : float64 arrays of the library of `x`
    dtype : float32 or float64
    """
    xp = array_module(x)
    weights, means, variances = (
        xp.asarray(p, dtype=np.float64) for p in (weights, means, variances)
    )
    frame = mixture_frame(weights, means, variances)
    means = (means - frame.shift) / frame.scale
    variances = variances / frame.scale**2
    dtype = np.float64 if needs_float64(means, variances) else x.dtype
    return Frame(*(f.astype(dtype) for f in frame)), weights, means, variances, np.dtype(dtype)

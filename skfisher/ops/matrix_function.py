r"""Powers and logarithms of positive semi-definite matrices, by their eigenvalues.

.. math:: P = U \operatorname{diag}(\lambda) U^\top, \qquad
          f(P) = U \operatorname{diag}(f(\lambda)) U^\top

The derivative follows Daleckii and Krein: with G symmetric,

.. math:: \bar P = U \big(\Psi \circ (U^\top G U)\big) U^\top, \qquad
          \Psi_{ij} = \frac{f(\lambda_i) - f(\lambda_j)}{\lambda_i - \lambda_j}

written here in forms that divide by no difference: equal eigenvalues are no special case.
"""

from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module

__all__ = ["Eigen", "eigen", "matrix_function", "matrix_function_vjp"]


class Eigen(NamedTuple):
    """Eigenvalues of symmetric matrices, rising, and their eigenvectors, column by column."""

    values: np.ndarray  # (n, d), 0 where they are rounding noise, plus the ridge
    vectors: np.ndarray  # (n, d, d)
    finite: np.ndarray  # (n, 1, 1), whether the matrix was


def eigen(p, *, eps, noise=None, ridge=0.0):
    r"""Decompose positive semi-definite matrices.

    Eigenvalues up to :math:`d \, \varepsilon \, \lambda_{\max}`, and `noise`, count as 0. The
    tolerance belongs to the numbers that the matrix is a sum of: summed in float32, its null
    space has eigenvalues of the size of float32's rounding, whatever it is decomposed in.

    Parameters
    ----------
    p : array of shape (n, d, d)
        Decomposed in float64.
    eps : float
        Of the dtype of the sums.
    noise : array of shape (n,), optional
        Errors of the matrices that have nothing to do with their size.
    ridge : float
        Added to all eigenvalues.

    Returns
    -------
    eigen : Eigen
    """
    xp = array_module(p)
    p = p.astype(np.float64, copy=False)
    finite = xp.isfinite(p).all(axis=(1, 2), keepdims=True)
    values, vectors = xp.linalg.eigh(xp.where(finite, p, 0))
    least = p.shape[1] * eps * xp.maximum(values[:, -1:], 0)
    if noise is not None:
        least = least + noise[:, None]
    return Eigen(xp.where(values > least, values, 0) + ridge, vectors, finite)


def matrix_function(e, *, function, power=None):
    r"""Return :math:`f(P)` for decomposed matrices.

    Source: Li et al. (2017) for powers, Carreira et al. (2012) for the logarithm.

    Parameters
    ----------
    e : Eigen
    function : {"power", "log"}
        The power 0 stays 0; the logarithm needs eigenvalues above 0, and so a ridge.
    power : float
        Above 0.

    Returns
    -------
    q : array of shape (n, d, d), float64
        NaN where the matrix was not finite.
    """
    xp = array_module(e.values)
    f = function_values(e.values, function, power)
    q = (e.vectors * f[:, None, :]) @ e.vectors.transpose(0, 2, 1)
    return xp.where(e.finite, q, xp.nan)


def matrix_function_vjp(g, e, *, function, power=None):
    """Return ``d_p`` (n, d, d), symmetric, for `g` arriving at `matrix_function`.

    Where both eigenvalues are 0 the power has no derivative: the gradient there is 0. That is
    exact for a gradient sent on to the rows that the matrix is a sum of, as these have no part
    in its null space.
    """
    g = (g + g.transpose(0, 2, 1)) / 2
    inner = e.vectors.transpose(0, 2, 1) @ g @ e.vectors
    inner *= divided_differences(e.values, function, power)
    return e.vectors @ inner @ e.vectors.transpose(0, 2, 1)


def function_values(values, function, power):
    """Return ``f`` of eigenvalues."""
    xp = array_module(values)
    if function == "log":
        return xp.log(values)
    return xp.sqrt(values) if power == 0.5 else values**power


def divided_differences(values, function, power):
    r"""Return :math:`\Psi` (n, d, d), without cancellation.

    With :math:`h = |\log \lambda_i - \log \lambda_j| / 2` and
    :math:`m = \sqrt{\lambda_i \lambda_j}`,

    .. math:: \Psi = m^{\alpha - 1} \, e^{(\alpha - 1) h}
                     \frac{1 - e^{-2 \alpha h}}{1 - e^{-2 h}}, \qquad
              \Psi_{\log} = \frac{h}{m \sinh h}
    """
    xp = array_module(values)
    if function == "power" and power == 0.5:
        roots = xp.sqrt(values)
        total = roots[:, :, None] + roots[:, None, :]
        return 1 / xp.where(total > 0, total, xp.inf)
    positive = values > 0
    logs = xp.log(xp.where(positive, values, 1))
    h = xp.abs(logs[:, :, None] - logs[:, None, :]) / 2
    middle = (logs[:, :, None] + logs[:, None, :]) / 2
    equal = h == 0
    # 1 - exp(-2 h), which is 2 h near 0
    below = xp.where(equal, 1, -xp.expm1(-2 * h))
    if function == "log":
        return xp.where(equal, 1, 2 * h * xp.exp(-h) / below) * xp.exp(-middle)
    ratio = xp.exp((power - 1) * h) * -xp.expm1(-2 * power * h) / below
    psi = xp.where(equal, power, ratio) * xp.exp((power - 1) * middle)
    # one eigenvalue of 0: f(l) / l
    both = positive[:, :, None] & positive[:, None, :]
    either = positive[:, :, None] | positive[:, None, :]
    largest = xp.where(positive[:, :, None], logs[:, :, None], logs[:, None, :])
    return xp.where(both, psi, xp.where(either, xp.exp((power - 1) * largest), 0))

r"""Functions of matrices of low rank, by the products of few rows.

.. math:: P = Y^\top Y / T, \qquad Y Y^\top / T = V \operatorname{diag}(\lambda) V^\top, \qquad
          f(P) = f(0) I + Y^\top V \operatorname{diag}\!\left(
                 \frac{f(\lambda) - f(0)}{T \lambda}\right) V^\top Y

For T rows of fewer numbers than dimensions, the matrix to decompose is the smaller one.
"""

import numpy as np

from skfisher.arrays.libraries import array_module
from skfisher.ops.matrix_function import eigen, function_values

__all__ = ["function_of_rows"]

EPS = float(np.finfo(np.float64).eps)


def function_of_rows(y, *, function, power=None, ridge=0.0, noise=None):
    r"""Return :math:`f(Y^\top Y / T + \rho I)`.

    Parameters
    ----------
    y : array of shape (n, t, d), float64
    function, power
        As for `matrix_function`.
    ridge : float
        Above 0 for the logarithm.
    noise : array of shape (n,), optional
        Eigenvalues up to it count as 0.

    Returns
    -------
    q : array of shape (n, d, d), float64
    """
    xp = array_module(y)
    _, t, d = y.shape
    e = eigen(y @ y.transpose(0, 2, 1) / t, eps=EPS * d / t, noise=noise)
    positive = e.values > 0
    values = xp.where(positive, e.values, 1)
    at_zero = float(function_values(np.array(ridge), function, power))
    gain = (function_values(values + ridge, function, power) - at_zero) / (t * values)
    parts = e.vectors.transpose(0, 2, 1) @ y
    q = parts.transpose(0, 2, 1) @ (xp.where(positive, gain, 0)[:, :, None] * parts)
    if at_zero:
        q = q + at_zero * xp.eye(d, dtype=q.dtype)
    return xp.where(e.finite, q, xp.nan)

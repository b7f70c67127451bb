r"""Maps of descriptors that are trained together with what follows, and linear models.

.. math:: y = x W^\top + b \qquad \text{or} \qquad y = \tanh(x W^\top + b)

The rows are independent, so they pass through in chunks that stay in cache; gradients by W
and b are added up over the chunks in float64.
"""

import numpy as np

from skfisher.arrays.libraries import array_module, empty, zeros

__all__ = ["linear_map", "linear_map_vjp", "tanh_map", "tanh_map_vjp"]

ROWS_PER_CHUNK = 2048


def linear_map(x, weight, bias):
    r"""Map each row linearly: a feature map, or the decision values of a linear model.

    .. math:: y = x W^\top + b

    Parameters
    ----------
    x : array of shape (n, d)
    weight : array of shape (d_out, d)
    bias : array of shape (d_out,)

    Returns
    -------
    y : array of shape (n, d_out), of the dtype and library of `x`
    """
    y = array_module(x).matmul(x, weight.T)
    y += bias
    return y


def linear_map_vjp(g, x, weight, bias, *, with_x=True):  # noqa: ARG001, as the map
    r"""Return ``d_x, d_weight, d_bias`` for `g` of shape (n, d_out) arriving at `linear_map`.

    .. math:: \bar W = g^\top x, \qquad \bar b = \sum_t g_t, \qquad \bar x = g W

    With ``with_x=False``, `d_x` is None.
    """
    return _through_rows(lambda rows, _: g[rows], x, weight, with_x)


def tanh_map(x, weight, bias):
    r"""Map each row linearly and squash it.

    .. math:: y = \tanh(x W^\top + b)

    Source: Wieschollek, Groh and Lensch (2017), section 4.

    Parameters
    ----------
    x : array of shape (n, d)
    weight : array of shape (d_out, d)
    bias : array of shape (d_out,)

    Returns
    -------
    y : array of shape (n, d_out), of the dtype and library of `x`
    """
    xp = array_module(x)
    y = empty((len(x), len(weight)), like=x)
    for rows in _chunks(len(x)):
        z = xp.matmul(x[rows], weight.T, out=y[rows])
        z += bias
        xp.tanh(z, out=z)
    return y


def tanh_map_vjp(g, x, weight, bias, *, y=None, with_x=True):
    r"""Return ``d_x, d_weight, d_bias`` for `g` of shape (n, d_out) arriving at `tanh_map`.

    .. math:: \bar z = (1 - y^2) \, g, \qquad
              \bar W = \bar z^\top x, \qquad \bar b = \sum_t \bar z_t, \qquad \bar x = \bar z W

    Parameters
    ----------
    g : array of shape (n, d_out)
    x, weight, bias : arrays
        As given to `tanh_map`.
    y : array of shape (n, d_out), optional
        What `tanh_map` returned, to save computing it again.
    with_x : bool
        Whether `d_x` is wanted; if not it is None.
    """
    xp = array_module(x)

    def through_tanh(rows, out):
        y_rows = tanh_map(x[rows], weight, bias) if y is None else y[rows]
        d_z = xp.multiply(y_rows, y_rows, out=out)
        xp.subtract(1, d_z, out=d_z)
        d_z *= g[rows]
        return d_z

    return _through_rows(through_tanh, x, weight, with_x)


def _through_rows(gradient, x, weight, with_x):
    """Send the gradient at ``z = x W' + b``, ``gradient(rows, buffer)``, on to x, W and b."""
    xp = array_module(x)
    buffer = empty((min(len(x), ROWS_PER_CHUNK), len(weight)), like=x)
    ones = xp.ones(len(buffer), dtype=x.dtype)
    d_x = empty(x.shape, like=x) if with_x else None
    d_weight = zeros(weight.shape, like=x, dtype=np.float64)
    d_bias = zeros(len(weight), like=x, dtype=np.float64)
    for rows in _chunks(len(x)):
        n_rows = rows.stop - rows.start
        d_z = gradient(rows, buffer[:n_rows])
        d_weight += d_z.T @ x[rows]
        d_bias += ones[:n_rows] @ d_z
        if with_x:
            xp.matmul(d_z, weight, out=d_x[rows])
    return d_x, d_weight.astype(x.dtype, copy=False), d_bias.astype(x.dtype, copy=False)


def _chunks(n):
    """Cut `n` rows into slices."""
    return [slice(low, min(low + ROWS_PER_CHUNK, n)) for low in range(0, n, ROWS_PER_CHUNK)]

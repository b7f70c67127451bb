r"""Power and L2 normalisation of encodings.

.. math:: u = \operatorname{sign}(x) \, |x|^\alpha, \qquad y = u / \lVert u \rVert_2

For training there is a smooth power, whose derivative stays finite at 0:

.. math:: u = x \, (x^2 + \varepsilon^2)^{(\alpha - 1) / 2}
"""

import numpy as np

from skfisher.backend import array_module, zeros

__all__ = ["power_l2_normalize", "power_l2_normalize_vjp"]


def power_l2_normalize(x, *, power=0.5, blocks=None, eps=None):
    r"""Raise every entry to a power, keeping its sign, and scale rows to unit length.

    Source: Perronnin, Sánchez and Mensink (2010), section 3; with `blocks`, every block
    is normalised on its own first, as by Arandjelović and Zisserman (2013).

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    power : float
        ``alpha``, above 0; 1 leaves the entries as they are.
    blocks : int array of shape (d,), on the host, optional
        Label of each column, 0 to n_blocks - 1: columns of one label are scaled to unit
        length before the whole row is.
    eps : float, optional
        Above 0, in the units of `x`: take the smooth power. By default the exact one.

    Returns
    -------
    y : array of shape (n, d), of the dtype and library of `x`
        Rows and blocks of zeros stay zero.
    """
    u = signed_power(x, power, eps=eps)
    if blocks is not None:
        u = u * _inverse_or_zero(_block_norms(u, blocks))[:, blocks]
    return u * _inverse_or_zero(_row_norms(u))


def power_l2_normalize_vjp(g, x, *, power=0.5, blocks=None, eps=None, derivative_floor=None):
    r"""Return ``d_x`` for the gradient `g` of shape (n, d) arriving at `power_l2_normalize`.

    .. math:: \bar u = (g - \langle g, y \rangle y) / \lVert u \rVert, \qquad
              \bar x = \alpha |x|^{\alpha - 1} \bar u

    Parameters
    ----------
    g, x : arrays of shape (n, d)
    power : float
    blocks : int array of shape (d,), optional
    eps : float, optional
        As given to `power_l2_normalize`.
    derivative_floor : float, optional
        In ``|x|^(alpha - 1)``, entries below this share of the row's largest one count as
        that share: the derivative diverges at 0, where entries are rounding noise.
        By default 1e-6 in float32 and 1e-12 in float64; 0 gives the exact derivative.
        Entries that are exactly 0 get gradient 0. The smooth power needs no floor and
        has none.
    """
    u = signed_power(x, power, eps=eps)
    if blocks is None:
        d_u = _l2_vjp(g, u, _row_norms(u))
    else:
        norms = _block_norms(u, blocks)
        inverse = _inverse_or_zero(norms)[:, blocks]
        v = u * inverse
        d_v = _l2_vjp(g, v, _row_norms(v))
        radial = _sum_blocks(d_v * v, blocks)[:, blocks]
        d_u = (d_v - radial * v) * inverse
    return d_u if power == 1 else _power_slope(x, power, eps, derivative_floor) * d_u


def signed_power(x, power, *, eps=None):
    """Return ``sign(x) |x|^power``, or the smooth power ``x (x^2 + eps^2)^((power - 1) / 2)``."""
    xp = array_module(x)
    power = float(power)  # a NumPy scalar would widen float32
    if power == 1:
        return x
    if eps is not None:
        return x * (x * x + float(eps) ** 2) ** ((power - 1) / 2)
    size = xp.sqrt(xp.abs(x)) if power == 0.5 else xp.abs(x) ** power
    return xp.copysign(size, x)


def _power_slope(x, power, eps, derivative_floor):
    """Return the derivative of `signed_power`, bounded where it diverges."""
    xp = array_module(x)
    power = float(power)
    if eps is not None:
        size = x * x + float(eps) ** 2
        return size ** ((power - 1) / 2) * ((power * x * x + float(eps) ** 2) / size)
    if derivative_floor is None:
        derivative_floor = 1e-6 if x.dtype == np.float32 else 1e-12
    size = xp.abs(x)
    size = xp.maximum(size, derivative_floor * size.max(axis=1, keepdims=True))
    slope = power * xp.where(x == 0, 1, size) ** (power - 1)
    return xp.where(x == 0, 0, slope).astype(x.dtype, copy=False)


def _row_norms(u):
    xp = array_module(u)
    # Scaled by the largest entry, squares neither overflow nor vanish.
    largest = xp.abs(u).max(axis=1, keepdims=True)
    scaled = u * _inverse_or_zero(largest)
    return largest * xp.sqrt(xp.einsum("nd,nd->n", scaled, scaled))[:, None]


def _sum_blocks(u, blocks):
    """Sum the columns of each label, (n, n_blocks)."""
    sums = zeros((int(blocks.max()) + 1, len(u)), like=u)
    xp = array_module(u)
    xp.add.at(sums, xp.asarray(blocks), u.T)
    return sums.T


def _block_norms(u, blocks):
    return array_module(u).sqrt(_sum_blocks(u * u, blocks))


def _inverse_or_zero(norms):
    xp = array_module(norms)
    return xp.where(norms > 0, 1 / xp.where(norms > 0, norms, 1), 0).astype(norms.dtype, copy=False)


def _l2_vjp(g, u, norms):
    xp = array_module(u)
    inverse = _inverse_or_zero(norms)
    y = u * inverse
    return (g - xp.einsum("nd,nd->n", g, y)[:, None] * y) * inverse

r"""Power and L2 normalisation of encodings.

.. math:: u = \operatorname{sign}(x) \, |x|^\alpha, \qquad y = u / \lVert u \rVert_2

For training there is a smooth power, whose derivative stays finite at 0:

.. math:: u = x \, (x^2 + \varepsilon^2)^{(\alpha - 1) / 2}
"""

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, empty, is_cupy
from skfisher.cuda import normalization as kernels
from skfisher.native import normalization as native

__all__ = ["power_l2_normalize", "power_l2_normalize_vjp"]

# Rows are normalised some at a time: so many bytes that every step finds them in the cache, on a
# device so many that there are few steps.
BLOCK_BYTES = 2**17
DEVICE_BLOCK_BYTES = 2**26
SQRT_BLOCK_BYTES = 2**19  # whose steps need one array beside


def power_l2_normalize(x, *, power=0.5, blocks=None, eps=None, out=None):
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
    out : C-contiguous array of the shape, dtype and library of `x`, optional
        Where to write `y`; it may be `x` itself.

    Returns
    -------
    y : array of shape (n, d), of the dtype and library of `x`
        Rows and blocks of zeros stay zero. Without `eps`, a positive factor on a row of `x`
        changes nothing, however small or large.
    """
    if blocks is None and kernels.takes(x):
        y = kernels.power_l2_normalize(x, power=power, eps=eps)
        if out is None:
            return y
        out[...] = y
        return out
    if out is None:
        out = empty(x.shape, like=x)
    if native.takes(x, power=power, blocks=blocks, eps=eps):
        native.power_l2_normalize(x, out)
        return out
    if power != 0.5 or blocks is not None or eps is not None or is_cupy(x):
        return _scaled_power_l2(x, power, blocks, eps, out)
    n_rows = min(len(x), max(1, SQRT_BLOCK_BYTES // max(1, x.shape[1] * x.itemsize)))
    buffer = empty((n_rows, x.shape[1]), like=x)
    for first in range(0, len(x), max(1, n_rows)):
        rows = slice(first, first + n_rows)
        _sqrt_l2(x[rows], out[rows], buffer)
    return out


def _scaled_power_l2(x, power, blocks, eps, out):
    block_bytes = DEVICE_BLOCK_BYTES if is_cupy(x) else BLOCK_BYTES
    n_rows = max(1, block_bytes // max(1, x.shape[1] * x.itemsize))
    for first in range(0, len(x), n_rows):
        rows = slice(first, first + n_rows)
        _, u, _ = _scaled_power(x[rows], power, blocks, eps)
        if blocks is not None:
            u /= _norms(u, blocks)
        array_module(x).multiply(u, 1 / _norms(u), out=out[rows])
    return out


def _sqrt_l2(x, out, buffer):
    r"""Write ``sign(x) sqrt(|x| / sum |x|)`` of each row: the square root, scaled to unit length.

    Rows whose sum is no normal number are scaled by their largest entry first. No row makes a
    difference to another.
    """
    size, limits = np.abs(x, out=buffer[: len(x)]), np.finfo(x.dtype)
    with np.errstate(over="ignore"):
        total = size.sum(axis=1, keepdims=True)
    least, odd = limits.tiny / limits.eps, None
    if not (total.min() > least and total.max() < np.inf):
        odd = ~((total[:, 0] > least) & (total[:, 0] < np.inf))
        of_odd = np.ascontiguousarray(x[odd])
        of_odd = _scaled_power_l2(of_odd, 0.5, None, None, np.empty_like(of_odd))
        total[odd] = 1
    size *= 1 / total
    np.sqrt(size, out=size)
    np.copysign(size, x, out=out)
    if odd is not None:
        out[odd] = of_odd


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
        In ``|x|^(alpha - 1)``, entries below this share of the largest one of their row, or
        of their block with `blocks`, count as that share: the derivative diverges at 0,
        where entries are rounding noise.
        By default 1e-6 in float32 and 1e-12 in float64; 0 gives the exact derivative.
        Entries that are exactly 0 get gradient 0. The smooth power needs no floor and
        has none.
    """
    if derivative_floor is None:
        derivative_floor = 1e-6 if x.dtype == np.float32 else 1e-12
    if blocks is None and kernels.takes(x):
        return kernels.power_l2_normalize_vjp(
            g, x, power=power, eps=eps, derivative_floor=derivative_floor
        )
    if native.takes(x, power=power, blocks=blocks, eps=eps):
        return native.power_l2_normalize_vjp(g, x, derivative_floor=derivative_floor)
    x, u, scale = _scaled_power(x, power, blocks, eps)
    if blocks is None:
        d_u = _l2_vjp(g, u, _norms(u))
    else:
        norms = _norms(u, blocks)
        v = u / norms
        d_v = _l2_vjp(g, v, _norms(v))
        d_u = (d_v - _over_blocks("sum", d_v * v, blocks) * v) / norms
    if power != 1:
        d_u = _power_slope(x, power, eps, derivative_floor) * d_u
    return d_u / scale


def _scaled_power(x, power, blocks, eps):
    """Return ``x, u, scale``: the power of `x`, its largest entry in a row or block 1.

    What is normalised forgets any scale, so ``d_x = slope(x) d_u / scale``. The exact power
    is taken of ``x / scale``, which neither overflows nor vanishes, nor do squares of it;
    the smooth one, whose `eps` has the units of `x`, of `x`, and divided afterwards.
    """
    x = array_module(x).ascontiguousarray(x)  # sums depend on the order in memory
    if eps is not None:
        u = signed_power(x, power, eps=eps)
        scale = _largest(u, blocks)
        return x, u / scale, scale
    scale = _largest(x, blocks)
    x = x / scale
    return x, signed_power(x, power), scale


def _largest(x, blocks):
    """Return the largest magnitude of each row, or block; infinity if all entries are 0.

    Divided by infinity, zeros stay zero, and so do their gradients: they have no direction.
    """
    xp = array_module(x)
    if blocks is None:
        largest = xp.maximum(x.max(axis=1, keepdims=True), -x.min(axis=1, keepdims=True))
    else:
        largest = _over_blocks("max", xp.abs(x), blocks)
    return xp.where(largest == 0, xp.inf, largest).astype(x.dtype, copy=False)


def signed_power(x, power, *, eps=None):
    """Return ``sign(x) |x|^power``, or the smooth power ``x (x^2 + eps^2)^((power - 1) / 2)``."""
    xp = array_module(x)
    power = float(power)  # a NumPy scalar would widen float32
    if power == 1:
        return x
    if eps is not None:
        return x * _smooth_factor(x * x + float(eps) ** 2, power)
    size = xp.abs(x)
    if power == 0.5:
        xp.sqrt(size, out=size)
    else:
        size **= power
    return xp.copysign(size, x, out=size)


def _smooth_factor(size, power):
    """Return ``size^((power - 1) / 2)``, for the power 0.5 by square roots, which are faster."""
    if power == 0.5:
        xp = array_module(size)
        return 1 / xp.sqrt(xp.sqrt(size))
    return size ** ((power - 1) / 2)


def _power_slope(x, power, eps, derivative_floor):
    """Return the derivative of `signed_power`, bounded where it diverges.

    For the exact power, the largest entry of `x` in a row or block must be 1.
    """
    xp = array_module(x)
    power = float(power)
    if eps is not None:
        size = x * x + float(eps) ** 2
        return _smooth_factor(size, power) * ((power * x * x + float(eps) ** 2) / size)
    size = xp.maximum(xp.abs(x), derivative_floor)
    slope = power * xp.where(x == 0, 1, size) ** (power - 1)
    return xp.where(x == 0, 0, slope).astype(x.dtype, copy=False)


def _norms(u, blocks=None):
    """Return the length of each row, or block, whose largest entry is 1; 1 if it is all 0."""
    xp = array_module(u)
    if blocks is None:
        squares = xp.einsum("nd,nd->n", u, u)[:, None]
    else:
        squares = _over_blocks("sum", u * u, blocks)
    return xp.maximum(xp.sqrt(squares), 1)


def _over_blocks(name, u, blocks):
    """Take the "sum" or the "max" over the columns of each label, and give it to every column."""
    order = np.argsort(blocks, kind="stable")
    if is_cupy(u):
        return _over_blocks_on_device(name, u, blocks, order)
    if (np.diff(order) != 1).any():
        u = u[:, order]
    # A label without columns gets a result too, which no column reads.
    firsts = np.searchsorted(blocks[order], np.arange(int(blocks.max()) + 1))
    reduce = {"sum": np.add, "max": np.maximum}[name].reduceat
    return reduce(u, firsts, axis=1)[:, blocks]


def _over_blocks_on_device(name, u, blocks, order):
    # CuPy's reduceat takes differences of running sums, which lose digits. All blocks of one
    # width are an array of their own: most often there are one or two widths.
    counts = np.bincount(blocks)
    firsts = np.cumsum(counts) - counts
    results = empty((len(u), len(counts)), like=u)
    for width in np.unique(counts[counts > 0]):
        labels = np.flatnonzero(counts == width)
        columns = order[firsts[labels][:, None] + np.arange(width)]
        results[:, asarray(labels, like=u)] = getattr(u[:, asarray(columns, like=u)], name)(axis=2)
    return results[:, asarray(blocks, like=u)]


def _l2_vjp(g, u, norms):
    xp = array_module(u)
    y = u / norms
    return (g - xp.einsum("nd,nd->n", g, y)[:, None] * y) / norms

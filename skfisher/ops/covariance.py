r"""Sums of bags up to the second order, and the means and covariances that they stand for.

.. math:: S_1 = \sum_t (x_t - c), \qquad S_2 = \sum_t (x_t - c) (x_t - c)^\top

The shift c is the same for all bags, so that the sums of the parts of a bag add up. A product
is taken of up to `TILE_ROWS` rows of one bag about their own mean, and what the mean adds to it
in float64: in float32, a bag that lies a thousand deviations from c keeps its digits.
"""

import math

import numpy as np

from skfisher.arrays.libraries import (
    array_module,
    asarray,
    empty,
    float_dtype,
    row_indices,
    zeros,
)
from skfisher.cuda.layout import disjoint

__all__ = [
    "TILE_ROWS",
    "bag_moments",
    "bag_moments_vjp",
    "second_order_sums",
    "second_order_sums_vjp",
    "short_bags",
]

# Rows of a product: sums over so few keep the digits of float32.
TILE_ROWS = 256
# Numbers of the rows that are worked on together: they stay in cache.
BLOCK_NUMBERS = 2**16


def second_order_sums(x, starts, stops, shift, *, dtype=None):
    r"""Add up the rows of each bag and their outer products, about a shift.

    .. math:: S_1 = \sum_t (x_t - c), \qquad S_2 = \sum_t (x_t - c) (x_t - c)^\top

    Source: Carreira et al. (2012), equation (1).

    Parameters
    ----------
    x : array of shape (n, d)
    starts, stops : int64 arrays of shape (n_bags,), on the host
    shift : ndarray of shape (d,), float64, on the host
    dtype : dtype, optional
        Of products; by default that which descriptors of the dtype of `x` are computed in.

    Returns
    -------
    s1 : array of shape (n_bags, d), float64
    s2 : array of shape (n_bags, d, d), float64
        What is added up of a bag does not depend on the other bags, to the last bit.
    """
    n_bags, d = len(starts), x.shape[1]
    dtype = float_dtype(x.dtype) if dtype is None else dtype
    shift = asarray(shift, like=x)
    s1 = empty((n_bags, d), like=x, dtype=np.float64)
    s2 = empty((n_bags, d, d), like=x, dtype=np.float64)
    for bags, rows in short_bags(x, starts, stops):
        means, rests, products = _tile_sums(rows, shift, dtype)
        s1[bags], s2[bags] = _joined(means, rests, rows.shape[1], products)
    for bag, tiles in _long(x, starts, stops):
        total = zeros((d, d), like=x, dtype=np.float64)
        parts = []
        for rows in tiles:
            means, rests, products = _tile_sums(rows, shift, dtype)
            for product in products:
                total += product
            parts.append((means, rests, rows.shape[1]))
        s1[bag], s2[bag] = _added(parts, total)
    return s1, s2


def second_order_sums_vjp(g1, g2, x, starts, stops, shift, *, dtype=None):
    r"""Return ``d_x`` for gradients arriving at `second_order_sums`.

    .. math:: \bar x_t = (\bar S_2 + \bar S_2^\top) (x_t - c) + \bar S_1

    Bags may overlap: what arrives at a row from several of them adds up.

    Parameters
    ----------
    g1 : array of shape (n_bags, d)
    g2 : array of shape (n_bags, d, d)
    x, starts, stops, shift, dtype
        As given to `second_order_sums`.
    """
    dtype = float_dtype(x.dtype) if dtype is None else dtype
    shift = asarray(shift, like=x)
    d_x = empty((int((stops - starts).sum()), x.shape[1]), like=x, dtype=dtype)
    g2 = g2 + g2.transpose(0, 2, 1)
    ends = np.cumsum(stops - starts)
    firsts = ends - (stops - starts)
    for bags, rows in short_bags(x, starts, stops):
        into = _rows_of(firsts[bags], rows.shape[1])
        gradient = _tile_gradients(rows, shift, g1[bags], g2[bags], dtype)
        d_x[into.ravel()] = gradient.reshape(-1, x.shape[1])
    for bag, tiles in _long(x, starts, stops):
        first = int(firsts[bag])
        for rows in tiles:
            stop = first + rows.shape[0] * rows.shape[1]
            gradient = _tile_gradients(rows, shift, g1[bag], g2[bag], dtype)
            d_x[first:stop] = gradient.reshape(-1, x.shape[1])
            first = stop
    return _laid_out(d_x.astype(float_dtype(x.dtype), copy=False), x, starts, stops)


def bag_moments(s1, s2, counts):
    r"""Return the means and the covariances that sums stand for.

    .. math:: \mu = S_1 / T, \qquad P = S_2 / T - \mu \mu^\top

    Source: Li et al. (2017), Is second-order information helpful for large-scale visual
    recognition?, equation (1).

    Parameters
    ----------
    s1 : array of shape (n_bags, d), float64
    s2 : array of shape (n_bags, d, d), float64
    counts : int array of shape (n_bags,), on the host

    Returns
    -------
    means : array of shape (n_bags, d)
        About the shift of the sums.
    covariances : array of shape (n_bags, d, d)
    """
    xp = array_module(s1)
    counts = asarray(counts[:, None].astype(np.float64), like=s1)
    means = s1 / counts
    covariances = empty(s2.shape, like=s2)
    step = max(1, BLOCK_NUMBERS // s2.shape[1] ** 2)
    for first in range(0, len(s2), step):
        some = slice(first, first + step)
        out = xp.multiply(s2[some], 1 / counts[some, :, None], out=covariances[some])
        out -= xp.einsum("ni,nj->nij", means[some], means[some])
    return means, covariances


def bag_moments_vjp(d_means, d_covariances, s1, counts):
    """Return ``d_s1, d_s2`` for gradients arriving at `bag_moments`."""
    counts = asarray(counts[:, None].astype(np.float64), like=s1)
    both = d_covariances + d_covariances.transpose(0, 2, 1)
    d_means = d_means - (both @ (s1 / counts)[:, :, None])[:, :, 0]
    return d_means / counts, d_covariances / counts[:, :, None]


def _tile_sums(rows, shift, dtype):
    """Return the mean of each tile (n, length, d) about the shift, and sums about that mean.

    The mean is rounded: what the differences from it add up to is not quite 0.
    """
    xp = array_module(rows)
    y, means, ones = _centered(rows, dtype)
    products = xp.matmul(y.transpose(0, 2, 1), y)
    rests = xp.matmul(ones, y)[:, 0].astype(np.float64)
    return means[:, 0].astype(np.float64) - shift, rests, products


def _centered(rows, dtype):
    """Return tiles less their means, these (n, 1, d), and a row of ones.

    Products with ones add up a tile in an order that has nothing to do with how many there are.
    """
    xp = array_module(rows)
    rows = xp.ascontiguousarray(rows, dtype=dtype)  # products round by the order in memory
    ones = xp.ones((1, rows.shape[1]), dtype=dtype)
    means = xp.matmul(ones, rows) / rows.shape[1]
    return xp.subtract(rows, means, out=empty(rows.shape, like=rows)), means, ones


def _joined(means, rests, length, products):
    r"""Return the sums of tiles about the shift.

    With the mean m about the shift and the rest r, the mean is :math:`\mu = m + r / T`, and
    :math:`S_2 = \sum (y - m) (y - m)^\top - r r^\top / T + T \mu \mu^\top`.
    """
    xp = array_module(means)
    s1 = length * means + rests
    root = math.sqrt(length)
    left = empty((len(s1), 2, s1.shape[1]), like=s1)
    left[:, 0] = s1
    left[:, 1] = rests
    left /= root
    right = left.copy()
    right[:, 1] *= -1
    s2 = xp.matmul(left.transpose(0, 2, 1), right)
    s2 += products
    return s1, s2


def _added(parts, total):
    """Return the sums of a bag of several tiles about the shift."""
    xp = array_module(total)
    means, rests = (xp.concatenate([part[i] for part in parts]) for i in (0, 1))
    n = np.concatenate([np.full((len(part[0]), 1), float(part[2])) for part in parts])
    n = asarray(n, like=total)
    cross = means.T @ (rests + n / 2 * means)
    return (n * means + rests).sum(axis=0), total + (cross + cross.T)


def _tile_gradients(rows, shift, g1, g2, dtype):
    """Return the gradients of tiles (n, length, d): a sum for each, or one for all of them."""
    xp = array_module(rows)
    rows, means, _ = _centered(rows, dtype)
    constants = xp.matmul(means - shift, g2) + g1[..., None, :]
    gradients = xp.matmul(rows, g2.astype(dtype))
    gradients += constants.astype(dtype)
    return gradients


def short_bags(x, starts, stops):
    """Yield the numbers of some bags of one tile and one length, and their rows (n, length, d)."""
    lengths = stops - starts
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= TILE_ROWS]
    if not len(order):
        return
    borders = np.flatnonzero(np.diff(lengths[order])) + 1
    for bags in np.split(order, borders):
        length = int(lengths[bags[0]])
        step = max(1, BLOCK_NUMBERS // (length * x.shape[1]))
        for first in range(0, len(bags), step):
            some = bags[first : first + step]
            index = _rows_of(starts[some], length)
            if (starts[some[1:]] == stops[some[:-1]]).all():
                rows = x[int(starts[some[0]]) : int(stops[some[-1]])]
            else:
                rows = array_module(x).take(x, asarray(index.ravel(), like=x), axis=0)
            yield some, rows.reshape(*index.shape, x.shape[1])


def _rows_of(starts, length):
    return starts[:, None] + np.arange(length)


def _long(x, starts, stops):
    """Yield the number of each longer bag, and its tiles (n, length, d), some at a time."""
    for bag in np.flatnonzero(stops - starts > TILE_ROWS).tolist():
        yield bag, _tiles(x[int(starts[bag]) : int(stops[bag])])


def _tiles(rows):
    n, d = rows.shape
    step = TILE_ROWS * max(1, BLOCK_NUMBERS // (TILE_ROWS * d))
    whole = n - n % TILE_ROWS
    for first in range(0, whole, step):
        yield rows[first : min(first + step, whole)].reshape(-1, TILE_ROWS, d)
    if whole < n:
        yield rows[whole:].reshape(1, n - whole, d)


def _laid_out(d_x, x, starts, stops):
    """Return gradients of the rows of bags, one after the other, as those of the rows of `x`."""
    if starts[0] == 0 and stops[-1] == len(x) and (starts[1:] == stops[:-1]).all():
        return d_x
    out = zeros(x.shape, like=x)
    if disjoint(starts, stops):
        out[asarray(row_indices(starts, stops), like=x)] = d_x
        return out
    first = 0
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        out[start:stop] += d_x[first : first + stop - start]
        first += stop - start
    return out

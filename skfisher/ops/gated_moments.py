r"""Second moments of each bag under each component of a mixture.

With the posteriors :math:`g_t` of `soft_assignment`, in the coordinates y of a frame,

.. math:: S_k = \sum_t g_{tk} \begin{pmatrix} y_t \\ 1 \end{pmatrix}
                               \begin{pmatrix} y_t \\ 1 \end{pmatrix}^{\!\top}.

``S_k / T`` is the Gaussian embedding of the descriptors of a component, before its root, times
its share in the bag.
"""

import numpy as np

from skfisher.arrays.libraries import array_module, empty, is_cupy, zeros
from skfisher.ops.bag_products import Pieces
from skfisher.ops.chunks import Rows, equal_lengths, iter_chunks
from skfisher.ops.soft_assignment import Assignment, add_rows, buffer_rows, new_gradients
from skfisher.ops.tiles import TILE_ROWS, tiles_of

__all__ = ["gated_moments", "gated_moments_vjp"]

# Bags of so many descriptors are worth a product for each component.
LONG = 128


def gated_moments(x, starts, stops, coefficients, *, frame):
    r"""Return the sums :math:`S_k` of each bag.

    Parameters
    ----------
    x : array of shape (n, d)
        Descriptors of all bags.
    starts, stops : int64 arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]`` of `x`, at least one.
    coefficients : (linear, quadratic, constant), arrays of shape (k, d), (k, d), (k,)
        Of the logits, in the frame; their dtype is the one computed in.
    frame : Frame
        ``y = (x - frame.shift) / frame.scale``, about where descriptors lie: what is added up is
        not about the origin of `x`, so that an offset costs no digits.

    Returns
    -------
    sums : float64 array of shape (n_bags, k, d + 1, d + 1)
    """
    k, d = coefficients[0].shape
    sums = empty((len(starts), k, d + 1, d + 1), like=x, dtype=np.float64)
    # which way a bag goes depends on its own length, so that no bit depends on its company
    is_long = (stops - starts >= LONG) & (not is_cupy(x))
    for some, products in ((~is_long, _of_short_bags), (is_long, _of_long_bags)):
        bags = np.flatnonzero(some)
        if not len(bags):
            continue
        for chunk, y1, posteriors, tiles in _Chunks(
            x, starts[bags], stops[bags], coefficients, frame
        ):
            part = products(posteriors, y1, chunk, tiles)
            if chunk.first:
                sums[bags[chunk.bags]] = part
            else:
                sums[bags[chunk.bags]] += part
    return sums


def _of_short_bags(posteriors, y1, chunk, tiles):
    """Return the sums of the bags of a chunk: one batched product for those of one length."""
    (k, n), m = posteriors.shape, y1.shape[1]
    weighted = (posteriors[:, None, :] * y1.T).reshape(k * m, n)
    return _products(weighted, y1, chunk.lengths, tiles).reshape(-1, k, m, m)


def _of_long_bags(posteriors, y1, chunk, tiles):  # noqa: ARG001
    """Return the sums of the bags of a chunk: symmetric products, at half the price of others."""
    m = y1.shape[1]
    sums = np.zeros((len(chunk.lengths), len(posteriors), m, m))
    roots = np.sqrt(posteriors)
    for bag, (a, b) in enumerate(chunk.columns):
        for first in range(a, b, TILE_ROWS):
            rows = slice(first, min(first + TILE_ROWS, b))
            for k, root in enumerate(roots):
                weighted = y1[rows] * root[rows, None]
                sums[bag, k] += weighted.T @ weighted
    return sums


def gated_moments_vjp(g, x, starts, stops, coefficients, *, frame, with_x=True):
    r"""Return ``d_x, d_coefficients`` for `g` arriving at `gated_moments`.

    With :math:`z_t = (y_t, 1)` and the gradients :math:`H_k = G_k + G_k^\top`,

    .. math:: q_{tk} = \tfrac{1}{2} z_t^\top H_k z_t, \qquad
              r_t = g_t (q_t - \langle g_t, q_t \rangle),

    the coefficients get what they get in `soft_statistics_vjp`, and a descriptor

    .. math:: \bar y_t = \sum_k g_{tk} H_k z_t + M_1^\top r_t + 2 y_t \, (M_2^\top r_t).

    The gradients by the coefficients are in float64. With ``with_x=False`` `d_x` is None.
    """
    k, d = coefficients[0].shape
    linear, quadratic, _ = coefficients
    xp = array_module(x)
    d_x = zeros(x.shape, like=x) if with_x else None
    d_coefficients = new_gradients(coefficients)
    # (n_bags, d + 1, k (d + 1))
    both = (g + g.transpose(0, 1, 3, 2)).transpose(0, 2, 1, 3).reshape(len(g), d + 1, -1)
    both = xp.ascontiguousarray(both.astype(linear.dtype, copy=False))
    for chunk, y1, posteriors, _ in _Chunks(x, starts, stops, coefficients, frame):
        y = y1[:, :d]
        slopes = _rows_times(y1, both[chunk.bags], chunk).reshape(-1, k, d + 1)
        q = xp.einsum("nkj,nj->kn", slopes, y1) / 2
        r = posteriors * (q - (posteriors * q).sum(axis=0) / posteriors.sum(axis=0))
        for whole, part in zip(d_coefficients, (r @ y, r @ (y * y), r.sum(axis=1)), strict=True):
            whole += part
        if with_x:
            d_y = xp.einsum("kn,nkj->nj", posteriors, slopes[:, :, :d])
            d_y += r.T @ linear
            d_y += 2 * y * (r.T @ quadratic)
            add_rows(d_x, chunk, d_y / xp.asarray(frame.scale, dtype=d_y.dtype))
    return d_x, d_coefficients


class _Chunks:
    """Iterates over chunks of bags, their rows with a 1 appended, and posteriors (k, n)."""

    def __init__(self, x, starts, stops, coefficients, frame):
        k, d = coefficients[0].shape
        width = k * (d + 1)  # numbers of a row
        dtype = coefficients[0].dtype
        n_rows = buffer_rows(x, starts, stops, width, d)
        self._chunks = iter_chunks(starts, stops, width, d, like=x)
        self._reader = Rows(n_rows, x, frame, dtype)
        self._assign = Assignment(coefficients, n_rows)
        self._y1 = array_module(x).ones((n_rows, d + 1), dtype=dtype)

    def __iter__(self):
        for chunk in self._chunks:
            y, y2 = self._reader.read(chunk.starts, chunk.stops)
            y1 = self._y1[: len(y)]
            y1[:, :-1] = y
            tiles = tiles_of(chunk.lengths, y)
            posteriors, _, _ = self._assign(y, y2, tiles)
            yield chunk, y1, posteriors, tiles


def _products(left, y, lengths, tiles):
    """Return ``left @ y`` of the rows of each bag, of `left` (k, n) and `y` (n, d), in float64."""
    if tiles is not None:
        return tiles.sums(left, y)
    shape = equal_lengths(lengths)
    if shape is None:
        return Pieces.of(lengths).sums(left, y)[1].astype(np.float64)
    left = left.reshape(-1, *shape).transpose(1, 0, 2)
    return (left @ y.reshape(*shape, -1)).astype(np.float64)


def _rows_times(y, weights, chunk):
    """Return the product (n, m) of each row and the weights (n_bags, d, m) of its bag."""
    shape = equal_lengths(chunk.lengths)
    if shape is not None:
        return (y.reshape(*shape, -1) @ weights).reshape(len(y), -1)
    out = empty((len(y), weights.shape[2]), like=y)
    if is_cupy(y):
        Pieces.of(chunk.lengths).multiply(y.T, weights, out)
        return out
    for bag, (a, b) in enumerate(chunk.columns):
        array_module(y).matmul(y[a:b], weights[bag], out=out[a:b])
    return out

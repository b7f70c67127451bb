r"""Soft assignment of descriptors to components, summed over each bag.

Everything that assigns softly and then sums (Fisher vectors, bags of words, VLAD,
NetVLAD, EM) is this one operation with its own logits. For a bag with rows
``z_t = [y_t, y_t^2, 1]`` and coefficients ``M``, one row per component,

.. math:: g_t = \operatorname{softmax}(M z_t), \qquad S = \sum_t g_t z_t' = [S_1, S_2, S_0].

The posteriors exist for one chunk of descriptors at a time, components first, and the
backward pass computes them again instead of storing them.
"""

import numpy as np

from skfisher.backend import array_module, empty, zeros
from skfisher.ops.chunks import chunk_rows, fill_rows, iter_chunks, iter_row_chunks, new_rows

__all__ = [
    "iter_statistics",
    "iter_statistics_vjp",
    "soft_statistics",
    "soft_statistics_vjp",
    "total_statistics",
]

# Logits this far below a descriptor's largest count as this far below: the exponential
# stays a normal number, and products with denormal numbers take many times longer.
_LOWEST_LOGIT = {4: -60.0, 8: -600.0}


class _Workspace:
    """The buffers of one thread, cut to each chunk's number of rows."""

    def __init__(self, n_components, n_features, n_rows, *, like, dtype, backward=False):
        self.rows = new_rows(n_rows, n_features, like=like, dtype=dtype)
        self._wide = empty((2 * n_components if backward else n_components) * n_rows,
                           like=like, dtype=dtype)  # fmt: skip
        self._n_components = n_components

    def posteriors(self, n):
        k = self._n_components
        return self._wide[: k * n].reshape(k, n)

    def posteriors_and_cotangents(self, n):
        k = self._n_components
        return self._wide[: 2 * k * n].reshape(2 * k, n)


def soft_assign(rows, coefficients, out):
    """Write the posteriors (k, n) of `rows` into `out`; return max and log sum of the logits."""
    xp = array_module(rows)
    logits = xp.matmul(coefficients, rows.T, out=out)
    largest = logits.max(axis=0)
    logits -= largest
    xp.maximum(logits, _LOWEST_LOGIT[logits.dtype.itemsize], out=logits)
    xp.exp(logits, out=logits)
    total = logits.sum(axis=0)
    logits *= 1 / total
    return largest, xp.log(total)


def _per_bag(chunk):
    """Return ``(n_bags, length)`` of a chunk whose bags are equally long, else None."""
    lengths = chunk.stops - chunk.starts
    n_bags, length = len(lengths), int(lengths[0])
    return (n_bags, length) if n_bags == 1 or (lengths == length).all() else None


def _bag_columns(chunk):
    ends = np.cumsum(chunk.stops - chunk.starts).tolist()
    return zip([0, *ends[:-1]], ends, strict=True)


def _sum_per_bag(assigned, rows, chunk, out):
    """Write ``assigned[:, bag] @ rows[bag]`` for each bag of the chunk into `out`."""
    xp = array_module(rows)
    shape = _per_bag(chunk)
    if shape is not None:
        left = assigned.reshape(assigned.shape[0], *shape).transpose(1, 0, 2)
        xp.matmul(left, rows.reshape(*shape, -1), out=out)
    else:
        for bag, (a, b) in enumerate(_bag_columns(chunk)):
            xp.matmul(assigned[:, a:b], rows[a:b], out=out[bag])


def iter_statistics(x, starts, stops, coefficients, *, frame):
    """Compute the statistics of bags, a group of bags at a time.

    Yields
    ------
    bags : slice
    sums : float64 array of shape (len(bags), k, 2 * d + 1)
        ``[S1, S2, S0]``, valid until the next step.
    """
    k, d = coefficients.shape[0], x.shape[1]
    work = _Workspace(k, d, chunk_rows(k, d), like=x, dtype=coefficients.dtype)
    partial = total = None
    for chunk in iter_chunks(starts, stops, k, d):
        rows = fill_rows(work.rows, x, chunk.starts, chunk.stops, frame)
        posteriors = work.posteriors(len(rows))
        soft_assign(rows, coefficients, posteriors)
        n_bags = len(chunk.starts)
        if partial is None or len(partial) < n_bags:
            partial = empty((n_bags, *coefficients.shape), like=x, dtype=coefficients.dtype)
        _sum_per_bag(posteriors, rows, chunk, partial[:n_bags])
        if chunk.first:
            total = partial[:n_bags].astype(np.float64)
        else:
            total += partial[:n_bags]
        if chunk.last:
            yield chunk.bags, total


def total_statistics(x, starts, stops, coefficients, *, frame):
    """Sum the statistics over all descriptors of all bags, and their log-likelihood.

    Returns
    -------
    sums : float64 array of shape (k, 2 * d + 1)
    log_likelihood : float
        Sum over descriptors of ``log sum_k exp(l_tk)``.
    """
    k, d = coefficients.shape[0], x.shape[1]
    n_rows = chunk_rows(k, d)
    work = _Workspace(k, d, n_rows, like=x, dtype=coefficients.dtype)
    partial = empty(coefficients.shape, like=x, dtype=coefficients.dtype)
    xp = array_module(x)
    total = zeros(coefficients.shape, like=x, dtype=np.float64)
    log_likelihood = 0.0
    for run_starts, run_stops in iter_row_chunks(starts, stops, n_rows):
        rows = fill_rows(work.rows, x, run_starts, run_stops, frame)
        posteriors = work.posteriors(len(rows))
        largest, log_sum = soft_assign(rows, coefficients, posteriors)
        total += xp.matmul(posteriors, rows, out=partial)
        log_likelihood += largest.sum(dtype=np.float64) + log_sum.sum(dtype=np.float64)
    return total, float(log_likelihood)


def iter_statistics_vjp(
    cotangents, x, starts, stops, coefficients, *, frame, d_coefficients, d_x=None, with_sums=True
):
    r"""Send gradients at the statistics back to descriptors and coefficients, group by group.

    For one bag, with ``C = [A, B, a0]`` the gradient at ``S``,

    .. math:: q_t = C z_t, \quad r_t = g_t (q_t - \langle g_t, q_t \rangle), \quad
              \bar M = \sum_t r_t z_t', \quad
              \bar y_t = g_t' A + r_t' M_1 + 2 y_t (g_t' B + r_t' M_2).

    Parameters
    ----------
    cotangents : callable
        ``cotangents(bags)`` returns ``C`` of a slice of bags, (len(bags), k, 2 * d + 1).
    d_coefficients : float64 array of shape (k, 2 * d + 1)
        The sum over all bags is added to it.
    d_x : array of the shape of `x`, optional
        The rows of the bags are written, if given; without it 8 of 20 products are saved.
    with_sums : bool
        Whether ``S`` is wanted again, for one more product in place of a forward pass.

    Yields
    ------
    bags : slice
    sums : float64 array of shape (len(bags), k, 2 * d + 1), or None
    """
    xp = array_module(x)
    k, d = coefficients.shape[0], x.shape[1]
    dtype = coefficients.dtype
    work = _Workspace(k, d, chunk_rows(k, d), like=x, dtype=dtype, backward=True)
    product = empty((k, chunk_rows(k, d)), like=x, dtype=dtype)
    total = None
    for chunk in iter_chunks(starts, stops, k, d):
        rows = fill_rows(work.rows, x, chunk.starts, chunk.stops, frame)
        both = work.posteriors_and_cotangents(len(rows))
        posteriors, r = both[:k], both[k:]
        soft_assign(rows, coefficients, posteriors)
        if chunk.first:
            c = cotangents(chunk.bags).astype(dtype, copy=False)
        _product_per_bag(c, rows, chunk, out=r)
        # Divided by the sum of the posteriors, 1 to rounding: r sums to 0 over components.
        mean = xp.multiply(posteriors, r, out=product[:, : len(rows)]).sum(axis=0)
        mean /= posteriors.sum(axis=0)
        r -= mean
        r *= posteriors
        if with_sums:
            sums = empty((len(chunk.starts), 2 * k, 2 * d + 1), like=x, dtype=dtype)
            _sum_per_bag(both, rows, chunk, sums)
            d_coefficients += sums[:, k:].sum(axis=0, dtype=np.float64)
            if chunk.first:
                total = sums[:, :k].astype(np.float64)
            else:
                total += sums[:, :k]
        else:
            d_coefficients += r @ rows
        if d_x is not None:
            _write_d_x(d_x, both, rows, c, coefficients, chunk, frame)
        if chunk.last:
            yield chunk.bags, total


def _product_per_bag(c, rows, chunk, out):
    """Write ``c[bag] @ rows[bag].T`` for each bag of the chunk into the columns of `out`."""
    xp = array_module(rows)
    shape = _per_bag(chunk)
    if shape is not None:
        right = rows.reshape(*shape, -1).transpose(0, 2, 1)
        xp.matmul(c, right, out=out.reshape(out.shape[0], *shape).transpose(1, 0, 2))
    else:
        for bag, (a, b) in enumerate(_bag_columns(chunk)):
            xp.matmul(c[bag], rows[a:b].T, out=out[:, a:b])


def _write_d_x(d_x, both, rows, c, coefficients, chunk, frame):
    xp = array_module(rows)
    k, d = coefficients.shape[0], d_x.shape[1]
    weights = empty((len(c), 2 * k, 2 * d), like=rows)
    weights[:, :k] = c[:, :, :-1]
    weights[:, k:] = coefficients[:, :-1]
    weights[:, :, d:] *= 2
    shape = _per_bag(chunk)
    if shape is not None:
        left = both.reshape(2 * k, *shape).transpose(1, 2, 0)
        slopes = xp.matmul(left, weights).reshape(len(rows), 2 * d)
    else:
        slopes = empty((len(rows), 2 * d), like=rows)
        for bag, (a, b) in enumerate(_bag_columns(chunk)):
            xp.matmul(both[:, a:b].T, weights[bag], out=slopes[a:b])
    d_rows = slopes[:, d:]
    d_rows *= rows[:, :d]
    d_rows += slopes[:, :d]
    d_rows /= frame.scale
    for (a, b), start, stop in zip(_bag_columns(chunk), chunk.starts, chunk.stops, strict=True):
        d_x[start:stop] = d_rows[a:b]


def soft_statistics(x, starts, stops, coefficients, *, frame):
    r"""Soft assignment of descriptors, and the sums ``[S1, S2, S0]`` of each bag.

    .. math:: S_0 = \sum_t g_t, \quad S_1 = \sum_t g_t y_t', \quad S_2 = \sum_t g_t (y_t^2)',
              \quad g_t = \operatorname{softmax}(M [y_t, y_t^2, 1])

    Source: Sánchez et al. (2013), equations (26)-(28).

    Parameters
    ----------
    x : array of shape (n, d)
    starts, stops : int64 arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]`` of `x`.
    coefficients : array of shape (k, 2 * d + 1)
        Of the logits, for the columns ``[y, y^2, 1]``; its dtype is the dtype computed in.
    frame : Frame
        ``y = (x - frame.shift) / frame.scale``.

    Returns
    -------
    sums : float64 array of shape (n_bags, k, 2 * d + 1)
    """
    sums = empty((len(starts), *coefficients.shape), like=x, dtype=np.float64)
    for bags, group in iter_statistics(x, starts, stops, coefficients, frame=frame):
        sums[bags] = group
    return sums


def soft_statistics_vjp(g, x, starts, stops, coefficients, *, frame):
    """Return ``d_x, d_coefficients`` for `g` (n_bags, k, 2 * d + 1) at `soft_statistics`."""
    d_x = zeros(x.shape, like=x)
    d_coefficients = zeros(coefficients.shape, like=x, dtype=np.float64)
    steps = iter_statistics_vjp(
        lambda bags: g[bags], x, starts, stops, coefficients,
        frame=frame, d_coefficients=d_coefficients, d_x=d_x, with_sums=False,
    )  # fmt: skip
    for _ in steps:
        pass
    return d_x, d_coefficients.astype(coefficients.dtype)

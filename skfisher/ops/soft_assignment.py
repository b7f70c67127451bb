r"""Soft assignment of descriptors to components, summed over each bag.

Everything that assigns softly and then sums (Fisher vectors, bags of words, VLAD,
NetVLAD, EM) is this one operation with its own logits. For one bag,

.. math::
    g_t = \operatorname{softmax}(M_1 y_t + M_2 y_t^2 + m_0), \qquad
    S_0 = \sum_t g_t, \quad S_1 = \sum_t g_t y_t', \quad S_2 = \sum_t g_t (y_t^2)'.

Posteriors exist for one chunk of descriptors at a time, components first, and the
backward pass computes them again instead of storing them.
"""

from typing import Any, NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module, empty, is_cupy, row_indices, zeros
from skfisher.cuda.layout import disjoint
from skfisher.native import statistics as kernels
from skfisher.native import vjp as vjp_kernels
from skfisher.ops.bag_products import Pieces
from skfisher.ops.chunks import Rows, chunk_rows, equal_lengths, iter_chunks, iter_row_chunks
from skfisher.ops.tiles import tiles_of

__all__ = [
    "Assignment",
    "Sums",
    "add_rows",
    "buffer_rows",
    "iter_statistics",
    "iter_statistics_vjp",
    "soft_statistics",
    "soft_statistics_vjp",
    "total_statistics",
]


class Sums(NamedTuple):
    """The statistics of bags, or, of the same shapes, gradients at them."""

    s0: Any  # (n_bags, k)
    s1: Any  # (n_bags, k, d)
    s2: Any  # (n_bags, k, d)

    @classmethod
    def empty(cls, n_bags, k, d, *, like, dtype=np.float64):
        """Return uninitialised sums of `n_bags` bags."""
        shapes = (n_bags, k), (n_bags, k, d), (n_bags, k, d)
        return cls(*(empty(shape, like=like, dtype=dtype) for shape in shapes))

    def of(self, bags):
        """Return views of the sums of a slice of bags."""
        return Sums(*(s[bags] for s in self))

    def plus(self, other):
        """Return the sums of both."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def astype(self, dtype):
        """Return the sums in another dtype."""
        return Sums(*(s.astype(dtype) for s in self))


def soft_statistics(x, starts, stops, coefficients, *, frame=None):
    r"""Soft assignment of descriptors, and the sums S0, S1 and S2 of each bag.

    Source: Sánchez, Perronnin, Mensink and Verbeek (2013), equations (26)-(28), with
    the logits left open.

    Parameters
    ----------
    x : array of shape (n, d)
        Descriptors of all bags.
    starts, stops : int64 arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]`` of `x`, at least one.
    coefficients : (linear, quadratic, constant), arrays of shape (k, d), (k, d), (k,)
        ``M_1``, ``M_2`` and ``m_0`` of the logits; their dtype is the one computed in.
    frame : Frame, optional
        ``y = (x - frame.shift) / frame.scale``; by default ``y = x``.

    Returns
    -------
    sums : Sums of float64 arrays
    """
    sums = Sums.empty(len(starts), *coefficients[0].shape, like=x)
    if kernels.takes(x):
        kernels.bag_statistics(x, starts, stops, coefficients, sums, frame=frame)
        return sums
    for bags, group in iter_statistics(x, starts, stops, coefficients, frame=frame):
        for whole, part in zip(sums, group, strict=True):
            whole[bags] = part
    return sums


def soft_statistics_vjp(g, x, starts, stops, coefficients, *, frame=None, with_x=True):
    """Return ``d_x, d_coefficients`` for the gradients `g`, `Sums`, at `soft_statistics`.

    Those by the coefficients are in float64, to be added up. With ``with_x=False`` `d_x` is None,
    and less is computed.
    """
    if vjp_kernels.takes(x):
        return vjp_kernels.statistics_vjp(
            g, x, starts, stops, coefficients, frame=frame, with_x=with_x
        )
    d_x = zeros(x.shape, like=x) if with_x else None
    d_coefficients = new_gradients(coefficients)
    steps = iter_statistics_vjp(
        g.of, x, starts, stops, coefficients,
        frame=frame, d_coefficients=d_coefficients, d_x=d_x, with_sums=False,
    )  # fmt: skip
    for _ in steps:
        pass
    return d_x, d_coefficients


def new_gradients(parameters):
    """Return float64 zeros of the shapes of `parameters`, to be added to."""
    return tuple(zeros(p.shape, like=p, dtype=np.float64) for p in parameters)


def iter_statistics(x, starts, stops, coefficients, *, frame=None, hard=False):
    """Compute the statistics of bags, a group of bags at a time.

    With `hard`, a descriptor belongs to the component of the largest logit alone, the first of
    equals.

    Yields
    ------
    bags : slice
    sums : Sums of float64 arrays
    """
    k, d = coefficients[0].shape
    dtype = coefficients[0].dtype
    n_rows = buffer_rows(x, starts, stops, k, d)
    reader = Rows(n_rows, x, frame, dtype)
    assign = Assignment(coefficients, n_rows, hard=hard)
    total = None
    for chunk in iter_chunks(starts, stops, k, d, like=x):
        y, y2 = reader.read(chunk.starts, chunk.stops)
        tiles = tiles_of(chunk.lengths, y)
        posteriors, _, _ = assign(y, y2, tiles)
        part = _sums_per_bag(posteriors, y, y2, chunk.lengths, tiles)
        total = part if chunk.first else total.plus(part)
        if chunk.last:
            yield chunk.bags, total


def total_statistics(x, starts, stops, coefficients, *, frame=None):
    """Sum the statistics over all descriptors of all bags, and their log-likelihood.

    Returns
    -------
    sums : Sums of float64 arrays, of one bag
    log_likelihood : float
        Sum over descriptors of ``log sum_k exp(l_tk)``.
    """
    xp = array_module(x)
    k, d = coefficients[0].shape
    dtype = coefficients[0].dtype
    total = Sums(*(xp.zeros(shape) for shape in [(1, k), (1, k, d), (1, k, d)]))
    if kernels.takes(x):
        log_likelihood = kernels.total_statistics(
            x, starts, stops, coefficients, total, frame=frame
        )
        return total, log_likelihood
    n_rows = buffer_rows(x, starts, stops, k, d)
    reader = Rows(n_rows, x, frame, dtype)
    assign = Assignment(coefficients, n_rows)
    log_likelihood = 0.0
    for run_starts, run_stops in iter_row_chunks(starts, stops, chunk_rows(k, d, like=x)):
        y, y2 = reader.read(run_starts, run_stops)
        lengths = np.array([len(y)])
        tiles = tiles_of(lengths, y)
        posteriors, largest, total_of_exp = assign(y, y2, tiles)
        total = total.plus(_sums_per_bag(posteriors, y, y2, lengths, tiles))
        log_sum = xp.log(total_of_exp).sum(dtype=np.float64)
        log_likelihood += float(largest.sum(dtype=np.float64) + log_sum)
    return total, log_likelihood


def iter_statistics_vjp(
    cotangents,
    x,
    starts,
    stops,
    coefficients,
    *,
    frame=None,
    d_coefficients,
    d_x=None,
    with_sums=True,
    hard=False,
):
    r"""Send gradients at the statistics back to descriptors and coefficients, group by group.

    For one bag, with ``A, B, a_0`` the gradients at ``S1, S2, S0``,

    .. math::
        q_t &= A y_t + B y_t^2 + a_0, \qquad r_t = g_t (q_t - \langle g_t, q_t \rangle), \\
        \bar M_1 &= \sum_t r_t y_t', \quad \bar M_2 = \sum_t r_t (y_t^2)', \quad
        \bar m_0 = \sum_t r_t, \\
        \bar y_t &= A' g_t + M_1' r_t + 2 y_t (B' g_t + M_2' r_t).

    Parameters
    ----------
    cotangents : callable
        ``cotangents(bags)`` returns the gradients at the sums of a slice of bags, `Sums`.
    d_coefficients : triple of float64 arrays, or None
        The sums over all bags are added to them, if given.
    d_x : array of the shape of `x`, optional
        The gradients are added to the rows of the bags, if given; without it 8 of 20 products
        are saved.
    with_sums : bool
        Whether the statistics are wanted too, for less than another forward pass; only
        together with `d_coefficients`.
    hard : bool
        As for `iter_statistics`: the assignment is held then, and `r` is 0.

    Yields
    ------
    bags : slice
    sums : Sums of float64 arrays, or None
    """
    xp = array_module(x)
    k, d = coefficients[0].shape
    dtype = coefficients[0].dtype
    n_rows = buffer_rows(x, starts, stops, k, d)
    reader = Rows(n_rows, x, frame, dtype)
    assign = Assignment(coefficients, n_rows, extra=k, hard=hard)
    slopes = empty((2, n_rows, d), like=x, dtype=dtype)
    total = None
    for chunk in iter_chunks(starts, stops, k, d, like=x):
        y, y2 = reader.read(chunk.starts, chunk.stops)
        n = len(y)
        tiles = tiles_of(chunk.lengths, y)
        posteriors, _, _ = assign(y, y2, tiles)
        both, r = assign.with_extra(n)  # posteriors over r, in one block of memory
        if chunk.first:
            c = cotangents(chunk.bags).astype(dtype)
        _cotangent_per_bag(c, y, y2, chunk, assign.scratch(n), out=r)
        # Divided by the sum of the posteriors, 1 to rounding: r sums to 0 over components.
        mean = xp.multiply(posteriors, r, out=assign.scratch(n)).sum(axis=0)
        mean /= posteriors.sum(axis=0)
        r -= mean
        r *= posteriors
        if with_sums:
            part = _sums_per_bag(both, y, y2, chunk.lengths, tiles)
            d_part = (part.s1[:, k:], part.s2[:, k:], part.s0[:, k:])
            part = Sums(*(p[:, :k] for p in part))
            total = part if chunk.first else total.plus(part)
            for whole, p in zip(d_coefficients, d_part, strict=True):
                whole += p.sum(axis=0)
        elif d_coefficients is not None:
            for whole, p in zip(d_coefficients, (r @ y, r @ y2, r.sum(axis=1)), strict=True):
                whole += p
        if d_x is not None:
            d_y = _slopes_per_bag(both, c, coefficients, y, chunk, slopes)
            if frame is not None:
                d_y /= frame.scale
            add_rows(d_x, chunk, d_y)
        if chunk.last:
            yield chunk.bags, total


def buffer_rows(x, starts, stops, k, d):
    """Return the rows of the largest chunk, or more; never more than there are."""
    return min(chunk_rows(k, d, like=x), int((stops - starts).sum()))


class Assignment:
    """Softmax of the logits of a chunk, or 1 for the largest alone, in buffers of its own."""

    def __init__(self, coefficients, n_rows, *, extra=0, hard=False):
        linear, quadratic, constant = coefficients
        xp = array_module(linear)
        self._linear = xp.ascontiguousarray(linear)
        self._quadratic = xp.ascontiguousarray(quadratic)
        self._constant = constant[:, None]
        self._k, self._hard = len(linear), hard
        self._block = empty((self._k + extra) * n_rows, like=linear)
        self._scratch, self._n_rows = empty(self._k * n_rows, like=linear), n_rows
        # Added to exponentials: products with denormal numbers take many times longer.
        self._least = 1e-30 if linear.dtype == np.float32 else 1e-290

    def with_extra(self, n):
        """Return the block (k + extra, n) that starts with the posteriors, and its rest."""
        block = self._block[: len(self._block) // self._n_rows * n].reshape(-1, n)
        return block, block[self._k :]

    def scratch(self, n):
        """Return a buffer (k, n), whose numbers the next call overwrites."""
        return self._scratch[: self._k * n].reshape(self._k, n)

    def __call__(self, y, y2, tiles):
        """Return posteriors (k, n), valid until the next call, and max and sum (n,).

        The log-likelihood of a descriptor is the max and the logarithm of the sum.
        """
        xp = array_module(y)
        n = len(y)
        logits = self._block[: self._k * n].reshape(self._k, n)
        self._multiply(self._linear, y, tiles, logits)
        logits += self._multiply(self._quadratic, y2, tiles, self.scratch(n))
        logits += self._constant
        if self._hard:
            logits[...] = logits.argmax(axis=0) == xp.arange(self._k)[:, None]
            return logits, None, None
        largest = logits.max(axis=0)
        logits -= largest
        xp.exp(logits, out=logits)
        logits += self._least
        # NumPy adds up a single column in another order than those of a wider array.
        total = logits.sum(axis=0) if n > 1 else xp.cumsum(logits, axis=0)[-1]
        logits *= 1 / total
        return logits, largest, total

    @staticmethod
    def _multiply(matrix, y, tiles, out):
        if tiles is not None:
            return tiles.multiply(matrix, y, out)
        return array_module(y).matmul(matrix, y.T, out=out)


def _sums_per_bag(assigned, y, y2, lengths, tiles):
    """Return the sums over each bag of ``assigned``, times 1, `y` and `y2`, in float64."""
    if tiles is not None:
        return Sums(tiles.row_sums(assigned), tiles.sums(assigned, y), tiles.sums(assigned, y2))
    shape = equal_lengths(lengths)
    if shape is None:
        return Sums(*Pieces.of(lengths).sums(assigned, y, y2)).astype(np.float64)
    left = assigned.reshape(-1, *shape).transpose(1, 0, 2)
    # not by reduceat, which takes differences of running sums there and loses digits
    sums = left.sum(axis=2), left @ y.reshape(*shape, -1), left @ y2.reshape(*shape, -1)
    return Sums(*sums).astype(np.float64)


def _cotangent_per_bag(c, y, y2, chunk, scratch, out):
    """Write ``q = A y + B y^2 + a0``, (k, n), into `out`, with each bag's own A, B, a0."""
    xp = array_module(y)
    shape = equal_lengths(chunk.lengths)
    if shape is not None:
        out = out.reshape(-1, *shape).transpose(1, 0, 2)
        scratch = scratch.reshape(-1, *shape).transpose(1, 0, 2)
        xp.matmul(c.s1, y.reshape(*shape, -1).transpose(0, 2, 1), out=out)
        out += xp.matmul(c.s2, y2.reshape(*shape, -1).transpose(0, 2, 1), out=scratch)
        out += c.s0[:, :, None]
    elif is_cupy(y):
        Pieces.of(chunk.lengths).cotangent(c, y, y2, out)
    else:
        for bag, (a, b) in enumerate(chunk.columns):
            q = out[:, a:b]
            xp.matmul(c.s1[bag], y[a:b].T, out=q)
            q += xp.matmul(c.s2[bag], y2[a:b].T, out=scratch[:, a:b])
            q += c.s0[bag][:, None]


def _slopes_per_bag(both, c, coefficients, y, chunk, out):
    """Return ``A' g + M1' r + 2 y (B' g + M2' r)``, (n, d), in the buffer `out`."""
    xp = array_module(y)
    n, d = y.shape
    first, second = out[0, :n], out[1, :n]
    first_weights = _stack(c.s1, coefficients[0])
    second_weights = _stack(c.s2, coefficients[1])
    second_weights *= 2
    shape = equal_lengths(chunk.lengths)
    if shape is not None:
        left = both.reshape(-1, *shape).transpose(1, 2, 0)
        xp.matmul(left, first_weights, out=first.reshape(*shape, d))
        xp.matmul(left, second_weights, out=second.reshape(*shape, d))
    elif is_cupy(y):
        pieces = Pieces.of(chunk.lengths)
        pieces.multiply(both, first_weights, first)
        pieces.multiply(both, second_weights, second)
    else:
        for bag, (a, b) in enumerate(chunk.columns):
            xp.matmul(both[:, a:b].T, first_weights[bag], out=first[a:b])
            xp.matmul(both[:, a:b].T, second_weights[bag], out=second[a:b])
    second *= y
    first += second
    return first


def _stack(per_bag, shared):
    n_bags, k, d = per_bag.shape
    stacked = empty((n_bags, 2 * k, d), like=per_bag)
    stacked[:, :k] = per_bag
    stacked[:, k:] = shared
    return stacked


def add_rows(d_x, chunk, d_y):
    """Add to rows where the bags of a chunk lie; a row may be in several of them."""
    if is_cupy(d_x) and disjoint(chunk.starts, chunk.stops):
        d_x[row_indices(chunk.starts, chunk.stops)] += d_y
        return
    for (a, b), start, stop in zip(
        chunk.columns, chunk.starts.tolist(), chunk.stops.tolist(), strict=True
    ):
        d_x[start:stop] += d_y[a:b]

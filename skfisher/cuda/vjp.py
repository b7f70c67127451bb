"""Launches the kernels of the backward pass of Fisher vectors.

A group of bags is a launch of each kernel, as in the forward pass. What is summed over bags is
added up bag by bag, in blocks of bags counted from the first of the batch, so that no bit of
it depends on how the batch falls into groups.
"""

from typing import Any, NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, empty, zeros
from skfisher.cuda import configurations, statistics
from skfisher.cuda.groups import CHUNKS_IN_BLOCK, block_ranges, cut, window
from skfisher.cuda.layout import (
    chunk_table,
    disjoint,
    pack_mixture,
    pad_components,
    partial_size,
    row_width,
)
from skfisher.cuda.mixture import DeviceMixture

__all__ = ["bag_sums_vjp", "fisher_vector_vjp", "takes"]

# float32 numbers, 512 MiB, of posteriors, of gradients at them, and of sums of chunks. Twice as
# many are taken for a moment, while one part of the work follows another.
SCRATCH = 2**27
# As in vjp_finish.cu: bags whose sums are added to each other before they meet those of others.
BAGS_IN_BLOCK = 32
SQRT_2 = 2.0**0.5
# Nothing larger enters a kernel: a component of so small a weight has no posteriors left.
LARGEST_FACTOR = 1e30


class Gradient(NamedTuple):
    """The gradient that arrives at the Fisher vectors of bags, as the kernels read it."""

    include_weights: np.int32
    g: Any  # float32 (n_bags, (k) + 2 k d)
    factor: Any  # float32 (n_bags, kp): 1 / (T sqrt w)
    g0: Any  # float32 (n_bags, kp): what arrives at S0, of sums about each mean

    def of(self, bags):
        """Return that of a slice of bags."""
        return Gradient(self.include_weights, *(part[bags] for part in self[1:]))


def takes(x, starts, stops, weights, means, variances):
    """Tell whether the kernels serve bags and a mixture; the array code serves all.

    Beside what the forward pass asks for, no descriptor may be in two bags.
    """
    serves = len(starts) and statistics.takes(x, weights, means, variances)
    return bool(serves) and disjoint(starts, stops)


def fisher_vector_vjp(
    g, x, starts, stops, weights, means, variances,
    *, include_weights, with_x=True, with_parameters=True,
):  # fmt: skip
    """Return ``d_x, d_weights, d_means, d_variances``; arguments as in `skfisher.ops.fisher`."""
    mixture = DeviceMixture(pack_mixture(weights, means, variances), like=x)
    k, d = mixture.k, mixture.d
    g = array_module(x).ascontiguousarray(g, dtype=np.float32)
    factor = mixture.packed.weight_factors[1] / (stops - starts)[:, None]
    g0 = g[:, -k * d :].reshape(-1, k, d).sum(axis=2, dtype=np.float64) / -SQRT_2
    if include_weights:
        g0 += g[:, :k]
    gradient = _gradient(g, factor, g0, include_weights)
    d_x = _new_d_x(x, starts, stops) if with_x else None
    if with_parameters:
        through_logits = _LogitGradients(mixture, len(starts), like=x)
        direct = _DirectGradients(mixture, factor, like=x)
    for bags, ranges, parts in _groups(x, starts, stops, mixture, gradient):
        sums = []
        for part in parts:
            if with_x:
                part.write_descriptor_gradients(d_x)
            if with_parameters:
                sums.append((part.sums(), part.d_sums()))
        if with_parameters:
            of_bags, d_of_bags = (_bag_sums(s, ranges) for s in zip(*sums, strict=True))
            direct.add(bags, of_bags, gradient.of(bags))
            through_logits.add(bags, d_of_bags)
    if not with_parameters:
        return d_x, None, None, None
    # of sums about each mean, in its deviations
    r0, r1, r2 = through_logits.sums()
    by_weight, by_mean, by_variance = direct.sums()
    inv_std = asarray(mixture.packed.inv_std, like=x)
    inv_root = asarray(mixture.packed.weight_factors[1], like=x)
    gradients = (
        (r0 - by_weight / 2) * inv_root**2,
        (r1 - by_mean) * inv_std,
        ((r2 - r0[:, None]) / 2 - by_variance) * inv_std**2,
    )
    return d_x, *(gradient.astype(np.float32) for gradient in gradients)


def bag_sums_vjp(g, x, starts, stops, weights, means, variances, *, coordinates, with_x=True):
    """Return ``d_x`` and the sums of the gradients at the log densities, of all descriptors.

    Parameters
    ----------
    g : triple of float64 arrays of shape (n_bags, k) and twice (n_bags, k, d)
        The gradient that arrives at the result of `skfisher.cuda.statistics.bag_sums`.
    x, starts, stops, weights, means, variances, coordinates
        As in `skfisher.cuda.statistics.bag_sums`.
    with_x : bool

    Returns
    -------
    d_x : float32 array of shape (n, d), or None
    r0, r1, r2 : float64 arrays of shape (k,), (k, d) and (k, d)
        Sums of the gradients themselves, times the coordinates, and times their squares.
    """
    xp = array_module(x)
    mixture = DeviceMixture(pack_mixture(weights, means, variances), like=x)
    # a0 + A y + B y^2 with y = sigma u + mu, as a polynomial in u
    a0, a, b = g
    means_there, variances_there = (asarray(p, like=x) for p in coordinates)
    g0 = a0 + (means_there * (a + means_there * b)).sum(axis=2)
    g1 = xp.sqrt(variances_there) * (a + 2 * means_there * b)
    g2 = variances_there * b
    like_encodings = [part.reshape(len(a0), -1) for part in (g1, SQRT_2 * g2)]
    like_encodings = xp.concatenate(like_encodings, axis=1).astype(np.float32)
    gradient = _gradient(like_encodings, np.ones(a0.shape), g0, False)
    d_x = _new_d_x(x, starts, stops) if with_x else None
    through_logits = _LogitGradients(mixture, len(starts), like=x)
    for bags, ranges, parts in _groups(x, starts, stops, mixture, gradient):
        d_sums = []
        for part in parts:
            if with_x:
                part.write_descriptor_gradients(d_x)
            d_sums.append(part.d_sums())
        through_logits.add(bags, _bag_sums(d_sums, ranges))
    return d_x, *through_logits.sums(coordinates)


def _new_d_x(x, starts, stops):
    """Return an array for the gradients at the descriptors, zero at those of no bag."""
    in_bags = int((stops - starts).sum())
    return empty(x.shape, like=x) if in_bags == len(x) else zeros(x.shape, like=x)


def _gradient(g, factor, g0, include_weights):
    """Pad a factor on the host, (n_bags, k), and a gradient at S0 on the device."""
    narrow = asarray(pad_components(np.minimum(factor, LARGEST_FACTOR)), like=g)
    padded_g0 = zeros(narrow.shape, like=narrow)
    padded_g0[:, : g0.shape[1]] = narrow[:, : g0.shape[1]] * g0
    return Gradient(np.int32(include_weights), g, narrow, padded_g0)


def _groups(x, starts, stops, mixture, gradient):
    """Go through bags in groups whose sums of chunks fit in the scratch space.

    Yields
    ------
    bags : slice
    ranges : int32 array of shape (n_bags + 1,)
        The chunks of each of these bags; on the host.
    parts : iterable of _Part
        All chunks of these bags, in order, as many at a time as the scratch space holds.
    """
    k, d = mixture.k, mixture.d
    chunks, bag_chunks = chunk_table(starts, stops, k, d)
    rows = (chunks[:, 2] - chunks[:, 1]).astype(np.int64)
    row_costs = rows * 2 * (row_width(k) + d)  # copies of descriptors included
    sum_costs = np.diff(bag_chunks).astype(np.int64) * (2 * partial_size(k, d))
    for first, last in cut(sum_costs + np.add.reduceat(row_costs, bag_chunks[:-1]), SCRATCH):
        bags, low, high = slice(first, last), int(bag_chunks[first]), int(bag_chunks[last])
        of_group = chunks[low:high] - np.array([first, 0, 0], dtype=np.int32)
        parts = (
            _Part(x, of_group[a:b], mixture, gradient.of(bags))
            for a, b in cut(row_costs[low:high], SCRATCH)
        )
        yield bags, bag_chunks[first : last + 1] - low, parts


def _bag_sums(partial, ranges):
    """Return the sums of bags, (n_bags, size), of a list of arrays of sums of chunks.

    Float64, in the order that finish.cu tells; sums of chunks where every bag is one chunk.
    """
    sums = partial[0] if len(partial) == 1 else array_module(*partial).concatenate(partial)
    if len(sums) == len(ranges) - 1:
        return sums
    if np.diff(ranges).max() > CHUNKS_IN_BLOCK:
        blocks, ranges = block_ranges(ranges)
        sums = _added(sums, blocks)
    return _added(sums, ranges)


def _added(terms, ranges):
    """Return the sums of the terms ``ranges[i]:ranges[i + 1]``, float64."""
    n_sums, size = len(ranges) - 1, terms.shape[1]
    sums = empty((n_sums, size), like=terms, dtype=np.float64)
    configurations.ADD_CHUNKS[terms.dtype.name].launch(
        (n_sums, -(-size // 256)), terms, np.int64(size), asarray(ranges, like=terms), sums
    )
    return sums


def _pieces(chunks, rows):
    """Cut chunks further, into pieces of `rows` descriptors."""
    lengths = chunks[:, 2] - chunks[:, 1]
    counts = -(-lengths // rows)
    which = np.repeat(np.arange(len(chunks)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = chunks[which, 1] + rows * number
    stops = np.minimum(starts + rows, chunks[which, 2])
    return np.stack([chunks[which, 0], starts, stops], axis=1).astype(np.int32)


class _Part:
    """Chunks whose posteriors are in memory together, with the gradients at them."""

    def __init__(self, x, chunks, mixture, gradient):
        self.mixture, self.gradient = mixture, gradient
        self.chunks = chunks
        self.rows, self.moved = window(x, chunks)
        self.moved_on_device = asarray(self.moved, like=x)
        configuration = configurations.posterior_vjp(mixture.k)
        shape = len(self.rows), row_width(mixture.k)
        self.posteriors, self.d_log_joint = empty(shape, like=x), empty(shape, like=x)
        cut_chunks = asarray(_pieces(self.moved, configuration.rows), like=x)
        configuration.launch(
            (len(cut_chunks),),
            self.rows, *mixture.common, cut_chunks, gradient.g,
            gradient.include_weights, gradient.factor, gradient.g0,
            np.int32(shape[1]), self.posteriors, self.d_log_joint,
        )  # fmt: skip

    def sums(self):
        """Return the sums of chunks under the posteriors."""
        return self.mixture.moments(self.rows, self.posteriors, self.moved_on_device)

    def d_sums(self):
        """Return the sums of chunks under the gradients at the log densities."""
        return self.mixture.moments(self.rows, self.d_log_joint, self.moved_on_device)

    def write_descriptor_gradients(self, d_x):
        """Write the rows of `d_x` that belong to the chunks."""
        configuration = configurations.descriptor_vjp(self.mixture.d)
        shifts = self.chunks[:, 1] - self.moved[:, 1]
        in_place = bool((shifts == shifts[0]).all())
        low = int(shifts[0])
        out = d_x[low : low + len(self.rows)] if in_place else empty(self.rows.shape, like=d_x)
        cut_chunks = asarray(_pieces(self.moved, configuration.rows), like=d_x)
        n_features, shift, _, *sizes = self.mixture.common
        gradient = self.gradient
        configuration.launch(
            (len(cut_chunks), -(-self.mixture.d // configuration.features)),
            self.rows, n_features, shift, self.mixture.component_tables, *sizes, cut_chunks,
            gradient.g, gradient.include_weights, gradient.factor,
            np.int32(self.posteriors.shape[1]), self.posteriors, self.d_log_joint, out,
        )  # fmt: skip
        if not in_place:
            lengths = self.chunks[:, 2] - self.chunks[:, 1]
            index = np.arange(len(self.rows)) + np.repeat(shifts.astype(np.int64), lengths)
            d_x[asarray(index, like=d_x)] = out


class _LogitGradients:
    """Sums over all bags of the gradients at the log densities, in blocks of bags."""

    def __init__(self, mixture, n_bags, *, like):
        self._mixture = mixture
        shape = -(-n_bags // BAGS_IN_BLOCK), partial_size(mixture.k, mixture.d)
        self._blocks = zeros(shape, like=like, dtype=np.float64)

    def add(self, bags, sums):
        """Add the sums of a slice of bags."""
        size = sums.shape[1]
        configurations.ADD_BAGS[sums.dtype.name].launch(
            (_n_blocks(bags), -(-size // 256)),
            sums, np.int64(size), *_numbers(bags), self._blocks,
        )  # fmt: skip

    def sums(self, coordinates=None):
        """Return the moments in coordinates, of shape (k,), (k, d) and (k, d)."""
        k, d = self._mixture.k, self._mixture.d
        like = self._blocks
        everything = asarray(np.array([0, len(like)], dtype=np.int32), like=like)
        affine = np.concatenate([part.ravel() for part in self._mixture.affine(coordinates)])
        sums = tuple(empty(shape, like=like) for shape in [(1, k), (1, k, d), (1, k, d)])
        configurations.BAG_SUMS["float64"].launch(
            (1, -(-k * d // 256)),
            like, everything, asarray(affine, like=like), np.int32(k), np.int32(d), *sums,
        )  # fmt: skip
        return tuple(s[0] for s in sums)


class _DirectGradients:
    """Gradients by the parameters with the sums of bags held fixed, in blocks of bags."""

    def __init__(self, mixture, factor, *, like):
        k, d = mixture.k, mixture.d
        self._mixture = mixture
        self._factor = asarray(factor, like=like)
        n_blocks = -(-len(factor) // BAGS_IN_BLOCK)
        self._blocks = zeros((n_blocks, k + 3 * k * d), like=like, dtype=np.float64)
        parts = [*mixture.affine(), np.sqrt(mixture.packed.weights)]
        self._parameters = asarray(np.concatenate([p.ravel() for p in parts]), like=like)

    def add(self, bags, sums, gradient):
        """Add those of a slice of bags, of which the sums are given."""
        k, d = self._mixture.k, self._mixture.d
        configurations.ADD_DIRECT_GRADIENTS[sums.dtype.name].launch(
            (_n_blocks(bags), -(-k * d // 256)),
            sums, self._factor[bags], gradient.g, self._parameters,
            np.int32(k), np.int32(d), gradient.include_weights, *_numbers(bags), self._blocks,
        )  # fmt: skip

    def sums(self):
        """Return the sums that vjp_finish.cu describes, of shape (k,), (k, d) and (k, d)."""
        k, d = self._mixture.k, self._mixture.d
        total = _added(self._blocks, np.array([0, len(self._blocks)], dtype=np.int32))
        along, by_mean, by_variance = total[0, k:].reshape(3, k, d)
        return total[0, :k] + along.sum(axis=1), by_mean, by_variance


def _n_blocks(bags):
    """Return the number of blocks that a slice of bags touches."""
    return (bags.stop - 1) // BAGS_IN_BLOCK - bags.start // BAGS_IN_BLOCK + 1


def _numbers(bags):
    return np.int32(bags.start), np.int32(bags.stop - bags.start)

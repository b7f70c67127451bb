"""Launches the kernels of the backward pass of Fisher vectors.

A group of bags is a launch of each kernel, as in the forward pass. What is summed over bags is
added up bag by bag, in blocks of bags counted from the first of the batch, so that no bit of
it depends on how the batch falls into groups.
"""

from typing import Any, NamedTuple

import numpy as np

from skfisher.backend import array_module, asarray, empty, zeros
from skfisher.cuda import configurations, statistics
from skfisher.cuda.groups import cut, window
from skfisher.cuda.layout import (
    chunk_table,
    pack_mixture,
    pad_components,
    partial_size,
    row_width,
)
from skfisher.cuda.mixture import DeviceMixture

__all__ = ["fisher_vector_vjp", "takes"]

# float32 numbers, 1 GiB, of posteriors, of gradients at them, and of sums of chunks.
SCRATCH = 2**28
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
    exact_factor: Any  # float64 (n_bags, k)

    def of(self, bags):
        """Return that of a slice of bags."""
        return Gradient(self.include_weights, *(part[bags] for part in self[1:]))


def takes(x, starts, stops, weights, means, variances):
    """Tell whether the kernels serve bags and a mixture; the array code serves all.

    Beside what the forward pass asks for, no descriptor may be in two bags.
    """
    if not statistics.takes(x, weights, means, variances):
        return False
    order = np.argsort(starts, kind="stable")
    return bool((stops[order][:-1] <= starts[order][1:]).all())


def fisher_vector_vjp(
    g, x, starts, stops, weights, means, variances,
    *, include_weights, with_x=True, with_parameters=True,
):  # fmt: skip
    """Return ``d_x, d_weights, d_means, d_variances``; arguments as in `skfisher.ops.fisher`."""
    mixture = DeviceMixture(pack_mixture(weights, means, variances), like=x)
    k, d = mixture.k, mixture.d
    gradient = _gradient(g, stops - starts, mixture, include_weights)
    totals = _Totals(mixture, len(starts), like=x) if with_parameters else None
    tables = _component_tables(mixture.packed, like=x) if with_x else None
    d_x = zeros(x.shape, like=x) if with_x else None
    chunks, bag_chunks = chunk_table(starts, stops, k, d)
    rows = np.diff(chunks[:, 1:]).ravel().astype(np.int64)
    # what a chunk takes of the scratch space: by its descriptors, copies of them included ...
    row_costs = rows * 2 * (row_width(k) + d)
    # ... and by its sums, which stay until those of its bag are complete
    sum_costs = np.diff(bag_chunks).astype(np.int64) * (2 * partial_size(k, d))
    bag_costs = sum_costs + np.add.reduceat(row_costs, bag_chunks[:-1])
    for first, last in cut(bag_costs, SCRATCH):
        bags, low = slice(first, last), int(bag_chunks[first])
        ranges = bag_chunks[first : last + 1] - low
        group = chunks[low : int(bag_chunks[last])] - np.array([first, 0, 0], dtype=np.int32)
        parts = []
        for a, b in cut(row_costs[low : low + len(group)], SCRATCH):
            part = _Part(x, group[a:b], mixture, gradient.of(bags))
            if with_parameters:
                parts.append(part.partial_sums())
            if with_x:
                part.descriptor_gradients(tables, d_x)
        if with_parameters:
            totals.add(bags, parts, asarray(ranges, like=x), gradient.of(bags))
    return d_x, *(totals.gradients() if with_parameters else (None, None, None))


def _gradient(g, counts, mixture, include_weights):
    """Prepare the gradient arriving at Fisher vectors, (n_bags, (k) + 2 k d)."""
    xp = array_module(mixture.params)
    k, d = mixture.k, mixture.d
    g = xp.ascontiguousarray(g, dtype=np.float32)
    root = np.sqrt(mixture.packed.weights)
    inverse_root = np.where(root > 0, 1 / np.where(root > 0, root, 1), 0)
    exact = np.minimum(inverse_root / counts[:, None], LARGEST_FACTOR)
    factor = asarray(pad_components(exact), like=mixture.params)
    g0 = -g[:, -k * d :].reshape(-1, k, d).sum(axis=2, dtype=np.float64) / SQRT_2
    if include_weights:
        g0 += g[:, :k]
    padded_g0 = zeros(factor.shape, like=factor)
    padded_g0[:, :k] = factor[:, :k] * g0
    exact = asarray(exact, like=factor)
    return Gradient(np.int32(include_weights), g, factor, padded_g0, exact)


def _component_tables(packed, *, like):
    """Return ``inv_std`` and ``scaled_mean`` once more, (2, kp, dp), a row per component."""
    tables = packed.params[: -packed.kp].reshape(2, packed.dp, packed.kp)
    return asarray(np.ascontiguousarray(tables.transpose(0, 2, 1)), like=like)


def pieces(chunks, rows):
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
        configuration = configurations.posterior_vjp(mixture.k)
        shape = len(self.rows), row_width(mixture.k)
        self.posteriors, self.d_log_joint = empty(shape, like=x), empty(shape, like=x)
        cut_chunks = asarray(pieces(self.moved, configuration.rows), like=x)
        configuration.launch(
            (len(cut_chunks),),
            self.rows, *mixture.common, cut_chunks, gradient.g,
            gradient.include_weights, gradient.factor, gradient.g0,
            np.int32(shape[1]), self.posteriors, self.d_log_joint,
        )  # fmt: skip

    def partial_sums(self):
        """Return the sums of chunks under the posteriors and under the gradients at them."""
        chunks = asarray(self.moved, like=self.rows)
        weights = self.posteriors, self.d_log_joint
        return [self.mixture.moments(self.rows, w, chunks) for w in weights]

    def descriptor_gradients(self, tables, d_x):
        """Write the rows of `d_x` that belong to the chunks."""
        configuration = configurations.descriptor_vjp(self.mixture.d)
        shifts = self.chunks[:, 1] - self.moved[:, 1]
        in_place = bool((shifts == shifts[0]).all())
        low = int(shifts[0])
        out = d_x[low : low + len(self.rows)] if in_place else empty(self.rows.shape, like=d_x)
        cut_chunks = asarray(pieces(self.moved, configuration.rows), like=d_x)
        n_features, shift, _, *sizes = self.mixture.common
        gradient = self.gradient
        configuration.launch(
            (len(cut_chunks), -(-self.mixture.d // configuration.features)),
            self.rows, n_features, shift, tables, *sizes, cut_chunks, gradient.g,
            gradient.include_weights, gradient.factor,
            np.int32(self.posteriors.shape[1]), self.posteriors, self.d_log_joint, out,
        )  # fmt: skip
        if not in_place:
            lengths = self.chunks[:, 2] - self.chunks[:, 1]
            index = np.arange(len(self.rows)) + np.repeat(shifts.astype(np.int64), lengths)
            d_x[asarray(index, like=d_x)] = out


class _Totals:
    """Sums over the bags of a batch, in blocks of bags, and the gradients they make."""

    def __init__(self, mixture, n_bags, *, like):
        self.mixture = mixture
        k, d = mixture.k, mixture.d
        n_blocks = -(-n_bags // BAGS_IN_BLOCK)
        self.moments = zeros((n_blocks, partial_size(k, d)), like=like, dtype=np.float64)
        self.direct = zeros((n_blocks, k + 3 * k * d), like=like, dtype=np.float64)
        affine = mixture.packed.affine(centred=mixture.centred)
        parts = [*(p.ravel() for p in affine), np.sqrt(mixture.packed.weights)]
        self.parameters = asarray(np.concatenate(parts), like=like)

    def add(self, bags, parts, ranges, gradient):
        """Add the sums of chunks of a slice of bags, whose chunks `ranges` tells."""
        xp = array_module(ranges)
        partial, d_partial = (
            part[0] if len(part) == 1 else xp.concatenate(part) for part in zip(*parts, strict=True)
        )
        first, n_bags = np.int32(bags.start), np.int32(bags.stop - bags.start)
        n_blocks = (bags.stop - 1) // BAGS_IN_BLOCK - bags.start // BAGS_IN_BLOCK + 1
        k, d, size = np.int32(self.mixture.k), np.int32(self.mixture.d), partial.shape[1]
        configurations.ADD_BAGS.launch(
            (n_blocks, -(-size // 256)),
            d_partial, np.int64(size), ranges, first, n_bags, self.moments,
        )  # fmt: skip
        configurations.ADD_DIRECT_GRADIENTS.launch(
            (n_blocks, -(-int(k) * int(d) // 256)),
            partial, ranges, gradient.exact_factor, gradient.g, self.parameters, k, d,
            gradient.include_weights, first, n_bags, self.direct,
        )  # fmt: skip

    def gradients(self):
        """Return the gradients by weights, means and variances, float32 on the device."""
        k, d = self.mixture.k, self.mixture.d
        like = self.moments
        blocks = asarray(np.array([0, len(self.moments)], dtype=np.int32), like=like)
        r0, r1, r2 = (empty(s, like=like) for s in [(1, k), (1, k, d), (1, k, d)])
        configurations.BAG_SUMS["float64"].launch(
            (1, -(-k * d // 256)),
            self.moments, blocks, self.parameters, np.int32(k), np.int32(d), r0, r1, r2,
        )  # fmt: skip
        size = self.direct.shape[1]
        direct = empty((1, size), like=like)
        configurations.ADD_CHUNKS["float64"].launch(
            (1, -(-size // 256)), self.direct, np.int64(size), blocks, direct
        )
        by_weight = direct[0, :k]
        along, by_mean, by_variance = direct[0, k:].reshape(3, k, d)
        inv_std = asarray(self.mixture.packed.inv_std, like=like)
        weights = self.mixture.packed.weights
        inv_weights = np.where(weights > 0, 1 / np.where(weights > 0, weights, 1), 0)
        by_weight = r0[0] - (by_weight + along.sum(axis=1)) / 2
        d_weights = by_weight * asarray(inv_weights, like=like)
        d_means = (r1[0] - by_mean) * inv_std
        d_variances = ((r2[0] - r0[0][:, None]) / 2 - by_variance) * inv_std**2
        return tuple(d.astype(np.float32) for d in (d_weights, d_means, d_variances))

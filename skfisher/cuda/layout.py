"""How bags, descriptors and mixtures lie in memory where the kernels read them.

All of this is decided from the bags' lengths and from K and D alone, never by the GPU, the
rest of the batch or free memory, so that every sum is taken in the same order everywhere.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from skfisher.arrays.libraries import to_host

__all__ = [
    "PackedMixture",
    "chunk_rows",
    "chunk_table",
    "component_tile",
    "disjoint",
    "in_place",
    "pack_mixture",
    "pad_components",
    "padded",
    "partial_size",
    "row_width",
    "scratch_bytes",
    "vector_aligned",
]

FEATURE_TILE = 64  # dimensions of parameters are padded to a multiple of it
PADDED_LOG_CONST = -3e38  # finite, so that no infinity meets another


def padded(n, tile):
    """Return `n` rounded up to a multiple of `tile`."""
    return -(-n // tile) * tile


def component_tile(k):
    """Return how many components a block of a kernel works on."""
    return 32 if k <= 32 else 64


def row_width(k):
    """Return the row length of arrays of descriptors by components: whole vectors of four."""
    return padded(k, 4)


def partial_size(k, d):
    """Return how many numbers S0, S1 and S2 of a chunk take, in whole vectors of four."""
    return row_width(k) + 2 * k * row_width(d)


def chunk_rows(k, d):
    """Return how many descriptors one block sums up.

    256, more for large K D: the results of a chunk are K (2D + 1) numbers, written once, and
    should stay small beside its descriptors.
    """
    doublings = max(0, math.ceil(math.log2(k * d / 8192)))
    return 256 * 2 ** min(doublings, 2)


def scratch_bytes(k, d):
    """Return the memory that summing takes beside descriptors: bytes a descriptor, and a bag."""
    of_chunk = 4 * partial_size(k, d)
    return 4 * row_width(k) + 8 + of_chunk / chunk_rows(k, d), of_chunk + 8 * k * (2 * d + 1)


def disjoint(starts, stops):
    """Tell whether no descriptor is in two bags."""
    order = np.argsort(starts, kind="stable")
    return bool((stops[order][:-1] <= starts[order][1:]).all())


def chunk_table(starts, stops, k, d):
    """Cut bags into chunks of `chunk_rows` descriptors; the last of a bag is shorter.

    Parameters
    ----------
    starts, stops : int arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]``; bags may overlap and come in any order.
    k, d : int

    Returns
    -------
    chunks : int32 array of shape (n_chunks, 3)
        Bag, first row, and the row after the last.
    bag_chunks : int32 array of shape (n_bags + 1,)
        Bag ``i`` is made up of the chunks ``bag_chunks[i]:bag_chunks[i + 1]``.
    """
    lengths = stops - starts
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"bag {int(lengths.argmin())} is empty: kernels need descriptors to sum.")
    rows = chunk_rows(k, d)
    counts = -(-lengths // rows)
    bag_chunks = np.concatenate([[0], np.cumsum(counts)])
    bags = np.repeat(np.arange(len(starts)), counts)
    begins = starts[bags] + rows * (np.arange(len(bags)) - bag_chunks[bags])
    ends = np.minimum(begins + rows, stops[bags])
    return np.stack([bags, begins, ends], axis=1).astype(np.int32), bag_chunks.astype(np.int32)


@dataclass(frozen=True, eq=False)
class PackedMixture:
    """A mixture as the kernels read it, on the host, and the numbers it was rounded from."""

    params: np.ndarray  # float32: inv_std (dp, kp), scaled_mean (dp, kp), log_const (kp,)
    shift: np.ndarray  # float32 (d,)
    inv_std: np.ndarray  # float64 (k, d): 1 / sigma
    scaled_mean: np.ndarray  # float64 (k, d): (mu - shift) / sigma
    weights: np.ndarray  # float64 (k,)
    kp: int  # K and D, padded
    dp: int

    @functools.cached_property
    def reach(self):
        """How far means lie from the shift, in their own deviations: that of the farthest.

        The fourth root of the mean fourth power over dimensions. Errors of second moments
        about the shift grow with the squares.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            squares = self.scaled_mean**2
            return float((squares**2).mean(axis=1).max() ** 0.25)

    @functools.cached_property
    def representable(self):
        """Whether float32 holds the parameters, and sums of squares of numbers of their size.

        2^50 leaves room for a thousand squares of descriptors a hundred deviations away.
        """
        with np.errstate(invalid="ignore"):
            sizes = self.inv_std.min() > 2.0**-50, self.inv_std.max() < 2.0**50
        return all(sizes) and bool(np.isfinite(self.params).all())

    @functools.cached_property
    def weight_factors(self):
        """``w`` and ``w^(-1/2)``, the latter 0 where w is 0; float64 of shape (k,)."""
        positive = self.weights > 0
        return self.weights, np.where(positive, 1 / np.sqrt(np.where(positive, self.weights, 1)), 0)

    def affine(self, *, centred):
        """Return alpha and beta, (k, d), such that ``u = (x - mu) / sigma`` is ``alpha y + beta``.

        Here ``y`` is what the kernels sum: ``x - shift``; if `centred`, ``u`` itself, computed
        with the parameters rounded to float32, which is thereby put right.
        """
        if not centred:
            return self.inv_std, -self.scaled_mean
        k, d = self.inv_std.shape
        tables = self.params[: -self.kp].reshape(2, self.dp, self.kp).astype(np.float64)
        a, b = tables[:, :d, :k].transpose(0, 2, 1)
        return self.inv_std / a, self.inv_std * b / a - self.scaled_mean


_latest = None  # what was packed last, and from what


def pack_mixture(weights, means, variances):
    """Pack a mixture about its own mean, which is a constant of the model, not of the batch.

    The last one is kept: a mixture is packed to ask whether kernels serve it, and again to be
    used.

    Parameters
    ----------
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    packed : PackedMixture
        With numbers that are not finite where the mixture is beyond float32.
    """
    global _latest
    mixture = [to_host(p).astype(np.float64) for p in (weights, means, variances)]
    latest = _latest  # of whichever thread
    if latest is None or not all(map(np.array_equal, latest[0], mixture)):
        latest = _latest = mixture, _pack(*mixture)
    return latest[1]


def _pack(weights, means, variances):
    d = means.shape[1]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shift = ((weights[:, None] * means).sum(axis=0) / weights.sum()).astype(np.float32)
        inv_std = 1 / np.sqrt(variances)
        centred = means - shift
        narrow = inv_std.astype(np.float32)
        # of the rounded 1 / sigma, so that u is zero where x is the mean
        narrow_mean = (centred * narrow.astype(np.float64)).astype(np.float32)
        log_weights = np.log(np.maximum(weights, np.finfo(np.float64).tiny))
        volumes = np.log(inv_std).sum(axis=1) - 0.5 * d * math.log(2 * math.pi)
        log_const = pad_components(log_weights + volumes, PADDED_LOG_CONST)
    tables = [pad_table(narrow).ravel(), pad_table(narrow_mean).ravel()]
    params = np.concatenate([*tables, log_const])
    dp, kp = padded(d, FEATURE_TILE), len(log_const)
    return PackedMixture(params, shift, inv_std, centred * inv_std, weights, kp, dp)


def pad_components(values, fill=0.0):
    """Return (..., k) numbers as float32 (..., kp), with `fill` in the place of the rest."""
    k = values.shape[-1]
    out = np.full((*values.shape[:-1], padded(k, component_tile(k))), fill, dtype=np.float32)
    out[..., :k] = values
    return out


def pad_table(values):
    """Return numbers of shape (k, d) as a float32 table (dp, kp) that starts with (d, k)."""
    table = np.zeros((padded(values.shape[1], FEATURE_TILE), len(values)), dtype=np.float32)
    table[: values.shape[1]] = values.T
    return pad_components(table)


def in_place(x: Any):
    """Tell whether kernels can read the rows of `x` where they are.

    They must be contiguous; rows of a multiple of 4 numbers are read as vectors, which must lie
    at multiples of 16 bytes, while a view may begin anywhere.
    """
    interface = getattr(x, "__cuda_array_interface__", None) or x.__array_interface__
    aligned = x.shape[1] % 4 or interface["data"][0] % 16 == 0
    return bool(x.flags.c_contiguous and aligned)


def vector_aligned(x: Any):
    """Return `x`, copied if kernels cannot read it where it is."""
    return x if in_place(x) else x.copy()

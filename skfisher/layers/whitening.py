r"""Principal coordinates of descriptors, the fixed first step of a jointly trained model.

.. math:: z = U \operatorname{arctanh}\big(\operatorname{clip}((x - m) A, \pm 0.999)\big)

The axes A rotate to the principal directions and scale; the inverse of tanh, and the matrix U,
are there for a feature map ``tanh(W z + b)`` to start at ``(x - m) A``.
"""

import functools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import (
    array_module,
    asarray,
    empty,
    float_dtype,
    rows_on,
    to_device,
    to_host,
)
from skfisher.bags.bags import Bags
from skfisher.ops.chunks import iter_row_chunks
from skfisher.parallel.threads import map_in_order
from skfisher.parallel.units import block_units, map_blocks, map_groups, row_tasks

__all__ = ["Whitening", "principal_axes", "whiten", "whiten_bags"]

# tanh has slope 0.002 here: a descriptor farther out would hardly move.
CLIP = 0.999
# Directions of less variance than this share of the largest are noise, and not blown up.
LEAST_VARIANCE = 1e-6


class Whitening(NamedTuple):
    """What is applied to every descriptor before the feature map; float64 arrays."""

    mean: np.ndarray  # (d,)
    axes: np.ndarray  # (d, p)
    squash: bool  # whether the coordinates are clipped and sent through arctanh
    unmix: np.ndarray | None = None  # (p, p)


def whiten(x, whitening):
    """Return the coordinates (n, p) of descriptors `x` (n, d), in the dtype to compute in."""
    xp = array_module(x)
    x = x.astype(float_dtype(x.dtype), copy=False)
    mean, axes = (asarray(a, like=x, dtype=x.dtype) for a in whitening[:2])
    z = xp.matmul(x - mean, axes)
    if whitening.squash:
        xp.clip(z, -CLIP, CLIP, out=z)
        xp.arctanh(z, out=z)
    if whitening.unmix is not None:
        z = z @ asarray(whitening.unmix, like=z, dtype=z.dtype).T
    return z


def whiten_bags(bags, whitening, *, n_jobs=None, device=None):
    """Return the bags with all their descriptors whitened, in the library of `bags`."""
    units = block_units(bags.values, bags.starts, bags.stops, device)
    if units is None:
        bags = bags.pack()
        n_rows = max(1, 2**20 // bags.n_features)
        firsts = range(0, len(bags.values), n_rows)
        tasks = [(bags.values[first : first + n_rows], whitening, device) for first in firsts]
        blocks = map_in_order(_whiten_block, tasks, n_jobs=n_jobs)
    else:
        row_bytes = 24 * (bags.n_features + whitening.axes.shape[1])
        function = functools.partial(_whiten_blocks, whitening=whitening)
        blocks = (block for (block,) in map_groups(function, units, row_bytes=row_bytes))
    values, first = None, 0
    for block in blocks:
        if values is None:
            shape = bags.n_descriptors, block.shape[1]
            values = empty(shape, like=bags.values, dtype=block.dtype)
        values[first : first + len(block)] = asarray(block, like=values)
        first += len(block)
    return Bags.from_lengths(values, bags.lengths)


def _whiten_block(x, whitening, device):
    return whiten(to_device(x, device), whitening)


def _whiten_blocks(x, starts, stops, whitening):
    blocks = zip(starts.tolist(), stops.tolist(), strict=True)
    return [array_module(x).concatenate([whiten(x[a:b], whitening) for a, b in blocks])]


def principal_axes(bags, *, equal, n_jobs=None, device=None):
    """Return the mean and the principal axes of the descriptors of all bags, scaled.

    Parameters
    ----------
    bags : Bags
    equal : bool
        Whether every coordinate gets variance 1, or all are divided by one number that
        makes their mean variance 1.

    Returns
    -------
    mean : float64 array of shape (d,)
    axes : float64 array of shape (d, d)
        Column after column in the order of decreasing variance.
    """
    origin = to_host(bags.values[int(bags.starts[0])]).astype(np.float64)
    where = bags.values, bags.starts, bags.stops
    units = block_units(*where, device)
    if units is None:
        tasks = row_tasks(*where, device, origin)
        parts = map_in_order(_second_moments, tasks, n_jobs=n_jobs)
    else:
        function = functools.partial(_block_second_moments, origin=origin)
        parts = map_blocks(function, units, row_bytes=16 * bags.n_features)
    total, products = 0.0, 0.0
    for part in parts:
        total, products = total + part[0], products + part[1]
    n = bags.n_descriptors
    offset = total / n
    variances, directions = np.linalg.eigh(products / n - np.outer(offset, offset))
    variances, directions = variances[::-1], directions[:, ::-1]
    # The sign of a direction is arbitrary: fix it, so that results can be repeated.
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(largest))])
    most = max(variances[0], 0.0) or 1.0
    if equal:
        scale = np.sqrt(np.maximum(variances, LEAST_VARIANCE * most))
    else:
        scale = np.sqrt(max(variances.mean(), LEAST_VARIANCE * most))
    return origin + offset, directions / scale


def _second_moments(values, starts, stops, device, origin):
    x, starts, stops = rows_on(device, values, starts, stops)
    total, products = 0.0, 0.0
    for run in iter_row_chunks(starts, stops, max(1, 2**18 // x.shape[1])):
        block = to_host(Bags(x, *run).pack().values).astype(np.float64) - origin
        total = total + block.sum(axis=0)
        products = products + block.T @ block
    return total, products


def _block_second_moments(x, starts, stops, origin):
    xp = array_module(x)
    origin = asarray(origin, like=x)
    total, products = [], []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        block = x[start:stop].astype(np.float64) - origin
        total.append(block.sum(axis=0))
        products.append(block.T @ block)
    return [xp.stack(total), xp.stack(products)]

"""Passes over the descriptors of all bags, block by block, by threads or by GPUs.

Blocks hold a fixed number of descriptors, whatever bags they are of, and what they sum to is
added up in their order: results depend neither on the number of threads nor on the devices.
"""

import functools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import (
    array_module,
    asarray,
    cuda_devices,
    float_dtype,
    rows_on,
    to_host,
)
from skfisher.cuda.layout import scratch_bytes
from skfisher.ops.chunks import iter_row_chunks
from skfisher.ops.expectation import expectation_sums
from skfisher.ops.gaussian import framed_logits
from skfisher.ops.soft_assignment import Sums, total_statistics
from skfisher.parallel.gpus import Units
from skfisher.parallel.threads import map_in_order

__all__ = [
    "Moments",
    "block_units",
    "expectation",
    "global_moments",
    "map_blocks",
    "map_groups",
    "row_tasks",
]

ROWS_PER_TASK = 2**15


class Moments(NamedTuple):
    """Mean and variance of all descriptors, per dimension."""

    mean: np.ndarray  # (d,)
    variance: np.ndarray  # (d,)

    def floor(self, share):
        """Return the smallest variance allowed, a share of the global one.

        A constant dimension has no scale of its own and takes the mean of the others.
        """
        typical = self.variance.mean() if self.variance.any() else 1.0
        return share * np.where(self.variance > 0, self.variance, typical)


def global_moments(values, starts, stops, *, n_jobs=None, device=None):
    """Return the `Moments` of the descriptors of all bags, in one pass."""
    d = values.shape[1]
    # Any descriptor will do to take the differences from: it keeps squares small.
    origin = to_host(values[int(starts[0])]).astype(np.float64)
    units = block_units(values, starts, stops, device)
    if units is None:
        tasks = row_tasks(values, starts, stops, device, origin)
        parts = map_in_order(_moment_sums, tasks, n_jobs=n_jobs)
    else:
        function = functools.partial(_block_moment_sums, origin=origin)
        parts = map_blocks(function, units, row_bytes=16 * d)
    count, total, squares = int((stops - starts).sum()), np.zeros(d), np.zeros(d)
    for part in parts:
        total, squares = total + part[0], squares + part[1]
    mean = total / count
    with np.errstate(over="ignore", invalid="ignore"):
        variance = np.maximum(squares / count - mean**2, 0)
    tiny = (squares < np.finfo(np.float64).tiny) & (total != 0)
    if not np.isfinite(variance).all() or tiny.any():
        j = int((~np.isfinite(variance) | tiny).argmax())
        raise ValueError(
            f"X varies by about {abs(mean[j]):.0e} in feature {j}: its square is no float64 "
            "number. Rescale the descriptors."
        )
    return Moments(origin + mean, variance)


def _moment_sums(values, starts, stops, device, origin):
    x, starts, stops = rows_on(device, values, starts, stops)
    total, squares = 0.0, 0.0
    for run_starts, run_stops in iter_row_chunks(starts, stops, max(1, 2**18 // x.shape[1])):
        for start, stop in zip(run_starts.tolist(), run_stops.tolist(), strict=True):
            block = to_host(x[start:stop]).astype(np.float64) - origin
            with np.errstate(over="ignore", under="ignore"):  # the caller looks
                total = total + block.sum(axis=0)
                squares = squares + np.einsum("nd,nd->d", block, block)
    return total, squares


@np.errstate(over="ignore", under="ignore")
def _block_moment_sums(x, starts, stops, origin):
    xp = array_module(x)
    origin = asarray(origin, like=x)
    total, squares = [], []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        block = x[start:stop].astype(np.float64) - origin
        total.append(block.sum(axis=0))
        squares.append((block * block).sum(axis=0))
    return [xp.stack(total), xp.stack(squares)]


def block_units(values, starts, stops, device):
    """Return the descriptors in blocks of `ROWS_PER_TASK` for the GPUs asked for, None without."""
    devices = cuda_devices(device, values)
    if not devices:
        return None
    n = int((stops - starts).sum())
    lengths = np.full(-(-n // ROWS_PER_TASK), ROWS_PER_TASK)
    lengths[-1] -= lengths.sum() - n
    return Units(values, starts, stops, lengths, devices)


def map_blocks(function, units, *, row_bytes, unit_bytes=0):
    """Yield what ``function(x, starts, stops)`` computes of each block, in order, on the host."""
    for results in map_groups(function, units, row_bytes=row_bytes, unit_bytes=unit_bytes):
        yield from zip(*(to_host(result) for result in results), strict=True)


def map_groups(function, units, *, row_bytes, unit_bytes=0):
    """Yield what ``function(x, starts, stops)`` computes of each group of blocks, in order."""

    def call(x, starts, stops, units):
        return function(x, starts, stops)

    for _, results in units.map(call, row_bytes=row_bytes, unit_bytes=unit_bytes):
        yield results


def row_tasks(values, starts, stops, *rest):
    """Return a task ``(values, starts, stops, *rest)`` for each block, for threads."""
    return [
        (values, run_starts, run_stops, *rest)
        for run_starts, run_stops in iter_row_chunks(starts, stops, ROWS_PER_TASK)
    ]


def expectation(values, starts, stops, mixture, *, n_jobs=None, device=None, units=None):
    """Return the sums of all descriptors under the mixture, their frame and log-likelihood.

    Parameters
    ----------
    values, starts, stops : arrays
        The descriptors of bags.
    mixture : Mixture
    units : Units, optional
        What `block_units` returns for them, to be used again.

    Returns
    -------
    sums : Sums
        Of shapes (k,), (k, d) and (k, d).
    frame : Frame or None
        Coordinates of the sums, those that suit the mixture.
    log_likelihood : float
        Mean over descriptors of the natural logarithm of the density.
    """
    like = np.empty((0, values.shape[1]), dtype=values.dtype)
    frame, _, coefficients = framed_logits(like, *mixture)
    units = block_units(values, starts, stops, device) if units is None else units
    if units is None:
        tasks = row_tasks(values, starts, stops, coefficients, frame, device)
        parts = map_in_order(_expectation, tasks, n_jobs=n_jobs)
    else:
        row_bytes, unit_bytes = scratch_bytes(*mixture.means.shape)
        row_bytes += 8 * values.shape[1]  # for a copy in floating point
        function = functools.partial(_block_expectations, mixture=mixture)
        parts = map_blocks(function, units, row_bytes=row_bytes, unit_bytes=unit_bytes)
    total, log_likelihood = None, 0.0
    for *sums, part in parts:
        total = Sums(*sums) if total is None else total.plus(sums)
        log_likelihood += float(part)
    log_likelihood /= int((stops - starts).sum())
    if frame is not None:  # from the density of scaled descriptors to that of descriptors
        log_likelihood -= float(np.log(frame.scale).sum())
    return total, frame, log_likelihood


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is named by the caller
def _expectation(values, starts, stops, coefficients, frame, device):
    x, starts, stops = rows_on(device, values, starts, stops)
    sums, log_likelihood = total_statistics(x, starts, stops, coefficients, frame=frame)
    return *(s[0] for s in sums), log_likelihood


@np.errstate(over="ignore", invalid="ignore")
def _block_expectations(x, starts, stops, mixture):
    """Return S0, S1, S2 and the log-likelihood of each block."""
    x = x.astype(float_dtype(x.dtype), copy=False)
    sums, log_likelihood = expectation_sums(x, starts, stops, *mixture)
    return [*sums, log_likelihood]

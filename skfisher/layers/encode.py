"""Fisher vectors of any number of bags of any length: by threads on the host, or by GPUs.

Long bags are computed in parts that start at every so many descriptors, whose sums are added up
in order. Nothing else crosses from one bag to another, and no cut depends on the number of
threads, the devices or their memory; neither do results.
"""

import numpy as np

from skfisher.arrays.libraries import (
    array_module,
    asarray,
    cuda_devices,
    empty,
    float_dtype,
    rows_on,
)
from skfisher.bags.bags import Bags
from skfisher.cuda.layout import scratch_bytes
from skfisher.cuda.statistics import takes
from skfisher.ops.fisher import fisher_from_sums, fisher_sums, fisher_vector
from skfisher.ops.soft_assignment import Sums
from skfisher.parallel.gpus import Units
from skfisher.parallel.threads import cut_bags, map_in_order, workers_share_memory

__all__ = ["encode_fisher"]

# Bags of more descriptors are cut into parts of so many.
LONG_BAG = 2**17


def encode_fisher(bags, mixture, *, include_weights=True, n_jobs=None, device=None):
    """Encode bags, wherever the work is to be done.

    Parameters
    ----------
    bags : Bags
    mixture : Mixture
    include_weights : bool
        Whether the weights' part comes first.
    n_jobs : int, optional
        Threads on the host.
    device : None, str or list of str
        As `parse_device` reads it.

    Returns
    -------
    encodings : array of shape (n_bags, n_out)
        In the library of the descriptors, and on their device.
    """
    devices = cuda_devices(device, bags.values)
    if devices:
        return _encode_on_gpus(bags, mixture, include_weights, devices)
    encodings = _encode_on_host(bags, mixture, include_weights, n_jobs, device)
    return asarray(encodings, like=bags.values)


def _n_out(mixture, include_weights):
    return 2 * mixture.means.size + (len(mixture.weights) if include_weights else 0)


class _LongBags:
    """Turns the sums of the parts of long bags, given in order, into encodings."""

    def __init__(self, bags, mixture, include_weights, encodings):
        self._bags, self._mixture, self._encodings = bags, mixture, encodings
        self._include_weights = include_weights
        self._total = None

    def add(self, i, stop, sums):
        """Add the sums of a part of bag `i` that ends at row `stop`."""
        self._total = sums if self._total is None else self._total.plus(sums)
        if stop == self._bags.stops[i]:
            self._encodings[i : i + 1] = fisher_from_sums(
                self._total, self._bags.lengths[i : i + 1], *self._mixture,
                dtype=self._encodings.dtype, include_weights=self._include_weights,
            )  # fmt: skip
            self._total = None


def _encode_on_host(bags, mixture, include_weights, n_jobs, device):
    n_out = _n_out(mixture, include_weights)
    tasks = cut_bags(bags.lengths, n_out)
    parts = [part for task in tasks for part in _cut_long(bags, task)]
    encodings = np.empty((len(bags), n_out), dtype=float_dtype(bags.dtype))
    long_bags = _LongBags(bags, mixture, include_weights, encodings)
    # written to in place where that can be, at the price of a copy elsewhere
    shared = workers_share_memory()
    tasks = [
        (bags.values, starts, stops, mixture, include_weights, device, whole,
         encodings[rows] if shared else None)
        for rows, starts, stops, whole in parts
    ]  # fmt: skip
    # not named: an exception's traceback would keep its threads and limits alive
    for (rows, _, stops, whole), result in zip(
        parts, map_in_order(_encode, tasks, n_jobs=n_jobs), strict=True
    ):
        if not whole:
            long_bags.add(rows.start, stops[-1], result)
        elif not shared:
            encodings[rows] = result
    return encodings


def _cut_long(bags, task):
    """Yield rows of the result, boundaries, and whether they are whole bags, of a task."""
    starts, stops = bags.starts[task], bags.stops[task]
    if len(starts) > 1 or stops[0] - starts[0] <= LONG_BAG:
        yield task, starts, stops, True
        return
    borders = np.append(np.arange(starts[0], stops[0], LONG_BAG), stops[0])
    for i in range(len(borders) - 1):
        yield task, borders[i : i + 1], borders[i + 1 : i + 2], False


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is named by the caller
def _encode(values, starts, stops, mixture, include_weights, device, whole, out):
    """Return the encodings of whole bags, or the statistics of a part of one.

    Encodings are written to `out` instead, if it is given.
    """
    x, starts, stops = rows_on(device, values, starts, stops)
    if not whole:
        return fisher_sums(x, starts, stops, *mixture)
    encodings = fisher_vector(x, starts, stops, *mixture, include_weights=include_weights, out=out)
    return encodings if out is None else None


def _encode_on_gpus(bags, mixture, include_weights, devices):
    n_out = _n_out(mixture, include_weights)
    encodings = empty((len(bags), n_out), like=bags.values, dtype=float_dtype(bags.dtype))

    def encode(x, starts, stops):
        return [fisher_vector(x, starts, stops, *mixture, include_weights=include_weights)]

    def sum_up(x, starts, stops):
        return fisher_sums(x, starts, stops, *mixture)

    is_long = bags.lengths > LONG_BAG
    short, long = np.flatnonzero(~is_long), np.flatnonzero(is_long)
    if len(short):
        whole = bags[short]
        tasks = cut_bags(whole.lengths, n_out)
        for rows, (result,) in _map_tasks(encode, whole, tasks, mixture, devices):
            rows = rows if len(long) == 0 else short[rows]
            encodings[rows] = asarray(result, like=encodings)
    if len(long):
        parts = [(i, *p[1:3]) for i in long.tolist() for p in _cut_long(bags, slice(i, i + 1))]
        owners, starts, stops = zip(*parts, strict=True)
        pieces = Bags(bags.values, np.concatenate(starts), np.concatenate(stops))
        tasks = [slice(j, j + 1) for j in range(len(pieces))]
        long_bags = _LongBags(bags, mixture, include_weights, encodings)
        for rows, sums in _map_tasks(sum_up, pieces, tasks, mixture, devices):
            for j, *part in zip(range(rows.start, rows.stop), *sums, strict=True):
                part = Sums(*(asarray(s, like=encodings)[None] for s in part))
                long_bags.add(owners[j], pieces.stops[j], part)
    return encodings


def _map_tasks(function, bags, tasks, mixture, devices):
    """Yield slices of bags, those of some tasks together, and a function's results on them."""
    lengths = np.array([bags.lengths[task].sum() for task in tasks])

    @np.errstate(over="ignore", invalid="ignore")
    def work(x, starts, stops, units):
        x = x.astype(float_dtype(x.dtype), copy=False)
        mine = tasks[units]
        of_bags = bags.lengths[mine[0].start : mine[-1].stop]
        ends = np.cumsum(of_bags)
        if takes(x, *mixture):
            return function(x, ends - of_bags, ends)
        # Array code gives the same bits again only where it is given the same task.
        first, results = mine[0].start, []
        for task in mine:
            some = slice(task.start - first, task.stop - first)
            results.append(function(x, (ends - of_bags)[some], ends[some]))
        return [array_module(x).concatenate(r) for r in zip(*results, strict=True)]

    units = Units(bags.values, bags.starts, bags.stops, lengths, devices)
    k, d = mixture.means.shape
    row_bytes, bag_bytes = scratch_bytes(k, d)
    row_bytes += 8 * d  # a copy in floating point
    bag_bytes += 8 * _n_out(mixture, include_weights=True)
    unit_bytes = bag_bytes * max(task.stop - task.start for task in tasks)
    for part, results in units.map(work, row_bytes=row_bytes, unit_bytes=unit_bytes):
        mine = tasks[part]
        yield slice(mine[0].start, mine[-1].stop), results

"""Units of shards that are worked on in other processes, which may be on other machines.

The values of shards may say who works on them, by `workers`, an object with two methods:

- ``rows_per_task(n_rows)`` returns how many of so many rows a task should have, at least;
- ``map(function, tasks)`` yields ``function(*args)`` for all ``(args, name)``, in their order.
  The name of a task, that of its first shard, is for messages.

A task has whole shards. It is sent where they lie and reads their rows itself; of sums it
returns one for each shard, whoever computes it, so that no bit depends on how tasks are cut.
"""

import functools
import itertools

import numpy as np

from skfisher.bags.sharded_values import has_borders
from skfisher.parallel.host import call
from skfisher.parallel.tiles import added
from skfisher.process_state import one_blas_thread

__all__ = ["run_on_workers", "units_by_shard"]


def units_by_shard(units):
    """Return slices of consecutive units that begin in one shard; others are one slice."""
    n_units = len(units.parts)
    if not has_borders(units.values):
        return [slice(0, n_units)]
    owners = units.values.owners(np.array([starts[0] for starts, _ in units.parts]))
    borders = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), n_units]
    return [slice(a, b) for a, b in itertools.pairwise(borders)]


def run_on_workers(f, units, beside, *, summed):
    """Return an iterator over the results of units, or over their sums for each shard."""
    workers = units.values.workers
    tasks = (
        _task(f, units, shards, beside, summed)
        for shards in _batches(units, workers.rows_per_task(units.n_rows))
    )
    return itertools.chain.from_iterable(workers.map(_work, tasks))


def _batches(units, n_rows):
    """Yield lists of slices of units, of some shards, that have so many rows together."""
    batch, found = [], 0
    for of_shard in units_by_shard(units):
        batch.append(of_shard)
        found += sum(int(lengths.sum()) for lengths in units.lengths[of_shard])
        if found >= n_rows:
            yield batch
            batch, found = [], 0
    if batch:
        yield batch


def _task(f, units, shards, beside, summed):
    """Return the arguments of `_work` for some shards, and the name of the first."""
    parts = [units.parts[of_shard] for of_shard in shards]
    rows = [
        row for of_shard in parts for part in of_shard for row in (part[0].min(), part[1].max())
    ]
    first, last = units.values.owners(np.array([min(rows), max(rows) - 1]))
    values, n_before = units.values.part(int(first), int(last) + 1)
    parts = [[(a - n_before, b - n_before) for a, b in of_shard] for of_shard in parts]
    entries = [
        [[array[rows] for array in beside] for rows in units.slices[of_shard]]
        for of_shard in shards
    ]
    return (f, values, parts, entries, summed, np.geterr()), values.shards[0].folder


@one_blas_thread
def _work(f, values, parts, entries, summed, errors):
    """Return what a function returns for the units of some shards, or its sums for each shard."""
    results = []
    with np.errstate(**errors):
        for of_shard in zip(parts, entries, strict=True):
            found = (
                call(f, values, *part, None, None, *beside)
                for part, beside in zip(*of_shard, strict=True)
            )
            results += [functools.reduce(added, found)] if summed else found
    return results

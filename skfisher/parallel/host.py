"""Units that are worked on by the CPU, in this process or in those that the user chose."""

import functools

import numpy as np

from skfisher.arrays.devices import rows_on
from skfisher.arrays.libraries import finished, is_cupy
from skfisher.arrays.stacked import Scattered, Stacked
from skfisher.bags.ragged import gather
from skfisher.parallel.threads import map_in_order, workers_share_memory

__all__ = ["call", "keep_freed_memory", "run_on_host", "share_memory"]


@functools.cache
def keep_freed_memory():
    """Let the memory of a unit serve the next one: to get it from the system takes longer.

    glibc gives back what is freed beyond twice the size of the largest block that ever was, up
    to 32 MiB. This one is never written to, and so takes no memory.
    """
    np.empty(2**24, dtype=np.uint8)


def share_memory(units):
    """Tell whether units are worked on in this process: one alone mostly is."""
    if getattr(units.values, "workers", None) is not None:
        return False
    return len(units.parts) == 1 or workers_share_memory()


def run_on_host(f, units, beside, outs):
    """Return an iterator over the results of each unit."""
    keep_freed_memory()
    values, (n_jobs, device) = units.values, units.where
    if is_cupy(values) and n_jobs not in (None, 1):
        finished(values)  # threads have streams of their own
    if isinstance(values, Stacked) and not share_memory(units):
        values = values[:]  # which processes share
    arguments = [
        (f, values, *parts, device, outs and outs[i], *(array[rows] for array in beside))
        for i, (parts, rows) in enumerate(zip(units.parts, units.slices, strict=True))
    ]
    return map_in_order(call, arguments, n_jobs=n_jobs)


def call(f, values, starts, stops, device, out, *beside):
    """Call a function of a unit, whose rows are read if it cannot take them where they lie."""
    if isinstance(values, np.ndarray | Scattered) or is_cupy(values):
        x, starts, stops = rows_on(device, values, starts, stops)
    else:
        ends = np.cumsum(stops - starts)
        x = gather(values, starts, stops, ends, 0, int(ends[-1]))
        starts, stops = ends - (stops - starts), ends
    return f(x, starts, stops, *beside) if out is None else f(x, starts, stops, *beside, out=out)

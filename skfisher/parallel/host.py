"""Units that are worked on by the CPU, in this process or in those that the user chose."""

import ctypes
import functools
import os

import numpy as np

from skfisher.arrays.devices import rows_on
from skfisher.arrays.libraries import finished, is_cupy
from skfisher.arrays.stacked import Scattered, Stacked
from skfisher.bags.ragged import gather
from skfisher.parallel.threads import map_in_order, workers_share_memory

__all__ = ["call", "run_on_host", "share_memory"]

# of <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@functools.cache
def _keep_freed_memory():
    """Let the memory of a unit serve the next one: to get it from the system takes longer.

    glibc gives back what is freed beyond twice the size of the largest block that ever was, up
    to 32 MiB. This one is never written to, and so takes no memory. Where an environment variable
    sets a threshold, glibc does not look at blocks; the one of Dask's workers would give back each
    array at once. Other values than Dask's are the user's choice, and stay.
    """
    np.empty(2**24, dtype=np.uint8)
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") == "65536":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 2**25)
            mallopt(M_TRIM_THRESHOLD, 2**26)


def share_memory(units):
    """Tell whether units are worked on in this process: one alone mostly is."""
    if getattr(units.values, "workers", None) is not None:
        return False
    return len(units.parts) == 1 or workers_share_memory()


def run_on_host(f, units, beside, outs):
    """Return an iterator over the results of each unit."""
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
    _keep_freed_memory()
    if isinstance(values, np.ndarray | Scattered) or is_cupy(values):
        x, starts, stops = rows_on(device, values, starts, stops)
    else:
        ends = np.cumsum(stops - starts)
        x = gather(values, starts, stops, ends, 0, int(ends[-1]))
        starts, stops = ends - (stops - starts), ends
    return f(x, starts, stops, *beside) if out is None else f(x, starts, stops, *beside, out=out)

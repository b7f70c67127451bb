"""How much memory a call takes at most."""

import gc
import tracemalloc
from contextlib import contextmanager

MIB = 2**20


def peak_memory(call, n_calls=3):
    """Least peak in bytes of several calls, beyond what is there before; the result counts.

    A call is also charged with what is not its own: the first with modules that it imports, any
    with the 256 KiB into which the event loop of a cluster in this process receives a message.
    So take the least of several, and no bound below 512 KiB.
    """
    peaks = []
    for _ in range(n_calls):
        gc.collect()
        tracemalloc.start()
        try:
            call()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


@contextmanager
def memory_below(n_bytes):
    """Measure what NumPy and Python allocate; what is mapped from files is not counted."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n_bytes, f"{peak / MIB:.0f} MiB, {n_bytes / MIB:.0f} allowed"

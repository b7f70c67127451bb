"""How much memory a call takes at most."""

import gc
import tracemalloc


def peak_memory(call, n_calls=3):
    """Least peak in bytes of several calls, beyond what is there before; the result counts.

    A single call may be charged with what is not its own: a module that it is the first to
    import, or a message that another thread of the process receives meanwhile.
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

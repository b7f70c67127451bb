"""Samples of one table, some rows at a time, by threads of the host or by one GPU.

`units` brings all results home. Here they stay on the device that computed them: a kernel is a
product of what was computed of all samples. All is to be called where that device is the
current one, as `arrays.devices.work_context` makes it.
"""

import functools

from sklearn.utils import gen_batches

from skfisher.arrays.devices import to_device
from skfisher.arrays.libraries import asarray, device_of, is_cupy
from skfisher.ops.trace_kernel import in_turn
from skfisher.parallel.threads import call_in_threads, map_in_threads
from skfisher.process_state import blas_threads

__all__ = ["map_blocks", "product_calls", "rows_on_device", "write_rows"]


def rows_on_device(x, rows, device):
    """Return rows of `x`, a slice, on the device to work on them."""
    with device_of(x):
        return to_device(x[rows], device)


def map_blocks(f, x, device, *, n_rows, n_rows_gpu, threads=True):
    """Yield what a function returns for some rows at a time, in order.

    Parameters
    ----------
    f : callable
        ``f(block, start)`` is given rows of `x`, on the device, and the number of the first one.
    x : array of shape (n_samples, n_features)
    device : None, "cpu" or "cuda:<index>"
        As `parse_device` reads it; one device.
    n_rows, n_rows_gpu : int
        Rows of a block, on the host and on a GPU. Blocks do not depend on the number of threads.
    threads : bool
        Whether `f` may be called by as many threads as a product of matrices may use.

    Yields
    ------
    rows : slice
    result : object
    """
    on_gpu = is_cupy(rows_on_device(x, slice(1), device)) or is_cupy(x)
    blocks = list(gen_batches(len(x), n_rows_gpu if on_gpu else n_rows))
    n_threads = blas_threads() if threads and not on_gpu else 1
    calls = [(f, x, rows, device) for rows in blocks]
    results = map_in_threads(_of_block, calls, min(n_threads, len(calls)))
    yield from zip(blocks, results, strict=True)


def _of_block(f, x, rows, device):
    return f(rows_on_device(x, rows, device), rows.start)


def write_rows(out, rows, result):
    """Write a result to rows of an array, on whatever device that is."""
    with device_of(out):
        out[rows] = asarray(result, like=out)


def product_calls(like):
    """Return what calls a function, a product of matrices, for each of several arguments.

    On the host a product in each thread takes the place of threads in each product.
    """
    if is_cupy(like):
        return in_turn
    return functools.partial(call_in_threads, n_threads=blas_threads())

"""Array libraries: the one file that knows NumPy from CuPy.

Operations ask `array_module` for the library of their arguments and create new
arrays with ``like=``; nothing else in the package looks at array types.
"""

import contextlib
import sys

import numpy as np

__all__ = [
    "array_module",
    "asarray",
    "current_device",
    "detached",
    "device_of",
    "empty",
    "external_stream",
    "finished",
    "float_dtype",
    "from_dlpack",
    "is_cupy",
    "moved",
    "row_indices",
    "to_host",
    "zeros",
]


# Larger arrays go to a device without the pinned memory that CuPy puts in between, of which it
# keeps a block for every size it ever met.
STAGED_BYTES = 2**20
ANYWHERE = contextlib.nullcontext()  # on the host no device is the current one


def is_cupy(x):
    """Tell whether `x` is a CuPy array, without importing CuPy."""
    if "cupy" not in sys.modules:
        return False
    cupy = sys.modules["cupy"]  # None where somebody forbade to import it
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(*arrays):
    """Return the library of the arguments: ``cupy`` if any is a CuPy array, else ``numpy``."""
    if "cupy" in sys.modules and any(map(is_cupy, arrays)):
        return sys.modules["cupy"]
    return np


def asarray(x, *, like, dtype=None):
    """Return `x` as an array of the library and device of `like`, of the given or its own dtype."""
    if type(like) is np.ndarray and type(x) is np.ndarray and dtype is None:
        return x
    if not is_cupy(like):
        return np.asarray(to_host(x), dtype=dtype)
    if is_cupy(x) or (isinstance(x, np.ndarray) and x.nbytes > STAGED_BYTES):
        x = moved(x, like.device.id)
    with device_of(like):
        return array_module(like).asarray(x, dtype=dtype)


def empty(shape, *, like, dtype=None):
    """Return an uninitialised array of the library, and by default the dtype, of `like`."""
    xp = np if type(like) is np.ndarray else array_module(like)
    return xp.empty(shape, dtype=like.dtype if dtype is None else dtype)


def zeros(shape, *, like, dtype=None):
    """Return zeros of the library, and by default the dtype, of `like`."""
    return array_module(like).zeros(shape, dtype=like.dtype if dtype is None else dtype)


def float_dtype(dtype):
    """Return the dtype computations run in for descriptors of the given dtype.

    The narrower of float32 and float64 that holds every value exactly: float32 for
    float16, float32 and integers of up to 16 bits, float64 for everything wider.
    """
    wide = np.result_type(np.dtype(dtype), np.float32) != np.float32
    return np.dtype(np.float64 if wide else np.float32)


def to_host(x):
    """Return `x` as a NumPy array, copied only if it lives on a device."""
    if type(x) is np.ndarray:
        return x
    if is_cupy(x):
        with device_of(x):  # else it would be read in a stream that does not wait for it
            return x.get()
    return np.asarray(x)


def detached(x, source):
    """Return an array of the host that others may write to: a copy where it may be `source`."""
    shared = isinstance(source, np.ndarray) and np.may_share_memory(x, source)
    return x.copy() if shared else x


def from_dlpack(x):
    """Return a CuPy array that shares the memory of an array of another library on a GPU."""
    import cupy

    with current_device(x.__dlpack_device__()[1]):
        return cupy.from_dlpack(x)


def moved(x, index):
    """Return an array, of the host or of any device, on the CUDA device of the given index."""
    import cupy

    if not is_cupy(x):
        x = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("="))
        with current_device(index):
            there = cupy.empty(x.shape, x.dtype)
            # not by cupy.asarray, see STAGED_BYTES
            there.set(x)
            return there
    if x.device.id == index:
        return x
    with device_of(x):
        x = finished(cupy.ascontiguousarray(x))
    with current_device(index):
        return finished(cupy.asarray(x))  # before the memory of `x` is used again


def finished(x):
    """Return `x`; on a GPU, wait until what computes it is done, so that others may read it.

    Streams of one device do not wait for those of another.
    """
    if is_cupy(x):
        with device_of(x):
            sys.modules["cupy"].cuda.get_current_stream().synchronize()
    return x


def row_indices(starts, stops):
    """Return the indices of the rows of several runs, one run after the other."""
    ends = np.cumsum(stops - starts)
    return np.arange(ends[-1]) + np.repeat(stops - ends, stops - starts)


def current_device(index):
    """Return a context in which a CUDA device is the one that new arrays and kernels go to."""
    import cupy

    # an object for each use: it remembers the device to go back to
    return cupy.cuda.Device(index)


@contextlib.contextmanager
def external_stream(pointer, index):
    """Make a stream of another library that of CuPy, given its address; nothing for None."""
    if pointer is None:
        yield
        return
    import cupy

    with current_device(index), cupy.cuda.ExternalStream(pointer, index):
        yield


def device_of(x):
    """Return a context in which the device of `x` is the current one; empty for NumPy arrays."""
    return current_device(x.device.id) if is_cupy(x) else ANYWHERE

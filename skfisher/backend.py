"""Array libraries and devices: the one file that knows NumPy from CuPy.

Operations ask `array_module` for the library of their arguments and create new
arrays with ``like=``; nothing else in the package looks at array types.
"""

import functools
import re
import sys
import threading

import numpy as np
from threadpoolctl import ThreadpoolController

__all__ = [
    "array_module",
    "asarray",
    "cuda_usable",
    "empty",
    "float_dtype",
    "is_cupy",
    "parse_device",
    "rows_on",
    "single_threaded_blas",
    "to_device",
    "to_host",
    "zeros",
]


def is_cupy(x):
    """Tell whether `x` is a CuPy array, without importing CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(*arrays):
    """Return the library of the arguments: ``cupy`` if any is a CuPy array, else ``numpy``."""
    if any(is_cupy(x) for x in arrays):
        return sys.modules["cupy"]
    return np


def asarray(x, *, like, dtype=None):
    """Return `x` as an array of the library of `like`, of the given or its own dtype."""
    xp = array_module(like)
    return xp.asarray(to_host(x) if xp is np else x, dtype=dtype)


def empty(shape, *, like, dtype=None):
    """Return an uninitialised array of the library, and by default the dtype, of `like`."""
    return array_module(like).empty(shape, dtype=like.dtype if dtype is None else dtype)


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
    if is_cupy(x):
        return x.get()
    return np.asarray(x)


def to_device(x, device):
    """Return `x` on the given device: "cpu", "cuda", "cuda:1", or None to leave it where it is."""
    place = parse_device(device)
    if place is None:
        return x
    if place == "cpu":
        return to_host(x)
    import cupy

    with cupy.cuda.Device(place):
        return cupy.asarray(x)


def rows_on(device, x, starts, stops):
    """Return `x` with the rows of the bags on a device, and the bags' new boundaries.

    Only the rows that the bags lie in are moved; without a device nothing is.
    """
    place = parse_device(device)
    if place is None or (place == "cpu" and not is_cupy(x)):
        return x, starts, stops
    lengths = stops - starts
    low, high = int(starts.min()), int(stops.max())
    if high - low <= 2 * int(lengths.sum()):
        return to_device(x[low:high], device), starts - low, stops - low
    ends = np.cumsum(lengths)
    index = np.arange(ends[-1]) + np.repeat(stops - ends, lengths)
    return to_device(x[index], device), ends - lengths, ends


@functools.cache
def cuda_usable():
    """Tell whether CuPy is installed and sees a GPU, and if not, why.

    Returns
    -------
    n_devices : int
        Number of visible devices; 0 when CUDA cannot be used.
    reason : str
        Empty, or a clause that completes "device='cuda' needs CuPy and a visible GPU; ...".
    """
    try:
        import cupy
    except ImportError:
        return 0, "CuPy is not installed. Install skfisher[cuda13x] or skfisher[cuda12x]."
    try:
        return cupy.cuda.runtime.getDeviceCount(), ""
    except Exception as error:  # CuPy raises its own CUDARuntimeError
        return 0, f"CuPy {cupy.__version__} reports: {error}."


def parse_device(device):
    """Read a ``device`` parameter.

    Parameters
    ----------
    device : None or str
        None, "cpu", "cuda", "cuda:<index>" or "auto".

    Returns
    -------
    place : None, "cpu" or int
        None to work where the data are, "cpu", or the index of a CUDA device.

    Raises
    ------
    ValueError
        If the word is none of these, or names a device that cannot be used.
    """
    if device is None or device == "cpu":
        return device
    if device == "auto":
        return 0 if cuda_usable()[0] else "cpu"
    match = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(
            f"device={device!r} is not known: use None, 'cpu', 'cuda', 'cuda:<index>' or 'auto'."
        )
    index = int(match[1] or 0)
    n_devices, reason = cuda_usable()
    if n_devices == 0:
        raise ValueError(f"device={device!r} needs CuPy and a visible GPU; {reason}")
    if index >= n_devices:
        raise ValueError(f"device={device!r} does not exist: {n_devices} CUDA devices are visible.")
    return index


@functools.cache
def _threadpools():
    # Looking for the loaded BLAS libraries takes milliseconds, so look once.
    return ThreadpoolController()


class _SingleThreadedBlas:
    """One setting for the whole process: the first to enter sets it, the last lifts it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._depth = 0
        self._limit = None

    def __enter__(self):
        with self._lock:
            if self._depth == 0:
                self._limit = _threadpools().limit(limits=1, user_api="blas")
                self._limit.__enter__()
            self._depth += 1

    def __exit__(self, *exception):
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._limit.__exit__(*exception)


_single_threaded_blas = _SingleThreadedBlas()


def single_threaded_blas():
    """Return a context that holds BLAS at one thread, for code that runs threads of its own."""
    return _single_threaded_blas

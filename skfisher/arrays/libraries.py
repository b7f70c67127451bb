"""Array libraries and devices: the one file that knows NumPy from CuPy.

Operations ask `array_module` for the library of their arguments and create new
arrays with ``like=``; nothing else in the package looks at array types.
"""

import contextlib
import functools
import re
import sys

import numpy as np

__all__ = [
    "array_module",
    "asarray",
    "cuda_devices",
    "cuda_usable",
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
    "parse_device",
    "row_indices",
    "rows_on",
    "to_device",
    "to_host",
    "work_context",
    "zeros",
]


# Larger arrays go to a device without the pinned memory that CuPy puts in between, of which it
# keeps a block for every size it ever met.
STAGED_BYTES = 2**20
_ANYWHERE = contextlib.nullcontext()  # on the host no device is the current one


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


def to_device(x, device):
    """Return `x` on the given device: "cpu", "cuda", "cuda:1", or None to leave it where it is."""
    place = parse_device(device, several=False)
    if place is None:
        return x
    if place == "cpu":
        return to_host(x)
    return moved(x, place)


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


def rows_on(device, x, starts, stops):
    """Return `x` with the rows of the bags on a device, and the bags' new boundaries.

    Only the rows that the bags lie in are moved; without a device nothing is.
    """
    place = parse_device(device, several=False)
    if place is None or place == _place_of(x):
        return x, starts, stops
    lengths = stops - starts
    low, high = int(starts.min()), int(stops.max())
    with device_of(x):
        if high - low <= 2 * int(lengths.sum()):
            rows, starts, stops = x[low:high], starts - low, stops - low
        else:
            rows = x[asarray(row_indices(starts, stops), like=x)]
            stops = np.cumsum(lengths)
            starts = stops - lengths
    return to_device(rows, device), starts, stops


def _place_of(x):
    return x.device.id if is_cupy(x) else "cpu"


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
    return current_device(x.device.id) if is_cupy(x) else _ANYWHERE


def cuda_devices(device, x):
    """Return the CUDA devices that a parameter ``device`` asks to work on descriptors `x`.

    Returns
    -------
    indices : tuple of int
        Empty for work on the CPU.
    """
    place = parse_device(device)
    if place is None:
        place = _place_of(x)
    if isinstance(place, tuple):
        return place
    return () if place == "cpu" else (place,)


def work_context(device, x):
    """Return a context in which the one device to work on descriptors `x` is the current one."""
    devices = cuda_devices(device, x)
    return current_device(devices[0]) if devices else _ANYWHERE


@functools.cache
def cuda_usable():
    """Tell whether CuPy is installed and sees a GPU, and if not, why.

    Returns
    -------
    n_devices : int
        Number of visible devices; 0 when CUDA cannot be used.
    reason : str
        Empty, or what completes "device='cuda' needs CuPy and a visible GPU; ...".
    """
    try:
        import cupy
    except ImportError:
        return 0, "CuPy is not installed. Install skfisher[cuda13x] or skfisher[cuda12x]."
    check = "Check that nvidia-smi lists a GPU, with a driver that supports this CuPy's CUDA."
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own CUDARuntimeError
        return 0, f"CuPy {cupy.__version__} reports: {error}. {check}"
    return n_devices, "" if n_devices else f"CuPy {cupy.__version__} sees no device. {check}"


def parse_device(device, *, several=True):
    """Read a ``device`` parameter.

    Parameters
    ----------
    device : None, str or list of str
        None, "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or a list such as
        ``["cuda:0", "cuda:2"]``.
    several : bool
        Whether more than one device will do.

    Returns
    -------
    place : None, "cpu", int or tuple of int
        None to work where the data are, "cpu", the index of a CUDA device, or the indices
        of more than one.

    Raises
    ------
    ValueError
        If the word is none of these, or names a device that cannot be used.
    """
    if device is None or (isinstance(device, str) and device == "cpu"):
        return device
    if isinstance(device, str) and device == "auto":
        return 0 if cuda_usable()[0] else "cpu"
    names = list(device) if isinstance(device, list | tuple) else [device]
    matches = [re.fullmatch(r"cuda(?::(\d+|all))?", str(name)) for name in names]
    alone = len(names) == 1
    if not names or not all(m and (alone or m[1] != "all") for m in matches):
        raise ValueError(
            f"device={device!r} is not known: use None, 'cpu', 'cuda', 'cuda:<index>', 'cuda:all', "
            "'auto' or a list such as ['cuda:0', 'cuda:1']."
        )
    n_devices, reason = cuda_usable()
    if n_devices == 0:
        raise ValueError(f"device={device!r} needs CuPy and a visible GPU; {reason}")
    if matches[0][1] == "all":
        indices = tuple(range(n_devices))
    else:
        indices = tuple(int(m[1] or 0) for m in matches)
    if max(indices) >= n_devices:
        seen = "1 CUDA device is" if n_devices == 1 else f"{n_devices} CUDA devices are"
        raise ValueError(
            f"device={device!r} does not exist: {seen} visible, counted from 0. Check "
            "CUDA_VISIBLE_DEVICES."
        )
    if len(set(indices)) < len(indices):
        raise ValueError(f"device={device!r} names a device twice.")
    if len(indices) > 1 and not several:
        raise ValueError(f"device={device!r}: one device is needed here, such as 'cuda:0'.")
    return indices if len(indices) > 1 else indices[0]

"""Where to work: what a parameter ``device`` says, and arrays on the device it names."""

import functools
import re

import numpy as np

from skfisher.arrays.libraries import (
    ANYWHERE,
    asarray,
    current_device,
    device_of,
    is_cupy,
    moved,
    row_indices,
    to_host,
)

__all__ = [
    "cuda_devices",
    "cuda_usable",
    "parse_device",
    "rows_on",
    "to_device",
    "work_context",
]


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
    return current_device(devices[0]) if devices else ANYWHERE


def to_device(x, device):
    """Return `x` on the given device: "cpu", "cuda", "cuda:1", or None to leave it where it is."""
    place = parse_device(device, several=False)
    if place is None:
        return x
    if place == "cpu":
        return to_host(x)
    return moved(x, place)


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

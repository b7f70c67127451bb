"""Loads the CUDA kernels: compiled by CuPy for the device at hand, one kernel at a time.

Kernels are templates. A name expression such as ``"skfisher::score<64, 8>"`` picks one with
its arguments, and only the kernels that a program uses are ever compiled.
"""

import functools
import importlib.resources
import os

import numpy as np

from skfisher.arrays.libraries import is_cupy

__all__ = ["fused", "kernel", "on_device", "source"]

_DEFAULT_SHARED_BYTES = 48 * 1024  # a block may use more only where its kernel says so


@functools.cache
def source():
    """Return all CUDA files of this package as one text, headers first."""
    files = importlib.resources.files("skfisher.cuda").iterdir()
    by_name = {file.name: file for file in files}
    names = [
        name for ending in (".cuh", ".cu") for name in sorted(by_name) if name.endswith(ending)
    ]
    return "\n".join(f'#line 1 "{name}"\n{by_name[name].read_text("utf-8")}' for name in names)


def kernel(expression, shared_bytes=0):
    """Return the kernel of a name expression, compiled for the current device.

    Parameters
    ----------
    expression : str
        The kernel with its template arguments, ``"skfisher::score<64, 8>"``.
    shared_bytes : int
        The most shared memory, in bytes, that a block of it will be launched with.

    Returns
    -------
    function : callable
        ``function(grid, block, args, shared_mem=0)`` launches it on the current stream.
        Numbers among `args` are NumPy scalars of the type the kernel declares.
    """
    import cupy

    return _function(expression, shared_bytes, cupy.cuda.Device().id)


@functools.cache
def _function(expression, shared_bytes, device):  # noqa: ARG001, of the cache
    import cupy

    # Compiled anew for each device, since devices may differ; CuPy keeps results on disk.
    module = cupy.RawModule(code=source(), options=("--std=c++17",), name_expressions=(expression,))
    function = module.get_function(expression)
    if shared_bytes > _DEFAULT_SHARED_BYTES:
        function.max_dynamic_shared_size_bytes = shared_bytes  # belongs to the current device
    return function


def on_device(x):
    """Tell whether an array lives where kernels run."""
    return is_cupy(x)


def fused(x):
    """Tell whether kernels may take an array: float32, on a GPU, and not switched off.

    The environment variable ``SKFISHER_FUSED=0`` switches all kernels off.
    """
    return on_device(x) and x.dtype == np.float32 and os.environ.get("SKFISHER_FUSED") != "0"

"""What a bug report needs to say about the machine."""

import importlib.metadata
import os
import platform
import sys

from threadpoolctl import threadpool_info

from skfisher.arrays.devices import cuda_usable
from skfisher.native import library as native
from skfisher.version import __version__

__all__ = ["show_versions"]

# The names packages are installed by; CuPy has one for each version of CUDA.
PACKAGES = ["numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl", "matplotlib", "pandas"]
PACKAGES += ["rich", "skops", "opencv-python-headless", "torch"]
PACKAGES += ["cupy", "cupy-cuda12x", "cupy-cuda13x"]


def show_versions():
    """Print the versions of skfisher and of its dependencies, for a bug report.

    The report covers Python and the operating system, the installed packages, the loaded BLAS
    libraries with their threads, whether native kernels or NumPy do the work on the CPU, and the
    CUDA driver and GPUs if CuPy can use them, or why it cannot. The report says what cannot be
    found out; nothing is raised.

    See Also
    --------
    sklearn.show_versions : The same for scikit-learn.

    Examples
    --------
    >>> from skfisher import show_versions
    >>> show_versions()  # doctest: +ELLIPSIS
    System:
        skfisher: ...
    """
    for title, read in [
        ("System", _system),
        ("Packages", _packages),
        ("BLAS and OpenMP", _thread_pools),
        ("Kernels", _kernels),
        ("CUDA", _cuda),
    ]:
        print(f"{title}:")
        try:
            found = read()
        except Exception as error:  # the report of a broken machine is the one most needed
            found = {"unknown": f"{type(error).__name__}: {error}"}
        for name, value in found.items():
            print(f"    {name}: {value}")


def _system():
    return {
        "skfisher": __version__,
        "python": sys.version.replace("\n", " "),
        "executable": sys.executable,
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }


def _packages():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _thread_pools():
    return {
        pool["filepath"]: f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
        for pool in threadpool_info()
    }


def _kernels():
    return {"CPU": native.describe()}


def _cuda():
    n_devices, reason = cuda_usable()
    if n_devices == 0:
        return {"not usable": reason}
    runtime = sys.modules["cupy"].cuda.runtime
    found = {
        "driver supports CUDA": _cuda_version(runtime.driverGetVersion()),
        "CuPy runs CUDA": _cuda_version(runtime.runtimeGetVersion()),
    }
    for i in range(n_devices):
        properties = runtime.getDeviceProperties(i)
        gib = properties["totalGlobalMem"] / 2**30
        capability = f"{properties['major']}.{properties['minor']}"
        found[f"device {i}"] = (
            f"{properties['name'].decode()}, {gib:.1f} GiB, compute capability {capability}"
        )
    if "SKFISHER_FUSED" in os.environ:
        found["SKFISHER_FUSED"] = os.environ["SKFISHER_FUSED"]
    return found


def _cuda_version(number):
    return f"{number // 1000}.{number % 1000 // 10}"

"""What every test shares. Read by pytest before it imports any test module."""

import os
import sys

# Read by SciPy when it is first imported; without it, scikit-learn silently skips what
# concerns array API dispatch.
os.environ["SCIPY_ARRAY_API"] = "1"
os.environ["MPLBACKEND"] = "Agg"

from pathlib import Path

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile(
    "skfisher",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("skfisher")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give all tests of one cluster to one worker of pytest-xdist, with ``--dist loadgroup``.

    Not by its marks of groups, which some versions of pytest do not show to it.
    """
    from xdist.scheduler import LoadGroupScheduling

    class OneCluster(LoadGroupScheduling):
        def _split_scope(self, nodeid):
            folder = "tests/dask/"
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    return OneCluster(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture
def cupy():
    """CuPy, where a GPU is usable."""
    from skfisher.arrays.devices import cuda_usable

    n_devices, reason = cuda_usable()
    if n_devices == 0:
        pytest.skip(reason)
    return pytest.importorskip("cupy")


@pytest.fixture
def stand_in(monkeypatch):
    """Put a stand-in that NumPy computes, with two devices, in the place of CuPy."""
    from skfisher.arrays import devices
    from skfisher.parallel import gpus

    from . import device_array

    library = device_array.StandIn(n_devices=2)
    monkeypatch.setitem(sys.modules, "cupy", library)
    monkeypatch.setattr(gpus, "Lane", device_array.Lane)
    monkeypatch.setattr(gpus, "Memory", device_array.Memory)
    monkeypatch.setattr(devices, "cuda_usable", lambda: (2, ""))
    monkeypatch.setenv("SKFISHER_FUSED", "0")  # it runs no kernels
    return library


@pytest.fixture(params=["stand_in", pytest.param("cupy", marks=pytest.mark.gpu)])
def device_library(request):
    """Return a library of device arrays, usable as ``device="cuda"``: a stand-in, or CuPy."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["numpy", "stand_in", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """NumPy, a stand-in for CuPy, and CuPy where a GPU is usable."""
    return np if request.param == "numpy" else request.getfixturevalue(request.param)


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def real_xp(request):
    """NumPy, and CuPy where a GPU is usable, for what other packages do with arrays."""
    return np if request.param == "numpy" else request.getfixturevalue(request.param)


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_folder():
    """Return the folder of real data sets that the variable SKFISHER_DATA names."""
    folder = os.environ.get("SKFISHER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SKFISHER_DATA names no folder of data sets")
    return Path(folder)

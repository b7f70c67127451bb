"""What every test shares. Read by pytest before it imports any test module."""

import os

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


@pytest.fixture
def cupy():
    """CuPy, where a GPU is usable."""
    from skfisher.backend import cuda_usable

    n_devices, reason = cuda_usable()
    if n_devices == 0:
        pytest.skip(reason)
    return pytest.importorskip("cupy")


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """NumPy, and CuPy where a GPU is usable."""
    return np if request.param == "numpy" else request.getfixturevalue("cupy")


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

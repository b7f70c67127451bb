"""What the parameter ``device`` asks for."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from skfisher.arrays import devices
from skfisher.arrays.devices import cuda_devices, cuda_usable, parse_device


@pytest.fixture
def n_gpus(monkeypatch):
    """Return a function that makes so many GPUs visible."""
    return lambda n: monkeypatch.setattr(devices, "cuda_usable", lambda: (n, "" if n else "Why."))


def test_devices_are_read(n_gpus):
    n_gpus(3)
    for device, place in [
        (None, None),
        ("cpu", "cpu"),
        ("auto", 0),
        ("cuda", 0),
        ("cuda:2", 2),
        ("cuda:all", (0, 1, 2)),
        (["cuda:2", "cuda:0"], (2, 0)),
        (("cuda:1",), 1),
    ]:
        assert parse_device(device) == place
    n_gpus(1)
    assert parse_device("cuda:all") == 0
    n_gpus(0)
    assert parse_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:3", r"device='cuda:3' does not exist: 2 CUDA devices are visible, counted from 0"),
        (["cuda:0", "cuda:2"], r"'cuda:2'\] does not exist: 2 CUDA devices"),
        (["cuda:1", "cuda:1"], "names a device twice"),
        (["cuda", "cuda:0"], "names a device twice"),
        (["cuda:0", "cpu"], "is not known: use None, 'cpu', 'cuda'"),
        (["cuda:all", "cuda:0"], "is not known"),
        ([], r"device=\[\] is not known"),
        ([0, 1], r"device=\[0, 1\] is not known"),
        ("cuda:-1", "is not known"),
        ("gpu", "is not known"),
    ],
)
def test_wrong_devices_are_refused(n_gpus, device, message):
    n_gpus(2)
    with pytest.raises(ValueError, match=message):
        parse_device(device)


def test_one_device_where_one_is_needed(n_gpus):
    n_gpus(2)
    assert parse_device("cuda:1", several=False) == 1
    with pytest.raises(ValueError, match="device='cuda:all': one device is needed here"):
        parse_device("cuda:all", several=False)
    n_gpus(1)
    assert parse_device("cuda:all", several=False) == 0


def test_without_a_gpu_every_word_for_one_says_why(n_gpus):
    n_gpus(0)
    for device in ("cuda", "cuda:all", "cuda:7", ["cuda:0", "cuda:1"]):
        with pytest.raises(ValueError, match=r"needs CuPy and a visible GPU; Why\."):
            parse_device(device)


@pytest.fixture
def fresh_cuda_usable():
    cuda_usable.cache_clear()
    yield cuda_usable
    cuda_usable.cache_clear()


def test_cupy_that_is_not_installed(fresh_cuda_usable, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it raises ImportError
    n_devices, reason = fresh_cuda_usable()
    assert n_devices == 0
    assert reason == "CuPy is not installed. Install skfisher[cuda13x] or skfisher[cuda12x]."


def cupy_that_counts(count):
    library = ModuleType("cupy")
    library.__version__ = "14.2.0"
    library.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))
    return library


def test_cupy_without_a_driver_or_device(fresh_cuda_usable, monkeypatch):
    def fail():
        raise RuntimeError("driver version is insufficient")

    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(fail))
    n_devices, reason = fresh_cuda_usable()
    assert n_devices == 0
    assert reason.startswith("CuPy 14.2.0 reports: driver version is insufficient. Check that nvid")

    fresh_cuda_usable.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(lambda: 0))
    assert fresh_cuda_usable()[1].startswith("CuPy 14.2.0 sees no device. Check that nvidia-smi")

    fresh_cuda_usable.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(lambda: 2))
    assert fresh_cuda_usable() == (2, "")


def test_work_is_where_the_data_are_or_where_it_is_asked_for(stand_in):
    host = np.ones((3, 2))
    with stand_in.cuda.Device(1):
        x = stand_in.asarray(host)
    assert cuda_devices(None, host) == cuda_devices("cpu", host) == cuda_devices("cpu", x) == ()
    assert cuda_devices(None, x) == (1,)
    assert cuda_devices("cuda", x) == cuda_devices("cuda:0", host) == (0,)
    assert cuda_devices("cuda:all", host) == (0, 1)

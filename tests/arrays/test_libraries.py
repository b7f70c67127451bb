"""How devices are named, and how arrays get from one to another."""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from skfisher import (
    Bags,
    DiagonalGaussianMixture,
)
from skfisher.arrays import libraries
from skfisher.arrays.libraries import cuda_devices, cuda_usable, parse_device
from skfisher.contract.validation import check_bags
from skfisher.parallel.units import Where, row_units, sum_units
from tests import device_array


@pytest.fixture
def n_gpus(monkeypatch):
    """Return a function that makes so many GPUs visible."""
    return lambda n: monkeypatch.setattr(libraries, "cuda_usable", lambda: (n, "" if n else "Why."))


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


def test_importing_the_package_imports_no_array_library():
    code = "import sys, skfisher; print('cupy' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_work_is_where_the_data_are_or_where_it_is_asked_for(stand_in):
    host = np.ones((3, 2))
    with stand_in.cuda.Device(1):
        x = stand_in.asarray(host)
    assert cuda_devices(None, host) == cuda_devices("cpu", host) == cuda_devices("cpu", x) == ()
    assert cuda_devices(None, x) == (1,)
    assert cuda_devices("cuda", x) == cuda_devices("cuda:0", host) == (0,)
    assert cuda_devices("cuda:all", host) == (0, 1)


def test_arrays_are_fetched_in_the_stream_of_their_own_device(stand_in, monkeypatch):
    # another stream does not wait for what computes them
    current, get = [], device_array.DeviceArray.get

    def noted(self):
        current.append(device_array.current_device())
        return get(self)

    with stand_in.cuda.Device(1):
        x = stand_in.asarray(np.arange(3.0))
    monkeypatch.setattr(device_array.DeviceArray, "get", noted)
    np.testing.assert_array_equal(libraries.to_host(x), np.arange(3.0))
    np.testing.assert_array_equal(libraries.asarray(x, like=np.empty(0)), np.arange(3.0))
    assert current == [1, 1]


@pytest.mark.parametrize("way", ["device", "rows", "array"])
def test_large_arrays_are_not_staged(stand_in, monkeypatch, way):
    # CuPy would keep pinned memory of every size
    x = np.arange(2.0**18).reshape(-1, 4)
    like, asarray = stand_in.zeros(1), device_array.StandIn.asarray

    def small(x, dtype=None):
        assert not isinstance(x, np.ndarray) or x.nbytes <= 2**20
        return asarray(x, dtype)

    monkeypatch.setattr(device_array.StandIn, "asarray", staticmethod(small))
    if way == "device":
        there = libraries.to_device(x, "cuda")
    elif way == "rows":
        there, _, _ = libraries.rows_on("cuda", x, np.array([0]), np.array([len(x)]))
    else:
        there = libraries.asarray(x, like=like, dtype=np.float32)
        assert there.dtype == np.float32
    np.testing.assert_array_equal(there.get(), x)


def test_threads_read_what_is_done(stand_in, monkeypatch):
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(device_array.current_device()))
    monkeypatch.setattr(stand_in.cuda, "get_current_stream", lambda: stream)
    with stand_in.cuda.Device(1):
        x = stand_in.zeros((3, 2))
    bags = Bags.from_lengths(x, [2, 1])
    for n_jobs, expected in ((None, []), (2, [1])):
        # in one thread the work goes on in the same stream
        sum_units(lambda x: [x.sum()], row_units(bags, Where(n_jobs, "cpu")), tile=2)
        assert waits == expected
    sum_units(lambda x, *_: [x.sum()], row_units(bags, Where(None, "cuda:all"), 1))
    assert waits[1:] == [1, 1][: len(waits) - 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_samples_are_done_when_they_have_been_checked(stand_in, monkeypatch, dtype):
    # to look at floats is to wait; threads may read the values then
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(device_array.current_device()))
    to_float = device_array.DeviceArray.__float__

    def looked_at(self):
        waits.append(device_array.current_device())
        return to_float(self)

    monkeypatch.setattr(stand_in.cuda, "get_current_stream", lambda: stream)
    monkeypatch.setattr(device_array.DeviceArray, "__float__", looked_at)
    with stand_in.cuda.Device(1):
        bags = Bags(stand_in.asarray(np.ones((9, 4), dtype=dtype)), [0, 5], [5, 9])
    check_bags(DiagonalGaussianMixture(2), bags, reset=True)
    assert waits == [1]


@pytest.mark.parametrize("way", ["to_device", "asarray"])
def test_devices_wait_for_each_other_where_arrays_go_between_them(stand_in, monkeypatch, way):
    with stand_in.cuda.Device(1):
        x = stand_in.asarray(np.arange(12.0).reshape(3, 4))[:, ::2]
    log, contiguous = [], device_array.lookup("ascontiguousarray")

    def note(what):
        log.append((what, device_array.current_device()))

    stream = SimpleNamespace(synchronize=lambda: note("wait"))
    copy = device_array.StandIn.asarray

    def copied(x, dtype=None):
        if x._device != device_array.current_device():
            assert x._values.flags.c_contiguous  # else CuPy makes a copy, and does not wait
            note("copy")
        return copy(x, dtype)

    def packed(x):
        note("pack")
        return contiguous(x)

    monkeypatch.setattr(stand_in.cuda, "get_current_stream", lambda: stream)
    monkeypatch.setattr(device_array.StandIn, "asarray", staticmethod(copied))
    monkeypatch.setattr(stand_in, "ascontiguousarray", packed, raising=False)
    if way == "to_device":
        there = libraries.to_device(x, "cuda:0")
    else:
        there = libraries.asarray(x, like=stand_in.zeros(1))
    # before the copy for what is read, after it as memory that was read is used again
    assert log == [("pack", 1), ("wait", 1), ("copy", 0), ("wait", 0)]
    assert there.device.id == 0
    np.testing.assert_array_equal(there.get(), [[0, 2], [4, 6], [8, 10]])

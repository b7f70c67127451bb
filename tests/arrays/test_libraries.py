"""How arrays get from the host to a device, and from one device to another."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from skfisher import Bags, DiagonalGaussianMixture
from skfisher.arrays import devices, libraries
from skfisher.contract.validation import check_bags
from skfisher.parallel.units import Where, row_units, sum_units
from tests import device_array


def test_importing_the_package_imports_no_array_library():
    code = "import sys, skfisher; print('cupy' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


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
        there = devices.to_device(x, "cuda")
    elif way == "rows":
        there, _, _ = devices.rows_on("cuda", x, np.array([0]), np.array([len(x)]))
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
        there = devices.to_device(x, "cuda:0")
    else:
        there = libraries.asarray(x, like=stand_in.zeros(1))
    # before the copy for what is read, after it as memory that was read is used again
    assert log == [("pack", 1), ("wait", 1), ("copy", 0), ("wait", 0)]
    assert there.device.id == 0
    np.testing.assert_array_equal(there.get(), [[0, 2], [4, 6], [8, 10]])

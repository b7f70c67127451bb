"""Groups that fit a memory, on devices that NumPy stands in for."""

import gc
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn import config_context, get_config

from skfisher.arrays.libraries import array_module
from skfisher.parallel import gpus
from tests import device_array

lengths_of_units = st.lists(st.integers(1, 50), min_size=1, max_size=30).map(np.array)


@pytest.fixture
def memory(stand_in, monkeypatch):
    """Return a function that sets the bytes of every stand-in's memory."""
    monkeypatch.setattr(device_array.Lane, "log", [])
    return lambda n_bytes: monkeypatch.setattr(device_array.Memory, "n_bytes", n_bytes)


def sums_of_units(x, starts, stops, units):
    assert units.stop - units.start == len(starts)
    xp = array_module(x)
    parts = [x[a:b].sum(axis=0) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
    return [xp.stack(parts)]


BAGS = np.array([3, 40, 0, 20]), np.array([13, 41, 5, 33])
LENGTHS = np.array([4, 7, 2, 9, 1, 6])


def expected_sums(values):
    rows = np.concatenate([values[a:b] for a, b in zip(*BAGS, strict=True)])
    return [part.sum(axis=0) for part in np.split(rows, np.cumsum(LENGTHS)[:-1])]


def run(values, devices, **options):
    units = gpus.Units(values, *BAGS, LENGTHS, devices)
    found = [None] * len(LENGTHS)
    for group, (sums,) in units.map(sums_of_units, row_bytes=0, **options):
        found[group] = list(sums)
    return found


@pytest.mark.parametrize("devices", [(0,), (1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("n_bytes", [2**40, 350, 9 * 2 * 8])
def test_results_do_not_depend_on_memory_or_devices(memory, rng, devices, n_bytes):
    memory(n_bytes)
    values = rng.normal(size=(50, 2))
    np.testing.assert_array_equal(run(values, devices), expected_sums(values))
    used = {device for device, _ in device_array.Lane.log}
    assert used == set(devices)
    assert device_array.Lane.log[-1][1] == "closed"


def test_rows_that_are_on_the_device_stay_there(memory, stand_in, rng):
    values = rng.normal(size=(50, 2))
    with stand_in.cuda.Device(1):
        found = run(stand_in.asarray(values), (1,))
        assert all(isinstance(sums, stand_in.ndarray) for sums in found)
        np.testing.assert_array_equal([sums.get() for sums in found], expected_sums(values))
    assert device_array.Lane.log == []


def test_rows_on_one_device_go_to_others(memory, stand_in, rng):
    values = rng.normal(size=(50, 2))
    with stand_in.cuda.Device(1):
        x = stand_in.asarray(values)
    np.testing.assert_array_equal([np.asarray(s) for s in run(x, (0,))], expected_sums(values))


def test_rows_are_held_where_they_fit(memory, rng):
    values = rng.normal(size=(50, 2))
    units = gpus.Units(values, *BAGS, LENGTHS, (0, 1))
    units.hold()
    assert [n for _, n in device_array.Lane.log] == [13, "closed", 16, "closed"]
    for _ in range(2):
        parts = list(units.map(sums_of_units, row_bytes=0))
        sums = np.concatenate([sums for _, (sums,) in parts])
        np.testing.assert_array_equal(sums, expected_sums(values))
    assert len(device_array.Lane.log) == 4

    memory(300)  # half of it holds 9 rows
    units = gpus.Units(values, *BAGS, LENGTHS, (0,))
    units.hold()
    assert len(device_array.Lane.log) == 4


def test_too_little_memory_is_said(memory, rng):
    memory(16)
    with pytest.raises(MemoryError, match="The GPU's memory does not suffice"):
        run(rng.normal(size=(50, 2)), (0, 1))


@pytest.mark.parametrize("devices", [(0,), (0, 1)])
def test_after_a_failure_nothing_is_kept(memory, rng, devices):
    memory(300)
    arrays = []

    class InterruptError(BaseException):
        pass

    def fail(x, starts, stops, units):
        arrays.append(weakref.ref(x))
        if len(arrays) > 1:
            raise InterruptError
        return sums_of_units(x, starts, stops, units)

    units = gpus.Units(rng.normal(size=(50, 2)), *BAGS, LENGTHS, devices)
    try:
        list(units.map(fail, row_bytes=0))
    except InterruptError:
        pass
    else:
        raise AssertionError
    gc.collect()
    assert [array for array in arrays if array() is not None] == []
    n_closed = sum(n == "closed" for _, n in device_array.Lane.log)
    assert n_closed >= len(devices)


def slow_units(n, fail):
    """Return `n` units of two devices, slow work for them, and the list of those done."""
    done = []

    def work(x, starts, stops, units):
        fail(units.start)
        done.append(units.start)
        time.sleep(0.01)
        return [x]

    borders = np.array([0]), np.array([n])
    return gpus.Units(np.ones((n, 2)), *borders, np.ones(n, int), (0, 1)), work, done


def test_when_one_device_fails_the_others_stop(memory):
    memory(20)  # a unit at a time
    failing = threading.Event()

    def fail(unit):
        if unit == 53:
            failing.set()
            raise ValueError("at unit 53")
        if unit == 3:
            failing.wait(10)

    units, work, done = slow_units(100, fail)
    with pytest.raises(ValueError, match="at unit 53"):
        list(units.map(work, row_bytes=0))
    assert len(done) < 50


def test_when_the_caller_is_interrupted_all_devices_stop(memory, monkeypatch):
    memory(20)
    begun, interrupted = threading.Event(), threading.Event()

    def interrupt(future):
        begun.wait(10)
        interrupted.set()
        raise KeyboardInterrupt

    def wait(unit):
        begun.set()
        interrupted.wait(10)

    monkeypatch.setattr(Future, "result", interrupt)
    units, work, done = slow_units(100, wait)
    with pytest.raises(KeyboardInterrupt):
        list(units.map(work, row_bytes=0))
    assert len(done) < 90


def test_threads_and_their_caller_wait_for_each_other(memory, stand_in, monkeypatch, rng):
    # each has streams of its own
    log = []

    def wait():
        caller = threading.current_thread() is threading.main_thread()
        log.append(("caller" if caller else "thread", device_array.current_device()))

    def logged(x, *rest):
        log.append(("work", device_array.current_device()))
        return sums_of_units(x, *rest)

    with stand_in.cuda.Device(1):
        x = stand_in.asarray(rng.normal(size=(50, 2)))
    monkeypatch.setattr(
        stand_in.cuda, "get_current_stream", lambda: SimpleNamespace(synchronize=wait)
    )
    list(gpus.Units(x, *BAGS, LENGTHS, (0, 1)).map(logged, row_bytes=0))
    assert log[0] == ("caller", 1)  # what computes the rows
    assert log[log.index(("work", 1)) + 1 :].count(("thread", 1)) >= 1  # the results that stay


@pytest.mark.parametrize("devices", [(0,), (0, 1)])
def test_work_on_devices_sees_what_its_caller_sees(memory, rng, devices):
    seen = []

    def look(x, starts, stops, units):
        seen.append((get_config()["working_memory"], np.geterr()["divide"]))
        return [x[starts]]

    with config_context(working_memory=64), np.errstate(divide="raise"):
        list(gpus.Units(rng.normal(size=(50, 2)), *BAGS, LENGTHS, devices).map(look, row_bytes=0))
    assert set(seen) == {(64, "raise")}


def test_an_abandoned_run_closes_its_lanes(memory, rng):
    memory(300)
    units = gpus.Units(rng.normal(size=(50, 2)), *BAGS, LENGTHS, (0,))
    work = units.map(sums_of_units, row_bytes=0)
    next(work)
    work.close()
    assert device_array.Lane.log[-1] == (0, "closed")


# Lanes, by a stand-in whose streams do nothing until they are waited for.


class Stream:
    current = None

    def __init__(self, non_blocking=False):
        assert non_blocking  # else it would wait for all others
        self.pending = []

    def __enter__(self):
        self.before, Stream.current = Stream.current, self

    def __exit__(self, *exception):
        Stream.current = self.before

    def synchronize(self):
        while self.pending:
            self.pending.pop(0)()


class LateArray:
    """An array that the current stream fills."""

    def __init__(self, shape, dtype=None):
        self.values = np.zeros(shape, dtype)

    shape = property(lambda self: self.values.shape)

    def __getitem__(self, key):
        part = LateArray(0)
        part.values = self.values[key]
        return part

    def set(self, values, stream=None):
        stream.pending.append(lambda: np.copyto(self.values, values))

    def doubled(self):
        result = LateArray(self.values.shape)
        Stream.current.pending.append(lambda: np.multiply(self.values, 2, out=result.values))
        return result

    def get(self):
        Stream.current.synchronize()
        return self.values


@pytest.fixture
def pinned(monkeypatch):
    """Put late arrays in the place of CuPy's; return the list of pinned sizes."""
    late, sizes = ModuleType("cupy"), []
    late.ndarray, late.empty = LateArray, LateArray
    late.cuda = SimpleNamespace(Stream=Stream, Device=device_array.Device)
    extra = ModuleType("cupyx")

    def empty_pinned(shape, dtype):
        sizes.append(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.empty(shape, dtype)

    extra.empty_pinned = empty_pinned
    monkeypatch.setitem(sys.modules, "cupy", late)
    monkeypatch.setitem(sys.modules, "cupyx", extra)
    gpus._stream.cache_clear()
    yield sizes
    gpus._stream.cache_clear()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, ">f8"])
@pytest.mark.parametrize("buffer_bytes", [2**26, 100, 1])
def test_buffers_are_refilled_when_they_have_been_read(
    pinned, monkeypatch, rng, dtype, buffer_bytes
):
    monkeypatch.setattr(gpus, "PINNED_BYTES", buffer_bytes)
    values = rng.integers(0, 100, size=(60, 3)).astype(dtype)
    rows = gpus.Rows.of(values)
    lanes = [gpus.Lane(0, rows, i) for i in range(2)]
    under_way, found = [], []
    for i in range(6):
        part = rows.part(10 * i, 10 * i + 10)
        under_way.append(lanes[i % 2].start(part, lambda x: [x.doubled()]))
        if i % 2:  # fetched out of turn: nothing but the lanes keeps groups apart
            found += [lanes[j % 2].fetch(under_way[j])[0] for j in (i - 1, i)]
    np.testing.assert_array_equal(np.concatenate(found), 2 * values)
    # twice in a row, with no results fetched in between
    first = lanes[0].start(rows.part(0, 30), lambda x: [x.doubled()])
    second = lanes[0].start(rows.part(30, 60), lambda x: [x.doubled()])
    np.testing.assert_array_equal(lanes[0].fetch(second)[0], 2 * values[30:])
    np.testing.assert_array_equal(lanes[0].fetch(first)[0], 2 * values[:30])
    lanes[1].start(rows.part(0, 5), lambda x: [x.doubled()])
    lanes[1].close()
    assert not gpus._stream(0, 1).pending


def test_pinned_buffers_have_few_sizes(pinned):
    # CuPy keeps those of every size for good
    for n_rows in range(1, 5000, 7):
        gpus.Lane(0, gpus.Rows.of(np.empty((n_rows, 20), np.float32)), 0)
    assert len(set(pinned)) <= 14
    gpus.Lane(0, gpus.Rows.of(np.empty((2**20, 20), np.float32)), 0)
    assert max(pinned) == gpus.PINNED_BYTES
    assert pinned[-2] >= 80 * n_rows


def test_scattered_rows_are_never_read_at_once(pinned, monkeypatch, rng):
    # they may be a file larger than the memory of the host
    monkeypatch.setattr(gpus, "PINNED_BYTES", 240)
    values = rng.normal(size=(60, 3))
    starts = rng.permutation(np.arange(0, 60, 2))
    rows = gpus.Rows(values, starts, starts + 2, np.arange(2, 62, 2), 0, 60)
    monkeypatch.setattr(gpus, "Memory", device_array.Memory)
    read, gather = [], gpus.gather

    def counted(*args):
        rows = gather(*args)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(gpus, "gather", counted)
    held = gpus._held(rows, 0)
    assert sum(read) == 60
    assert max(read) <= 10
    expected = values.reshape(30, 2, 3)[starts // 2].reshape(60, 3)
    np.testing.assert_array_equal(held.values, expected)


# What only a GPU shows.


@pytest.mark.gpu
@pytest.mark.parametrize("buffer_bytes", [2**26, 320, 16])
def test_rows_pass_through_pinned_buffers(cupy, rng, monkeypatch, buffer_bytes):
    # all at once, some units at a time, or each unit in pieces
    monkeypatch.setattr(gpus, "PINNED_BYTES", buffer_bytes)
    values = rng.normal(size=(50, 2))
    for _ in range(3):
        np.testing.assert_allclose(run(values, (0,)), expected_sums(values), rtol=1e-12)


@pytest.mark.gpu
def test_many_groups_in_flight_do_not_mix(cupy, rng, monkeypatch):
    monkeypatch.setattr(gpus, "PINNED_BYTES", 2**20)
    values = rng.normal(size=(2**18, 16)).astype(np.float32)
    lengths = np.full(256, 2**10)
    borders = np.array([0]), np.array([len(values)])
    units = gpus.Units(values, *borders, lengths, (0,))
    found = [sums for _, (sums,) in units.map(sums_of_units, row_bytes=0)]
    assert len(found) > 4
    expected = values.reshape(256, 2**10, 16).sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=1e-2)


@pytest.mark.gpu
def test_memory_errors_of_cupy_halve_groups(cupy, rng):
    values = rng.normal(size=(64, 2))
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    sizes = []

    def hungry(x, starts, stops, units):
        cupy.empty(len(x) * 2**20, dtype=np.uint8)
        sizes.append(len(x))
        return [x.sum(axis=1)]

    units = gpus.Units(values, np.array([0]), np.array([64]), np.full(64, 1), (0,))
    before = pool.used_bytes()
    pool.set_limit(size=before + 20 * 2**20)
    try:
        found = [sums for _, (sums,) in units.map(hungry, row_bytes=0)]
        assert max(sizes) <= 20
        np.testing.assert_allclose(np.concatenate(found), values.sum(axis=1), rtol=1e-12)
        pool.set_limit(size=before + 2**19)
        with pytest.raises(MemoryError, match="The GPU's memory does not suffice"):
            list(units.map(hungry, row_bytes=0))
    finally:
        pool.set_limit(size=0)
    assert pool.used_bytes() == before


def test_what_is_taken_of_cupy_exists():
    # on any machine that has CuPy, with a GPU or without
    cupy, cupyx = pytest.importorskip("cupy"), pytest.importorskip("cupyx")
    assert callable(cupyx.empty_pinned)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    for name in ("free_bytes", "used_bytes", "get_limit", "free_all_blocks"):
        assert callable(getattr(cupy.get_default_memory_pool(), name))
    assert "non_blocking" in cupy.cuda.Stream.__init__.__doc__
    assert "stream" in cupy.ndarray.set.__doc__
    for owner, name in (
        (cupy.cuda.Stream, "synchronize"),
        (cupy.cuda, "get_current_stream"),
        (cupy.cuda.runtime, "memGetInfo"),
        (cupy, "from_dlpack"),
        (cupy, "ascontiguousarray"),
    ):
        assert callable(getattr(owner, name))

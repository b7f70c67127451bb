"""Work on the descriptors of bags by one CUDA device or several, whatever fits their memory.

Descriptors are cut into *units*, runs of rows that have results of their own: bags that are
encoded, or blocks whose sums are added up later. The cut depends on the data alone and results
come in the order of the units, so that no bit of them depends on memory or on the devices.

Descriptors on the host go to a device through two *lanes*, each a stream with a pinned buffer:
one is filled while the other computes.
"""

import contextlib
import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from skfisher.arrays.libraries import current_device, finished, is_cupy, moved, to_host
from skfisher.bags.ragged import gather
from skfisher.parallel.memory import run_in_groups, share_units
from skfisher.parallel.threads import submit

__all__ = ["Units", "hold"]

# Bytes of a lane's pinned buffer, and of the descriptors that make a group on their way through.
PINNED_BYTES = 2**26
# Share of the free memory to plan with: the rest is for what was not foreseen.
USABLE_SHARE = 0.8


class Rows(NamedTuple):
    """Rows of bags, counted bag after bag: those from number `first` to `last`, not yet read."""

    values: Any  # (n, d), on the host or a device
    starts: np.ndarray  # (n_bags,), of all bags
    stops: np.ndarray
    ends: np.ndarray  # where each bag ends in the count
    first: int
    last: int

    @classmethod
    def of(cls, x):
        """Return the rows of an array."""
        n = np.array([len(x)])
        return cls(x, 0 * n, n, n, 0, len(x))

    @property
    def shape(self):
        """Shape of the array that they would be."""
        return self.last - self.first, self.values.shape[1]

    @property
    def nbytes(self):
        """Size of it."""
        return self.shape[0] * self.shape[1] * self.values.dtype.itemsize

    def part(self, low, high):
        """Return rows `low` to `high` of these."""
        return self._replace(first=self.first + low, last=min(self.first + high, self.last))

    def read(self):
        """Return the array, where the values are: a view of them if it can be, else a copy."""
        return gather(*self)


class Units:
    """Descriptors cut into units, for CUDA devices to work on.

    Parameters
    ----------
    values : array of shape (n, d)
        On the host or on a device.
    starts, stops : int64 arrays of shape (n_bags,), on the host
    lengths : int array of shape (n_units,)
        The rows of the bags, one bag after the other, are those of the units.
    devices : tuple of int
        Where to work: every device gets a range of units.
    """

    def __init__(self, values, starts, stops, lengths, devices):
        self._values = values
        ends = np.append(0, np.cumsum(lengths)).tolist()
        rows = Rows(values, starts, stops, np.cumsum(stops - starts), 0, ends[-1])
        self._shares = [
            _Share(
                device, units.start, lengths[units], rows.part(ends[units.start], ends[units.stop])
            )
            for device, units in zip(devices, share_units(lengths, len(devices)), strict=False)
        ]

    def hold(self):
        """Move the rows to their devices, to stay there, where half the free memory is enough."""
        for share in self._shares:
            share.hold()

    def map(self, function, *, row_bytes, unit_bytes=0):
        """Compute a function of all units, in groups.

        Parameters
        ----------
        function : callable
            ``function(x, starts, stops, units)`` is given the rows of a slice of units on
            the current device and, on the host, where each unit lies in them. It returns
            a list of arrays, in which what belongs to a unit must depend on it alone.
        row_bytes, unit_bytes : int
            Memory it takes for each row, the row itself excluded, and for each unit.

        Yields
        ------
        units : slice
        results : list of arrays
            Where the values are, if that is the device that worked, else on the host.
        """
        work = [share.map(function, row_bytes, unit_bytes) for share in self._shares]
        if len(work) == 1:
            return work[0]
        finished(self._values)  # threads have streams of their own
        return _side_by_side(work)


def hold(values, device):
    """Return an array on a device, if half of the memory free there is enough, else as it is."""
    held = _held(Rows.of(values), device)
    return values if held is None else held


def _held(rows, device):
    """Return the array of rows on a device, or None where it takes more than half the memory."""
    memory = Memory(device)
    if memory.free() / 2 < rows.nbytes:
        return None
    lane = Lane(device, rows, 0)
    try:
        return lane.start(rows, lambda x: x)
    except memory.error:
        return None
    finally:
        lane.close()


class _Share:
    """The units of one device."""

    def __init__(self, device, first_unit, lengths, rows):
        self._device, self._first_unit, self._rows = device, first_unit, rows
        self._lengths, self._ends = lengths, np.cumsum(lengths)
        self._row_bytes = rows.values.dtype.itemsize * rows.values.shape[1]
        self._stays = self._is_home()
        self._free = None  # bytes; the driver is asked once

    def _is_home(self):
        values = self._rows.values
        return is_cupy(values) and values.device.id == self._device

    def hold(self):
        if not self._is_home():
            held = _held(self._rows, self._device)
            if held is not None:
                self._rows = Rows.of(held)

    def map(self, function, row_bytes, unit_bytes):
        """Yield slices of units, counted over all shares, and their results."""
        memory = Memory(self._device)
        n_bytes = self._lengths * (self._row_bytes + row_bytes) + unit_bytes
        if self._free is None:
            self._free = memory.free()
        budget = USABLE_SHARE * self._free
        if self._is_home():
            lanes = [Home(self._device)]
        else:
            n_lanes = 1 if self._rows.nbytes <= PINNED_BYTES else 2
            lanes = [Lane(self._device, self._rows, i) for i in range(n_lanes)]
            in_buffer = PINNED_BYTES / self._row_bytes  # rows, and what as many take
            budget = min(budget / n_lanes, in_buffer * n_bytes.sum() / self._rows.shape[0])
        turns = itertools.cycle(lanes)

        def start(units):
            lane, lengths = next(turns), self._lengths[units]
            stops = np.cumsum(lengths)
            high = int(self._ends[units.stop - 1])
            rows = self._rows.part(high - int(stops[-1]), high)
            names = slice(self._first_unit + units.start, self._first_unit + units.stop)
            results = lane.start(rows, lambda x: function(x, stops - lengths, stops, names))
            return lambda: (names, results if self._stays else lane.fetch(results))

        try:
            for _, named_results in run_in_groups(
                start, n_bytes, budget,
                n_ahead=len(lanes), out_of_memory=memory.error, recover=memory.recover,
            ):  # fmt: skip
                yield named_results
        finally:
            for lane in lanes:
                lane.close()


def _side_by_side(work):
    """Yield what generators do, one after the other; each runs in a thread of its own."""
    failed = threading.Event()

    def run(generator):
        results = []
        with contextlib.closing(generator):
            try:
                for units, arrays in generator:
                    results.append((units, [finished(array) for array in arrays]))
                    if failed.is_set():
                        break
            except BaseException:
                failed.set()
                raise
        return results

    pool = ThreadPoolExecutor(len(work))
    try:
        try:
            for future in [submit(pool, run, generator) for generator in work]:
                yield from future.result()
        finally:
            failed.set()  # also if the caller was interrupted
            pool.shutdown()
    finally:  # again, as an interrupt there would leave threads that wait for calls
        failed.set()
        pool.shutdown()


# From here on everything is CuPy's, and shown to work by a GPU alone.


class Memory:
    """The memory of a device, with the pool in which CuPy keeps what is not used."""

    def __init__(self, device):
        import cupy

        self._cupy, self._device = cupy, device
        self.error = cupy.cuda.memory.OutOfMemoryError

    def free(self):
        """Return how many bytes can be had."""
        with current_device(self._device):
            pool = self._cupy.get_default_memory_pool()
            free = self._cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
            limit = pool.get_limit()  # set by users; 0 for none
            return min(free, limit - pool.used_bytes()) if limit else free

    def recover(self):
        """Give back what the pool keeps; return how many bytes can be had then."""
        with current_device(self._device):
            self._cupy.get_default_memory_pool().free_all_blocks()
        return self.free()


class Home:
    """Rows that are on the device already: work on them goes to the caller's stream."""

    def __init__(self, device):
        self._device = device

    def start(self, rows, function):
        """Call ``function(x)`` of the rows on the device, and do not wait."""
        with current_device(self._device):
            return function(rows.read())

    def fetch(self, results):
        """Wait for the results and return them on the host."""
        return list(map(to_host, results))

    def close(self):
        """Do nothing: there is no buffer to wait for."""


@functools.cache
def _stream(device, number):  # noqa: ARG001, of the cache
    """Return a stream of a device, the same in every call: CuPy's pool keeps memory by stream."""
    import cupy

    with current_device(device):
        return cupy.cuda.Stream(non_blocking=True)


class Lane:
    """A way to a device for rows, or some of them at a time: a stream, and a pinned buffer.

    Memory that CuPy's pool gives to a stream it takes back for that stream, so nothing is
    used again before the work on it is done. Lanes of different `number` work side by side.
    """

    def __init__(self, device, rows, number):
        import cupy
        import cupyx

        self._cupy, self._device = cupy, device
        (n_rows, d), dtype = rows.shape, rows.values.dtype
        self._n_rows = min(n_rows, max(1, PINNED_BYTES // (dtype.itemsize * d)))
        self._stream = _stream(device, number)
        self._buffer = None
        if not is_cupy(rows.values):
            with current_device(device):
                n_bytes = self._n_rows * d * dtype.itemsize
                # CuPy keeps a block for every size it ever met: a power of two is met again
                block = cupyx.empty_pinned(2 ** (n_bytes - 1).bit_length(), np.uint8)[:n_bytes]
                self._buffer = block.view(dtype.newbyteorder("=")).reshape(self._n_rows, d)

    def start(self, rows, function):
        """Copy the rows to the device and call ``function(x)`` there, and do not wait."""
        with current_device(self._device), self._stream:
            if self._buffer is None:  # they are on another device
                return function(moved(rows.read(), self._device))
            x = self._cupy.empty(rows.shape, self._buffer.dtype)
            for low in range(0, rows.shape[0], self._n_rows):
                piece = rows.part(low, low + self._n_rows).read()
                staged = self._buffer[: len(piece)]
                self._stream.synchronize()  # until the buffer has been read
                np.copyto(staged, piece)
                x[low : low + len(piece)].set(staged, stream=self._stream)
            return function(x)

    def fetch(self, results):
        """Wait for the results and return them on the host."""
        with current_device(self._device), self._stream:
            return [result.get() for result in results]

    def close(self):
        """Wait until nothing reads the buffer."""
        self._stream.synchronize()

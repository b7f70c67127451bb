"""Work cut into groups that fit a memory."""

import gc
import weakref

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from skfisher.parallel.memory import next_group, run_in_groups, share_units

lengths_of_units = st.lists(st.integers(1, 50), min_size=1, max_size=30).map(np.array)


@hypothesis.given(lengths_of_units, st.integers(1, 8))
def test_shares_are_all_units_in_order_and_even(lengths, n_shares):
    ranges = share_units(lengths, n_shares)
    assert len(ranges) == min(n_shares, len(lengths))
    assert [i for r in ranges for i in range(r.start, r.stop)] == list(range(len(lengths)))
    rows = [lengths[r].sum() for r in ranges]
    assert min(rows) > 0
    if len(ranges) <= len(lengths) // 50:  # no unit is as long as a share
        assert max(rows) <= lengths.sum() / len(ranges) + 50


def test_shares_of_equal_units():
    assert share_units(np.full(6, 7), 3) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    # a long unit does not leave others without
    assert share_units(np.array([1, 1, 100]), 3) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert share_units(np.array([100, 1, 1]), 2) == [slice(0, 1), slice(1, 3)]
    assert share_units(np.array([5]), 4) == [slice(0, 1)]


@hypothesis.given(lengths_of_units, st.integers(0, 200))
def test_groups_fit_the_budget(n_bytes, budget):
    first = 0
    while first < len(n_bytes):
        group = next_group(n_bytes, first, budget)
        assert group.start == first
        assert group.stop > first
        total = n_bytes[group].sum()
        assert total <= budget or group.stop == first + 1
        if group.stop < len(n_bytes):
            assert total + n_bytes[group.stop] > budget
        first = group.stop


class OutOfMemoryError(Exception):
    """Raised by the memory below."""


class Arena:
    """A memory of some size: work takes it when it starts, and its results until fetched."""

    def __init__(self, size, n_bytes):
        self.size, self.n_bytes, self.held, self.most = size, n_bytes, {}, 0
        self.log = []

    def start(self, units):
        wanted = self.n_bytes[units].sum()
        self.log.append((units.start, units.stop))
        if sum(self.held.values()) + wanted > self.size:
            raise OutOfMemoryError
        self.held[units.start] = wanted
        self.most = max(self.most, len(self.held))

        def finish():
            del self.held[units.start]
            return list(range(units.start, units.stop))

        return finish

    def run(self, budget, n_ahead):
        return run_in_groups(
            self.start,
            self.n_bytes,
            budget,
            n_ahead=n_ahead,
            out_of_memory=OutOfMemoryError,
            recover=lambda: self.size - sum(self.held.values()),
        )


@hypothesis.given(lengths_of_units, st.integers(50, 400), st.integers(1, 1000), st.integers(1, 3))
def test_every_unit_is_computed_once_in_order(n_bytes, size, budget, n_ahead):
    # whatever was planned with, as long as each unit alone fits the memory
    arena = Arena(size, n_bytes)
    results = list(arena.run(budget, n_ahead))
    assert [i for _, numbers in results for i in numbers] == list(range(len(n_bytes)))
    assert all(numbers == list(range(u.start, u.stop)) for u, numbers in results)
    assert not arena.held
    assert arena.most <= n_ahead


def test_groups_are_under_way_side_by_side():
    arena = Arena(1000, np.full(6, 10))
    list(arena.run(20, 2))
    assert arena.log == [(0, 2), (2, 4), (4, 6)]
    assert arena.most == 2


def test_a_group_that_does_not_fit_is_halved_and_so_are_the_next():
    arena = Arena(40, np.full(16, 10))
    list(arena.run(160, 1))
    assert arena.log == [(0, 16), (0, 8), (0, 4), (4, 8), (8, 12), (12, 16)]


def test_what_is_under_way_is_finished_before_a_group_is_halved():
    # two groups of 20 do not fit at a time, one after the other does
    arena = Arena(30, np.full(4, 10))
    list(arena.run(20, 2))
    assert arena.log == [(0, 2), (2, 4), (2, 4)]


def test_a_unit_that_does_not_fit_is_an_error_with_figures():
    arena = Arena(3 * 2**20, np.array([1, 1, 5, 1]) * 2**20)
    work = arena.run(2**30, 1)
    assert next(work)[1] == [0, 1]
    with pytest.raises(
        MemoryError, match="about 5 MiB are needed at a time, 3 MiB are free"
    ) as caught:
        list(work)
    assert caught.value.__context__ is None  # nor does it keep the failed work alive


def test_no_failed_work_is_alive_when_the_next_starts():
    alive = []

    class Scratch:
        pass

    def start(units):
        gc.collect()
        assert [r for r in alive if r() is not None] == []
        scratch = Scratch()
        alive.append(weakref.ref(scratch))
        if units.stop - units.start > 1:
            raise OutOfMemoryError
        return lambda: None

    options = {"n_ahead": 1, "out_of_memory": OutOfMemoryError, "recover": lambda: 0}
    assert len(list(run_in_groups(start, np.ones(4), 4, **options))) == 4

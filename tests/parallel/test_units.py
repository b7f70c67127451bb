"""The executor: the same results wherever the work is done."""

import functools

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfisher import Bags
from skfisher.arrays.libraries import array_module, asarray, to_host
from skfisher.parallel.units import (
    HERE,
    NUMBERS_PER_UNIT,
    ROWS_PER_UNIT,
    Where,
    bag_units,
    cut_bags,
    map_rows,
    map_units,
    row_units,
    sum_units,
)
from tests import device_array

PLACES = [HERE, Where(2), Where(-1), Where(device="cpu")]
DEVICES = [Where(device=d) for d in ("cuda", "cuda:1", "cuda:all", ["cuda:1", "cuda:0"])]


@pytest.fixture
def bags(rng, monkeypatch):
    """Bags that are not side by side, several units of them."""
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 20)
    starts, lengths = np.array([3, 40, 0, 60, 61, 90]), np.array([10, 13, 5, 1, 29, 10])
    return Bags(rng.normal(size=(100, 3)), starts, starts + lengths)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=200), st.integers(1, 10**6))
def test_units_cover_all_bags_in_order_and_are_bounded(lengths, numbers):
    lengths = np.array(lengths)
    slices = cut_bags(lengths, numbers)
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(len(lengths)))
    for some in slices:
        n_bags = some.stop - some.start
        assert n_bags == 1 or lengths[some].max() <= ROWS_PER_UNIT
        assert n_bags == 1 or lengths[some][:-1].sum() < ROWS_PER_UNIT
        assert n_bags == 1 or n_bags * numbers <= NUMBERS_PER_UNIT


SLICES = [slice(0, 2), slice(2, 3), slice(3, 6)]


def moments(x, starts, stops):
    rows = [x[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
    whole = array_module(x).concatenate(rows)
    return whole.sum(axis=0), whole.T @ whole


def moments_of_tile(x):
    return x.sum(axis=0), x.T @ x


def weighted_sums(x, starts, stops, weights):
    xp = array_module(x)
    parts = zip(starts.tolist(), stops.tolist(), weights.tolist(), strict=True)
    return (xp.stack([w * x[a:b].sum(axis=0) for a, b, w in parts]),)


def bag_sums(x, starts, stops, out=None):
    xp = array_module(x)
    sums = xp.stack(
        [x[a:b].sum(axis=0) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
    )
    if out is None:
        return sums
    out[...] = sums
    return out


def doubled(x):
    return 2 * x


def same_bits(results, others):
    for a, b in zip(results, others, strict=True):
        np.testing.assert_array_equal(to_host(a), to_host(b))


def inside(bags):
    return np.concatenate(list(bags))


def test_sums_are_those_of_all_descriptors(bags):
    for where in PLACES:
        total, products = sum_units(moments, row_units(bags, where))
        np.testing.assert_allclose(total, inside(bags).sum(axis=0))
        np.testing.assert_allclose(products, inside(bags).T @ inside(bags))
        same_bits((total, products), sum_units(moments, row_units(bags, HERE)))


def test_tiles_of_a_unit_add_up(bags):
    for tile in (1, 7, 1000):
        sums = [sum_units(moments_of_tile, row_units(bags, w), tile=tile) for w in PLACES]
        np.testing.assert_allclose(sums[0][1], inside(bags).T @ inside(bags))
        for other in sums[1:]:
            same_bits(other, sums[0])


@pytest.mark.parametrize("n_bytes", [2**40, 800])
def test_sums_on_devices(stand_in, monkeypatch, bags, n_bytes):
    monkeypatch.setattr(device_array.Memory, "n_bytes", n_bytes)
    for options in ({"f": moments}, {"f": moments_of_tile, "tile": 7}):
        sums = [sum_units(units=row_units(bags, where), **options) for where in DEVICES]
        np.testing.assert_allclose(sums[0][1], inside(bags).T @ inside(bags))
        for other in sums[1:]:
            same_bits(other, sums[0])


def test_a_device_may_take_several_units_at_once(stand_in, bags):
    taken = []

    def at_once(x, starts, stops, takes):
        taken.append(stops - starts)
        parts = [x[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        return [array_module(x).stack([p.sum(axis=0) for p in parts])] if takes else None

    def one(x, starts, stops):
        return moments(x, starts, stops)[:1]

    for takes in (True, False):
        (total,) = sum_units(
            one,
            row_units(bags, Where(device="cuda")),
            at_once=functools.partial(at_once, takes=takes),
        )
        np.testing.assert_allclose(total, inside(bags).sum(axis=0))
    assert [lengths.tolist() for lengths in taken] == 2 * [[20, 20, 20, 8]]


def test_a_row_for_each_descriptor_in_the_order_of_the_bags(bags):
    for where in PLACES:
        for options in ({}, {"shape": (3,), "dtype": np.float64}):
            rows = map_rows(doubled, row_units(bags, where), tile=7, **options)
            np.testing.assert_array_equal(rows, 2 * inside(bags))


@pytest.mark.parametrize("place", ["cpu", 0, 1])
def test_rows_lie_where_the_descriptors_do(stand_in, bags, place):
    values, expected = bags.values, 2 * inside(bags)
    if place != "cpu":
        with stand_in.cuda.Device(place):
            values = stand_in.asarray(values)
    here = Bags(values, bags.starts, bags.stops)
    for where in [*DEVICES, Where(device="cpu"), HERE]:
        with stand_in.cuda.Device(0 if place == "cpu" else place):
            rows = map_rows(doubled, row_units(here, where), tile=7)
            assert isinstance(rows, type(values))
            np.testing.assert_array_equal(to_host(rows), expected)


def test_a_row_for_each_bag(stand_in, bags):
    expected = [bag.sum(axis=0) for bag in bags]
    for where in PLACES + DEVICES:
        rows = map_rows(bag_sums, bag_units(bags, SLICES, where))
        np.testing.assert_allclose(rows, expected)


def test_rows_of_bags_that_no_unit_has_are_left_alone(stand_in, bags):
    for where in PLACES + DEVICES:
        out = np.full((len(bags), 3), np.inf)
        units = bag_units(bags, [SLICES[0], SLICES[2]], where)
        assert map_rows(bag_sums, units, out=out) is out
        np.testing.assert_allclose(
            out[[0, 1, 3, 4, 5]], [bags[i].sum(axis=0) for i in (0, 1, 3, 4, 5)]
        )
        assert np.isinf(out[2]).all()


def test_entries_beside_the_bags_go_with_them(stand_in, bags, rng):
    weights = rng.normal(size=len(bags))
    expected = [w * bag.sum(axis=0) for w, bag in zip(weights, bags, strict=True)]
    for where in PLACES + DEVICES:
        units = bag_units(bags, SLICES, where)
        found = [sums for (sums,) in map_units(weighted_sums, units, beside=[weights])]
        assert [len(sums) for sums in found] == [2, 1, 3]
        np.testing.assert_allclose(np.concatenate([to_host(s) for s in found]), expected)


def gradient(x, starts, stops, g, matrix):
    """Return the gradient of ``<g, tanh(sum of a bag)> `` by a matrix before the sum."""
    sums = bag_sums(x, starts, stops) @ asarray(matrix, like=x)
    d_sums = asarray(g, like=x) * (1 - sums * sums)
    return bag_sums(x, starts, stops).T @ d_sums, float(d_sums.sum())


def test_gradients_add_up_over_the_units(stand_in, bags, rng):
    matrix, g = rng.normal(size=(3, 2)), rng.normal(size=(len(bags), 2))
    f = functools.partial(gradient, matrix=matrix)
    expected = f(bags.values, bags.starts, bags.stops, g)
    for places in (PLACES, DEVICES):
        found = [sum_units(f, bag_units(bags, SLICES, where), beside=[g]) for where in places]
        for a, b in zip(found[0], expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)
        for other in found[1:]:
            same_bits(other, found[0])


class Shards:
    """Descriptors in several arrays, read when they are asked for."""

    def __init__(self, arrays):
        self.arrays = arrays
        self.shape = (sum(map(len, arrays)), arrays[0].shape[1])
        self.dtype = arrays[0].dtype
        self.read = []

    def __getitem__(self, rows):
        found = np.concatenate(self.arrays)[rows]
        self.read.append(len(found))
        return found


class ShardedBags:
    def __init__(self, values, bags):
        self.values, self.starts, self.stops = values, bags.starts, bags.stops


def test_descriptors_need_not_be_one_array(stand_in, bags):
    shards = Shards(np.array_split(bags.values, [30, 31, 80]))
    here = ShardedBags(shards, bags)
    for where in PLACES + DEVICES:
        shards.read.clear()
        same_bits(
            sum_units(moments, row_units(here, where)), sum_units(moments, row_units(bags, where))
        )
        assert max(shards.read) <= 20 or where in DEVICES
        rows = map_rows(bag_sums, bag_units(here, SLICES, where), shape=(3,), dtype=float)
        np.testing.assert_array_equal(rows, map_rows(bag_sums, bag_units(bags, SLICES, where)))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_that_the_user_chose(bags, backend):
    weights = np.arange(6.0)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        same_bits(
            sum_units(moments, row_units(bags, HERE)), sum_units(moments, row_units(bags, Where(1)))
        )
        units = bag_units(bags, SLICES, HERE)
        out = map_rows(bag_sums, units, shape=(3,), dtype=float)
        found = list(map_units(weighted_sums, units, beside=[weights]))
    np.testing.assert_allclose(out, [bag.sum(axis=0) for bag in bags])
    np.testing.assert_allclose(np.concatenate([s for (s,) in found]), weights[:, None] * out)


def test_held_descriptors_are_moved_once(stand_in, bags, monkeypatch):
    log = []
    monkeypatch.setattr(device_array.Lane, "log", log)
    units = row_units(bags, Where(device="cuda:all"))
    units.hold()
    for _ in range(3):
        sum_units(moments, units)
    assert sum(n for _, n in log if n != "closed") == bags.n_descriptors
    row_units(bags, HERE).hold()  # on the host there is nothing to do

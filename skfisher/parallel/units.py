"""The one executor: work on the descriptors of bags, by threads on the host or by GPUs.

The descriptors are cut into *units*, which are never cut again. A function of one unit is called
for all of them, wherever `Where` says, and what it returns comes in the order of the units. The
cut depends on the lengths of the bags alone: no bit of a result depends on the number of
threads, on the devices or on their memory. Nothing outside this room asks where to work.

There are two ways to cut:

- `row_units` cuts all descriptors into units of equally many, whatever bag they are of, for what
  sums over descriptors or is computed for each of them;
- `bag_units` makes a unit of some bags, or of some parts of long bags, for what is computed for
  each bag. `cut_bags` chooses them.

and three ways to work:

- `sum_units` returns what the results of all units add up to;
- `map_rows` returns one array with a row for each descriptor, or for each bag;
- `map_units` yields the results of one unit after the other, for all other uses.

The function is called ``f(x, starts, stops, *beside)``, on the host with `x` as it lies in memory
and on a GPU with the rows of the unit, in the library of `x` and with its device as the current
one; ``starts, stops`` (int64, on the host) tell where the bags or parts lie in `x`. In `beside`
are the entries of other arrays, one for each bag: labels, or gradients that arrive at their sums.
So a function encodes some bags by all layers of a model, or sends gradients back through them::

    def gradients(x, starts, stops, d_sums):
        d_h, d_parameters = layer.sums_vjp(d_sums, x, starts, stops)
        return d_parameters  # a tuple of arrays

    units = bag_units(parts, cut_bags(parts.lengths, n_out), Where(n_jobs, device))
    units.hold()  # on the devices, if they have the memory, for several passes
    total = sum_units(gradients, units, beside=[d_sums], scratch=(row_bytes, part_bytes))

With a `tile`, `f` sees one array of some rows at a time, ``f(x)``: on the host rows that stay in
cache, on a GPU those of a unit. Functions go to workers in other processes where the user asks
for them, so they are `functools.partial` of what a module defines.

The descriptors need not be one array. Their `values` may be any object with `shape` and `dtype`
that gives arrays for ``values[first:last]`` and ``values[rows]``; the rows of a unit are read when
its turn comes. Those of shards may be worked on by other processes, see
`skfisher.parallel.machines`. No unit of `row_units` crosses from one shard to another, and the
sums of a shard are added up first, whoever does that.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.devices import cuda_devices
from skfisher.arrays.libraries import (
    array_module,
    asarray,
    device_of,
    empty,
    float_dtype,
    is_cupy,
    to_host,
)
from skfisher.bags.sharded_values import runs_of_shards
from skfisher.ops.chunks import iter_row_chunks
from skfisher.parallel import gpus
from skfisher.parallel.host import run_on_host, share_memory
from skfisher.parallel.machines import run_on_workers, units_by_shard
from skfisher.parallel.tiles import added, rows_of_tiles, sum_of_tiles

__all__ = [
    "HERE",
    "Units",
    "Where",
    "bag_units",
    "cut_bags",
    "held",
    "map_rows",
    "map_units",
    "row_units",
    "sum_units",
]

ROWS_PER_UNIT = 2**15
NUMBERS_PER_UNIT = 2**21


class Where(NamedTuple):
    """Where to work: what estimators are told by parameters of these names."""

    n_jobs: int | None = None  # threads on the host
    device: str | list | tuple | None = None  # as `parse_device` reads it


HERE = Where()  # where the descriptors are, in one thread


class Units:
    """Descriptors of bags, cut into units, and where to work on them.

    Parameters
    ----------
    bags : Bags
        Or anything else with `values`, `starts` and `stops`.
    parts : list of (starts, stops)
        The runs of rows that each unit consists of.
    lengths : list of int arrays
        Of what has results of its own in each unit: bags, or the unit as a whole.
    slices : list of slice
        Where the results of each unit lie among those of all.
    where : Where
    """

    def __init__(self, bags, parts, lengths, slices, where):
        self.values, self.parts, self.slices, self.where = bags.values, parts, slices, where
        self.lengths = lengths
        self.devices = cuda_devices(where.device, bags.values)
        self.workers = getattr(bags.values, "workers", None)
        if self.devices and self.workers is not None:
            raise ValueError(
                f"device={where.device!r}, but the workers of a cluster compute on their CPUs: "
                "leave device=None."
            )
        if self.devices:
            starts, stops = (np.concatenate(borders) for borders in zip(*parts, strict=True))
            n_rows = np.array([of_unit.sum() for of_unit in lengths])
            self.on_gpus = gpus.Units(bags.values, starts, stops, n_rows, self.devices)

    @property
    def n_rows(self):
        """The number of rows of all units."""
        return int(sum(of_unit.sum() for of_unit in self.lengths))

    def hold(self):
        """Move the rows to the devices, to stay there, where half the free memory is enough."""
        if self.devices:
            self.on_gpus.hold()


def held(bags, where):
    """Return bags whose descriptors are on the one device asked for, if half its memory is enough.

    They stay there for all passes that follow; on the host, or on several devices, they are read
    where they are.
    """
    devices = cuda_devices(where.device, bags.values)
    if len(devices) != 1 or is_cupy(bags.values):
        return bags
    return type(bags)(gpus.hold(bags.values, devices[0]), bags.starts, bags.stops)


def row_units(bags, where, n_rows=None):
    """Cut the descriptors of all bags into units of `n_rows`; the last of a shard may have less."""
    n_rows = ROWS_PER_UNIT if n_rows is None else n_rows
    parts = [
        part
        for of_shard in runs_of_shards(bags)
        for part in iter_row_chunks(bags.starts[of_shard], bags.stops[of_shard], n_rows)
    ]
    lengths = [(stops - starts).sum(keepdims=True) for starts, stops in parts]
    ends = np.cumsum(lengths).tolist()
    slices = [slice(a, b) for a, b in itertools.pairwise([0, *ends])]
    return Units(bags, parts, lengths, slices, where)


def cut_bags(lengths, numbers_per_bag, rows_per_unit=None):
    """Cut bags into units of some ten thousand descriptors, whatever the number of threads.

    Parameters
    ----------
    lengths : int array of shape (n_bags,)
    numbers_per_bag : int
        Size of the result of one bag; bounds the bags of a unit.
    rows_per_unit : int, optional
        `ROWS_PER_UNIT` by default.

    Returns
    -------
    slices : list of slice
    """
    if len(lengths) == 1:
        return [slice(0, 1)]
    most = max(1, NUMBERS_PER_UNIT // numbers_per_bag)
    rows = ROWS_PER_UNIT if rows_per_unit is None else min(rows_per_unit, ROWS_PER_UNIT)
    ends = lengths.cumsum()
    if ends[-1] <= rows and len(lengths) <= most:
        return [slice(0, len(lengths))]
    slices, first = [], 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = int(ends.searchsorted(before + rows)) + 1
        last = min(last, first + most, len(lengths))
        if last - first > 1 and lengths[last - 1] > rows:
            last -= 1  # a long bag is a unit of its own
        slices.append(slice(first, last))
        first = last
    return slices


def bag_units(bags, slices, where):
    """Make a unit of each of some slices of bags, which need not be all bags."""
    parts = [(bags.starts[some], bags.stops[some]) for some in slices]
    return Units(bags, parts, [stops - starts for starts, stops in parts], slices, where)


def sum_units(f, units, *, tile=None, beside=(), at_once=None, scratch=(0, 0)):
    """Return the sums over all units of what a function returns.

    Parameters
    ----------
    f : callable
        ``f(x, starts, stops, *beside)`` returns a tuple of arrays and numbers.
    units : Units
    tile : int, optional
        Call ``f(x)`` with so many rows at a time, on the host.
    beside : list of arrays
        With an entry for each bag; `f` is given those of its own.
    at_once : callable, optional
        On a GPU ``at_once(x, starts, stops)`` may return what `f` does for several units of
        `row_units`, with an axis of units in front, or None.
    scratch : (row_bytes, unit_bytes)
        Memory that it takes on a GPU for each row, the row itself excluded, and for each unit.

    Returns
    -------
    sums : list of arrays and numbers
        On the host, added up in the order of the units.
    """
    if tile is not None:
        f = functools.partial(sum_of_tiles, f, tile)
    return functools.reduce(added, _sums_of_shards(f, units, beside, at_once, scratch))


def map_rows(f, units, *, out=None, shape=(), dtype=None, tile=None, at_once=None, scratch=(0, 0)):
    """Return a row of result for each descriptor or each bag.

    Parameters
    ----------
    f : callable
        ``f(x, starts, stops, out=None)`` returns the rows of a unit. It may write them to
        `out`, if that is given, and return it.
    units : Units
    out : array, optional
        Written to and returned; rows that no unit has stay as they are. By default a new one, in
        the library of the descriptors.
    shape, dtype : tuple and dtype, optional
        Of a row of the new one; by default those of what `f` returns first.
    tile : int, optional
        Call ``f(x)`` with so many rows at a time, on the host.
    at_once, scratch
        As in `sum_units`; ``at_once`` returns the rows of several units.

    Returns
    -------
    rows : array
    """
    if tile is not None:
        f = functools.partial(rows_of_tiles, f, tile)
    f = functools.partial(_in_list, f)
    if at_once is not None:
        at_once = functools.partial(_in_list, at_once)
    n_rows = units.slices[-1].stop
    if out is None and dtype is not None:
        out = empty((n_rows, *shape), like=units.values, dtype=dtype)
    # in place where that can be, at the price of a copy elsewhere
    in_place = isinstance(out, np.ndarray) and not units.devices and share_memory(units)
    outs = [out[rows] for rows in units.slices] if in_place else [None] * len(units.slices)
    # not named: an exception's traceback would keep its threads and limits alive
    for rows, view, (block,) in zip(
        units.slices, outs, _run(f, units, (), at_once, scratch, outs=outs), strict=True
    ):
        if block is view:
            continue
        with device_of(units.values):
            if out is None:
                out = empty((n_rows, *block.shape[1:]), like=units.values, dtype=block.dtype)
            out[rows] = asarray(block, like=out)
    return out


def map_units(f, units, *, beside=(), at_once=None, scratch=(0, 0)):
    """Yield what a function returns for each unit, in order.

    The arguments are those of `sum_units`. On a GPU the results are lists of arrays with an entry
    for each bag, and so are those of ``at_once``; on the host nothing is asked of them.
    """
    return _run(f, units, beside, at_once, scratch)


def _run(f, units, beside, at_once, scratch, *, summed=False, outs=None):
    """Return an iterator over the results of each unit: the one fork by where the work is done."""
    if units.devices:
        return _run_on_gpus(f, units, beside, at_once, scratch, summed)
    if units.workers is not None:
        return run_on_workers(f, units, beside, summed=False)
    return run_on_host(f, units, beside, outs)


def _sums_of_shards(f, units, beside, at_once, scratch):
    """Yield the sums of the units of each shard; descriptors elsewhere are one shard."""
    if units.workers is not None:
        yield from run_on_workers(f, units, beside, summed=True)
        return
    results = iter(_run(f, units, beside, at_once, scratch, summed=True))
    for of_shard in units_by_shard(units):
        n_units = of_shard.stop - of_shard.start
        yield functools.reduce(added, itertools.islice(results, n_units))


def _run_on_gpus(f, units, beside, at_once, scratch, summed):
    def work(x, starts, stops, numbers):
        x = x.astype(float_dtype(x.dtype), copy=False)
        lengths, slices = units.lengths[numbers], units.slices[numbers]
        if at_once is not None:
            of_parts = np.concatenate(lengths)
            ends = np.cumsum(of_parts)
            others = [np.concatenate([array[rows] for rows in slices]) for array in beside]
            results = at_once(x, ends - of_parts, ends, *others)
            if results is not None:
                return list(results)
        # Array code gives the same bits again only where it is given the same unit.
        results = []
        for start, of_unit, rows in zip(starts.tolist(), lengths, slices, strict=True):
            stops = start + np.cumsum(of_unit)
            results.append(f(x, stops - of_unit, stops, *_of_unit(beside, rows)))
        xp = array_module(x)
        if summed:
            return [xp.stack([asarray(r, like=x) for r in rs]) for rs in zip(*results, strict=True)]
        return [xp.concatenate(rs) for rs in zip(*results, strict=True)]

    row_bytes, unit_bytes = scratch
    row_bytes += 8 * units.values.shape[1]  # a copy in floating point
    for numbers, results in units.on_gpus.map(work, row_bytes=row_bytes, unit_bytes=unit_bytes):
        if summed:
            yield from zip(*map(to_host, results), strict=True)
            continue
        first = 0
        for rows in units.slices[numbers]:
            stop = first + rows.stop - rows.start
            with device_of(units.values):
                part = [result[first:stop] for result in results]
            yield part
            first = stop


def _of_unit(beside, rows):
    return [array[rows] for array in beside]


def _in_list(f, *args, **kwargs):
    result = f(*args, **kwargs)
    return None if result is None else [result]

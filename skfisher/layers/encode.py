"""Bags encoded by a chain of layers: any number of them, of any length.

Long bags are computed in parts that start at every so many descriptors, whose sums are added up
in order. Nothing else crosses from one bag to another, and no cut depends on the number of
threads, the devices or their memory; neither do results.
"""

import functools
import itertools

import numpy as np

from skfisher.arrays.libraries import asarray, float_dtype, to_host
from skfisher.arrays.stacked import Stacked
from skfisher.bags.sharded_values import runs_of_shards
from skfisher.parallel.units import Units, bag_units, cut_bags, map_rows, map_units

__all__ = ["encode_bags", "iter_sums"]

# Bags of more descriptors are cut into parts of so many.
LONG_BAG = 2**17
# Numbers of descriptors that are stacked, unit by unit: they should stay in cache.
STACKED_NUMBERS = 2**19


def encode_bags(chain, parameters, bags, *, out=None):
    """Encode bags, wherever the chain says that the work is to be done.

    Parameters
    ----------
    chain : Chain
    parameters : dict
    bags : Bags
    out : array of shape (n_bags, n_out), optional
        Written to and returned; by default a new one on the host.

    Returns
    -------
    encodings : array of shape (n_bags, n_out)
        float32 for descriptors of up to 32 bits (integers: 16), else float64.
    """
    prepared = chain.prepare(parameters, bags.dtype)
    n_out, lengths = prepared.n_out, bags.lengths
    if out is None:
        out = np.empty((len(bags), n_out), dtype=float_dtype(bags.dtype))
    in_place = _left_in_place(chain, prepared, bags)
    rows = None
    if isinstance(bags.values, Stacked) and in_place is None:
        rows = max(1, STACKED_NUMBERS // bags.n_features)
    slices = [
        slice(of_shard.start + some.start, of_shard.start + some.stop)
        for of_shard in runs_of_shards(bags)
        for some in cut_bags(lengths[of_shard], n_out, rows)
    ]
    most = np.inf if chain.pools_whole_bags else LONG_BAG
    is_long = [s.stop - s.start == 1 and lengths[s.start] > most for s in slices]
    whole = [s for s, long in zip(slices, is_long, strict=True) if not long]
    if whole:
        units = bag_units(in_place or bags, whole, chain.where)
        at_once, scratch = None, (0, 0)
        if units.devices:
            row_bytes, bag_bytes = chain.scratch(parameters, bags.n_features)
            most_bags = max(s.stop - s.start for s in whole)
            scratch = row_bytes, most_bags * (bag_bytes + 16 * n_out)
            at_once = functools.partial(_at_once, chain, prepared)
        encode = functools.partial(_encode, chain, prepared)
        map_rows(encode, units, out=out, at_once=at_once, scratch=scratch)
    if any(is_long):
        numbers = [s.start for s, long in zip(slices, is_long, strict=True) if long]
        scratch = chain.scratch(parameters, bags.n_features)
        for i, sums in _sums_of_long_bags(chain, prepared, bags, numbers, scratch):
            encodings = chain.read(prepared, sums, lengths[i : i + 1])[-1]
            out[i : i + 1] = asarray(encodings, like=out)
    return out


def iter_sums(chain, prepared, parameters, bags):
    """Yield the sums of some bags after the other, on the host, in order.

    Parameters
    ----------
    chain : Chain
    prepared : Prepared
        What the chain made of the parameters.
    parameters : dict
    bags : Bags

    Yields
    ------
    sums : tuple of arrays with an entry for each of some bags
    """
    slices = cut_bags(bags.lengths, prepared.n_out)
    row_bytes, bag_bytes = chain.scratch(parameters, bags.n_features)
    most_bags = max(s.stop - s.start for s in slices)
    units = bag_units(bags, slices, chain.where)
    scratch = row_bytes, most_bags * (bag_bytes + 16 * prepared.n_out)
    for found in map_units(functools.partial(_sums, chain, prepared), units, scratch=scratch):
        yield tuple(to_host(s) for s in found)


def _sums_of_long_bags(chain, prepared, bags, numbers, scratch):
    """Yield the number of each of some long bags, and the sums of its parts, added up in order."""
    cuts = [
        (i, start, min(start + LONG_BAG, int(bags.stops[i])))
        for i in numbers
        for start in range(int(bags.starts[i]), int(bags.stops[i]), LONG_BAG)
    ]
    owners = [i for i, _, _ in cuts]
    parts = [(np.array([start]), np.array([stop])) for _, start, stop in cuts]
    units = Units(
        bags, parts, [stop - start for start, stop in parts],
        [slice(j, j + 1) for j in range(len(cuts))], chain.where,
    )  # fmt: skip
    found = map_units(functools.partial(_sums, chain, prepared), units, scratch=scratch)
    for i, of_bag in itertools.groupby(zip(owners, found, strict=True), lambda pair: pair[0]):
        parts = [sums for _, sums in of_bag]
        yield i, tuple(functools.reduce(chain.join, sums) for sums in zip(*parts, strict=True))


def _left_in_place(chain, prepared, bags):
    """Return the bags of a list with where they lie, if a kernel reads them there, else None."""
    if not (isinstance(bags.values, Stacked) and chain.pools_alone):
        return None
    values = bags.values.scattered()
    if values is None or not chain.pooling.has_kernel(prepared.pooling, values):
        return None
    return type(bags)._of(values, bags.starts, bags.stops)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is named by the caller
def _encode(chain, prepared, x, starts, stops, out=None):
    if chain.pools_alone:
        return chain.pooling.encode(prepared.pooling, x, starts, stops, out=out)
    encodings = chain.forward(prepared, x, starts, stops).encodings
    if out is None:
        return asarray(encodings, like=x)
    out[...] = encodings
    return out


def _at_once(chain, prepared, x, starts, stops):
    """Return the encodings of several units of bags, if a kernel computes them."""
    if chain.pools_alone and chain.pooling.has_kernel(prepared.pooling, x):
        return _encode(chain, prepared, x, starts, stops)
    return None


@np.errstate(over="ignore", invalid="ignore")
def _sums(chain, prepared, x, starts, stops):
    return [asarray(s, like=x) for s in chain.sums(prepared, x, starts, stops)]

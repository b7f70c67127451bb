"""Fisher vectors of any number of bags of any length.

Long bags are computed in parts that start at every so many descriptors, whose sums are added up
in order. Nothing else crosses from one bag to another, and no cut depends on the number of
threads, the devices or their memory; neither do results.
"""

import functools
import itertools

import numpy as np

from skfisher.arrays.libraries import asarray, empty, float_dtype
from skfisher.bags.stacked import Stacked
from skfisher.cuda.layout import scratch_bytes
from skfisher.cuda.statistics import takes
from skfisher.ops.fisher import fisher_from_sums, fisher_sums, fisher_vector
from skfisher.ops.soft_assignment import Sums
from skfisher.parallel.threads import cut_bags
from skfisher.parallel.units import HERE, Units, bag_units, map_rows, map_units

__all__ = ["encode_fisher"]

# Bags of more descriptors are cut into parts of so many.
LONG_BAG = 2**17
# Numbers of descriptors that are stacked, unit by unit: they should stay in cache.
STACKED_NUMBERS = 2**20


def encode_fisher(bags, mixture, *, include_weights=True, where=HERE):
    """Encode bags, wherever the work is to be done.

    Parameters
    ----------
    bags : Bags
    mixture : Mixture
    include_weights : bool
        Whether the weights' part comes first.
    where : Where

    Returns
    -------
    encodings : array of shape (n_bags, n_out)
        In the library of the descriptors, and on their device.
    """
    k, d = mixture.means.shape
    n_out = 2 * k * d + (k if include_weights else 0)
    encodings = empty((len(bags), n_out), like=bags.values, dtype=float_dtype(bags.dtype))
    lengths = bags.lengths
    rows = max(1, STACKED_NUMBERS // d) if isinstance(bags.values, Stacked) else None
    slices = cut_bags(lengths, n_out, rows)
    is_long = [s.stop - s.start == 1 and lengths[s.start] > LONG_BAG for s in slices]
    whole = [s for s, long in zip(slices, is_long, strict=True) if not long]
    if whole:
        encode = functools.partial(_encode, mixture=mixture, include_weights=include_weights)
        row_bytes, bag_bytes = scratch_bytes(k, d)
        most_bags = max(s.stop - s.start for s in whole)
        map_rows(
            encode, bag_units(bags, whole, where), out=encodings,
            at_once=functools.partial(_at_once, encode, mixture),
            scratch=(row_bytes, most_bags * (bag_bytes + 8 * n_out)),
        )  # fmt: skip
    if any(is_long):
        numbers = [s.start for s, long in zip(slices, is_long, strict=True) if long]
        for i, sums in _sums_of_long_bags(bags, numbers, mixture, where):
            sums = Sums(*(asarray(s, like=encodings) for s in sums))
            encodings[i : i + 1] = fisher_from_sums(
                sums, lengths[i : i + 1], *mixture,
                dtype=encodings.dtype, include_weights=include_weights,
            )  # fmt: skip
    return encodings


def _sums_of_long_bags(bags, numbers, mixture, where):
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
        [slice(j, j + 1) for j in range(len(cuts))], where,
    )  # fmt: skip
    sum_up = functools.partial(_sum_up, mixture=mixture)
    row_bytes, bag_bytes = scratch_bytes(*mixture.means.shape)
    sums = map_units(
        sum_up, units,
        at_once=functools.partial(_at_once, sum_up, mixture), scratch=(row_bytes, bag_bytes),
    )  # fmt: skip
    for i, of_bag in itertools.groupby(zip(owners, sums, strict=True), lambda pair: pair[0]):
        yield i, functools.reduce(Sums.plus, (Sums(*sums) for _, sums in of_bag))


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is named by the caller
def _encode(x, starts, stops, mixture, include_weights, out=None):
    return fisher_vector(x, starts, stops, *mixture, include_weights=include_weights, out=out)


@np.errstate(over="ignore", invalid="ignore")
def _sum_up(x, starts, stops, mixture):
    return fisher_sums(x, starts, stops, *mixture)


def _at_once(f, mixture, x, starts, stops):
    """Return what a function makes of several units, if a kernel takes them."""
    return f(x, starts, stops) if takes(x, *mixture) else None

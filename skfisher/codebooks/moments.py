"""Mean and variance of all descriptors, and the floor under variances that follows from them."""

import functools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, to_host
from skfisher.contract.extremes import check_spread
from skfisher.parallel.units import HERE, row_units, sum_units

__all__ = ["Moments", "global_moments"]

# Numbers in a tile: as float64 they stay in cache.
TILE_NUMBERS = 2**16


class Moments(NamedTuple):
    """Mean and variance of all descriptors, per dimension."""

    mean: np.ndarray  # (d,)
    variance: np.ndarray  # (d,)

    def floor(self, share):
        """Return the smallest variance allowed, a share of the global one.

        A constant dimension has no scale of its own and takes the mean of the others.
        """
        typical = self.variance.mean() if self.variance.any() else 1.0
        return share * np.where(self.variance > 0, self.variance, typical)


def global_moments(bags, where=HERE):
    """Return the `Moments` of the descriptors of all bags, in one pass."""
    # Any descriptor will do to take the differences from: it keeps squares small.
    origin = to_host(bags.values[int(bags.starts[0])]).astype(np.float64)
    d = len(origin)
    total, squares = sum_units(
        functools.partial(moment_sums, origin=origin), row_units(bags, where),
        tile=max(1, TILE_NUMBERS // d), scratch=(16 * d, 0),
    )  # fmt: skip
    count = bags.n_descriptors
    check_spread(origin, total, squares, count)
    mean = total / count
    return Moments(origin + mean, np.maximum(squares / count - mean**2, 0))


@np.errstate(over="ignore", under="ignore")  # the caller looks
def moment_sums(x, origin):
    """Return the sums of ``x - origin`` and of its squares over the rows of `x`."""
    differences = array_module(x).subtract(x, asarray(origin, like=x), dtype=np.float64)
    squares = array_module(x).einsum("nd,nd->d", differences, differences)
    return differences.sum(axis=0), squares

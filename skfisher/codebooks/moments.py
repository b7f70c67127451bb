"""Mean and variance of all descriptors, and the floor under variances that follows from them."""

import functools
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, to_host
from skfisher.contract.extremes import check_spread
from skfisher.parallel.units import HERE, row_units, sum_units

__all__ = ["Moments", "SecondMoments", "global_moments", "second_moments"]

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


class SecondMoments(NamedTuple):
    """Sums over descriptors, of their differences from one of them and of products of these."""

    origin: np.ndarray  # (d,)
    count: int
    total: np.ndarray  # (d,)
    products: np.ndarray  # (d, d), or (d,) for squares alone

    @property
    def mean(self):
        """The mean of the descriptors, (d,)."""
        return self.origin + self.total / self.count

    @property
    def variance(self):
        """Their variances, (d,)."""
        squares = self.products if self.products.ndim == 1 else self.products.diagonal()
        return np.maximum(squares / self.count - (self.total / self.count) ** 2, 0)

    @property
    def covariance(self):
        """Their covariance, (d, d)."""
        offset = self.total / self.count
        return self.products / self.count - np.outer(offset, offset)


def global_moments(bags, where=HERE):
    """Return the `Moments` of the descriptors of all bags, in one pass."""
    moments = second_moments(bags, where)
    return Moments(moments.mean, moments.variance)


def second_moments(bags, where=HERE, *, products=False, before=None):
    """Return the `SecondMoments` of the descriptors of all bags, in one pass.

    Parameters
    ----------
    bags : Bags
    where : Where
    products : bool
        Whether all products are added up, or squares alone.
    before : SecondMoments, optional
        Of other descriptors, which are added.
    """
    if before is None:
        origin = to_host(bags.values[int(bags.starts[0])]).astype(np.float64)
        # Any descriptor will do to take the differences from: it keeps squares small.
        before = SecondMoments(origin, 0, np.zeros_like(origin), 0.0)
    d = len(before.origin)
    sums = functools.partial(product_sums if products else moment_sums, origin=before.origin)
    total, found = sum_units(
        sums, row_units(bags, where), tile=max(1, TILE_NUMBERS // d), scratch=(16 * d, 0)
    )
    squares = found.diagonal() if products else found
    check_spread(before.origin, total, squares, bags.n_descriptors)
    count = before.count + bags.n_descriptors
    return SecondMoments(before.origin, count, before.total + total, before.products + found)


@np.errstate(over="ignore", under="ignore")  # the caller looks
def moment_sums(x, origin):
    """Return the sums of ``x - origin`` and of its squares over the rows of `x`."""
    differences = array_module(x).subtract(x, asarray(origin, like=x), dtype=np.float64)
    squares = array_module(x).einsum("nd,nd->d", differences, differences)
    return differences.sum(axis=0), squares


@np.errstate(over="ignore", under="ignore", invalid="ignore")  # the caller looks
def product_sums(x, origin):
    """Return the sums of ``x - origin`` and of its outer products over the rows of `x`."""
    differences = array_module(x).subtract(x, asarray(origin, like=x), dtype=np.float64)
    return differences.sum(axis=0), differences.T @ differences

"""The linear systems of the interior point method: coordinates for samples, and their solution."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import qr
from scipy.linalg.blas import dsyrk, ssyrk
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

__all__ = ["Features", "reduced", "solver"]

# The inverse of a scale is finite, and so is its square.
LEAST_SCALE = 1e-150
# Features whose middle is so many times their spread have an offset.
OFFSET = 4.0
# Added to the unit diagonal of a system where rounding has left it indefinite.
RIDGES = (0.0, 1e-15, 1e-13, 1e-11, 1e-9)
# Pivots of a system below which a solution is refined, and one in float32 is not worth having.
SMALL_PIVOT, SMALL_PIVOT32 = 1e-4, 0.1
# Systems of fewer features gain nothing by float32.
MANY_FEATURES = 100
# Of conjugate gradients: fewer leave too much rounding of float32, more magnify that of float64.
STEPS = 2
# Few enough to stay in the cache.
CHUNK_BYTES = 2**18
TINY = np.finfo(np.float64).tiny


class Features(NamedTuple):
    """Samples in coordinates that suit linear systems: scaled, and offsets taken off.

    With an offset taken off a feature, the constant feature has another weight; so where there is
    no constant feature, offsets stay.
    """

    z: np.ndarray  # (n, m), numbers up to 1, float64
    weights: np.ndarray  # (m, m), from weights of these coordinates to those of the features
    inverse: np.ndarray  # (m, m), of `weights`
    metric: np.ndarray  # (m, m), half the penalty is a quadratic form in the coordinates
    norms: np.ndarray  # (n,), squared lengths of the samples
    z32: np.ndarray  # `z` in float32

    @classmethod
    def of(cls, x, bias):
        """Return the coordinates of samples `x` and a constant feature of value `bias`."""
        n, d = x.shape
        m = d + 1 if bias else d
        z = np.empty((n, m))
        z[:, :d] = x
        norms = np.einsum("nd,nd->n", z[:, :d], z[:, :d]) + bias**2
        z[:, d:] = bias
        highest, lowest = z.max(axis=0), z.min(axis=0)
        shear = np.eye(m)
        if bias:
            middle = highest / 2 + lowest / 2
            middle[abs(middle) < OFFSET * (highest - lowest)] = 0
            middle[d:] = 0
            z -= middle
            shear[d] += middle / bias
            highest, lowest = highest - middle, lowest - middle
            # a spread below the rounding of the offset is none
            lowest = np.minimum(lowest, -np.finfo(np.float64).eps * abs(middle))
        scale = np.maximum(np.maximum(highest, -lowest), LEAST_SCALE)
        z /= scale
        inverse = scale[:, None] * shear
        weights = (2 * np.eye(m) - shear) / scale
        return cls(z, weights, inverse, weights.T @ weights, norms, z.astype(np.float32))


def reduced(x):
    """Return a rotation and samples of at most n features, ``x = samples @ rotation.T``."""
    if x.shape[0] >= x.shape[1]:
        return None, x
    rotation, r = qr(x.T.astype(np.float64), mode="economic", overwrite_a=True, check_finite=False)
    return rotation, r.T


def solver(features, weights):
    """Return a function that solves systems with ``metric + z' diag(weights) z``.

    One for each row of weights, or with one row the same for all right-hand sides.
    """
    z, metric = features.z, features.metric
    factors, pivots = zip(*(_factor(features, of_class) for of_class in weights), strict=True)
    in_float32 = any(factor.dtype == np.float32 for factor, _ in factors)
    refine = min(pivots) < SMALL_PIVOT

    def once(rights):
        pairs = zip(rights, factors * (len(rights) // len(factors)), strict=True)
        return np.array([s * _solved(factor, s * right) for right, (factor, s) in pairs])

    def solve(rights, accurate=True):
        """Return solutions by the factors alone or, if accurate, made good where that is due."""
        if not accurate or not (refine or in_float32):
            return once(rights)
        if not in_float32:
            solutions = once(rights)
            products = (weights * (solutions @ z.T)) @ z
            return solutions + once(rights - solutions @ metric - products)
        solutions, direction, size = 0.0, 0.0, np.inf
        for _ in range(STEPS):
            ahead, last = once(rights), size
            size = _dots(rights, ahead)
            direction = ahead + _ratio(size, last) * direction
            image = direction @ metric + (weights * (direction @ z.T)) @ z
            step = _ratio(size, _dots(direction, image))
            solutions = solutions + step * direction
            rights = rights - step * image
        return solutions

    return solve


def _factor(features, weights):
    """Return a Cholesky factor of a system at a unit diagonal with its scale; the smallest pivot.

    Where pivots are not small, float32 will do: conjugate gradients make good what it rounds. No
    sample is left to them, however little it weighs: many of one direction add up.
    """
    m = features.z.shape[1]
    roots = np.sqrt(weights)
    if m >= MANY_FEATURES:
        system, scale = _scaled(features.metric, _squares(features.z32, roots))
        factor, fault = spotrf(system.astype(np.float32), lower=1, clean=0, overwrite_a=1)
        if not fault and factor.diagonal().min() > SMALL_PIVOT32:
            return (factor, scale), 1.0
    system, scale = _scaled(features.metric, _squares(features.z, roots))
    for ridge in RIDGES:
        system.flat[:: m + 1] = 1 + ridge
        factor, fault = dpotrf(system, lower=1, clean=0)
        if not fault:
            break
    return (factor, scale), factor.diagonal().min()


def _solved(factor, right):
    """Return the solution of a system, in float64, by a factor of either dtype."""
    if factor.dtype == np.float64:
        return dpotrs(factor, right, lower=1)[0]
    largest = max(abs(right).max(), TINY)  # which float32 might not hold
    return largest * spotrs(factor, (right / largest).astype(np.float32), lower=1)[0].astype(float)


def _squares(z, roots):
    """Return the lower triangle of ``z' diag(roots)^2 z``."""
    m = z.shape[1]
    n_rows = max(1, CHUNK_BYTES // (m * z.itemsize))
    total = np.zeros((m, m), dtype=z.dtype, order="F")
    syrk = ssyrk if z.dtype == np.float32 else dsyrk
    for first in range(0, len(z), n_rows):
        part = slice(first, first + n_rows)
        scaled = z[part] * roots[part, None].astype(z.dtype, copy=False)
        total = syrk(1.0, scaled.T, 1.0, total, lower=1, overwrite_c=1)
    return total


def _scaled(metric, squares):
    """Return the sum at a unit diagonal, in the order of `squares`, and the scale of that."""
    system = metric.T + squares
    scale = 1 / np.sqrt(system.diagonal())
    system *= scale
    system *= scale[:, None]
    return system, scale


def _dots(a, b):
    """Return the products of rows of two arrays, as a column."""
    return np.vecdot(a, b)[:, None]


def _ratio(a, b):
    return a / np.maximum(b, TINY)

"""The linear systems of the interior point method: coordinates for samples, and their solution."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import dpotrf, dpotrs

__all__ = ["Features", "reduced", "solver"]

# The inverse of a scale is finite, and so is its square.
LEAST_SCALE = 1e-150
# Features whose middle is so many times their spread have an offset.
OFFSET = 4.0
# Added to the unit diagonal of a system where rounding has left it indefinite.
RIDGES = (0.0, 1e-15, 1e-13, 1e-11, 1e-9)
# A pivot of a system below which its solution is worth refining.
SMALL_PIVOT = 1e-4
CHUNK_NUMBERS = 2**18


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
        return cls(z, weights, inverse, weights.T @ weights, norms)


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
    z, metric, m = features.z, features.metric, features.z.shape[1]
    n_rows = max(1, CHUNK_NUMBERS // m)
    factors = []
    for roots in np.sqrt(weights)[..., None]:
        matrix = metric.copy()
        for first in range(0, len(z), n_rows):
            rows = z[first : first + n_rows] * roots[first : first + n_rows]
            matrix += rows.T @ rows
        scale = 1 / np.sqrt(matrix.diagonal())
        matrix *= scale[:, None] * scale
        for ridge in RIDGES:
            matrix.flat[:: m + 1] = 1 + ridge
            factor, fault = dpotrf(matrix, lower=1, clean=0)
            if not fault:
                break
        factors.append((factor, scale))
    refine = min(factor.diagonal().min() for factor, _ in factors) < SMALL_PIVOT

    def once(rights):
        pairs = zip(rights, factors * (len(rights) // len(factors)), strict=True)
        return np.array([s * dpotrs(factor, s * right, lower=1)[0] for right, (factor, s) in pairs])

    def solve(rights):
        solutions = once(rights)
        if refine:
            products = (weights * (solutions @ z.T)) @ z
            solutions += once(rights - solutions @ metric - products)
        return solutions

    return solve

r"""Linear support vector machines by an interior point method, for few features or few samples.

At the optimum of the problem in `skfisher.svm.sdca` there are numbers for every sample that are
not negative, ``p``, what its margin has in excess, and ``q``, what it lacks, with

.. math::
    m_i + \frac{a_i}{2 c_i} - 1 = p_i - q_i, \qquad a_i \, p_i = 0, \qquad (c_i - a_i) \, q_i = 0,
    \qquad \theta = \sum_i a_i y_i x_i.

The hinge has no term ``a / 2c``; its square has no bound ``c``, and no ``q``. Newton's method lets
all products fall towards 0 together, with their factors positive on the way. A step is a linear
system in the features,

.. math:: (I + X^\top W X) \, \Delta\theta = r, \qquad
          W_{ii} = \Bigl(\frac{1}{2 c_i} + \frac{p_i}{a_i} + \frac{q_i}{c_i - a_i}\Bigr)^{-1},

and some ten steps reach the optimum, whatever the costs and the scales of the features.

Source: Mehrotra (1992), the steps; Ferris and Munson (2003), the system.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import dpotrf, dpotrs

from skfisher.process_state import one_blas_thread
from skfisher.svm.sdca import LEAST_COST, relative_gap

__all__ = ["InteriorPoint"]

# How much of the way to the nearest bound a step may go.
SHARE = 0.995
# Steps that lead no further before rounding is taken to be in the way.
PATIENCE = 8
# The inverse of a scale is finite, and so is its square.
LEAST_SCALE = 1e-150
# What sums of dual variables may be off by for rounding, as a share.
ROUNDING = 1e-14
# Added to the unit diagonal of a system where rounding has left it indefinite.
RIDGES = (0.0, 1e-15, 1e-13, 1e-11, 1e-9)
# A pivot of a system below which its solution is worth refining.
SMALL_PIVOT = 1e-4
# Features whose middle is so many times their spread have an offset.
OFFSET = 4.0
CHUNK_NUMBERS = 2**18


class InteriorPoint:
    """Support vector machines on the way to their optimum; see `DualAscent` for the parameters."""

    @one_blas_thread
    def __init__(self, x, signs, costs, *, loss="squared_hinge", intercept_scaling=1.0, duals=None):
        self._dtype = x.dtype
        self._bias = float(intercept_scaling)
        self._mean = x.mean(axis=0, dtype=np.float64)
        self._rotation, x = _reduced(x)
        self._features = Features.of(x, self._bias)
        costs = np.broadcast_to(np.asarray(costs, dtype=np.float64), signs.shape)
        duals = np.zeros(signs.shape) if duals is None else np.asarray(duals, dtype=np.float64)
        squared = loss == "squared_hinge"
        columns = zip(signs.T, costs.T, duals.T, strict=True)
        self._paths = [Path(self._features, y, c, squared, a) for y, c, a in columns]

    @property
    def duals(self):
        """Dual variables ``a``, of shape (n, n_classes)."""
        return np.column_stack([path.duals for path in self._paths])

    @property
    def stuck(self):
        """Whether no class gets any further."""
        return all(path.waited >= PATIENCE for path in self._paths)

    @one_blas_thread
    def model(self):
        """Return coefficients (n_classes, d) and intercepts (n_classes,)."""
        theta = np.stack([path.best.theta for path in self._paths]) @ self._features.weights.T
        intercept = np.zeros(len(theta))
        if self._bias:
            theta, intercept = theta[:, :-1], self._bias * theta[:, -1]
        if self._rotation is not None:
            theta = theta @ self._rotation.T
        coef = theta.astype(self._dtype)
        if self._bias:  # which makes good what rounding does to the mean of the samples
            intercept += (theta - coef) @ self._mean
        return coef, intercept.astype(self._dtype)

    def objectives(self):
        """Return the objectives P and D of each class, of shape (n_classes,)."""
        return np.array([(path.best.primal, path.best.dual) for path in self._paths]).T

    @one_blas_thread
    def advance(self, tol):
        """Take a step for every class that has a gap of `tol` or more, and gets any further."""
        for path in self._paths:
            if not path.best.gap < tol and path.waited < PATIENCE:
                path.advance(tol)


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


def _reduced(x):
    """Return a rotation and samples of at most n features, ``x = samples @ rotation.T``."""
    if x.shape[0] >= x.shape[1]:
        return None, x
    rotation, r = qr(x.T.astype(np.float64), mode="economic", overwrite_a=True, check_finite=False)
    return rotation, r.T


class Solution(NamedTuple):
    """Weights of the scaled features, dual variables, and how good they are."""

    theta: np.ndarray
    duals: np.ndarray
    primal: float
    dual: float

    @property
    def gap(self):
        return relative_gap(self.primal, self.dual)


class Path:
    """The way of one class to its optimum.

    Parameters
    ----------
    features : Features
    signs, costs, duals : arrays of shape (n,)
    squared : bool
        Whether the loss is the squared hinge.
    """

    @np.errstate(all="ignore")  # of what is not finite, nothing is kept
    def __init__(self, features, signs, costs, squared, duals):
        self._counts = costs > LEAST_COST
        if not self._counts.all():
            features, signs, costs, duals = _of(self._counts, features, signs, costs, duals)
        self._features = features
        self._y = np.asarray(signs, dtype=np.float64)
        self._c = costs
        self._squared = squared
        self._ridge = 1 / (2 * costs) if squared else 0.0
        self._a = np.clip(duals, 0, None if squared else costs)
        self._theta = self._theta_of(self._a)
        self.best = self._lowest = self._highest = self._solution(self._theta, self._a)
        self._least_gap = self._least_primal = np.inf
        self.waited = 0 if len(costs) else PATIENCE  # steps since the last that led further
        # Margins of 0: as far from one bound as from the other.
        self._theta = np.zeros(features.z.shape[1])
        self._a = self._first_duals() if len(costs) else costs
        self._p = np.ones_like(costs)
        self._q = None if squared else np.ones_like(costs)

    @property
    def duals(self):
        """Dual variables of all samples."""
        duals = np.zeros(len(self._counts))
        duals[self._counts] = self.best.duals
        return duals

    def _first_duals(self):
        """Return half the costs, or less, down to a hundredth, where the optimal ones are smaller.

        Those sum to twice the least P at most, and so to twice any P, such as the least along
        the solution of the least squares problem.
        """
        once = np.ones_like(self._c)
        solve = _solver(self._features.z, once, self._features.metric)
        direction = solve(self._sum(once))
        bound = 2 * min(self._primal(2.0**power * direction) for power in range(0, 16, 3))
        return np.clip(bound / (4 * len(once)), self._c / 100, self._c / 2)

    def _sum(self, a):
        """Return the sum of the scaled samples, times their signs and `a`."""
        return (self._y * a) @ self._features.z

    def _margins(self, theta):
        return self._y * (self._features.z @ theta)

    def _theta_of(self, a):
        inverse = self._features.inverse
        return inverse @ (self._sum(a) @ inverse)

    def _primal(self, theta):
        shortfall = np.maximum(1 - self._margins(theta), 0)
        weights = self._features.weights @ theta
        return float(
            weights @ weights / 2 + self._c @ (shortfall**2 if self._squared else shortfall)
        )

    def _dual(self, a):
        total = self._sum(a) @ self._features.inverse
        return float(a.sum() - total @ total / 2 - (self._ridge * a) @ a / 2)

    def _solution(self, theta, a):
        return Solution(theta, a, self._primal(theta), self._dual(a))

    def _settled(self):
        """Return what the dual variables make once those at a bound have gone there."""
        curvature = self._features.norms + self._ridge
        a = np.where(self._p >= self._a * curvature, 0, self._a)
        if self._q is not None:
            a = np.where(self._q >= (self._c - self._a) * curvature, self._c, a)
        return self._solution(self._theta_of(a), a)

    def _point(self):
        """Return the point as it is.

        Where the weights are those of its dual variables but for rounding, D is the value of
        the Lagrangian, as rounding alone may make that of the dual variables meaningless.
        """
        point = self._solution(self._theta, self._a)
        surplus = self._features.metric @ self._theta - self._sum(self._a)
        if not abs(surplus).max() <= ROUNDING * self._a.sum():
            return point
        weights = self._features.weights @ self._theta
        slack = 1 - self._margins(self._theta) - self._ridge * self._a / 2
        return point._replace(dual=float(self._a @ slack + weights @ weights / 2))

    def _judge(self, tol):
        """Keep what is best of the weights and of the dual variables so far."""
        point, settled = self._point(), self._settled()
        if point.primal < self._lowest.primal:
            self._lowest = point
        for candidate in (point, settled):
            if candidate.dual > self._highest.dual:
                self._highest = candidate
        self.best = self._highest._replace(theta=self._lowest.theta, primal=self._lowest.primal)
        # Weights and dual variables that belong together are worth a step or two more.
        if settled.gap < max(tol, min(100 * self.best.gap, 0.1)):
            self.best = settled
        gap = point.primal - point.dual
        leads = gap < 0.99 * self._least_gap or point.primal < 0.99 * self._least_primal
        self.waited = 0 if leads else self.waited + 1
        self._least_gap = min(self._least_gap, gap)
        self._least_primal = min(self._least_primal, point.primal)

    @np.errstate(all="ignore")
    def advance(self, tol):
        """Take a step."""
        z, metric = self._features.z, self._features.metric
        a, p, q, t = self._a, self._p, self._q, self._c - self._a
        excess = self._margins(self._theta) + self._ridge * a - 1 - p
        stiffness = self._ridge + p / a
        if q is not None:
            excess += q
            stiffness += q / t
        surplus = metric @ self._theta - self._sum(a)
        weights = 1 / stiffness
        solve = _solver(z, weights, metric)

        def direction(of_p, of_q):
            """Return the step to products ``a p`` of `of_p`, and ``(c - a) q`` of `of_q`."""
            right = of_p / a - p - excess
            if q is not None:
                right -= of_q / t - q
            d_theta = solve((self._y * weights * right) @ z - surplus)
            d_a = weights * (right - self._margins(d_theta))
            d_p = (of_p - p * d_a) / a - p
            return d_theta, d_a, d_p, None if q is None else (of_q + q * d_a) / t - q

        def reach(d_a, d_p, d_q, share):
            """Return how much of a step to take, to go at most that share of the way to a bound."""
            falls = [-d_a / a, -d_p / p]
            if q is not None:
                falls += [d_a / t, -d_q / q]
            return share / max(share, *(float(fall.max()) for fall in falls))

        def products(d_a, d_p, d_q, step):
            """Return the sum of all products after a step."""
            total = (a + step * d_a) @ (p + step * d_p)
            return total if q is None else total + (t - step * d_a) @ (q + step * d_q)

        _, d_a, d_p, d_q = direction(0.0, 0.0)  # straight to the optimum, as far as it is straight
        now = products(d_a, d_p, d_q, 0.0)
        left = products(d_a, d_p, d_q, reach(d_a, d_p, d_q, 1.0)) / now
        aim = left**3 * now / (len(a) if q is None else 2 * len(a))
        of_q = None if q is None else aim + d_a * d_q
        d_theta, d_a, d_p, d_q = direction(aim - d_a * d_p, of_q)
        step = reach(d_a, d_p, d_q, SHARE)
        self._theta = self._theta + step * d_theta
        self._a, self._p = a + step * d_a, p + step * d_p
        if q is not None:
            self._q = q + step * d_q
        self._judge(tol)


def _of(rows, features, *arrays):
    """Return features and arrays of some of the samples."""
    features = features._replace(z=features.z[rows], norms=features.norms[rows])
    return features, *(array[rows] for array in arrays)


def _solver(z, weights, metric):
    """Return a function that solves systems with ``metric + z' diag(weights) z``."""
    m = z.shape[1]
    matrix = metric.copy()
    roots = np.sqrt(weights)[:, None]
    n_rows = max(1, CHUNK_NUMBERS // m)
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
    refine = factor.diagonal().min() < SMALL_PIVOT

    def solve(right):
        solution = scale * dpotrs(factor, scale * right, lower=1)[0]
        if refine:
            rest = right - metric @ solution - (weights * (z @ solution)) @ z
            solution += scale * dpotrs(factor, scale * rest, lower=1)[0]
        return solution

    return solve

r"""Linear support vector machines by an interior point method, for few features or few samples.

At the optimum of the problem in `skfisher.svm.sdca` there are numbers for every sample that are
not negative, ``p``, what its margin has in excess, and ``q``, what it lacks, with

.. math::
    m_i + \frac{a_i}{2 c_i} - r_i = p_i - q_i, \qquad a_i \, p_i = 0, \qquad (c_i - a_i) \, q_i = 0,
    \qquad \theta = \sum_i a_i y_i x_i.

The margin ``m`` has to reach ``r``, which is 1 for classes; a regression has other numbers. The
hinge has no term ``a / 2c``; its square has no bound ``c``, and no ``q``. Newton's method lets
all products fall towards 0 together, with their factors positive on the way. A step is a linear
system in the features,

.. math:: (I + X^\top W X) \, \Delta\theta = r, \qquad
          W_{ii} = \Bigl(\frac{1}{2 c_i} + \frac{p_i}{a_i} + \frac{q_i}{c_i - a_i}\Bigr)^{-1},

and some ten steps reach the optimum, whatever the costs and the scales of the features.

Source: Mehrotra (1992), the steps; Ferris and Munson (2003), the system.
"""

from typing import NamedTuple

import numpy as np

from skfisher.process_state import one_blas_thread
from skfisher.svm.sdca import LEAST_COST, relative_gaps
from skfisher.svm.systems import Features, reduced, solver

__all__ = ["InteriorPoint"]

# How much of the way to the nearest bound a step may go.
SHARE = 0.995
# What products of factors fall to at most, after a step that led no further.
CAUTIOUS = 0.3
# Steps that lead no further before rounding is taken to be in the way.
PATIENCE = 8
# A gap from which on dual variables are taken to their bounds.
NEAR = 0.1
# Classes are taken together, as many as have so many samples in all.
GROUP_NUMBERS = 2**17


class InteriorPoint:
    """Support vector machines on the way to their optimum; see `DualAscent` for most parameters.

    Parameters
    ----------
    required : array that broadcasts to the shape of `signs`
        What margins have to reach.
    """

    @one_blas_thread
    def __init__(
        self, x, signs, costs, *,
        loss="squared_hinge", intercept_scaling=1.0, duals=None, required=1.0,
    ):  # fmt: skip
        self._dtype = x.dtype
        self._bias = float(intercept_scaling)
        self._mean = x.mean(axis=0, dtype=np.float64)
        self._rotation, x = reduced(x)
        self._features = Features.of(x, self._bias)
        costs = np.broadcast_to(np.asarray(costs, dtype=np.float64), signs.shape)
        duals = np.zeros(signs.shape) if duals is None else np.asarray(duals, dtype=np.float64)
        required = np.ones((1, signs.shape[1])) * required
        squared, size = loss == "squared_hinge", max(1, GROUP_NUMBERS // len(x))
        rows = signs.T, costs.T, duals.T, required.T
        self._groups = [
            Group(self._features, *(values[part] for values in rows), squared)
            for part in (slice(c, c + size) for c in range(0, signs.shape[1], size))
        ]

    @property
    def duals(self):
        """Dual variables ``a``, of shape (n, n_classes)."""
        return np.concatenate([group.duals for group in self._groups]).T

    @property
    def stuck(self):
        """Whether no class gets any further."""
        return not any(group.is_live for group in self._groups)

    @one_blas_thread
    def model(self):
        """Return coefficients (n_classes, d) and intercepts (n_classes,)."""
        theta = np.concatenate([group.theta for group in self._groups]) @ self._features.weights.T
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
        pairs = [(group.primal, group.dual) for group in self._groups]
        return tuple(np.concatenate(values) for values in zip(*pairs, strict=True))

    @one_blas_thread
    def advance(self, tol):
        """Take a step for every class that has a gap of `tol` or more, and gets any further."""
        for group in self._groups:
            group.advance(tol)


class State(NamedTuple):
    """Where classes are on their way: rows of arrays of shape (n_classes, ...)."""

    y: np.ndarray  # signs, 0 for samples that do not count
    counts: np.ndarray  # 1, and 0 for these
    c: np.ndarray  # costs
    ridge: np.ndarray  # 1 / 2c, or 0 for the hinge
    required: np.ndarray  # margins, one for each sample or one for all
    theta: np.ndarray  # the point: weights in the coordinates,
    a: np.ndarray  # dual variables,
    p: np.ndarray  # excess,
    q: np.ndarray | None  # and lack
    margins: np.ndarray  # of the weights,
    total: np.ndarray  # and the sums of samples that the dual variables make
    lowest: np.ndarray  # the weights of the lowest P so far
    primal: np.ndarray
    highest: np.ndarray  # the dual variables of the highest D so far
    dual: np.ndarray
    least_gap: np.ndarray  # of the points themselves
    least_primal: np.ndarray
    waited: np.ndarray  # steps since the last that led further

    def of(self, rows):
        """Return the state of some of the classes."""
        return State(*(None if values is None else values[rows] for values in self))


class Group:
    """Classes that go to their optima together, until each is there.

    Parameters
    ----------
    features : Features
    signs, costs, duals : arrays of shape (n_classes, n)
    required : array of shape (n_classes, n) or (n_classes, 1)
    squared : bool
        Whether the loss is the squared hinge.

    Attributes
    ----------
    theta, duals, primal, dual : arrays of shape (n_classes, ...)
        The best weights and dual variables so far, and their objectives.
    """

    @np.errstate(all="ignore")  # of what is not finite, nothing is kept
    def __init__(self, features, signs, costs, duals, required, squared):
        self._features, self._squared = features, squared
        counts = np.where(costs > LEAST_COST, 1.0, 0.0)
        c = np.where(costs > LEAST_COST, costs, 1.0)
        y = signs * counts
        k, n = y.shape
        ridge = 1 / (2 * c) if squared else np.zeros((k, 1))
        a = np.clip(duals, 0, None if squared else c) * counts
        theta, nothing = np.zeros((k, features.z.shape[1])), np.full(k, np.inf)
        margins = np.zeros((k, n))
        start = State(
            y, counts, c, ridge, required, theta, a,
            np.ones((k, n)), None if squared else np.ones((k, n)), margins, theta,
            theta, nothing, a, -nothing, nothing, nothing, np.zeros(k, dtype=int),
        )  # fmt: skip
        total = self._sum(start, a)
        theta = self._theta_of(total)
        self.theta, self.duals = theta, a
        self.primal = self._primal(start, theta, self._margins(start, theta))
        self.dual = self._dual(start, a, total)
        # From margins of 0, as far from one bound as from the other.
        a = self._first_duals(start)
        self._state = start._replace(
            a=a, total=self._sum(start, a), lowest=theta, primal=self.primal, dual=self.dual
        )
        self._live = np.flatnonzero(counts.any(axis=1))
        self._state = self._state.of(self._live)

    @property
    def is_live(self):
        """Whether a class is still on its way."""
        return len(self._live) > 0

    def _first_duals(self, s):
        """Return half the costs, or less, down to a hundredth, where the optimal ones are smaller.

        Those sum to twice the least P at most, and so to twice any P, such as the least along
        the solution of the least squares problem.
        """
        once = np.ones_like(s.c)
        direction = solver(self._features, once[:1])(self._sum(s, once), accurate=False)
        weights, lengths = direction @ self._features.weights.T, 8.0 ** np.arange(5)[:, None]
        margins = self._margins(s, direction) * lengths[..., None]
        bounds = lengths**2 * _dots(weights, weights) / 2 + self._losses(s, margins)
        share = bounds.min(axis=0)[:, None] / (2 * s.c.shape[1])
        return np.clip(share, s.c / 100, s.c / 2)

    def _sum(self, s, a):
        """Return the sums of the samples, times their signs and `a`."""
        return (s.y * a) @ self._features.z

    def _margins(self, s, theta):
        return s.y * (theta @ self._features.z.T)

    def _theta_of(self, total):
        inverse = self._features.inverse
        return total @ inverse @ inverse.T

    def _primal(self, s, theta, margins):
        weights = theta @ self._features.weights.T
        return _dots(weights, weights) / 2 + self._losses(s, margins)

    def _losses(self, s, margins):
        shortfall = s.counts * np.maximum(s.required - margins, 0)
        return _dots(shortfall * s.c, shortfall if self._squared else s.counts)

    def _dual(self, s, a, total):
        weights = total @ self._features.inverse
        return _dots(a, s.counts * (s.required - s.ridge * a / 2)) - _dots(weights, weights) / 2

    def _settled(self, s):
        """Return the dual variables, those at a bound that would go there on their own."""
        curvature = self._features.norms + s.ridge
        a = np.where(s.p >= s.a * curvature, 0, s.a)
        if s.q is not None:
            a = np.where(s.q >= (s.c - s.a) * curvature, s.c, a)
        return a * s.counts

    def _dual_of_point(self, s):
        """Return D of the point as it is.

        Where the weights are those of its dual variables but for rounding, the value of the
        Lagrangian, as rounding alone may make that of the dual variables meaningless.
        """
        surplus = s.theta @ self._features.metric - s.total
        rounding = s.a.shape[1] * np.finfo(np.float64).eps  # of sums of as many terms
        is_rounding = abs(surplus).max(axis=1) <= rounding * s.a.sum(axis=1)
        weights = s.theta @ self._features.weights.T
        slack = s.counts * (s.required - s.ridge * s.a / 2) - s.margins
        lagrangian = _dots(s.a, slack) + _dots(weights, weights) / 2
        return np.where(is_rounding, lagrangian, self._dual(s, s.a, s.total))

    def _judged(self, s, tol):
        """Return the state with what is best of weights and dual variables, and keep these."""
        primal, dual = self._primal(s, s.theta, s.margins), self._dual_of_point(s)
        lower = primal < s.primal
        s = s._replace(
            lowest=np.where(lower[:, None], s.theta, s.lowest),
            primal=np.where(lower, primal, s.primal),
        )
        s = _raised(s, s.counts * s.a, dual)
        found = s.lowest, s.highest, s.primal, s.dual
        gaps = relative_gaps(s.primal, s.dual)
        if gaps.min() < NEAR:
            settled = self._settled(s)
            total = self._sum(s, settled)
            settled_dual = self._dual(s, settled, total)
            s = _raised(s, settled, settled_dual)
            # Weights and dual variables that belong together are worth a step more.
            theta = self._theta_of(total)
            of_duals = self._primal(s, theta, self._margins(s, theta))
            enough = np.maximum(tol, np.minimum(10 * gaps, NEAR))
            agree = relative_gaps(of_duals, settled_dual) < enough
            pairs = (
                (theta, s.lowest),
                (settled, s.highest),
                (of_duals, s.primal),
                (settled_dual, s.dual),
            )
            found = [np.where(agree.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs]
        for kept, values in zip(
            (self.theta, self.duals, self.primal, self.dual), found, strict=True
        ):
            kept[self._live] = values
        gap = primal - dual
        leads = (gap < 0.99 * s.least_gap) | (primal < 0.99 * s.least_primal)
        return s._replace(
            least_gap=np.fmin(s.least_gap, gap),
            least_primal=np.fmin(s.least_primal, primal),
            waited=np.where(leads, 0, np.where(np.isnan(gap), PATIENCE, s.waited + 1)),
        )

    def advance(self, tol):
        """Take a step for every class that is still on its way."""
        self._drop(tol)
        if self.is_live:
            with np.errstate(all="ignore"):
                self._state = self._judged(self._stepped(self._state), tol)
            self._drop(tol)

    def _drop(self, tol):
        """Leave the classes alone that are there, or get no further."""
        gaps = relative_gaps(self.primal[self._live], self.dual[self._live])
        going = ~(gaps < tol) & (self._state.waited < PATIENCE)
        if not going.all():
            self._live, self._state = self._live[going], self._state.of(going)

    def _stepped(self, s):
        """Return the state after a step."""
        z, metric = self._features.z, self._features.metric
        a, p, q, t = s.a, s.p, s.q, s.c - s.a
        excess = s.margins + s.ridge * a - s.required - p
        stiffness = s.ridge + p / a
        if q is not None:
            excess += q
            stiffness += q / t
        surplus = s.theta @ metric - s.total
        weights = s.counts / stiffness
        n_products = s.counts.sum(axis=1) * (1 if q is None else 2)
        solve = solver(self._features, weights)

        def direction(of_p, of_q, accurate=True):
            """Return the step to products ``a p`` of `of_p`, and ``(c - a) q`` of `of_q`.

            Samples that do not count stay where they are.
            """
            right = of_p / a - p - excess
            if q is not None:
                right -= of_q / t - q
            d_theta = solve((s.y * weights * right) @ z - surplus, accurate)
            d_a = weights * (right - self._margins(s, d_theta))
            d_p = s.counts * ((of_p - p * d_a) / a - p)
            d_q = None if q is None else s.counts * ((of_q + q * d_a) / t - q)
            return d_theta, d_a, d_p, d_q

        def reach(d_a, d_p, d_q, share):
            """Return how much of a step to take, to go at most that share of the way to a bound."""
            falls = np.maximum(-d_a / a, -d_p / p)
            if q is not None:
                falls = np.maximum(falls, np.maximum(d_a / t, -d_q / q))
            return share / np.maximum(share, falls.max(axis=1, keepdims=True))

        def products(d_a, d_p, d_q, step):
            """Return the means of all products after a step."""
            total = _dots(s.counts * (a + step * d_a), p + step * d_p)
            if q is not None:
                total += _dots(s.counts * (t - step * d_a), q + step * d_q)
            return (total / n_products)[:, None]

        # straight to the optimum, as far as it is straight
        _, d_a, d_p, d_q = direction(0.0, 0.0, accurate=False)
        now = products(d_a, d_p, d_q, 0.0)
        left = products(d_a, d_p, d_q, reach(d_a, d_p, d_q, 1.0)) / now
        # and then allow for the bend. A step that led nowhere did so too boldly, and may do it in
        # circles: the next one goes less far, and as if all were straight.
        bold = (s.waited == 0)[:, None]
        aim = np.where(bold, left**3, np.maximum(left**3, CAUTIOUS)) * now
        bend = np.where(bold, d_a, 0)
        of_q = None if q is None else aim + bend * d_q
        d_theta, d_a, d_p, d_q = direction(aim - bend * d_p, of_q)
        step = reach(d_a, d_p, d_q, SHARE)
        theta, a = s.theta + step * d_theta, a + step * d_a
        return s._replace(
            theta=theta, a=a, p=p + step * d_p, q=None if q is None else q + step * d_q,
            margins=self._margins(s, theta), total=self._sum(s, a),
        )  # fmt: skip


def _raised(s, a, dual):
    """Return the state with dual variables where their D is the highest so far."""
    higher = dual > s.dual
    return s._replace(
        highest=np.where(higher[:, None], a, s.highest), dual=np.where(higher, dual, s.dual)
    )


def _dots(a, b):
    """Return the products of rows of two arrays."""
    return np.vecdot(a, b)

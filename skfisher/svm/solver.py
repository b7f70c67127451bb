"""Which of two methods fits linear support vector machines, and the loop around it.

A pass of dual coordinate ascent costs little, but their number grows with the cost of errors and
the differences in scale. A step of the interior point method solves a system of as many equations
as there are features, or samples if these are fewer, but some ten are enough. So where ten steps
cost no more than a few passes, they are taken at once; elsewhere the ascent goes first, and hands
over when its passes have cost half as much, unless what it still needs costs less than ten steps.
"""

from typing import NamedTuple

import numpy as np

from skfisher.svm.interior_point import InteriorPoint
from skfisher.svm.sdca import DualAscent, kernel_serves, relative_gap

__all__ = ["Solution", "Solver", "fit_linear_svms"]

# A visit of the ascent to a sample takes as long as so many multiplications of a system: in any
# case, for each feature, and for each weight; sweeps and objectives included.
OF_KERNEL, OF_ARRAY_CODE = (1e4, 40, 25), (3e5, 0, 4)
# So does what a step does beside its system, for each weight and sample.
BESIDE = 200
# Half of the steps that the interior point method is expected to need.
STEPS = 5
# With fewer passes than this the ascent hardly ever gets anywhere.
FEW_PASSES = 20


class Solution(NamedTuple):
    """Linear models of all classes, the dual variables they are made of, and how good they are."""

    coef: np.ndarray  # (n_classes, d), of the dtype of the samples
    intercept: np.ndarray  # (n_classes,)
    duals: np.ndarray  # (n, n_classes), float64, not negative
    primal: np.ndarray  # (n_classes,), objective P
    dual: np.ndarray  # (n_classes,), objective D <= P
    n_iter: int  # passes over the samples

    @property
    def gap(self):
        """The largest share of P that any class may still gain."""
        return relative_gap(self.primal, self.dual)


def fit_linear_svms(x, signs, costs, *, max_iter=1000, **options):
    """Fit a linear support vector machine to each column of signs.

    Parameters
    ----------
    x, signs, costs, **options
        As for `Solver`.
    max_iter : int
        Most passes over the samples; 0 returns the model of the duals given.

    Returns
    -------
    solution : Solution
        With a `gap` above `tol` where `max_iter` came first, or rounding led no further.
    """
    solver = Solver(x, signs, costs, **options)
    n_iter = 0
    while n_iter < max_iter and not solver.done:
        solver.advance()
        n_iter += 1
    return Solution(*solver.model(), solver.duals, *solver.objectives(), n_iter)


class Solver:
    """Support vector machines on the way to their optimum, by the method that suits them.

    Parameters
    ----------
    x, signs, costs, loss, intercept_scaling, duals
        As for `DualAscent`.
    tol : float
        The aim is a gap of every class below this share of its objective.
    seed : int
        Of the order the ascent visits samples in.

    Attributes
    ----------
    gap : float
        The largest share of P that any class may still gain.
    """

    def __init__(
        self, x, signs, costs, *,
        loss="squared_hinge", intercept_scaling=1.0, duals=None, tol=1e-4, seed=0,
    ):  # fmt: skip
        self._problem = x, signs, costs
        self._options = {"loss": loss, "intercept_scaling": intercept_scaling}
        self._tol = tol
        self._rng = np.random.default_rng(seed)
        visit = OF_KERNEL if kernel_serves(x, signs.shape[1]) else OF_ARRAY_CODE
        self._passes_left = self._passes = passes_worth(*x.shape, signs.shape[1], visit)
        if self._passes_left < FEW_PASSES or not _squares_are_small(x, costs):
            self._hand_over(duals)
        else:
            self._method = DualAscent(x, signs, costs, duals=duals, **self._options)
        self.gap = relative_gap(*self.objectives())
        self._gaps = [self.gap]

    def _hand_over(self, duals):
        self._passes_left = None
        self._method = InteriorPoint(*self._problem, duals=duals, **self._options)

    def advance(self):
        """Pass over the samples once."""
        if self._passes_left == 0:
            self._passes_left = self._passes_worth_adding()
            if self._passes_left == 0:
                self._hand_over(self._method.duals)
        if self._passes_left is None:
            self._method.advance(self._tol)
        else:
            self._method.visit_all(self._rng)
            self._passes_left -= 1
        self.gap = relative_gap(*self.objectives())
        self._gaps.append(self.gap)

    def _passes_worth_adding(self):
        """Return how many passes more the ascent may make, if it needs few; otherwise 0.

        It is taken to go on as in the second half of its passes, give or take: its gap goes up
        and down. It is asked once.
        """
        if self._tol == 0 or len(self._gaps) > self._passes + 1:
            return 0
        half = self._passes // 2
        fall = np.log(self._gaps[-1 - half] / self.gap) / half
        needed = np.log(self.gap / self._tol) / max(fall, 1e-9)
        return int(2 * needed) + FEW_PASSES if needed < self._passes / 2 else 0

    @property
    def done(self):
        """Whether the aim is reached, or nothing leads any further."""
        return self.gap < self._tol or self.stuck

    @property
    def stuck(self):
        """Whether rounding leads no further."""
        return self._passes_left is None and self._method.stuck

    @property
    def duals(self):
        """Dual variables, of shape (n, n_classes)."""
        return self._method.duals

    def objectives(self):
        """Return the objectives P and D of each class, of shape (n_classes,)."""
        return self._method.objectives()

    def model(self):
        """Return coefficients (n_classes, d) and intercepts (n_classes,)."""
        return self._method.model()


def passes_worth(n, d, n_classes, visit):
    """Return how many passes of the ascent cost half as much as the interior point method."""
    m = min(n, d)
    always, of_feature, of_weight = visit
    step = n_classes * n * m * (m + BESIDE)
    one_pass = n * (always + m * (of_feature + n_classes * of_weight))
    return int(STEPS * step / one_pass)


def _squares_are_small(x, costs):
    """Tell whether the ascent can compute products of samples, and sums of them."""
    largest = max(float(x.max()), -float(x.min()))
    most = float(np.finfo(x.dtype).max)
    return largest**2 * x.shape[1] < most**0.5 / max(float(np.max(costs)), 1.0)

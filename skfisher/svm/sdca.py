r"""Linear support vector machines by dual coordinate ascent, all classes in one pass.

For each column of signs ``y``, with costs ``c`` of the samples and ``x`` augmented by the
constant ``B`` whose weight is the intercept,

.. math::
    P(\theta) = \tfrac{1}{2} \lVert \theta \rVert^2 + \sum_i c_i \, \phi(y_i \theta^\top x_i),
    \qquad \theta = \sum_i a_i y_i x_i,

with :math:`\phi(m) = \max(0, 1 - m)` (hinge) or its square. The dual has one variable per
sample, and is maximised exactly along one at a time:

.. math::
    \text{hinge:} \quad & D(a) = \sum_i a_i - \tfrac{1}{2} \lVert \theta \rVert^2, &
    a_i &\leftarrow \operatorname{clip}\Bigl(a_i + \frac{1 - m_i}{\lVert x_i \rVert^2},
                                             \, 0, c_i\Bigr), \\
    \text{squared:} \quad & D(a) = \sum_i a_i - \tfrac{1}{2} \lVert \theta \rVert^2
                             - \sum_i \frac{a_i^2}{4 c_i}, &
    a_i &\leftarrow \max\Bigl(0, \, a_i + \frac{1 - m_i - a_i / (2 c_i)}
                                               {\lVert x_i \rVert^2 + 1 / (2 c_i)}\Bigr).

The gap ``P - D`` bounds how far either is from the optimum, and so tells when to stop.

Source: Hsieh et al. (2008), algorithm 1; Shalev-Shwartz and Zhang (2013).

The classes of one-vs-rest share the samples, so one visit to a sample updates all of them. Between
passes over all samples, sweeps visit the variables that are at no bound: few where most samples lie
beyond the margin or have a hinge's full cost, and the ones that take the most visits to settle.

A kernel visits one sample after the other. The array code takes samples in blocks: the products of
a block with everything outside it are two matrix products, and the loop over its samples touches
the products among them alone.
"""

import numpy as np

from skfisher.native import ascent as kernels
from skfisher.process_state import one_blas_thread

__all__ = ["LEAST_COST", "DualAscent", "kernel_serves", "relative_gap", "relative_gaps"]

LEAST_COST = 1e-300  # the inverse is finite; what costs less does not count
MOST_SWEEPS = 64  # between passes
BLOCK = 32  # enough that NumPy's overhead per block is small, little enough to stay in cache


def relative_gaps(primal, dual):
    """Return the gap of each class as a share of its P, 0 where rounding is all of it.

    NaN where an objective is: then no comparison with it is true.
    """
    return np.maximum(primal - dual, 0) / np.maximum(primal, np.finfo(np.float64).tiny)


def relative_gap(primal, dual):
    """Return the largest gap of any class, as `relative_gaps` has it."""
    return float(relative_gaps(primal, dual).max())


def kernel_serves(x, n_classes):
    """Tell whether a kernel visits samples that are not fewer than features."""
    return len(x) >= x.shape[1] and kernels.takes(x, n_classes)


class DualAscent:
    """Support vector machines on the way to their optimum.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
        Samples. Products with them are computed in their dtype, all else in float64.
    signs : array of shape (n, n_classes)
        1 where the sample belongs to the class, else -1.
    costs : float or array that broadcasts to (n, n_classes)
        ``c``, not negative: the parameter C times the weights of samples and classes.
    loss : {"squared_hinge", "hinge"}
    intercept_scaling : float
        ``B``: the intercept is ``B`` times the weight of a feature of value ``B``, regularised
        like all others, as LIBLINEAR does. 0 for no intercept.
    duals : array of shape (n, n_classes), optional
        Where to start, such as the solution for samples that have moved since; what is not
        feasible is clipped. By default 0.
    gram : bool, optional
        Whether to compute all products of samples once, n^2 numbers, and work with these.
        By default where samples are fewer than features.
    """

    @one_blas_thread
    def __init__(
        self, x, signs, costs, *,
        loss="squared_hinge", intercept_scaling=1.0, duals=None, gram=None,
    ):  # fmt: skip
        self._x = x
        self._signs = np.asarray(signs, dtype=np.float64)
        costs = np.broadcast_to(np.asarray(costs, dtype=np.float64), self._signs.shape)
        self._costs = np.where(costs > LEAST_COST, costs, 0)
        self._bias = float(intercept_scaling) ** 2  # B^2: what B adds to products of samples
        self._squared = loss == "squared_hinge"
        if self._squared:  # no upper bound but for samples that do not count
            bound = np.where(self._costs > 0, np.inf, 0)
            self._ridge = 1 / (2 * np.where(self._costs > 0, self._costs, np.inf))
        else:
            bound = self._costs
            self._ridge = np.zeros_like(self._signs)
        # Below, the duals bear the signs of their samples: b = a y, and theta = b' x.
        self._lower = np.where(self._signs > 0, 0, -bound)
        self._upper = np.where(self._signs > 0, bound, 0)
        start = 0 if duals is None else np.asarray(duals) * self._signs
        start = np.zeros_like(self._signs) + start
        self._b = np.ascontiguousarray(np.clip(start, self._lower, self._upper))
        if gram is None:
            gram = x.shape[0] < x.shape[1]
        self._scores = (GramScores if gram else LinearScores)(x, self._bias, self._b)
        # a sample of zeros goes to its bound at once
        curvature = self._scores.diagonal[:, None] + self._ridge
        self._rate = 1 / np.maximum(curvature, np.finfo(np.float64).tiny)
        self._kernel = None
        if not gram and kernels.takes(x, self._signs.shape[1]):
            self._kernel = kernels.Problem(
                **self._scores.arrays(), b=self._b, bias=self._bias, squared=self._squared,
                signs=self._signs, costs=self._costs, ridge=self._ridge, rate=self._rate,
                lower=self._lower, upper=self._upper,
            )  # fmt: skip

    @property
    def duals(self):
        """Dual variables ``a``, of shape (n, n_classes)."""
        return np.abs(self._b)

    @one_blas_thread
    def model(self):
        """Return coefficients (n_classes, d) and intercepts (n_classes,)."""
        dtype = self._x.dtype
        coef = np.matmul(self._b.T.astype(dtype), self._x)
        return coef, (self._bias * self._b.sum(axis=0)).astype(dtype)

    @one_blas_thread
    def objectives(self):
        """Return the objectives P and D of each class, of shape (n_classes,)."""
        if self._kernel is not None:
            return self._kernel.objectives()
        scores = self._scores.refreshed(self._b)
        shortfall = np.maximum(1 - self._signs * scores, 0)
        penalty = (self._b * scores).sum(axis=0) / 2
        losses = self._costs * (shortfall**2 if self._squared else shortfall)
        a = np.abs(self._b)
        return penalty + losses.sum(axis=0), (a - a**2 * self._ridge / 2).sum(axis=0) - penalty

    def gap(self):
        """Return the largest gap of any class, as a share of its objective P."""
        return relative_gap(*self.objectives())

    @one_blas_thread
    def visit_all(self, rng):
        """Maximise along every dual variable, samples in the order that `rng` draws.

        Then along those that are at no bound, again and again, in as many visits at most.
        """
        order = rng.permutation(len(self._b))
        self._visit(order)
        free = self._free(slice(None))
        rows = order[free.any(axis=1)[order]]
        # the array code visits a sample for all classes if it is at no bound in one of them
        visits = len(rows) if self._kernel is None else np.count_nonzero(free) / free.shape[1]
        if visits:
            self._sweep(rows, min(int(len(order) / visits) - 1, MOST_SWEEPS))

    def _free(self, rows):
        """Tell which dual variables are at no bound."""
        return (self._lower[rows] < self._b[rows]) & (self._b[rows] < self._upper[rows])

    def _visit(self, order):
        if self._kernel is not None:
            self._kernel.visit(order)
            return
        for rows in _blocks(order):
            self._maximize(rows, self._lower[rows], self._upper[rows])

    def _sweep(self, order, n_sweeps):
        if self._kernel is not None:
            self._kernel.sweep(order, n_sweeps)
            return
        for _ in range(n_sweeps):
            for rows in _blocks(order):
                free, b = self._free(rows), self._b[rows]
                lower, upper = self._lower[rows], self._upper[rows]
                self._maximize(rows, np.where(free, lower, b), np.where(free, upper, b))

    def _maximize(self, rows, lower, upper):
        """Maximise along the dual variables of a block of samples, one after the other."""
        scores, products = self._scores.of(rows)
        before = self._b[rows]
        # What the updates of the block itself leave alone: y minus the scores without
        # the block's own share.
        targets = self._signs[rows] - scores + products @ before
        np.fill_diagonal(products, 0)
        b = before.copy()
        maximize_in_turn(b, targets, products, self._rate[rows], lower, upper)
        self._b[rows] = b
        self._scores.add(b - before)


def _blocks(order):
    return (order[begin : begin + BLOCK] for begin in range(0, len(order), BLOCK))


def maximize_in_turn(b, targets, products, rate, lower, upper):
    r"""Set each row of `b` to its optimum given the others, one after the other, in place.

    .. math:: b_i = \operatorname{clip}((t_i - K_i b) \, r_i)

    Parameters
    ----------
    b, targets, rate, lower, upper : arrays of shape (n, n_classes)
    products : array of shape (n, n), with a diagonal of zeros
    """
    step = np.empty(b.shape[1])
    for row, target, k, r, low, high in zip(b, targets, products, rate, lower, upper, strict=True):
        k.dot(b, out=step)
        np.subtract(target, step, out=step)
        np.multiply(step, r, out=step)
        np.maximum(step, low, out=step)
        np.minimum(step, high, out=row)


class LinearScores:
    """Decision values of samples under a ``theta`` that follows the duals."""

    def __init__(self, x, bias, b):
        self._x = x = np.ascontiguousarray(x)
        self._bias = bias
        self.diagonal = np.einsum("nd,nd->n", x, x, dtype=np.float64) + bias
        self._block = None
        self._set(b)

    def arrays(self):
        """Return what the kernels read, and what they update in place of `add`."""
        return {
            "x": self._x, "theta": self._theta, "intercept": self._intercept,
            "diagonal": self.diagonal,
        }  # fmt: skip

    def _set(self, b):
        self._theta = np.matmul(b.T.astype(self._x.dtype), self._x)
        self._intercept = self._bias * b.sum(axis=0)

    def of(self, rows):
        """Return the decision values of a block of samples, and the products among them."""
        self._block = x = self._x[rows]
        scores = np.matmul(x, self._theta.T) + self._intercept
        return scores, np.matmul(x, x.T).astype(np.float64) + self._bias

    def add(self, change):
        """Follow a change of the duals of the block read last."""
        self._theta += np.matmul(change.T.astype(self._x.dtype), self._block)
        self._intercept += self._bias * change.sum(axis=0)

    def refreshed(self, b):
        """Return all decision values, free of the rounding that changes have added up."""
        self._set(b)
        return np.matmul(self._x, self._theta.T) + self._intercept


class GramScores:
    """Decision values of samples from all their products, without ``theta``."""

    def __init__(self, x, bias, b):
        self._products = np.matmul(x, x.T)
        self._products += x.dtype.type(bias)
        self.diagonal = self._products.diagonal().astype(np.float64)
        self._rows = self._block = None
        self._scores = self._of_all(b)

    def _of_all(self, b):
        dtype = self._products.dtype
        return np.matmul(self._products, b.astype(dtype)).astype(np.float64)

    def of(self, rows):
        """Return the decision values of a block of samples, and the products among them."""
        self._block = self._products[rows]
        return self._scores[rows], self._block[:, rows].astype(np.float64)

    def add(self, change):
        """Follow a change of the duals of the block read last."""
        self._scores += np.matmul(self._block.T, change.astype(self._block.dtype))

    def refreshed(self, b):
        """Return all decision values; their sums in float64 need no refreshing."""
        return self._scores

"""The kernels of dual coordinate ascent against plain loops, and the array code."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.native import ascent as kernels
from skfisher.svm.sdca import DualAscent

# features about the vectors of 2 to 16 numbers and the four that are summed at once; classes about
# the four whose scores are computed together
WIDTHS = [1, 2, 3, 7, 8, 9, 16, 17, 33, 63, 64, 65, 130]
N_CLASSES = [1, 3, 4, 5, 9]


class Case:
    """A problem with costs that differ and duals at and between their bounds, and its loops."""

    def __init__(self, rng, d, k, dtype=np.float64, *, squared, n=23, bias=1.5):
        self.x = (rng.normal(size=(n, d)) / d**0.5).astype(dtype)
        self.squared, self.bias = squared, bias
        self.signs = rng.choice([-1.0, 1.0], size=(n, k))
        self.costs = rng.uniform(0.2, 2, size=(n, k))
        self.ridge = 1 / (2 * self.costs) if squared else np.zeros((n, k))
        bound = np.inf if squared else self.costs
        self.lower = np.where(self.signs > 0, 0, -bound)
        self.upper = np.where(self.signs > 0, bound, 0)
        start = self.signs * rng.uniform(-0.5, 1, size=(n, k))
        self.b = np.clip(start, self.lower, self.upper)
        self.wide = self.x.astype(np.float64)
        self.products = self.wide @ self.wide.T + bias
        self.rate = 1 / (self.products.diagonal()[:, None] + self.ridge)
        self.order = rng.permutation(n)

    def problem(self):
        """Return the problem of the kernels, and the arrays that it updates."""
        b = self.b.copy()
        theta = (b.T @ self.wide).astype(self.x.dtype)
        intercept = self.bias * b.sum(axis=0)
        names = ("signs", "costs", "ridge", "rate", "lower", "upper")
        problem = kernels.Problem(
            self.x, theta, intercept, b, self.products.diagonal().copy(),
            bias=self.bias, squared=self.squared, **{name: getattr(self, name) for name in names},
        )  # fmt: skip
        return problem, b, theta, intercept

    def visited(self, b, order, *, free_alone=False):
        """Return the duals after visits, one variable after the other, by its closed form."""
        b = b.copy()
        for i in order:
            for c in range(b.shape[1]):
                if free_alone and not self.lower[i, c] < b[i, c] < self.upper[i, c]:
                    continue
                y, a = self.signs[i, c], self.signs[i, c] * b[i, c]
                margin = y * (self.products[i] @ b[:, c])
                step = (1 - margin - self.ridge[i, c] * a) * self.rate[i, c]
                most = np.inf if self.squared else self.costs[i, c]
                b[i, c] = y * min(max(a + step, 0), most)
        return b


def tolerance(dtype):
    # rounding of the scores, each a sum over at most 130 features, through 23 visits
    return 1e-12 if dtype == np.float64 else 1e-4


both_losses = pytest.mark.parametrize("squared", [True, False], ids=["squared_hinge", "hinge"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f8", "f4"])


@both_losses
@both_dtypes
@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("k", N_CLASSES)
def test_a_pass_maximises_along_one_variable_after_the_other(native, rng, d, k, dtype, squared):
    case = Case(rng, d, k, dtype, squared=squared)
    problem, b, theta, intercept = case.problem()
    problem.visit(case.order)
    expected, atol = case.visited(case.b, case.order), tolerance(dtype)
    assert_allclose(b, expected, atol=atol)
    assert_allclose(theta, b.T @ case.wide, atol=10 * atol)
    assert_allclose(intercept, case.bias * b.sum(axis=0), atol=1e-12)


@both_losses
@both_dtypes
@pytest.mark.parametrize("d", WIDTHS)
def test_a_sweep_leaves_variables_at_their_bounds_alone(native, rng, d, dtype, squared):
    case = Case(rng, d, 5, dtype, squared=squared)
    problem, b, theta, _ = case.problem()
    rows = case.order[:17]
    problem.sweep(rows, 3)
    expected = case.b
    for _ in range(3):
        expected = case.visited(expected, rows, free_alone=True)
    bound = (case.b == case.lower) | (case.b == case.upper)
    assert bound.any()
    assert_array_equal(b[bound], case.b[bound])
    assert_array_equal(b[case.order[17:]], case.b[case.order[17:]])
    assert (b[rows] != case.b[rows]).any()
    assert_allclose(b, expected, atol=tolerance(dtype))
    assert_allclose(theta, b.T @ case.wide, atol=10 * tolerance(dtype))


@both_losses
@both_dtypes
@pytest.mark.parametrize("d", WIDTHS)
def test_objectives_are_of_the_duals_alone(native, rng, d, dtype, squared):
    case = Case(rng, d, 5, dtype, squared=squared)
    problem, b, theta, intercept = case.problem()
    theta += 1  # rounding that has added up is left behind
    intercept += 1
    primal, dual = problem.objectives()
    scores = case.products @ b
    shortfall = np.maximum(1 - case.signs * scores, 0)
    losses = case.costs * (shortfall**2 if squared else shortfall)
    penalty, a = (b * scores).sum(axis=0) / 2, np.abs(b)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    assert_allclose(primal, penalty + losses.sum(axis=0), rtol=rtol)
    expected = (a - case.ridge * a**2 / 2).sum(axis=0) - penalty
    assert_allclose(dual, expected, rtol=rtol, atol=rtol * penalty.max())
    assert_allclose(theta, b.T @ case.wide, atol=tolerance(dtype))


@both_losses
@both_dtypes
def test_the_array_code_makes_the_same_passes(native, array_code, rng, dtype, squared):
    # of one class: of several, it makes fewer sweeps
    case = Case(rng, 12, 1, dtype, squared=squared, n=150)
    arguments = case.x, case.signs, case.costs
    loss = "squared_hinge" if squared else "hinge"
    one = DualAscent(*arguments, loss=loss)
    other = array_code(DualAscent, *arguments, loss=loss)
    rngs = [np.random.default_rng(0) for _ in range(2)]
    for _ in range(5):
        for ascent, of_ascent in zip((one, other), rngs, strict=True):
            ascent.visit_all(of_ascent)
        assert_allclose(one.duals, other.duals, atol=tolerance(dtype))
        assert_allclose(one.objectives(), other.objectives(), rtol=tolerance(dtype))
    assert (one.duals != other.duals).any()  # the kernel is what served


@both_losses
def test_the_array_code_finds_the_same_solution(native, array_code, rng, squared):
    case = Case(rng, 12, 4, squared=squared, n=150)
    loss = "squared_hinge" if squared else "hinge"
    one = DualAscent(case.x, case.signs, case.costs, loss=loss)
    other = array_code(DualAscent, case.x, case.signs, case.costs, loss=loss)
    for ascent in one, other:
        for _ in range(2000):
            ascent.visit_all(rng)
            if ascent.gap() < 1e-10:
                break
        assert ascent.gap() < 1e-10
    for found, expected in zip(one.model(), other.model(), strict=True):
        assert_allclose(found, expected, atol=1e-4)


def test_same_bits_in_any_thread_and_layout(native, rng):
    cases = [Case(rng, 40, 6, np.float32, squared=False, n=400) for _ in range(4)]

    def duals(case, x):
        ascent = DualAscent(x, np.asfortranarray(case.signs), case.costs, loss="hinge")
        for _ in range(5):
            ascent.visit_all(np.random.default_rng(0))
        return ascent.duals

    alone = [duals(case, case.x) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(duals, cases, [np.asfortranarray(case.x) for case in cases]))
    for one, other in zip(alone, together, strict=True):
        assert_array_equal(one, other)


def test_what_is_not_finite_stays_so(native, rng):
    case = Case(rng, 12, 3, squared=True)
    case.x[4, 5] = np.nan
    problem, b, *_ = case.problem()
    problem.visit(case.order)
    assert np.isnan(b[4]).all()
    assert np.isnan(problem.objectives()[0]).all()


def test_wide_weights_and_other_libraries_are_left_to_the_array_code(native, stand_in, monkeypatch):
    x = np.zeros((3, 512), np.float32)
    assert kernels.takes(x, 512)
    assert not kernels.takes(x, 513)
    assert not kernels.takes(x.astype(np.float16), 1)
    assert not kernels.takes(x.astype(">f4"), 1)
    assert not kernels.takes(stand_in.asarray(x), 1)
    monkeypatch.setenv("SKFISHER_NATIVE", "0")
    assert not kernels.takes(x, 1)

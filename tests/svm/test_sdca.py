"""Dual coordinate ascent against LIBLINEAR, its optimality conditions, and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.svm import LinearSVC

from skfisher.ops.losses import binary_weights
from skfisher.svm.sdca import DualAscent, maximize_in_turn
from skfisher.svm.solver import Solution

both_losses = pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
both_ways = pytest.mark.parametrize("gram", [True, False])
TIGHT = {"tol": 1e-10, "max_iter": 5000}


@pytest.fixture(autouse=True, scope="module", params=["kernel", "array code"])
def _code(request):
    """Run every test with the native kernels, where there are any, and without."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "array code":
            patch.setenv("SKFISHER_NATIVE", "0")
        yield


def problem(rng, n=70, d=9, n_classes=4, noise=1.0):
    y = np.arange(n) % n_classes
    x = rng.normal(size=(n_classes, d))[y] + noise * rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, y, np.where(y[:, None] == np.arange(n_classes), 1, -1)


def ascend(x, signs, costs, *, tol=1e-4, max_iter=1000, seed=0, **options):
    """Return what passes of the ascent arrive at."""
    ascent, rng, n_iter = DualAscent(x, signs, costs, **options), np.random.default_rng(seed), 0
    while n_iter < max_iter and not ascent.gap() < tol:
        ascent.visit_all(rng)
        n_iter += 1
    return Solution(*ascent.model(), ascent.duals, *ascent.objectives(), n_iter)


def primal(coef, intercept, x, signs, costs, loss, scaling=1.0):
    shortfall = np.maximum(0, 1 - signs * (x @ coef.T + intercept))
    losses = shortfall if loss == "hinge" else shortfall**2
    return ((coef**2).sum(axis=1) + (intercept / scaling) ** 2) / 2 + (costs * losses).sum(axis=0)


@both_losses
@both_ways
@pytest.mark.parametrize("scaling", [1.0, 1.5, 0.0])
@pytest.mark.parametrize("C", [0.3, 2.0])
def test_finds_the_solution_of_liblinear(loss, gram, scaling, C, rng):
    x, y, signs = problem(rng, d=30)
    peer = LinearSVC(
        C=C, loss=loss, dual=True, fit_intercept=scaling > 0, intercept_scaling=scaling or 1,
        tol=1e-9, max_iter=10**6, random_state=0,
    ).fit(x, y)  # fmt: skip
    found = ascend(x, signs, C, loss=loss, intercept_scaling=scaling, gram=gram, **TIGHT)
    assert 0 <= found.gap <= TIGHT["tol"]
    # strong convexity turns a relative gap of 1e-10 into an error of about 1e-5
    assert_allclose(found.coef, peer.coef_, atol=1e-4 * abs(peer.coef_).max())
    assert_allclose(found.intercept, peer.intercept_, atol=1e-4 * abs(peer.coef_).max())
    objective = primal(found.coef, found.intercept, x, signs, C, loss, scaling or 1)
    assert_allclose(found.primal, objective, rtol=1e-9)
    theirs = primal(
        peer.coef_, np.broadcast_to(peer.intercept_, 4), x, signs, C, loss, scaling or 1
    )
    assert (objective <= theirs * (1 + 1e-9)).all()


@both_losses
def test_weights_of_classes_and_samples_are_those_of_liblinear(loss, rng):
    x, y, signs = problem(rng)
    class_weight, sample_weight = {0: 3.0, 1: 1.0, 2: 0.2, 3: 1.0}, rng.uniform(0, 2, size=len(x))
    sample_weight[5] = 0
    peer = LinearSVC(
        loss=loss, dual=True, class_weight=class_weight, tol=1e-9, max_iter=10**6, random_state=0
    ).fit(x, y, sample_weight=sample_weight)
    costs = binary_weights(
        signs, np.array(list(class_weight.values())), sample_weight=sample_weight
    )
    found = ascend(x, signs, costs, loss=loss, **TIGHT)
    assert_allclose(found.coef, peer.coef_, atol=1e-4 * abs(peer.coef_).max())


@both_losses
def test_conditions_of_optimality(loss, rng):
    x, _, signs = problem(rng)
    C = 2.0
    found = ascend(x, signs, C, loss=loss, **TIGHT)
    margins = signs * (x @ found.coef.T + found.intercept)
    assert_allclose(found.coef, (found.duals * signs).T @ x, atol=1e-12)
    assert_allclose(found.intercept, (found.duals * signs).sum(axis=0), atol=1e-12)
    if loss == "squared_hinge":
        assert_allclose(found.duals, 2 * C * np.maximum(0, 1 - margins), atol=1e-3)
    else:
        assert (found.duals[margins > 1 + 1e-3] <= 1e-3).all()
        assert (found.duals[margins < 1 - 1e-3] >= C - 1e-3).all()
        assert found.duals.max() <= C


@both_losses
@both_ways
def test_the_dual_objective_only_rises_and_stays_below_the_primal(loss, gram, rng):
    x, _, signs = problem(rng)
    ascent = DualAscent(x, signs, 5.0, loss=loss, gram=gram)
    before = np.zeros(4)  # D at a = 0
    for _ in range(20):
        ascent.visit_all(rng)
        above, dual = ascent.objectives()
        assert (dual >= before - 1e-12 * abs(before)).all()
        assert (dual <= above + 1e-12 * above).all()
        before = dual


def test_a_block_is_maximized_one_variable_at_a_time(rng):
    # the closed form of one variable, all else fixed, written with whole scores
    n, n_classes, C = 7, 3, 0.4
    x, y = rng.normal(size=(n, 4)), rng.choice([-1.0, 1.0], size=(n, n_classes))
    k = x @ x.T
    start = y * rng.uniform(0, C, size=y.shape)
    expected = start.copy()
    for i in range(n):
        for c in range(n_classes):
            a = y[i, c] * expected[i, c]
            margin = y[i, c] * (k[i] @ expected[:, c])
            expected[i, c] = y[i, c] * min(max(a + (1 - margin) / k[i, i], 0), C)
    found = start.copy()
    lower, upper = np.where(y > 0, 0, -C), np.where(y > 0, C, 0)
    rate = np.tile(1 / k.diagonal()[:, None], n_classes)
    maximize_in_turn(found, y, k - np.diag(k.diagonal()), rate, lower, upper)
    assert_allclose(found, expected, atol=1e-13)


@both_losses
@both_ways
def test_sweeps_visit_what_is_at_no_bound(loss, gram, rng):
    x, _, signs = problem(rng, n_classes=1)
    ascent = DualAscent(x, signs, 5.0, loss=loss, gram=gram)
    order = rng.permutation(len(x))
    ascent._visit(order)
    before, most = ascent.duals, np.inf if loss == "squared_hinge" else 5.0
    free = (before > 0) & (before < most)
    assert free.any()
    assert not free.all()
    ascent._sweep(order, 200)
    assert_array_equal(ascent.duals[~free], before[~free])
    # those that stay between their bounds are at the optimum of all of them together
    scores = (x @ x.T + 1) @ (ascent.duals * signs)
    ridge = 1 / 10 if loss == "squared_hinge" else 0
    slope = 1 - signs * scores - ridge * ascent.duals
    left = free & (ascent.duals > 0) & (ascent.duals < most)
    assert_allclose(slope[left], 0, atol=1e-3)


@both_losses
@both_ways
def test_goes_on_from_duals(loss, gram, rng):
    x, _, signs = problem(rng)
    options = {"loss": loss, "gram": gram, "tol": 1e-6}
    cold = ascend(x, signs, 1.0, **options)
    again = ascend(x, signs, 1.0, duals=cold.duals, **options)
    assert again.n_iter == 0
    assert_allclose(again.coef, cold.coef, atol=1e-12)
    moved = x + 1e-4 * rng.normal(size=x.shape)
    warm = ascend(moved, signs, 1.0, duals=cold.duals, **options)
    assert warm.gap < 1e-6
    assert warm.n_iter < ascend(moved, signs, 1.0, **options).n_iter


def test_duals_that_are_not_feasible_are_clipped(rng):
    x, _, signs = problem(rng)
    duals = rng.normal(size=signs.shape) * 10
    start = ascend(x, signs, 1.0, loss="hinge", duals=duals, max_iter=0)
    assert_allclose(start.duals, np.clip(duals, 0, 1))
    start = ascend(x, signs, 1.0, duals=duals, max_iter=0)
    assert_allclose(start.duals, np.maximum(duals, 0))


@both_losses
@both_ways
def test_samples_without_cost_do_not_count(loss, gram, rng):
    x, _, signs = problem(rng)
    costs = np.ones(signs.shape)
    costs[::3] = 0
    found = ascend(x, signs, costs, loss=loss, gram=gram, **TIGHT)
    kept = costs[:, 0] > 0
    alone = ascend(x[kept], signs[kept], 1.0, loss=loss, gram=gram, **TIGHT)
    assert_allclose(found.coef, alone.coef, atol=1e-4)
    assert_array_equal(found.duals[~kept], 0)


@both_losses
@both_ways
def test_a_sample_of_zeros_without_intercept(loss, gram, rng):
    x, _, signs = problem(rng)
    x[3] = 0
    found = ascend(x, signs, 1.0, loss=loss, intercept_scaling=0, gram=gram, tol=1e-6)
    assert found.gap < 1e-6
    assert np.isfinite(found.coef).all()
    # its margin is 0 whatever theta: the slope of the loss there
    assert_allclose(found.duals[3], 1 if loss == "hinge" else 2)


@both_losses
def test_products_of_samples_give_the_same_solution(loss, rng):
    x, _, signs = problem(rng, n=40, d=60)
    one, other = (ascend(x, signs, 1.0, loss=loss, gram=gram, **TIGHT) for gram in (True, False))
    assert_allclose(one.coef, other.coef, atol=1e-5)
    default = ascend(x, signs, 1.0, loss=loss, **TIGHT)
    assert_array_equal(default.coef, one.coef)  # samples are fewer than features


def test_same_seed_same_bits(rng):
    x, _, signs = problem(rng)
    one, same, other = (ascend(x, signs, 1.0, tol=1e-3, seed=seed) for seed in (0, 0, 1))
    assert_array_equal(one.coef, same.coef)
    assert (one.coef != other.coef).any()


@both_losses
@both_ways
def test_float32_stays_and_comes_close(loss, gram, rng):
    x, _, signs = problem(rng)
    wide = ascend(x, signs, 1.0, loss=loss, gram=gram, tol=1e-5)
    narrow = ascend(x.astype(np.float32), signs, 1.0, loss=loss, gram=gram, tol=1e-5)
    assert narrow.coef.dtype == narrow.intercept.dtype == np.float32
    assert narrow.duals.dtype == narrow.primal.dtype == np.float64
    assert narrow.gap < 1e-5
    assert_allclose(narrow.primal, wide.primal, rtol=2e-5)


def test_arguments_are_not_written_to(rng):
    x, _, signs = problem(rng)
    costs, duals = np.ones(signs.shape), np.ones(signs.shape)
    arrays = [x, signs, costs, duals]
    copies = [a.copy() for a in arrays]
    ascend(x, signs, costs, duals=duals)
    for array, copy in zip(arrays, copies, strict=True):
        assert_array_equal(array, copy)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 50),
    d=st.integers(1, 50),
    n_classes=st.integers(1, 3),
    loss=st.sampled_from(["hinge", "squared_hinge"]),
    log_C=st.floats(-4, 4),
)
def test_gap_and_duals_are_valid_after_any_pass(seed, n, d, n_classes, loss, log_C):
    rng = np.random.default_rng(seed)
    x, C = rng.normal(size=(n, d)), 10**log_C
    signs = rng.choice([-1, 1], size=(n, n_classes))  # any labels, also of one sign
    found = ascend(x, signs, C, loss=loss, max_iter=2)
    assert (found.dual <= found.primal * (1 + 1e-9)).all()
    assert (found.duals >= 0).all()
    assert (found.duals <= (C if loss == "hinge" else np.inf)).all()

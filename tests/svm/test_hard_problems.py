"""Large costs and features of very different scales, where passes over samples hardly converge."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from skfisher import LinearSDCA
from skfisher.svm.interior_point import InteriorPoint
from skfisher.svm.sdca import relative_gap

both_losses = pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
# of features fewer than samples and more, few enough of both to solve systems at once or not, and
# enough to solve them in float32
SHAPES = [(300, 40), (400, 120), (60, 90), (700, 800)]
all_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def problem(kind, shape=(300, 40)):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    y = x @ rng.normal(size=shape[1]) > 0
    if kind != "separable":
        y ^= rng.random(len(y)) < 0.15
    if kind == "duplicated rows":
        x = x[np.arange(len(x)) % (len(x) // 3)]
    elif kind == "zero rows":
        x[::5] = 0
    elif kind == "one column x 1e8":
        x[:, 3] *= 1e8
    elif kind == "offset 1e4":
        x += 1e4
    elif kind == "all x 1e-8":
        x *= 1e-8
    elif kind == "columns x 1e-8 to 1e8":
        x *= 10 ** rng.uniform(-8, 8, size=shape[1])
    return x, y


KINDS = [
    "noisy", "separable", "duplicated rows", "zero rows", "one column x 1e8", "offset 1e4",
    "all x 1e-8", "columns x 1e-8 to 1e8",
]  # fmt: skip


def objective(model, x, y, C, loss):
    shortfall = np.maximum(0, 1 - np.where(y, 1, -1) * model.decision_function(x))
    losses = shortfall if loss == "hinge" else shortfall**2
    coef, intercept = np.ravel(model.coef_), np.ravel(model.intercept_)
    return (coef @ coef + intercept @ intercept) / 2 + C * losses.sum()


@both_losses
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
def test_the_objective_is_at_least_that_of_liblinear(kind, C, loss):
    x, y = problem(kind)
    ours = LinearSDCA(C=C, loss=loss, random_state=0).fit(x, y)
    theirs = min(
        objective(
            LinearSVC(C=C, loss=loss, dual=dual, tol=1e-6, random_state=0).fit(x, y), x, y, C, loss
        )
        for dual in ([True] if loss == "hinge" else [True, False])
    )
    assert objective(ours, x, y, C, loss) <= (1 + 1e-3) * theirs
    assert ours.dual_gap_ <= ours.tol  # so it is near the optimum, wherever LIBLINEAR is


@both_losses
@all_shapes
@pytest.mark.parametrize("kind", ["noisy", "separable", "one column x 1e8"])
def test_many_passes_are_never_needed(kind, shape, loss):
    x, y = problem(kind, shape)
    model = LinearSDCA(C=1e6, loss=loss, random_state=0).fit(x, y)
    assert model.dual_gap_ <= model.tol
    assert model.n_iter_ <= 50


@both_losses
def test_the_ascent_hands_over(loss):
    # many samples and features, and several classes: the ascent goes first, and converges in
    # more than a thousand passes
    x, _ = problem("separable", (700, 800))
    y = (x[:, :4] @ np.eye(4)[:, ::-1]).argmax(axis=1)
    model = LinearSDCA(C=1e6, loss=loss, random_state=0).fit(x * 10.0 ** np.linspace(0, 4, 800), y)
    assert model.dual_gap_ <= model.tol
    assert 20 < model.n_iter_ < 100


@both_losses
@all_shapes
def test_the_gap_is_that_of_weights_and_duals(shape, loss):
    # weak duality: from any feasible duals the objective cannot fall by more than the gap
    x, y = problem("noisy", shape)
    C, signs = 10.0, np.where(y, 1, -1)
    model = LinearSDCA(C=C, loss=loss, random_state=0).fit(x, y)
    a = model.duals_[:, 0]
    assert a.min() >= 0
    assert a.max() <= (C if loss == "hinge" else np.inf)
    total = np.append(x, np.ones((len(x), 1)), axis=1).T @ (a * signs)
    ridge = 0 if loss == "hinge" else 1 / (2 * C)
    dual = a.sum() - total @ total / 2 - ridge * (a @ a) / 2
    primal = objective(model, x, y, C, loss)
    assert_allclose((primal - dual) / primal, model.dual_gap_, atol=1e-12)


@both_losses
def test_samples_beyond_the_margin_have_duals_of_zero(loss):
    x, y = problem("separable")
    model = LinearSDCA(C=1e6, loss=loss, tol=1e-8, random_state=0).fit(x, y)
    margins = np.where(y, 1, -1) * model.decision_function(x)
    beyond = margins > 1 + 1e-3
    assert beyond.mean() > 0.5
    assert_array_equal(model.duals_[beyond], 0)
    assert (model.duals_[margins < 1 + 1e-9] > 0).all()


@both_losses
def test_samples_and_classes_of_no_weight_do_not_count(loss):
    x, y = problem("noisy")
    weights = np.arange(len(x)) % 3 / 2
    model = LinearSDCA(loss=loss, tol=1e-9).fit(x, y, sample_weight=weights)
    kept = weights > 0
    alone = LinearSDCA(loss=loss, tol=1e-9).fit(x[kept], y[kept], sample_weight=weights[kept])
    assert_allclose(model.coef_, alone.coef_, atol=1e-4 * abs(alone.coef_).max())
    assert_array_equal(model.duals_[~kept], 0)
    one_sided = LinearSDCA(loss=loss, class_weight={False: 0.0}, tol=1e-6).fit(x, y)
    assert one_sided.predict(x).all()


@both_losses
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-20, 1e20, 1e100, 1e145])
@pytest.mark.parametrize("where", ["a column", "all", "offset"])
@pytest.mark.filterwarnings(
    "error::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)
def test_any_scale_gives_finite_models(scale, where, loss):
    x, y = problem("noisy", (40, 6))
    if where == "offset":
        x += scale
    else:
        x[:, slice(1, 2) if where == "a column" else slice(None)] *= scale
    model = LinearSDCA(loss=loss, random_state=0).fit(x, y)
    for values in (model.coef_, model.intercept_, model.duals_, model.dual_gap_):
        assert np.isfinite(values).all()
    assert np.isfinite(model.decision_function(x)).all()
    # no worse than what the features that are left in float64 allow
    plain = LinearSDCA(loss=loss).fit(np.zeros((40, 1)), y)
    zeros = objective(plain, np.zeros((40, 1)), y, 1.0, loss)
    assert objective(model, x, y, 1.0, loss) <= zeros * (1 + 1e-3)


@pytest.mark.parametrize("scale", [1e155, 1e160, 1e300])
def test_features_whose_squares_are_not_finite_are_named(scale):
    x, y = problem("noisy", (40, 6))
    with pytest.raises(ValueError, match=r"X\[0\] has -?\de\+\d+ in feature 0: its square is out"):
        LinearSDCA().fit(x * scale, y)
    x[7, 2] = scale
    with pytest.raises(ValueError, match=r"X\[7\] has 1e\+\d+ in feature 2: .* Rescale"):
        LinearSDCA().fit(x, y)


def test_costs_whose_sum_is_not_finite_are_named():
    x, y = problem("noisy", (40, 6))
    with pytest.raises(ValueError, match="C times the weights of all samples"):
        LinearSDCA(C=1e308).fit(x, y)


def test_says_where_rounding_is_in_the_way():
    x, y = problem("noisy", (40, 6))
    with pytest.warns(ConvergenceWarning, match="rounding leads no further. Rescale the features"):
        LinearSDCA(C=1e6, loss="hinge", fit_intercept=False).fit(x + 1e8, y)


@both_losses
def test_without_a_tolerance_it_ends_at_rounding(loss):
    x, y = problem("noisy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # unless the gap is 0 to the last bit
        model = LinearSDCA(loss=loss, tol=0).fit(x, y)
    assert model.dual_gap_ < 1e-9
    assert model.n_iter_ < 100


@both_losses
def test_float32_is_as_good_as_its_numbers(loss):
    x, y = problem("one column x 1e8")
    x = x.astype(np.float32)
    narrow = LinearSDCA(loss=loss).fit(x, y)
    wide = LinearSDCA(loss=loss).fit(x.astype(np.float64), y)
    assert narrow.coef_.dtype == np.float32
    assert_allclose(narrow.coef_, wide.coef_, rtol=1e-6)


def random_problem(rng):
    """Return few samples, repeated or weighted, of some of the kinds that rounding is hard on."""
    n, d = rng.integers(4, 40), rng.choice([1, 3, 10, 30, 100, 300])
    x = rng.normal(size=(n, d))
    kind = rng.integers(5)
    if kind == 1:  # all but the same
        x = 0.1 * x + rng.normal(size=d)
    elif kind == 2:  # all but on a line
        x = x[:, :1] * rng.normal(size=d) + 0.01 * x
    elif kind == 3:
        x = x * 10 ** rng.uniform(-6, 6, size=d)
    elif kind == 4:
        x = np.round(x)
    signs = np.where(np.arange(n) < max(1, n // rng.choice([2, 5, 10])), 1.0, -1.0)
    times, weights = np.ones(n, dtype=int), np.ones(n)
    how = rng.integers(3)
    if how == 0:
        times = rng.integers(1, 1 + rng.choice([2, 5, 20, 100]), size=n)
    elif how == 1:  # the first sample counts, so that there are two classes
        weights = np.append(1.0, rng.integers(0, 5, size=n - 1))
        weights[-1] += 1
    else:
        weights = 10 ** rng.uniform(-4, 4, size=n)
    return x.repeat(times, axis=0), signs.repeat(times), weights.repeat(times)


@both_losses
@pytest.mark.parametrize("seed", range(10))
def test_repeated_and_weighted_samples(seed, loss):
    rng = np.random.default_rng(seed)
    for _ in range(30):
        x, signs, weights = random_problem(rng)
        costs = 10 ** rng.uniform(-2, 3) * weights
        method = InteriorPoint(x, signs[:, None], costs[:, None], loss=loss)
        for _ in range(50):
            if method.stuck:
                break
            method.advance(1e-9)
        assert relative_gap(*method.objectives()) < 1e-9


@both_losses
def test_a_sample_that_is_repeated_weighs_as_often(loss):
    x, y = problem("noisy", (30, 50))
    times = np.random.default_rng(1).integers(0, 5, size=len(x))
    model = LinearSDCA(loss=loss, tol=1e-14, random_state=0)
    weighted = model.fit(x, y, sample_weight=times).decision_function(x)
    repeated = model.fit(x.repeat(times, axis=0), y.repeat(times)).decision_function(x)
    assert_allclose(weighted, repeated, atol=1e-7)

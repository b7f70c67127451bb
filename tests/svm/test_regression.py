"""Support vector regressions of several columns of targets."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVR

from skfisher.svm import regression
from skfisher.svm.regression import fit_support_vector_regressions

both_losses = pytest.mark.parametrize(
    "loss", ["epsilon_insensitive", "squared_epsilon_insensitive"]
)
all_shapes = pytest.mark.parametrize("shape", [(60, 5), (25, 40)])


def problem(rng, shape, n_targets=1):
    x = rng.normal(size=shape)
    t = x[:, :3] @ rng.normal(size=(3, n_targets)) + 0.3 * rng.normal(size=(len(x), n_targets))
    return x, t


def objective(coef, intercept, x, t, *, C, epsilon, loss, weights=1.0):
    outside = np.maximum(abs(x @ coef + intercept - t) - epsilon, 0)
    terms = outside if loss == "epsilon_insensitive" else outside**2
    return (coef @ coef + intercept**2) / 2 + C * (weights * terms).sum()


@both_losses
@all_shapes
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_the_optimum_is_that_of_liblinear(C, shape, loss, rng):
    x, t = problem(rng, shape)
    options = {"C": C, "epsilon": 0.2, "loss": loss}
    coef, intercept = fit_support_vector_regressions(
        x, t, None, **{**options, "epsilon": np.array([0.2])}
    )
    dual = loss == "epsilon_insensitive"
    theirs = LinearSVR(**options, dual=dual, tol=1e-8, max_iter=100_000, random_state=0)
    theirs.fit(x, t[:, 0])
    least = objective(theirs.coef_, float(np.squeeze(theirs.intercept_)), x, t[:, 0], **options)
    found = objective(coef[0], intercept[0], x, t[:, 0], **options)
    assert found <= (1 + 2e-5) * least
    # near the optimum the strongly convex objective bounds the distance from it
    assert_allclose(coef[0], theirs.coef_, atol=np.sqrt(2 * 4e-5 * least))


@both_losses
@all_shapes
def test_no_small_step_leads_lower(shape, loss, rng):
    # weights and tubes of columns of their own; the objective is convex
    x, t = problem(rng, shape, n_targets=2)
    weights, epsilon = rng.uniform(0.2, 2, size=t.shape), np.array([0.1, 0.6])
    coef, intercept = fit_support_vector_regressions(
        x, t, weights, C=2.0, epsilon=epsilon, loss=loss
    )
    for c in range(2):
        options = {"C": 2.0, "epsilon": epsilon[c], "loss": loss, "weights": weights[:, c]}
        found = objective(coef[c], intercept[c], x, t[:, c], **options)
        for _ in range(50):
            step = 0.03 * rng.normal(size=len(coef[c]) + 1)
            moved = coef[c] + step[:-1], intercept[c] + step[-1]
            assert objective(*moved, x, t[:, c], **options) >= (1 - 1e-5) * found


@both_losses
def test_whole_weights_are_as_many_samples(loss, rng):
    x, t = problem(rng, (30, 4))
    counts = rng.integers(3, size=30)
    options = {"C": 1.0, "epsilon": np.array([0.1]), "loss": loss}
    one = fit_support_vector_regressions(x, t, counts[:, None].astype(float), **options)
    index = np.repeat(np.arange(30), counts)
    other = fit_support_vector_regressions(x[index], t[index], None, **options)
    for a, b in zip(one, other, strict=True):
        assert_allclose(a, b, atol=1e-2)


@both_losses
def test_what_a_tube_holds_needs_no_weights(loss, rng):
    x, t = problem(rng, (30, 4))
    coef, intercept = fit_support_vector_regressions(
        x, t, None, C=1.0, epsilon=abs(t).max(axis=0), loss=loss
    )
    assert not coef.any()
    assert not intercept.any()


@pytest.mark.filterwarnings("ignore:Liblinear")  # of the others
@both_losses
def test_fits_of_others_change_no_bit(loss, rng):
    x, t = problem(rng, (40, 6))
    options = {"C": 10.0, "epsilon": np.array([0.05]), "loss": loss}
    expected = fit_support_vector_regressions(x, t, None, **options)
    done = threading.Event()

    def draw():  # from the generator that all fits by LIBLINEAR have in common
        while not done.is_set():
            LinearSVR(max_iter=1000, random_state=1).fit(x, t[:, 0])

    others = threading.Thread(target=draw)
    others.start()
    try:
        found = [fit_support_vector_regressions(x, t, None, **options) for _ in range(5)]
    finally:
        done.set()
        others.join()
    for pair in found:
        for a, b in zip(pair, expected, strict=True):
            assert_array_equal(a, b)


def test_a_fit_that_is_cut_short_says_so(rng, monkeypatch):
    monkeypatch.setattr(regression, "MAX_STEPS", 1)
    x, t = problem(rng, (40, 6))
    with pytest.warns(ConvergenceWarning, match="regression stopped up to .* above its optimum"):
        fit_support_vector_regressions(
            x, t, None, C=100.0, epsilon=np.zeros(1), loss="epsilon_insensitive"
        )

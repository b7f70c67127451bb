"""Linear SVMs of several columns of signs."""

import threading

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from skfisher.svm import columns
from skfisher.svm.columns import fit_columns


@pytest.mark.parametrize("n_features", [3, 30])  # fewer and more than samples
def test_columns_are_optima_of_their_objectives(n_features, rng):
    x = rng.normal(size=(20, n_features))
    signs = np.where(rng.normal(size=(20, 2)) > 0, 1.0, -1.0)
    weights = rng.uniform(0.5, 2, size=(20, 2))
    coef, intercept = fit_columns(x, signs, weights, C=0.5, loss="squared_hinge", seed=0)
    for c in range(2):

        def objective(p, c=c):
            short = np.maximum(1 - signs[:, c] * (x @ p[:-1] + p[-1]), 0)
            return p @ p / 2 + 0.5 * (weights[:, c] * short**2).sum()

        best = minimize(objective, np.zeros(n_features + 1), tol=1e-12)
        found = objective(np.append(coef[c], intercept[c]))
        assert found == pytest.approx(best.fun, rel=1e-3)


def test_a_column_of_one_sign_is_constant(rng):
    x = rng.normal(size=(10, 2))
    signs = np.column_stack([np.ones(10), -np.ones(10), np.where(x[:, 0] > 0, 1, -1)])
    coef, intercept = fit_columns(x, signs, None, C=1.0, loss="hinge", seed=0)
    assert (coef[:2] == 0).all()
    assert intercept[:2].tolist() == [1, -1]
    assert (np.sign(x @ coef[2] + intercept[2]) == signs[:, 2]).mean() > 0.8


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("n_features", [4, 100])
def test_fits_of_others_change_no_bit(n_features, loss, rng):
    x, signs = rng.normal(size=(30, n_features)), np.where(rng.normal(size=(30, 5)) > 0, 1.0, -1.0)

    def fit():
        return fit_columns(x, signs, None, C=1.0, loss=loss, seed=3)

    expected = fit()
    done = threading.Event()

    def draw():  # from the generator that all fits by LIBLINEAR have in common
        while not done.is_set():
            LinearSVC(loss="hinge", max_iter=100_000, random_state=1).fit(x[:, :4], signs[:, 0])

    others = threading.Thread(target=draw)
    others.start()
    try:
        found = [fit() for _ in range(10)]
    finally:
        done.set()
        others.join()
    for coef, intercept in found:
        np.testing.assert_array_equal(coef, expected[0])
        np.testing.assert_array_equal(intercept, expected[1])


def test_a_hinge_that_is_not_minimised_is_told(monkeypatch, rng):
    monkeypatch.setattr(columns, "MAX_PASSES", 1)
    x, signs = rng.normal(size=(40, 4)), np.where(rng.normal(size=(40, 1)) > 0, 1.0, -1.0)
    with pytest.warns(ConvergenceWarning, match="above its optimum: lower C"):
        fit_columns(x, signs, None, C=1.0, loss="hinge", seed=0)

"""Ridge regressions of several columns of targets."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher.svm.ridge import fit_ridge


@pytest.mark.parametrize("n_features", [3, 30])  # fewer and more than samples
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_the_gradient_of_the_objective_is_zero(n_features, weighted, n_targets, rng):
    x, t = rng.normal(size=(20, n_features)) + 1, rng.normal(size=(20, n_targets))
    weights = np.repeat(rng.uniform(0.5, 2, size=(20, 1)), n_targets, axis=1)
    coef, intercept = fit_ridge(x, t, weights if weighted else None, C=0.7)
    errors = (x @ coef.T + intercept - t) * (weights if weighted else 1)
    assert coef.shape == (n_targets, n_features)
    assert_allclose(coef + 2 * 0.7 * errors.T @ x, 0, atol=1e-10)
    assert_allclose(errors.sum(axis=0), 0, atol=1e-10)  # no penalty of the intercept

"""Regression as a task: what is standardised, by which bags, and back."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score

from skfisher.training.objective import Problem
from skfisher.training.regression import Regression

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(30, 2)) * [3.0, 1e-4] + [100.0, 0.0]


def begun(y=Y, sample_weight=None, **options):
    task, y = Regression(**options).read(y, len(y))
    task = task.begin(y, sample_weight)
    return task, task.targets(y)


def test_targets_have_mean_0_and_deviation_1_and_come_back():
    task, targets = begun()
    assert_allclose(targets.mean(axis=0), 0, atol=1e-12)
    assert_allclose(targets.std(axis=0), 1)
    assert_allclose(task.numbers(targets), Y, rtol=1e-12)


def test_weights_count_as_so_many_bags():
    counts = np.arange(30) % 3
    weighted, _ = begun(sample_weight=counts.astype(float))
    repeated, _ = begun(np.repeat(Y, counts, axis=0))
    assert_allclose(weighted.mean, repeated.mean, atol=1e-12)
    assert_allclose(weighted.scale, repeated.scale)


@pytest.mark.parametrize("unit", [1e-200, 1e-8, 1e140])
def test_units_do_not_matter(unit):
    _, targets = begun()
    _, other = begun(Y * unit)
    assert_allclose(other, targets, rtol=1e-9, atol=1e-9)


def test_a_constant_column_is_predicted_as_it_is():
    y = np.column_stack([Y[:, 0], np.full(30, 7.0)])
    task, targets = begun(y)
    assert_array_equal(targets[:, 1], 0)
    assert_array_equal(task.numbers(targets)[:, 1], 7)


def test_all_columns_constant_are_refused():
    with pytest.raises(ValueError, match=r"y is 2\.5 for every bag.* two different numbers"):
        begun(np.full(6, 2.5))
    with pytest.raises(ValueError, match=r"y is \[1\.0, 2\.0\] for every bag"):
        begun(np.tile([1.0, 2.0], (6, 1)))


def test_later_numbers_are_in_the_units_of_the_first():
    task, _ = begun()
    _, y = task.read(Y[:1] + task.scale, 1)
    assert_allclose(task.targets(y), (Y[:1] - task.mean) / task.scale + 1)
    with pytest.raises(ValueError, match=r"y has shape \(2, 3\), .* fitted to .* \(n_bags, 2\)"):
        task.read(np.zeros((2, 3)), 2)
    with pytest.raises(ValueError, match=r"y_val has shape \(30,\), .* of shape \(n_bags, 2\)"):
        task.read(Y[:, 0], 30, name="y_val")
    column, _ = begun(Y[:, 0])
    with pytest.raises(ValueError, match=r"y has shape \(30, 1\), .* of shape \(n_bags,\)"):
        column.read(Y[:, :1], 30)


@pytest.mark.parametrize("loss", ["epsilon_insensitive", "squared_epsilon_insensitive"])
def test_epsilon_is_in_units_of_y(loss):
    task, targets = begun(loss=loss, epsilon=0.5)
    # an error of 0.5 in the first column, which is well within the tube of the second
    errors = np.array([0.5, 1e-4]) / task.scale
    for share, outside in ((0.99, 0), (1.01, 30)):
        decision = targets + share * errors
        terms, _ = task.losses(decision, Problem(None, targets, None))
        assert (terms > 0).sum() == outside


def test_linear_models_are_shown_in_units_of_y():
    task, targets = begun()
    x = RNG.normal(size=(30, 4))
    coef, intercept = task.fit(x, Problem(None, targets, None))
    shown = task.to_attributes(coef, intercept)
    assert_allclose(x @ shown[0].T + shown[1], task.numbers(x @ coef.T + intercept))
    for again, was in zip(task.from_attributes(*shown), (coef, intercept), strict=True):
        assert_allclose(again, was, rtol=1e-9, atol=1e-9)


def test_the_score_is_r2_where_there_is_one():
    task, targets = begun()
    decision = targets + 0.3 * RNG.normal(size=targets.shape)
    assert task.score(decision, targets) == pytest.approx(r2_score(Y, task.numbers(decision)))
    assert np.isnan(task.score(decision[:1], targets[:1]))
    assert np.isnan(task.score(decision * np.nan, targets))

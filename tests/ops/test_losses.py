"""Losses: values beside scikit-learn's, extremes, weights."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import hinge_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from skfisher.ops import losses

EACH = [
    losses.hinge,
    losses.squared_hinge,
    losses.quadratic,
    losses.linear,
    losses.logistic,
    losses.log_loss,
]
every_loss = pytest.mark.parametrize("loss", EACH, ids=lambda loss: loss.__name__)


def one_hot_signs(labels, n_classes):
    return np.where(np.eye(n_classes)[labels] > 0, 1, -1)


def test_hinge_is_that_of_scikit_learn(rng):
    decision, labels = rng.normal(size=50), rng.integers(2, size=50)
    values, _ = losses.hinge(decision[:, None], 2 * labels[:, None] - 1)
    assert values.mean() == pytest.approx(hinge_loss(labels, decision))


def test_log_loss_is_that_of_scikit_learn(rng):
    decision, labels = rng.normal(size=(50, 4)), np.arange(50) % 4
    weights = rng.uniform(size=50)
    values, _ = losses.log_loss(decision, one_hot_signs(labels, 4), weights=weights[:, None])
    p = np.exp(decision)
    expected = sklearn_log_loss(
        labels, p / p.sum(axis=1, keepdims=True), sample_weight=weights, normalize=False
    )
    assert values.sum() == pytest.approx(expected)


def test_logistic_of_one_column_is_log_loss_of_two(rng):
    decision, labels = rng.normal(size=(20, 1)), rng.integers(2, size=20)
    one, d_one = losses.logistic(decision, 2 * labels[:, None] - 1)
    two, d_two = losses.log_loss(
        np.hstack([np.zeros_like(decision), decision]), one_hot_signs(labels, 2)
    )
    assert_allclose(one, two)
    assert_allclose(d_one[:, 0], d_two[:, 1])


def test_on_and_beyond_the_margin_hinges_send_nothing(rng):
    signs = rng.choice([-1, 1], size=(6, 3))
    for loss in (losses.hinge, losses.squared_hinge):
        for margin in (1.0, 1.5):
            values, gradient = loss(margin * signs, signs)
            assert_array_equal(values, 0)
            assert_array_equal(gradient, 0)
    # where the quadratic loss pulls a sample back
    assert (losses.quadratic(1.5 * signs, signs)[1] * signs > 0).all()


@every_loss
def test_huge_decisions_stay_finite(loss):
    signs = one_hot_signs([0, 1], 2)
    for size in (1e4, -1e4):
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            values, gradient = loss(np.float32(size) * signs.astype(np.float32), signs)
        assert np.isfinite(values).all()
        assert np.isfinite(gradient).all()
        assert values.dtype == gradient.dtype == np.float32


@every_loss
def test_a_weight_of_two_counts_a_sample_twice(loss, rng):
    decision, signs = rng.normal(size=(5, 3)), one_hot_signs([0, 1, 2, 0, 1], 3)
    plain, d_plain = loss(decision, signs)
    weights = np.array([2, 1, 1, 0, 1])[:, None]
    weighted, d_weighted = loss(decision, signs, weights=weights)
    assert_allclose(weighted, plain * weights[:, 0])
    assert_allclose(d_weighted, d_plain * weights)


def test_dual_is_squared_hinge_at_the_optimum(rng):
    # where a = 2 C max(0, 1 - m)
    decision, signs = rng.normal(size=(5, 3)), rng.choice([-1, 1], size=(5, 3))
    duals = 2 * np.maximum(0, 1 - signs * decision)
    values, gradient = losses.dual(decision, signs, duals)
    assert_allclose(gradient, losses.squared_hinge(decision, signs)[1])
    assert_allclose(values, (decision * gradient).sum(axis=1))
    halved = losses.dual(decision, signs, duals, weights=0.5)
    assert_allclose(halved[0], values / 2)
    assert_allclose(halved[1], gradient / 2)
    single = losses.dual(decision.astype(np.float32), signs, duals)
    assert single[0].dtype == single[1].dtype == np.float32


def test_binary_weights_tell_members_from_others():
    signs = np.array([[1, -1], [-1, 1], [-1, -1]])
    weights = losses.binary_weights(
        signs, np.array([3.0, 5.0]), sample_weight=np.array([1.0, 2.0, 10.0])
    )
    assert_array_equal(weights, [[3, 1], [2, 10], [10, 10]])
    assert_array_equal(losses.binary_weights(signs, 2, 0), [[2, 0], [0, 2], [0, 0]])

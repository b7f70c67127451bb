"""The natural gradient, and the information of a mixture that it divides by."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher.layers.fisher import FisherPooling
from skfisher.ops.constraints import floored_exp, softmax
from skfisher.ops.gaussian import log_joint
from skfisher.training.natural_gradient import precondition


def test_preconditioning_divides_by_the_damped_metric():
    gradients = {"a": np.array([1.0, 1.0], np.float32), "b": np.ones(1)}
    natural = precondition(gradients, {"a": np.array([3.0, 0.0])}, damping=0.1)
    assert_allclose(natural["a"], [1 / 3.15, 1 / 0.15], rtol=1e-6)
    assert natural["a"].dtype == np.float32
    assert natural["b"] is gradients["b"]


def test_the_information_of_a_mixture_is_the_mean_square_of_its_score(rng):
    # of well separated components, by Monte Carlo
    logits, floor = np.log([0.2, 0.3, 0.5]), np.array([0.05, 0.2])
    means = np.array([[-20.0, 0.0], [0.0, 20.0], [20.0, 0.0]])
    log_excess = np.log(rng.uniform(0.2, 1, size=(3, 2)))
    weights, variances = softmax(logits), floored_exp(log_excess, floor=floor)
    drawn = rng.choice(3, p=weights, size=160_000)
    x = means[drawn] + np.sqrt(variances[drawn]) * rng.normal(size=(len(drawn), 2))

    def log_likelihood(logits, means, log_excess):
        variances = floored_exp(log_excess, floor=floor)
        joint = log_joint(x, softmax(logits), means, variances)
        return np.logaddexp.reduce(joint, axis=1)

    parameters = [logits, means, log_excess]
    names = FisherPooling.groups["mixture"]
    p = dict(zip(names, parameters, strict=True)) | {"variance_floor": floor}
    information = FisherPooling(3).information(p)
    for position, name in enumerate(names):
        expected = information[name]
        for index in np.ndindex(expected.shape):
            moved = []
            for step in (1e-4, -1e-4):
                changed = [p.copy() for p in parameters]
                changed[position][index] += step
                moved.append(log_likelihood(*changed))
            score = (moved[0] - moved[1]) / 2e-4
            if position == 0:
                # The exact matrix is diag(w) - w w'. Its pseudo-inverse and diag(1/w) send a
                # gradient to the same weights, because all logits may move together.
                exact = expected[index] * (1 - expected[index])
            else:
                exact = expected[index]
            assert np.mean(score**2) == pytest.approx(exact, rel=0.07)


def test_a_natural_step_of_the_logits_follows_the_exact_metric(rng):
    # the change of the weights, to first order, for a gradient that comes through the softmax
    weights = rng.dirichlet(np.ones(4))
    jacobian = np.diag(weights) - np.outer(weights, weights)
    g = jacobian @ rng.normal(size=4)
    natural = precondition({"logits": g}, {"logits": weights}, damping=0)["logits"]
    assert_allclose(jacobian @ natural, jacobian @ np.linalg.pinv(jacobian) @ g, atol=1e-12)

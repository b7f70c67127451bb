"""The natural gradient, and the information of a mixture that it divides by."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher import Bags, FisherVectorEncoder, JointClassifier, VLADEncoder
from skfisher.layers.chain import Chain
from skfisher.layers.feature_map import FeatureMap
from skfisher.layers.fisher import FisherPooling
from skfisher.layers.whitening import Whitening
from skfisher.ops.constraints import floored_exp, softmax
from skfisher.ops.gaussian import log_joint
from skfisher.training.natural_gradient import (
    FeatureMetric,
    moments_at_map,
    multiply_metric,
    precondition,
)


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


def map_problem(rng, n=50, d=4, n_out=3):
    weight, bias = rng.normal(size=(n_out, d)), rng.normal(size=n_out)
    return rng.normal(size=(n, d)) + 1, {"map_weight": weight, "map_bias": bias}


def slopes(x, p):
    """Return the gradients of a loss of the outputs, ``sum(cos(x W' + b))``."""
    g = -np.sin(x @ p["map_weight"].T + p["map_bias"])
    return {"map_weight": g.T @ x, "map_bias": g.sum(axis=0)}


def metric_of(x):
    x = np.column_stack([x, np.ones(len(x))])
    return x.T @ x / len(x)


def test_a_step_of_the_map_is_the_dense_natural_gradient_step(rng):
    x, p = map_problem(rng)
    gradients, metric = slopes(x, p), metric_of(x)
    found = multiply_metric(gradients, np.linalg.inv(metric))
    # the metric of all weights together, row by row of [W, b]
    dense = np.kron(np.eye(3), metric)
    both = np.column_stack([gradients["map_weight"], gradients["map_bias"]])
    expected = np.linalg.solve(dense, both.ravel()).reshape(3, 5)
    np.testing.assert_allclose(found["map_weight"], expected[:, :-1], atol=1e-10)
    np.testing.assert_allclose(found["map_bias"], expected[:, -1], atol=1e-10)


def test_a_step_does_not_depend_on_the_coordinates_of_the_descriptors(rng):
    x, p = map_problem(rng)
    a, c = rng.normal(size=(4, 4)), rng.normal(size=4)
    moved = x @ a.T + c
    back = np.linalg.inv(a)
    same = {"map_weight": p["map_weight"] @ back}
    same["map_bias"] = p["map_bias"] - same["map_weight"] @ c

    def outputs(x, p):
        step = multiply_metric(slopes(x, p), np.linalg.inv(metric_of(x)))
        stepped = {name: p[name] - 0.1 * step[name] for name in p}
        return x @ stepped["map_weight"].T + stepped["map_bias"]

    np.testing.assert_allclose(outputs(moved, same), outputs(x, p), atol=1e-9)


@pytest.mark.parametrize("whitened", [True, False])
def test_moments_are_of_what_enters_the_map(whitened, rng):
    x, p = map_problem(rng)
    whitening = Whitening(np.ones(4), 0.5 * np.eye(4), squash=False)
    below = (FeatureMap("tanh"),) if whitened else (whitening, FeatureMap("tanh"))
    bags = Bags.from_lengths(x, [20, 30])
    found = moments_at_map(Chain(below, None), p, bags, n_rows=100)
    expected = metric_of(x if whitened else (x - 1) / 2)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_inverse_is_kept_for_an_interval(rng):
    x, p = map_problem(rng)
    chain, link = Chain((FeatureMap("tanh"),), None), FeatureMetric(interval=3, decay=0.5)
    state, inverses = link.start(p), []
    for step in range(4):
        bags = Bags.from_lengths(x * (1 + step), [20, 30])
        _, state = link.apply(slopes(x, p), state, parameters=p, chain=chain, bags=bags)
        inverses.append(state[1])
    assert inverses[0] is inverses[1] is inverses[2]
    assert inverses[3] is not inverses[0]
    others = {"means": np.ones(3)}
    assert link.apply(others, state, parameters=p, chain=chain, bags=bags)[0] is others


def test_the_structured_natural_gradient_trains(rng):
    y = np.arange(60) % 2
    X = [rng.normal(size=(12, 3)) * (1 + c) for c in y]
    model = JointClassifier(
        FisherVectorEncoder(2), solver="structured_natural", learning_rate=1e-3, max_iter=10,
        batch_size=20, random_state=0,
    ).fit(X, y)  # fmt: skip
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    with pytest.raises(ValueError, match="needs information, which VLADPooling does not have"):
        JointClassifier(VLADEncoder(2), solver="structured_natural").fit(X, y)

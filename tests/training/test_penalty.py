"""The term that a pooling layer adds to the loss, and its noise."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfisher import Bags, GatedSecondOrderPooling, JointClassifier
from skfisher.layers.chain import Chain
from skfisher.layers.feature_map import FeatureMap
from skfisher.layers.gate import GatedPooling
from skfisher.layers.normalization import PowerL2
from skfisher.layers.second_order import MatrixPooling
from skfisher.parallel.units import Where
from skfisher.training import objective
from skfisher.training.classification import Classification
from skfisher.training.epochs import run_epoch
from skfisher.training.objective import Problem, batch_gradient
from skfisher.training.recipe import Recipe

GROUPS = ("features", "projections", "gate", "classifier")


@pytest.fixture
def task(rng):
    """Return chain, recipe, parameters and bags: a map, a gate over 3 projections, a classifier."""
    bags = Bags.from_list([rng.normal(size=(t, 4)) + t / 10 for t in rng.integers(1, 12, size=10)])
    signs = np.where(np.arange(10) % 2, 1.0, -1.0)[:, None]
    pooling = GatedPooling(
        3, 2, 0.3, MatrixPooling(function="newton_schulz", n_components=2, norm=None)
    )
    chain = Chain((FeatureMap("tanh"),), pooling, (PowerL2(1.0),))
    parameters = pooling.start(bags, 0) | {
        "map_weight": rng.normal(size=(4, 4)), "map_bias": rng.normal(size=4),
        "coef": rng.normal(size=(1, 6)), "intercept": rng.normal(size=1),
    }  # fmt: skip
    recipe = Recipe(
        train=GROUPS, task=Classification("quadratic"), solver="sgd",
        learning_rate=dict.fromkeys(GROUPS, 1e-2),
        schedule="constant", clip_norm=None, batch_size=5, max_iter=1, max_descriptors=None,
        alpha=0.1, seed=0,
    )  # fmt: skip
    return chain, recipe, parameters, Problem(bags, signs, None)


@pytest.mark.parametrize("noise", [None, np.linspace(-2, 2, 10)])
def test_gradients_are_those_of_the_whole_objective(task, noise):
    chain, recipe, parameters, problem = task
    _, gradients, _ = batch_gradient(chain, recipe, parameters, problem, noise=noise)
    assert set(gradients) == set(chain.names(GROUPS)) | {"coef", "intercept"}
    rng = np.random.default_rng(1)
    for name, gradient in gradients.items():
        direction, h = rng.normal(size=gradient.shape), 1e-6
        moved = [
            batch_gradient(
                chain, recipe, parameters | {name: parameters[name] + s * direction}, problem,
                noise=noise,
            )[0]
            for s in (h, -h)
        ]  # fmt: skip
        difference = (moved[0] - moved[1]) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(difference, rel=1e-5, abs=1e-7), name


def test_the_term_is_that_of_the_batch_however_it_is_cut(task, monkeypatch):
    chain, recipe, parameters, problem = task
    expected = batch_gradient(chain, recipe, parameters, problem)
    encoded = chain.forward(
        chain.prepare(parameters, np.float64), problem.bags.values, problem.bags.starts,
        problem.bags.stops,
    )  # fmt: skip
    usage = chain.pooling.shares(
        chain.pooling.prepare(parameters, np.float64), encoded.sums, problem.bags.lengths
    ).sum(axis=0)
    assert usage.sum() == pytest.approx(10)
    plain = Chain(chain.below, GatedPooling(3, 2, 0.0, chain.pooling.matrix), chain.above)
    without, _, _ = batch_gradient(plain, recipe, parameters, problem)
    term = 0.3 * (usage.std(ddof=1) / usage.mean()) ** 2
    assert term > 1e-3
    assert expected[0] == pytest.approx(without + term)
    # units of a bag each, in two threads
    monkeypatch.setattr(
        objective, "cut_bags", lambda lengths, n_out: [slice(i, i + 1) for i in range(len(lengths))]
    )
    chain = Chain(chain.below, chain.pooling, chain.above, Where(2))
    found = batch_gradient(chain, recipe, parameters, problem)
    assert found[0] == pytest.approx(expected[0])
    for name, gradient in expected[1].items():
        assert_allclose(found[1][name], gradient, atol=1e-12)


def test_noise_is_that_of_the_seed(task):
    chain, recipe, parameters, problem = task
    model = recipe.start(parameters)
    first, again = (run_epoch(chain, recipe, model, problem, 3) for _ in range(2))
    other = run_epoch(chain, recipe, model, problem, 4)
    assert_array_equal(first.model.parameters["projections"], again.model.parameters["projections"])
    assert (first.model.parameters["gate"] != other.model.parameters["gate"]).any()
    # equal weights of noise move all logits alike; others do not
    parameters["spread"] = np.random.default_rng(0).normal(size=(3, 4))
    quiet, _, _ = batch_gradient(chain, recipe, parameters, problem)
    loud, _, _ = batch_gradient(chain, recipe, parameters, problem, noise=np.full(10, 2.0))
    assert abs(quiet - loud) > 1e-4


def test_a_gate_is_trained_and_uses_as_many_projections_as_it_may():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = [rng.normal(size=(15, 5)) * (1 + np.eye(5)[c]) + 0.3 * rng.normal(size=5) for c in y]
    encoder = GatedSecondOrderPooling(4, n_components=3, n_active=2, random_state=0)
    model = JointClassifier(encoder, max_iter=10, batch_size=30, random_state=0).fit(X, y)
    again = JointClassifier(encoder, max_iter=10, batch_size=30, n_jobs=2, random_state=0).fit(X, y)
    assert_array_equal(model.gate_, again.gate_)
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    for name in ("projections_", "gate_", "spread_"):
        assert np.abs(getattr(model, name) - getattr(model.baseline_, name)).max() > 1e-3
    chain, parameters = model._chain(), model._parameters()[0]
    bags = Bags.from_list(X)
    prepared = chain.prepare(parameters, np.float64)
    sums = chain.sums(prepared, bags.values, bags.starts, bags.stops)
    shares = chain.pooling.shares(prepared.pooling, sums, bags.lengths)
    assert ((shares > 0).sum(axis=1) == 2).all()
    assert_allclose(shares.sum(axis=1), 1)
    assert ((shares > 0).mean(axis=0) > 0.05).all()  # none has fallen out of use
    assert np.isfinite(model.transform([x[:1] for x in X])).all()


def test_without_balance_bags_go_forward_once(task, monkeypatch):
    chain, recipe, parameters, problem = task
    pooling = replace(chain.pooling, balance=0.0)
    assert chain.pooling.penalizes
    assert not pooling.penalizes
    with_zero = Chain(chain.below, pooling, chain.above)
    loss, gradients, _ = batch_gradient(with_zero, recipe, parameters, problem)
    monkeypatch.setattr(GatedPooling, "penalizes", True)  # a pass more, for a term of 0
    again, same, _ = batch_gradient(with_zero, recipe, parameters, problem)
    assert again == pytest.approx(loss, abs=1e-12)
    for name, gradient in gradients.items():
        assert_allclose(gradient, same[name], atol=1e-12)

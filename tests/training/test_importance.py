"""Sampling by loss: unbiased where it says so, drawn as often as it says, and in training."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skfisher import (
    Bags,
    FisherVectorEncoder,
    JointClassifier,
    LossSampling,
    MeanPooling,
    VLADEncoder,
)
from skfisher.layers.chain import Chain
from skfisher.layers.fisher import FisherPooling
from skfisher.training.importance import chances, features_of, loss_weights

LOSSES = np.array([0.1, 3.0, 0.0, 1.2, 0.7])
GRADIENTS = np.random.default_rng(1).normal(size=(5, 3))


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_the_expected_gradient_is_that_of_the_mean_loss(smoothing):
    p = chances(LOSSES, smoothing)
    pairs = [(i, j) for i in range(5) for j in range(5)]
    expected = sum(
        p[i] * p[j] * (loss_weights(p[[i, j]], 5, 1.0) @ GRADIENTS[[i, j]]) / 2 for i, j in pairs
    )
    assert_allclose(expected, GRADIENTS.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0])
def test_the_expected_gradient_is_that_of_a_power_of_the_losses(k):
    # Katharopoulos and Fleuret (2017), equation (7): for chances in proportion to the losses
    losses = LOSSES + 0.1
    p = chances(losses, 0.0)
    expected = (p * (5 * p) ** -k) @ GRADIENTS

    def value(losses):
        return (losses ** (2 - k)).mean() / ((2 - k) * LOSSES_MEAN ** (1 - k))

    LOSSES_MEAN = losses.mean()
    h = 1e-6
    slopes = [
        (value(losses + h * e) - value(losses - h * e)) / (2 * h) for e in np.eye(len(losses))
    ]
    assert_allclose(expected, np.array(slopes) @ GRADIENTS, atol=1e-8)


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0])
def test_the_weighted_loss_of_a_batch_is_comparable_to_the_mean(k):
    losses = LOSSES + 0.1
    p = chances(losses, 0.0)
    drawn = [0, 1, 1, 3]
    assert_allclose((loss_weights(p[drawn], 5, k) * losses[drawn]).mean(), losses.mean())


def test_chances_are_uniform_without_losses_and_positive_with_smoothing():
    assert_allclose(chances(np.zeros(4), 0.1), 0.25)
    assert chances(LOSSES, 0.1).min() > 0
    assert_allclose(chances(LOSSES, 0.1).sum(), 1)


def bags_of(n, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rng.integers(5, 9), d)) for _ in range(n)]


def state_of(sampler, n=200):
    """Return a state of an epoch whose regression knows that the first feature is the loss."""
    rng = np.random.default_rng(0)
    features = np.column_stack([np.ones(n), rng.normal(size=n)])
    losses = 2 + features[:, 1].clip(-1.5, None)
    memory = features, features.T @ features, features.T @ losses
    return sampler.start(memory, rng, n), losses


def test_bags_are_drawn_as_often_as_their_chances_say():
    sampler = LossSampling(n_candidate_batches=50)
    state, _ = state_of(sampler)
    rng = np.random.default_rng(1)
    p = chances(sampler.predict(state, np.arange(200)), sampler.smoothing)
    counts = np.zeros(200)
    for _ in range(500):
        counts += np.bincount(sampler.draw(state, rng, 20).numbers, minlength=200)
    error = (counts - 10_000 * p) / np.sqrt(10_000 * p * (1 - p))
    assert np.abs(error).max() < 4.5
    assert 0.8 < error.std() < 1.2


def test_the_regression_learns_the_losses_that_it_is_told():
    sampler = LossSampling()
    _, losses = state_of(sampler)
    memory = state_of(sampler)[0].features, np.zeros((2, 2)), np.zeros(2)
    rng = np.random.default_rng(0)
    state = sampler.start(memory, rng, 200)
    assert_array_equal(sampler.predict(state, np.arange(5)), 0)
    for _ in range(30):
        index, weights, state = sampler.draw(state, rng, 20)
        assert index.tolist() == sorted(index)
        assert weights.shape == (20,)
        state = sampler.observe(state, index, losses[index])
    memory, record = sampler.end(state)
    assert record["loss_correlation"] > 0.8
    assert 10 < record["effective_sample_size"] < 20
    again = sampler.start(memory, rng, 200)
    assert np.corrcoef(sampler.predict(again, np.arange(200)), losses)[0, 1] > 0.95


def test_features_are_means_and_shares_of_the_components():
    bags = Bags.from_list(bags_of(40))
    pooling = FisherPooling(2)
    chain = Chain((), pooling)
    p = pooling.start(bags, 0)
    features = features_of(chain, p, bags)
    assert features.shape == (40, 1 + 3 + 2)
    mean = np.array([bag.mean(axis=0) for bag in bags])
    assert_allclose(features[:, 1:4], (mean - mean.mean(axis=0)) / mean.std(axis=0), atol=1e-12)
    shares = chain.sums(chain.prepare(p, np.float64), bags.values, bags.starts, bags.stops)[0]
    shares = shares / bags.lengths[:, None]
    expected = (shares - shares.mean(axis=0)) / shares.std(axis=0)
    assert_allclose(features[:, 4:], expected, atol=1e-10)


def data(n=60):
    y = np.arange(n) % 2
    rng = np.random.default_rng(0)
    return [rng.normal(size=(12, 3)) * (1 + c) for c in y], y


@pytest.mark.parametrize(
    "encoder", [FisherVectorEncoder(2), VLADEncoder(2), MeanPooling("mean_std")], ids=str
)
def test_training_by_loss_learns_reports_and_repeats(encoder):
    X, y = data()
    model = JointClassifier(encoder, sampling="loss", max_iter=8, batch_size=10, random_state=0)
    model.fit(X, y)
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    assert len(model.history_["effective_sample_size"]) == 8
    assert np.all(np.array(model.history_["effective_sample_size"]) <= 10 + 1e-9)
    again = clone(model).set_params(sampling=LossSampling()).fit(X, y)
    assert_array_equal(again.coef_, model.coef_)
    uniform = clone(model).set_params(sampling="uniform").fit(X, y)
    assert not np.array_equal(uniform.coef_, model.coef_)
    assert "effective_sample_size" not in uniform.history_


def test_an_interrupted_training_goes_on_as_if_there_had_been_no_interrupt():
    X, y = data()
    settings = {"sampling": "loss", "batch_size": 10, "random_state": 0}
    whole = JointClassifier(FisherVectorEncoder(2), max_iter=6, **settings).fit(X, y)
    model = JointClassifier(FisherVectorEncoder(2), max_iter=6, warm_start=True, **settings)
    epoch, calls = model._epoch, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return epoch(*args)

    model._epoch = interrupted
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.n_iter_ == 3
    del model._epoch
    assert_array_equal(model.fit(X, y).coef_, whole.coef_)


def test_parts_of_the_data_may_be_of_any_size():
    X, y = data()
    model = JointClassifier(FisherVectorEncoder(2), sampling="loss", random_state=0)
    model.partial_fit(X[:40], y[:40], classes=[0, 1]).partial_fit(X[40:], y[40:])
    assert len(model.history_["loss"]) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bias_exponent", np.nan),
        ("bias_exponent", "a"),
        ("n_candidate_batches", 0),
        ("n_candidate_batches", 1.5),
        ("smoothing", -1.0),
        ("smoothing", np.inf),
        ("damping", 0.0),
        ("decay", 2.0),
        ("decay", np.nan),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of LossSampling must be"):
        LossSampling(**{name: value})


def test_a_class_in_the_place_of_a_sampler_is_named():
    with pytest.raises(TypeError, match=r"sampling is the class LossSampling: write LossSampling"):
        JointClassifier(MeanPooling(), sampling=LossSampling).fit(*data())


def test_the_line_search_has_no_use_for_it():
    X, y = data()
    model = JointClassifier(
        FisherVectorEncoder(2), solver="line_search", train="mixture", sampling="loss"
    )
    with pytest.raises(ValueError, match="has no use for sampling='loss'"):
        model.fit(X, y)

"""Mixtures from elsewhere, or with attributes set by hand: used if they are ones, else named."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skfisher import DiagonalGaussianMixture, FisherVectorEncoder, JointFisherSVC

RNG = np.random.default_rng(0)
BAGS = [RNG.normal(size=(9, 2)) for _ in range(8)]
Y = np.arange(8) % 2
NAN = float("nan")

SOUND = {
    "weights": np.array([0.25, 0.75]),
    "means": np.array([[-1.0, 0.0], [1.0, 0.5]]),
    "variances": np.array([[1.0, 2.0], [0.5, 1.0]]),
}


def of_scikit_learn(weights, means, variances):
    mixture = GaussianMixture(2, covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = weights, means, variances
    return mixture


def by_hand(weights, means, variances):
    mixture = DiagonalGaussianMixture(2, random_state=0)
    mixture.weights_, mixture.means_, mixture.variances_ = weights, means, variances
    return mixture


def encoder_by_hand(**parameters):
    encoder = FisherVectorEncoder(mixture=by_hand(**SOUND)).fit(BAGS)
    vars(encoder.mixture_).update(vars(by_hand(**parameters)))
    return encoder


# What takes a mixture, and what it is called in messages.
DOORS = {
    "encoder": (lambda m: FisherVectorEncoder(mixture=of_scikit_learn(**m)).fit(BAGS), "mixture."),
    "encoder, ours": (lambda m: FisherVectorEncoder(mixture=by_hand(**m)).fit(BAGS), "mixture."),
    "joint": (
        lambda m: JointFisherSVC(mixture=of_scikit_learn(**m), max_iter=1).fit(BAGS, Y),
        "mixture.",
    ),
    "joint, ours": (
        lambda m: JointFisherSVC(mixture=by_hand(**m), max_iter=1).fit(BAGS, Y),
        "mixture.",
    ),
    "from_sklearn": (
        lambda m: DiagonalGaussianMixture.from_sklearn(of_scikit_learn(**m)),
        "mixture.",
    ),
    "transform": (lambda m: encoder_by_hand(**m).transform(BAGS), ""),
    "score_samples": (lambda m: by_hand(**m).score_samples(BAGS), ""),
    "predict_proba": (lambda m: by_hand(**m).predict_proba(BAGS), ""),
    "predict": (lambda m: by_hand(**m).predict(BAGS), ""),
    "bic": (lambda m: by_hand(**m).bic(BAGS), ""),
    "sample": (lambda m: by_hand(**m).sample(3), ""),
    "to_sklearn": (lambda m: by_hand(**m).to_sklearn(), ""),
    "partial_fit": (lambda m: by_hand(**m).partial_fit(BAGS), ""),
}
BAD = {
    "a negative weight": ({"weights": np.array([1.25, -0.25])}, r"weights_\[1\] is -0.25, .* 0 or"),
    "weights above 1": ({"weights": np.array([0.25, 0.751])}, "weights_ sums to 1.001, .* divide"),
    "weights below 1": ({"weights": np.array([0.25, 0.25])}, "weights_ sums to 0.5, .* divide"),
    "no weight": ({"weights": np.zeros(2)}, "weights_ sums to 0,"),
    "a weight of NaN": ({"weights": np.array([NAN, 1.0])}, r"weights_\[0\] is nan, .* finite"),
    "a mean of infinity": ({"means": np.array([[1, 2], [np.inf, 2]])}, r"means_\[1, 0\] is inf,"),
    "a variance of 0": (
        {"variances": np.array([[1, 2], [1, 0]])},
        r"(variances|covariances)_\[1, 1\] is 0, .* at least",
    ),
    "a variance below 0": (
        {"variances": np.array([[1, -2], [1, 1]])},
        r"(variances|covariances)_\[0, 1\] is -2, .* at least",
    ),
    "a variance of NaN": ({"variances": np.full((2, 2), NAN)}, r"_\[0, 0\] is nan, .* finite"),
    "a variance whose inverse is infinity": (
        {"variances": np.full((2, 2), 1e-310)},
        r"_\[0, 0\] is 1e-310, .* at least",
    ),
    "full covariances": ({"variances": np.ones((2, 2, 2))}, r"has shape \(2, 2, 2\), .* diagonal"),
    "one variance": ({"variances": np.ones(2)}, r"has shape \(2,\), .* diagonal"),
    "three weights": ({"weights": np.ones(3) / 3}, r"weights_ has shape \(3,\), "),
    "a row of weights": ({"weights": np.ones((1, 2)) / 2}, r"weights_ has shape \(1, 2\), "),
    "means of another width": ({"means": np.ones((2, 3))}, r"means_ has shape \(2, 3\), "),
    "complex means": ({"means": 1j * np.ones((2, 2))}, "means_ has dtype complex128"),
    "words": ({"means": np.array([["a", "b"]] * 2)}, "means_ has dtype <U1"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fault", BAD)
def test_what_is_no_mixture_is_refused(door, fault):
    take, prefix = DOORS[door]
    change, message = BAD[fault]
    with pytest.raises(ValueError, match=message) as caught:
        take(SOUND | change)
    assert str(caught.value).startswith("mixture.") == (prefix == "mixture.")


@pytest.mark.parametrize("door", DOORS)
def test_a_sound_mixture_is_taken(door):
    DOORS[door][0](SOUND)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_of_weights_is_made_good(dtype):
    weights = np.random.default_rng(0).dirichlet(np.ones(50))
    means = np.random.default_rng(1).normal(size=(50, 2))
    weights = weights.astype(dtype)
    if dtype == np.float32:  # as read from a file that was written with few digits
        weights = weights.astype(np.float64)
    mixture = by_hand(weights, means, np.ones((50, 2)))
    assert mixture.sample(100)[0].shape == (100, 2)
    taken = DiagonalGaussianMixture.from_sklearn(of_scikit_learn(weights, means, np.ones((50, 2))))
    assert taken.weights_.sum() == pytest.approx(1, abs=1e-14)
    assert_allclose(taken.weights_, weights / weights.sum(dtype=np.float64), rtol=1e-6)


def test_weights_that_sum_to_1_keep_their_bits():
    weights = np.full(10, 0.1)  # their sum is not 1 to the last bit
    taken = DiagonalGaussianMixture.from_sklearn(
        of_scikit_learn(weights, np.zeros((10, 1)), np.ones((10, 1)))
    )
    assert_array_equal(taken.weights_, weights)


def test_a_missing_attribute_is_named():
    mixture = by_hand(**SOUND)
    del mixture.variances_
    with pytest.raises(ValueError, match=r"mixture\.variances_ is missing"):
        FisherVectorEncoder(mixture=mixture).fit(BAGS)


@pytest.mark.parametrize("method", ["score_samples", "predict", "partial_fit"])
def test_bags_of_another_width_than_means_set_by_hand(method):
    with pytest.raises(ValueError, match=r"X\[0\] has 3 features .* means_ is of shape \(2, 2\)"):
        getattr(by_hand(**SOUND), method)([np.ones((4, 3))] * 2)


def test_a_mixture_set_by_hand_goes_to_scikit_learn_and_back():
    there = by_hand(**SOUND).to_sklearn()
    back = DiagonalGaussianMixture.from_sklearn(there)
    assert_array_equal(there.score_samples(BAGS[0]).round(9), back.score_samples(BAGS[:1]).round(9))
    assert back.n_features_in_ == 2


def test_a_component_of_no_weight_can_be_trained_from():
    mixture = SOUND | {"weights": np.array([0.0, 1.0])}
    model = JointFisherSVC(mixture=by_hand(**mixture), max_iter=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of so few bags
        model.fit(BAGS, Y)
    assert model.n_iter_ == 2
    assert np.isfinite(model.transform(BAGS)).all()


def test_what_is_passed_in_is_copied():
    mixture = by_hand(**{name: value.copy() for name, value in SOUND.items()})
    encoder = FisherVectorEncoder(mixture=mixture).fit(BAGS)
    before = encoder.transform(BAGS)
    mixture.means_ += 1
    assert_array_equal(encoder.transform(BAGS), before)

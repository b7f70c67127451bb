"""What GradientFeatureKernel says of bad parameters and samples, and of gradients of zero."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier

from skfisher import DenseHead, GradientFeatureKernel
from tests.gradient_features.test_kernel import make_head, trainable

pytestmark = pytest.mark.filterwarnings(
    "ignore:The network has .* output:UserWarning",
    "ignore::sklearn.exceptions.ConvergenceWarning",
)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": 5}, r"layer=5, but the network has 3 weight matrices \(indices -3 to 2\)"),
        ({"layer": [0, 3]}, "layer=3, but"),
        ({"temperature": 0}, "'temperature' parameter .* range"),
        ({"temperature": -1.0}, "'temperature' parameter .* range"),
        ({"target": [0.5, 0.5]}, r"target has shape \(2,\), but the network has 3 outputs"),
        ({"target": [0.5, 0.5, 0.5]}, "must sum to 1, it sums to 1.5"),
        ({"target": [1.5, -0.5, 0.0]}, "between 0 and 1"),
        ({"target": [np.nan, 0.5, 0.5]}, "between 0 and 1"),
        ({"target": ["a", "b", "c"]}, "must hold probabilities"),
        ({"target": "predicted"}, "'target' parameter"),
        ({"target": lambda y: y[:, :2]}, r"returned shape \(5, 2\) for logits of shape \(5, 3\)"),
        ({"target": lambda y: np.full_like(y, np.nan)}, "must return finite numbers"),
        ({"device": "tpu"}, "device='tpu' is not known"),
    ],
)
def test_bad_parameters(rng, params, message):
    with pytest.raises(ValueError, match=message):
        GradientFeatureKernel(make_head(), **params).fit(rng.normal(size=(5, 6)))


@pytest.mark.parametrize("layer", [[0.5, 1], ["fc7"], [[0, 1]], True])
def test_layers_are_integers(layer):
    with pytest.raises(TypeError, match="must be an integer or a list of integers"):
        GradientFeatureKernel(make_head(), layer=layer).fit(np.eye(6))


def test_layer_and_device_are_checked_before_training(monkeypatch):
    monkeypatch.setattr(MLPClassifier, "fit", lambda *args: pytest.fail("it trained"))
    with pytest.raises(ValueError, match="layer=3, but the network has 3 weight matrices"):
        GradientFeatureKernel(trainable(), layer=3).fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="device='tpu' is not known"):
        GradientFeatureKernel(trainable(), device="tpu").fit(np.eye(4), [0, 1, 0, 1])


def test_bad_samples(rng):
    X = rng.normal(size=(5, 6))
    with pytest.raises(ValueError, match=r"X has 4 features, but the first layer .* takes 6"):
        GradientFeatureKernel(make_head()).fit(X[:, :4])
    kernel = GradientFeatureKernel(make_head()).fit(X)
    with pytest.raises(ValueError, match="X has 4 features, but GradientFeatureKernel is expect"):
        kernel.transform(X[:, :4])
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        kernel.transform(X)


def test_frozen_network_that_is_not_fitted_is_named():
    kernel = GradientFeatureKernel(FrozenEstimator(MLPClassifier()))
    with pytest.raises(NotFittedError, match="MLPClassifier instance is not fitted"):
        kernel.fit(np.eye(3))


def test_outputs_that_are_not_finite_name_the_sample(rng):
    X = rng.normal(size=(2500, 6)).astype(np.float32)
    X[2100] = 3e38
    kernel = GradientFeatureKernel(make_head(activation="relu", dtype=np.float32))
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match=r"output of the network for X\[2100\] is not finite"),
    ):
        kernel.fit(X)


@pytest.mark.parametrize("target", ["uniform", "jacobian"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("normalize", [True, False])
def test_zero_gradients_warn_and_are_zero(rng, target, layer, normalize):
    # all units off for negative samples
    head = DenseHead([np.eye(4), np.eye(4), rng.normal(size=(4, 20))])
    X = abs(rng.normal(size=(30, 4)))
    X[[3, 7, 20]] *= -1
    kernel = GradientFeatureKernel(
        head, layer=layer, target=target, batch_size=8, normalize=normalize
    )
    with pytest.warns(UserWarning, match=r"3 of 30 samples .* of zero \(X\[3, 7, 20\]\)"):
        K = kernel.fit_transform(X)
    off = np.isin(np.arange(30), [3, 7, 20])
    assert (K[off] == 0).all()
    assert (K[:, off] == 0).all()
    assert (np.diag(K)[~off] > 0).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "needs n_activations"),
        ({"n_activations": 6}, "leaves no errors: X has n_features = 6"),
        ({"n_activations": 2, "activations": True}, "precomputed factors do not hold"),
    ],
)
def test_bad_precomputed_factors(rng, params, message):
    with pytest.raises(ValueError, match=message):
        GradientFeatureKernel("precomputed", **params).fit(rng.normal(size=(5, 6)))

"""On ordinary data, no estimator warns of a setting that nobody chose."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier

from skfisher import (
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GradientFeatureKernel,
    GradientFeatureMap,
    ImagePatches,
    JointFisherSVC,
    LinearSDCA,
    PositionAppender,
    PowerL2Normalizer,
)
from skfisher.datasets import load_digits_patches

DIGITS = load_digits_patches()
IRIS = load_iris()


def few_digits():
    return DIGITS.data[:300], DIGITS.target[:300]


def bags_of_iris():
    """Return bags of 2 to 6 flowers of one species."""
    rng = np.random.default_rng(0)
    y = np.arange(45) % 3
    return [IRIS.data[50 * c + rng.integers(50, size=rng.integers(2, 7))] for c in y], y


def noise():
    """Return bags that have nothing to do with their labels, fewer than a batch."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(rng.integers(5, 30), 6)) for _ in range(30)], np.arange(30) % 2


BAGS = {"digits": few_digits, "iris": bags_of_iris, "noise": noise}


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("data", BAGS)
@pytest.mark.parametrize("n_components", [1, 2, 16, 64])
@pytest.mark.parametrize("model", [FisherVectorEncoder, DiagonalGaussianMixture])
def test_mixtures(data, n_components, model):
    X, _ = BAGS[data]()
    for seed in range(1 if n_components == 64 else 3):
        fitted = model(n_components, random_state=seed).fit(X)
        assert fitted.converged_ or model is FisherVectorEncoder  # which does not wait for it


@pytest.mark.parametrize("data", BAGS)
@pytest.mark.parametrize("n_components", [2, 8])
def test_classifiers(data, n_components):
    X, y = BAGS[data]()
    JointFisherSVC(n_components, random_state=0).fit(X, y).predict(X)
    encodings = FisherVectorEncoder(n_components, random_state=0).fit_transform(X)
    for table in (encodings, PowerL2Normalizer().fit_transform(encodings)):
        for loss in ("squared_hinge", "hinge"):
            LinearSDCA(loss=loss, random_state=0).fit(table, y).predict(table)


@pytest.mark.parametrize("data", BAGS)
@pytest.mark.parametrize("model", [DescriptorTransformer(PCA()), PositionAppender()])
def test_transformers_of_descriptors(data, model):
    X, y = BAGS[data]()
    model.fit(X, y).transform(X)


@pytest.mark.parametrize("form", ["array", "bytes", "list"])
def test_patches(form):
    images = load_digits().images[:50]
    if form == "bytes":
        images = (15 * images).astype(np.uint8)
    ImagePatches().fit(images).transform(list(images) if form == "list" else images)


def test_gradient_features():
    X, y = IRIS.data, IRIS.target
    network = MLPClassifier((8,), solver="lbfgs", max_iter=2000, random_state=0)
    for model in (GradientFeatureKernel(network), GradientFeatureMap(network, random_state=0)):
        model.fit(X, y).transform(X)

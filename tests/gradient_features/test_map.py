"""GradientFeatureMap against GradientFeatureKernel."""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfisher import DenseHead, GradientFeatureKernel, GradientFeatureMap
from tests.gradient_features.test_kernel import make_head, trainable

pytestmark = pytest.mark.filterwarnings(
    "ignore:The network has .* output:UserWarning",
    "ignore::sklearn.exceptions.ConvergenceWarning",
)


@parametrize_with_checks(
    [
        GradientFeatureMap(trainable(), n_components=20),
        GradientFeatureMap(trainable(), n_components=20, method="tensor_sketch"),
        GradientFeatureMap(
            trainable(), n_components=30, layer=[0, -1], target="jacobian", activations=True
        ),
        GradientFeatureMap("precomputed", n_activations=1, n_components=4),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def relative_error(Z, K):
    return np.linalg.norm(Z @ Z.T - K) / np.linalg.norm(K)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "params",
    [
        {"layer": 0},
        {"layer": -1, "bias": True},
        {"layer": -2, "target": "jacobian"},
        {"layer": 0, "target": "jacobian", "max_outputs": 3},
        {"layer": [0, 1, 2], "activations": True},
        {"layer": [0, 1], "target": "jacobian", "activations": True, "bias": True},
    ],
)
def test_all_pairs_give_the_exact_kernel(rng, params, normalize):
    X = rng.normal(size=(30, 6))
    params = {"normalize": normalize, "max_outputs": 1, **params}
    exact = GradientFeatureKernel(make_head(), **params)
    features = GradientFeatureMap(make_head(), n_components=1000, **params)
    Z = features.fit(X[:20]).transform(X)
    assert Z.shape[1] == features.n_components_ == len(features.get_feature_names_out()) < 1000
    assert_allclose(Z @ Z.T, exact.fit_transform(X), atol=1e-10)


@pytest.mark.parametrize("method", ["spectral", "tensor_sketch"])
def test_error_falls_with_components(rng, method):
    X = rng.normal(size=(100, 6))
    params = {"layer": [0, 1], "activations": True}
    K = GradientFeatureKernel(make_head(widths=(6, 30, 30, 20)), **params).fit_transform(X)
    errors = []
    for n_components in (8, 64, 512):
        features = GradientFeatureMap(
            make_head(widths=(6, 30, 30, 20)), n_components=n_components, method=method, **params
        )
        Z = features.fit_transform(X)
        assert Z.shape[1] == n_components
        errors.append(relative_error(Z, K))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.fixture(scope="module")
def wide_network():
    """Return a network with a hidden layer of 512 units, and unseen digits."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    network = MLPClassifier((512, 512), max_iter=15, random_state=0).fit(X[:900], y[:900])
    return network, X[900:]


@pytest.mark.parametrize(("layer", "target"), [(-2, "uniform"), (-2, "jacobian"), (0, "uniform")])
def test_kernel_error_of_512_units_at_256_components(wide_network, layer, target):
    network, X = wide_network
    params = {"layer": layer, "target": target}
    frozen = FrozenEstimator(network)
    K = GradientFeatureKernel(frozen, **params).fit_transform(X[400:])

    def error(method):
        features = GradientFeatureMap(frozen, n_components=256, method=method, **params)
        return relative_error(features.fit(X[:400]).transform(X[400:]), K)

    assert error("spectral") < 0.05 < error("tensor_sketch")


def test_partial_fit_equals_fit(rng):
    X = rng.normal(size=(90, 6))
    params = {"n_components": 25, "layer": [0, 1], "activations": True}
    whole = GradientFeatureMap(make_head(), **params).fit(X)
    parts = GradientFeatureMap(make_head(), **params)
    for start in range(0, 90, 30):
        parts.partial_fit(X[start : start + 30])
    assert parts.n_samples_seen_ == whole.n_samples_seen_ == 90
    assert_allclose(parts.energies_, whole.energies_, rtol=1e-10)
    assert_allclose(parts.transform(X), whole.transform(X), atol=1e-8)


def test_partial_fit_that_fails_adds_nothing(rng):
    X = rng.normal(size=(20, 6))
    head = make_head(activation="relu")
    features = GradientFeatureMap(head, activations=True, batch_size=5).fit(X)
    before = [matrix.copy() for pair in features.moments_ for matrix in pair]
    X[17] = 1e308  # in the last batch
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=r"X\[17\] is not finite"),
    ):
        features.partial_fit(X)
    for matrix, expected in zip(sum(features.moments_, ()), before, strict=True):
        assert_array_equal(matrix, expected)
    assert features.n_samples_seen_ == 20


def test_partial_fit_needs_a_pretrained_network():
    assert hasattr(GradientFeatureMap(make_head()), "partial_fit")
    assert not hasattr(GradientFeatureMap(trainable()), "partial_fit")


def test_energies_are_the_share_of_the_diagonal(rng):
    # A single unit above the layer: the error factor is a sign, so the factors are uncorrelated.
    head = make_head(widths=(6, 1), output="logistic")
    X = rng.normal(size=(200, 6))
    features = GradientFeatureMap(head, layer=-1, n_components=4).fit(X)
    assert_allclose(features.energies_, (features.transform(X) ** 2).mean(axis=0))
    assert (np.diff(features.energies_) < 0).all()
    assert features.energies_.sum() < 1
    assert_allclose(features.set_params(n_components=6).fit(X).energies_.sum(), 1)


@pytest.mark.parametrize("method", ["spectral", "tensor_sketch"])
def test_batches_dtype_and_pickling(rng, method):
    X = rng.normal(size=(50, 6)).astype(np.float32)
    features = GradientFeatureMap(make_head(), n_components=20, method=method).fit(X)
    Z = features.transform(X)
    assert Z.dtype == np.float32
    assert_array_equal(pickle.loads(pickle.dumps(features)).transform(X), Z)
    assert_allclose(features.set_params(batch_size=7).transform(X), Z, atol=1e-5)
    refitted = clone(features).fit(X).transform(X)
    assert_allclose(abs(refitted.sum(axis=0)), abs(Z.sum(axis=0)), atol=1e-3)


def test_sketch_is_drawn_from_the_seed(rng):
    X = rng.normal(size=(9, 6))
    first, again, other = (
        GradientFeatureMap(
            make_head(), n_components=16, method="tensor_sketch", random_state=seed
        ).fit_transform(X)
        for seed in (3, 3, 4)
    )
    assert_array_equal(first, again)
    assert (first != other).any()


def test_zero_gradients_give_zero_features(rng):
    head = DenseHead([np.eye(4), rng.normal(size=(4, 20))])
    X = abs(rng.normal(size=(10, 4)))
    X[6] *= -1
    features = GradientFeatureMap(head, n_components=5, method="tensor_sketch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features.fit(X[[6, 0, 1]])
    with pytest.warns(UserWarning, match=r"1 of 10 samples .* of zero \(X\[6\]\)"):
        Z = features.transform(X)
    assert (Z[6] == 0).all()
    assert (Z[:6] != 0).any(axis=1).all()


def test_linear_models_come_close_to_the_kernel_machine():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    source = y < 5
    network = MLPClassifier((64, 64), max_iter=60, random_state=0).fit(X[source], y[source])
    frozen = FrozenEstimator(network)
    X, y = X[~source], y[~source]
    exact = make_pipeline(
        GradientFeatureKernel(frozen, target="jacobian"), SVC(kernel="precomputed", C=10)
    )
    score = exact.fit(X[:400], y[:400]).score(X[400:], y[400:])
    features = GradientFeatureMap(frozen, target="jacobian", n_components=256)
    for classifier in (LinearSVC(C=10), SGDClassifier(average=True, random_state=0)):
        pipe = make_pipeline(features, classifier).fit(X[:400], y[:400])
        assert pipe.score(X[400:], y[400:]) > score - 0.05
    grid = {"gradientfeaturemap__n_components": [8, 64], "linearsvc__C": [1, 10]}
    search = GridSearchCV(make_pipeline(features, LinearSVC()), grid, cv=3, error_score="raise")
    assert search.fit(X[:400], y[:400]).best_params_["gradientfeaturemap__n_components"] == 64

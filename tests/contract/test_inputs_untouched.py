"""No method writes to what it was given, whatever inner estimators and functions write to."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfisher import (
    Bags,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GradientFeatureKernel,
    GradientFeatureMap,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
)
from tests.contract.test_all_or_nothing import CASES, network, table

pytestmark = pytest.mark.filterwarnings("ignore")  # of few iterations

N = 12
Y = np.arange(N) % 3


class Writer(TransformerMixin, BaseEstimator):
    """Writes to everything that it is given."""

    def fit(self, X, y=None):
        self.mean_ = X.mean(axis=0)
        X -= 1
        if y is not None:
            y[:] = 0
        return self

    partial_fit = fit

    def transform(self, X):
        X -= self.mean_
        return X


class WritingMixture(GaussianMixture):
    def fit(self, X, y=None):
        super().fit(X)
        X[:] = 0
        return self


class OurWritingMixture(DiagonalGaussianMixture):
    def fit(self, X, y=None):
        super().fit(X)
        X.values[:] = 0
        return self


class WritingNetwork(MLPClassifier):
    def fit(self, X, y):
        super().fit(X, y)
        X[:], y[:] = 0, 0
        return self


def minus_one(logits):
    logits -= 1
    return np.tanh(logits)


def bags(dtype):
    return np.random.default_rng(0).normal(size=(N, 9, 4)).astype(dtype)


def rows(dtype):
    return np.random.default_rng(0).normal(size=(N, 4)).astype(dtype)


TRAINED = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}
HEAD = DenseHead([np.random.default_rng(0).normal(size=s) for s in ((4, 6), (6, 3))])
EM = {"max_iter": 2, "random_state": 0}
INNER = {
    "writer": (DescriptorTransformer(Writer()), bags),
    "writer of a sample": (DescriptorTransformer(Writer(), max_descriptors=50), bags),
    "writer of blocks": (
        DescriptorTransformer(Writer(), incremental=True, max_descriptors=None),
        bags,
    ),
    "writer in threads": (DescriptorTransformer(Writer(), n_jobs=2), bags),
    "without copies": (
        DescriptorTransformer(
            make_pipeline(StandardScaler(copy=False), PCA(2, copy=False, svd_solver="full"))
        ),
        bags,
    ),
    "mixture": (
        FisherVectorEncoder(mixture=WritingMixture(2, covariance_type="diag", **EM)),
        bags,
    ),
    "our mixture": (FisherVectorEncoder(mixture=OurWritingMixture(2, **EM)), bags),
    "joint, mixture": (
        JointFisherSVC(
            mixture=WritingMixture(2, covariance_type="diag", **EM),
            feature_map="identity",
            max_iter=1,
        ),
        bags,
    ),
    "joint, any encoder": (
        JointClassifier(
            FisherVectorEncoder(mixture=WritingMixture(2, covariance_type="diag", **EM)),
            feature_map="identity",
            max_iter=1,
        ),
        bags,
    ),
    "joint regression": (
        JointRegressor(
            FisherVectorEncoder(mixture=WritingMixture(2, covariance_type="diag", **EM)),
            feature_map="identity",
            max_iter=1,
        ),
        bags,
    ),
    "joint, our mixture": (JointFisherSVC(mixture=OurWritingMixture(2, **EM), max_iter=1), bags),
    "kernel": (GradientFeatureKernel(WritingNetwork(**TRAINED)), rows),
    "map": (GradientFeatureMap(WritingNetwork(**TRAINED), n_components=3), rows),
    "target": (GradientFeatureKernel(HEAD, target=minus_one), rows),
}


def in_one_array(x):
    return x


def in_a_list(x):
    return list(x)


def in_bags(x):
    return Bags.from_lengths(x.reshape(-1, x.shape[-1]), [x.shape[1]] * len(x))


def on_a_map(x, tmp_path):
    path = tmp_path / "x"
    np.memmap(path, x.dtype, "w+", shape=x.shape)[:] = x
    return np.memmap(path, x.dtype, "r+", shape=x.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [in_one_array, in_a_list, in_bags])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_whatever_inner_estimators_write_to(name, form, mapped, dtype, tmp_path):
    estimator, samples = INNER[name]
    if samples is rows and form is in_bags:
        pytest.skip("it takes tables")
    x, y = samples(dtype), Y.copy()
    if mapped:
        x = on_a_map(x, tmp_path)
    before = x.copy()
    X = form(x)
    fitted = estimator.fit(X, y)
    once, again = (getattr(fitted.transform(X), "values", None) for _ in range(2))
    if hasattr(fitted, "partial_fit"):
        options = {"classes": [0, 1, 2]} if hasattr(fitted, "classes_") else {}
        fitted.partial_fit(X, y, **options)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(once, again)


def test_writers_see_what_others_would():
    x = bags(float)
    plain = DescriptorTransformer(StandardScaler(with_std=False)).fit_transform(x)
    written = DescriptorTransformer(Writer()).fit_transform(x)
    np.testing.assert_array_equal(written.values, plain.values)
    kernel = GradientFeatureKernel(HEAD, target=minus_one).fit_transform(rows(float))
    other = GradientFeatureKernel(HEAD, target=lambda z: np.tanh(z - 1)).fit_transform(rows(float))
    np.testing.assert_array_equal(kernel, other)


@pytest.mark.parametrize("name", CASES)
def test_samples_may_be_read_only(name):
    make, samples, ask, learn = CASES[name]
    X = np.array(samples(3))
    before = X.copy()
    X.setflags(write=False)
    estimator = learn(make(network(table(3))), X)
    ask(estimator, X)
    np.testing.assert_array_equal(X, before)

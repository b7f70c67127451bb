"""What joint training starts from: the frozen model."""

import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from skfisher import (
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    JointFisherSVC,
    PowerL2Normalizer,
)
from tests.joint.common import (
    SMALL,
    assert_equal_models,
    state_of,
)


def test_the_baseline_is_the_frozen_pipeline_built_by_hand(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, power_eps=None).fit(X, y)
    by_hand = make_pipeline(
        DescriptorTransformer(
            make_pipeline(
                PCA(whiten=True), FunctionTransformer(lambda z: np.clip(0.25 * z, -0.999, 0.999))
            )
        ),
        FisherVectorEncoder(
            mixture=DiagonalGaussianMixture(
                2, max_iter=2, variance_floor=1e-2, random_state=model._seeds["mixture"]
            )
        ),
        PowerL2Normalizer(),
        LinearSVC(dual=True, max_iter=10_000, random_state=model._seeds["svm"]),
    )
    with warnings.catch_warnings():  # EM stops early on purpose
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = by_hand.fit(X, y).decision_function(X)
    # PCA divides by n - 1, and the mixture's components may change places
    np.testing.assert_allclose(model.baseline_.decision_function(X), expected, atol=2e-2)
    assert model.baseline_.n_iter_ == 0
    assert model.baseline_.score(X, y) == by_hand.score(X, y)


def test_no_epochs_leave_the_frozen_model(problem):
    X, y = problem
    model = JointFisherSVC(**{**SMALL, "max_iter": 0}).fit(X, y)
    assert (model.n_iter_, model.best_iter_, model.history_) == (0, 0, {})
    assert_equal_models(model, model.baseline_)
    assert_equal_models(model, JointFisherSVC(**SMALL).fit(X, y).baseline_)


@pytest.mark.parametrize("changes", [{"learning_rate": 0}, {"train": "classifier"}])
def test_where_features_stay_the_last_svm_is_the_first(changes, problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, **changes).fit(X, y)
    assert model.n_iter_ == 3
    for name, values in state_of(model.baseline_).items():
        np.testing.assert_allclose(state_of(model)[name], values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.decision_function(X), model.baseline_.decision_function(X))


def test_only_what_is_named_is_trained(problem):
    X, y = problem
    for train, moved in [("features", "map_weight_"), (["mixture"], "means_")]:
        model = JointFisherSVC(**SMALL, train=train).fit(X, y)
        for name in ("map_weight_", "means_"):
            same = np.allclose(getattr(model, name), getattr(model.baseline_, name), atol=1e-6)
            assert same == (name != moved)
        np.testing.assert_array_equal(model.network_coef_, model.baseline_.coef_)


def test_an_inverted_map_starts_at_the_same_features(problem):
    X, y = problem
    options = {**SMALL, "max_iter": 0}
    plain = JointFisherSVC(**options).fit(X, y)
    xavier = JointFisherSVC(**options, map_init="xavier").fit(X, y)
    assert np.abs(xavier.map_weight_ - np.eye(4)).max() > 0.1
    np.testing.assert_allclose(xavier.means_, plain.means_, atol=1e-6)
    np.testing.assert_allclose(
        xavier.decision_function(X), plain.decision_function(X), rtol=1e-3, atol=1e-3
    )
    random = JointFisherSVC(**options, map_init="random").fit(X, y)
    assert np.abs(random.decision_function(X) - plain.decision_function(X)).max() > 0.05


@pytest.mark.parametrize("feature_map", ["tanh", "linear", "identity"])
def test_a_reduced_map_starts_at_principal_components(feature_map, problem):
    X, y = problem
    options = {**SMALL, "feature_map": feature_map}
    model = JointFisherSVC(**options, n_features_out=2).fit(X, y)
    pca = PCA(2, whiten=True).fit(X.values)
    axes = model.baseline_.axes_
    if model.baseline_.map_weight_ is not None:
        axes = axes @ model.baseline_.map_weight_.T
    expected = 0.25 * pca.components_.T / np.sqrt(pca.explained_variance_)
    np.testing.assert_allclose(np.abs(axes), np.abs(expected), rtol=1e-2)
    assert model.means_.shape == (2, 2)
    assert model.transform(X).shape == (36, 10)


def test_without_whitening_distances_keep_their_ratios(problem):
    X, y = problem
    axes = JointFisherSVC(**SMALL, whiten=False).fit(X, y).axes_
    np.testing.assert_allclose(axes.T @ axes, (axes**2).sum() / 4 * np.eye(4), atol=1e-12)
    z = (X.values - X.values.mean(axis=0)) @ axes
    assert z.var(axis=0).mean() == pytest.approx(0.25**2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiagonalGaussianMixture(3, init_params="k-means++", random_state=1),
        lambda: GaussianMixture(3, covariance_type="diag", random_state=1),
    ],
)
def test_a_mixture_may_be_given(make, problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, mixture=make()).fit(X, y)
    assert model.means_.shape == (3, 4)
    rng = np.random.default_rng(0)
    fitted = make().fit(rng.normal(scale=0.25, size=(500, 4)))
    start = JointFisherSVC(**{**SMALL, "max_iter": 0}, mixture=fitted).fit(X, y)
    np.testing.assert_allclose(start.means_, fitted.means_)


def test_without_a_map_its_start_does_not_matter(problem):
    X, y = problem
    options = {**SMALL, "feature_map": "identity", "n_features_out": 2}
    assert_equal_models(
        JointFisherSVC(**options, map_init="xavier").fit(X, y), JointFisherSVC(**options).fit(X, y)
    )


def test_the_baseline_has_the_output_that_was_asked_for(problem):
    pandas = pytest.importorskip("pandas")
    X, y = problem
    model = JointFisherSVC(**SMALL).set_output(transform="pandas").fit(X, y)
    frozen = model.baseline_
    assert isinstance(frozen.transform(X), pandas.DataFrame)
    frozen.set_output(transform="default")
    assert isinstance(model.transform(X), pandas.DataFrame)
    assert isinstance(frozen.transform(X), np.ndarray)


def test_the_baseline_shares_nothing_that_can_be_changed(problem):
    X, y = problem
    mixture = DiagonalGaussianMixture(2, random_state=0)
    weights = {"a": 1.0, "b": 2.0, "c": 1.0}
    model = JointFisherSVC(**SMALL, mixture=mixture, class_weight=weights)
    baseline = model.fit(X, y).baseline_
    mixture.set_params(n_components=7)
    weights["a"] = 5.0
    assert baseline.mixture.n_components == 2
    assert baseline.class_weight["a"] == 1.0
    # fitted, it is where training starts, and stays so for the baseline
    given = DiagonalGaussianMixture(2, random_state=0).fit(0.25 * X.values)
    frozen = JointFisherSVC(**SMALL, mixture=given).fit(X, y).baseline_
    assert frozen.mixture is not given
    np.testing.assert_array_equal(frozen.fit(X, y).means_, given.means_)


def test_a_mixture_of_the_wrong_width_is_refused(problem):
    X, y = problem
    mixture = DiagonalGaussianMixture(2).fit(np.random.default_rng(0).normal(size=(50, 3)))
    with pytest.raises(ValueError, match="fitted on 3 features, but the mapped descriptors have 4"):
        JointFisherSVC(**SMALL, mixture=mixture).fit(X, y)
    JointFisherSVC(**SMALL, mixture=mixture, n_features_out=3).fit(X, y)

"""JointClassifier: any encoder that pools by sums, and what is new beside JointFisherSVC."""

import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    JointClassifier,
    JointFisherSVC,
    PowerL2Normalizer,
    VLADEncoder,
)
from skfisher.datasets import load_digits_patches

ENCODER = FisherVectorEncoder(2, max_iter=2, variance_floor=1e-2)
SMALL = {"max_iter": 3, "batch_size": 8, "random_state": 0}
FLAT = {**SMALL, "n_components": 2}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    y = np.arange(36) % 3
    arrays = [
        rng.normal(scale=1 + (c == 1), size=(9 + i % 4, 4)) + (c == 2) for i, c in enumerate(y)
    ]
    return Bags.from_list(arrays), np.array(["a", "b", "c"])[y]


def test_without_centring_it_is_the_flat_form(problem):
    X, y = problem
    flat = JointFisherSVC(**FLAT).fit(X, y)
    model = JointClassifier(ENCODER, center=False, **SMALL).fit(X, y)
    for name in ("coef_", "means_", "weights_", "variances_", "map_weight_", "network_coef_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(flat, name))
    np.testing.assert_array_equal(model.decision_function(X), flat.decision_function(X))


def test_centred_encodings_have_mean_zero_and_length_one_before_training(problem):
    X, y = problem
    model = JointClassifier(ENCODER, **SMALL).fit(X, y)
    frozen = model.baseline_.transform(X)
    np.testing.assert_allclose(frozen.mean(axis=0), 0, atol=1e-12)
    assert np.linalg.norm(frozen, axis=1).mean() == pytest.approx(1)
    plain = JointClassifier(ENCODER, center=False, **SMALL).fit(X, y).baseline_.transform(X)
    plain = plain - plain.mean(axis=0)
    np.testing.assert_allclose(frozen, plain / np.linalg.norm(plain, axis=1).mean(), atol=1e-12)


@pytest.mark.parametrize("center", [True, False])
def test_it_learns_on_unseen_digits(center):
    digits = load_digits_patches(patch_size=3)
    train, test = slice(300), slice(300, 900)
    encoder, gains = FisherVectorEncoder(2, max_iter=2), []
    for seed in range(3):
        model = JointClassifier(encoder, center=center, max_iter=15, random_state=seed)
        model.fit(digits.data[train], digits.target[train])
        joint, frozen = (
            m.score(digits.data[test], digits.target[test]) for m in (model, model.baseline_)
        )
        gains.append(joint - frozen)
    assert np.mean(gains) > 0.01


def test_parameters_of_the_encoder_are_searched_and_cloned(problem):
    model = JointClassifier(ENCODER, **SMALL)
    assert clone(model).get_params()["encoder__n_components"] == 2
    model.set_params(encoder=clone(ENCODER), encoder__n_components=3).fit(*problem)
    assert model.means_.shape == (3, 4)
    assert not hasattr(model.encoder, "mixture_")


def test_what_was_fitted_does_not_follow_later_changes_of_the_encoder(problem):
    X, y = problem
    model = JointClassifier(clone(ENCODER), **SMALL, warm_start=True).fit(X, y)
    expected = model.decision_function(X)
    model.encoder.set_params(include_weights=False)
    np.testing.assert_array_equal(model.decision_function(X), expected)
    with pytest.raises(ValueError, match="with encoder__include_weights=True, but now it is False"):
        model.fit(X, y)
    model.encoder.set_params(include_weights=True, n_jobs=2, random_state=7)
    model.fit(X, y)
    model.encoder.set_params(mixture=DiagonalGaussianMixture(2))
    with pytest.raises(ValueError, match="with encoder__mixture=None, but now it is 'Diagonal"):
        model.fit(X, y)


def test_another_fit_looks_at_another_encoder(problem):
    X, y = problem
    model = JointClassifier(ENCODER, **SMALL).fit(X, y)
    model.set_params(encoder=VLADEncoder(2), train="codebook").fit(X, y)
    assert model.cluster_centers_.shape == (2, 4)
    with pytest.raises(ValueError, match=r"needs at least 500 .*in n_samples=36 bags"):
        model.set_params(encoder=FisherVectorEncoder(500), train=None).fit(X, y)
    assert model.predict(X).shape == y.shape  # by the encoder of before


class Half(BaseEstimator):
    """An encoder whose layer is none."""

    def fit(self, X, y=None):
        raise AssertionError("no work is to be done")

    def pooling(self):
        class Layer:
            groups = {}

            def sums(self):
                pass

        return Layer()


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (PowerL2Normalizer(), r"encoder=PowerL2Normalizer\(\) cannot .* has no method pooling"),
        (Half(), r"encoder=Half\(\) cannot.*Layer, lacks .*prepare.*read, read_vjp.*sums_vjp"),
    ],
)
def test_encoders_that_cannot_be_trained_are_refused_with_what_they_lack(encoder, message, problem):
    with pytest.raises(TypeError, match=message):
        JointClassifier(encoder).fit(*problem)


def test_a_mixture_of_another_width_is_refused(problem):
    X, y = problem
    mixture = DiagonalGaussianMixture(2, max_iter=2).fit(X)
    encoder = FisherVectorEncoder(mixture=mixture)
    JointClassifier(encoder, **SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"fitted on 4 features, but the mapped .* have 3"):
        JointClassifier(encoder, n_features_out=3, **SMALL).fit(X, y)


@pytest.mark.parametrize("wrap", [lambda fitted: fitted, FrozenEstimator])
def test_training_starts_from_what_was_fitted_before(wrap, problem):
    X, y = problem
    values = np.random.default_rng(1).normal(size=(60, 4))
    mixture = wrap(DiagonalGaussianMixture(2, random_state=1).fit(values))
    kmeans = wrap(KMeans(2, n_init=1, random_state=1).fit(values))
    untrained = SMALL | {"max_iter": 0}
    models = [
        JointClassifier(FisherVectorEncoder(mixture=mixture), **untrained),
        JointFisherSVC(mixture=mixture, **untrained),
        JointClassifier(VLADEncoder(codebook=kmeans), **untrained),
    ]
    if wrap is FrozenEstimator:  # which clones keep, as pipelines and searches make them
        models = [clone(model) for model in models]
    for model in models[:2]:
        np.testing.assert_allclose(model.fit(X, y).means_, mixture.means_, rtol=1e-12)
    found = models[2].fit(X, y).cluster_centers_
    np.testing.assert_allclose(found, kmeans.cluster_centers_, rtol=1e-12)


@pytest.mark.parametrize(
    "encoder",
    [
        FisherVectorEncoder(mixture=DiagonalGaussianMixture(2)),
        BagOfWordsEncoder(assignment="soft", codebook=KMeans(2)),
    ],
)
def test_what_is_to_be_fitted_says_how_many_descriptors_it_needs(encoder):
    # `n_components` of the encoder is 64, and not used
    X, y = np.random.default_rng(0).normal(size=(6, 3, 4)), np.arange(6) % 2
    for model in (encoder, JointClassifier(encoder, **SMALL)):
        clone(model).fit(X, y)
    with pytest.raises(ValueError, match="needs at least 2 descriptors"):
        clone(JointClassifier(encoder, **SMALL)).fit(X[:1, :1], y[:1])


@pytest.mark.parametrize(
    ("encoder", "parameter"),
    [
        (FisherVectorEncoder(mixture=DiagonalGaussianMixture("2")), "n_components"),
        (FisherVectorEncoder(mixture=GaussianMixture("2", covariance_type="diag")), "n_components"),
        (VLADEncoder(codebook=KMeans("2")), "n_clusters"),
    ],
)
def test_what_is_to_be_fitted_names_its_own_parameters(encoder, parameter, problem):
    X, y = problem
    for model in (encoder, JointClassifier(encoder, **SMALL)):
        with pytest.raises(ValueError, match=f"The '{parameter}' parameter of .* must be an int"):
            model.fit(X, y)


def test_groups_that_are_not_trained_stay(problem):
    model = JointClassifier(ENCODER, train=("classifier",), **SMALL).fit(*problem)
    np.testing.assert_array_equal(model.means_, model.baseline_.means_)
    np.testing.assert_array_equal(model.map_weight_, model.baseline_.map_weight_)
    assert not np.array_equal(model.network_coef_, model.baseline_.coef_)


@pytest.mark.parametrize("estimator", [JointClassifier(ENCODER, **SMALL), JointFisherSVC(**FLAT)])
class TestSampleWeight:
    def test_ones_change_nothing(self, estimator, problem):
        X, y = problem
        plain = clone(estimator).fit(X, y)
        ones = clone(estimator).fit(X, y, sample_weight=np.ones(36))
        np.testing.assert_array_equal(plain.decision_function(X), ones.decision_function(X))

    def test_a_bag_of_weight_zero_is_not_there(self, estimator, problem):
        X, y = problem
        weights = np.ones(36)
        weights[::4] = 0
        kept = np.flatnonzero(weights)
        some = clone(estimator).fit(X[kept], y[kept])
        weighted = clone(estimator).fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(some.decision_function(X), weighted.decision_function(X))

    def test_a_whole_weight_is_as_many_bags(self, estimator, problem):
        X, y = problem
        weights = np.arange(36) % 4
        # Adam would make steps of one size of gradients next to 0
        estimator = clone(estimator).set_params(batch_size=1000, solver="sgd", learning_rate=1e-3)
        weighted = clone(estimator).fit(X, y, sample_weight=weights)
        index = np.repeat(np.arange(36), weights)
        repeated = clone(estimator).fit(X[index], y[index])
        # the same start; then steps from classifiers that are fitted to a gap of 1e-5
        np.testing.assert_allclose(
            weighted.baseline_.transform(X), repeated.baseline_.transform(X), atol=1e-12
        )
        np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), atol=5e-3)
        np.testing.assert_allclose(
            weighted.decision_function(X), repeated.decision_function(X), atol=2e-2
        )

    def test_heavy_bags_are_learnt_first(self, estimator, problem):
        X, y = problem
        noisy = y.copy()
        noisy[:12] = np.roll(y[:12], 1)  # wrong labels
        for heavy in (slice(12), slice(12, 36)):
            weights = np.full(36, 0.01)
            weights[heavy] = 1
            model = clone(estimator).set_params(max_iter=15, C=10)
            model.fit(X, noisy, sample_weight=weights)
            if heavy == slice(12):
                of_wrong = (model.predict(X)[:12] == noisy[:12]).mean()
            else:
                of_right = (model.predict(X)[:12] == noisy[:12]).mean()
        assert of_wrong > of_right

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (np.ones(35), r"\(35,\).*\(36,\)"),
            (-np.ones(36), "[Nn]egative"),
            (np.full(36, np.nan), "NaN"),
            (np.zeros(36), "non-zero|for every bag"),
        ],
    )
    def test_weights_that_cannot_be(self, estimator, weights, message, problem):
        with pytest.raises(ValueError, match=message):
            clone(estimator).fit(*problem, sample_weight=weights)

    def test_parts_of_the_bags_have_weights_too(self, estimator, problem):
        X, y = problem
        results = [
            clone(estimator)
            .partial_fit(X, y, classes=["a", "b", "c"], sample_weight=np.full(36, w))
            .coef_
            for w in (1, 5)
        ]
        assert not np.array_equal(*results)


@pytest.mark.parametrize("estimator", [JointClassifier(ENCODER, **SMALL), JointFisherSVC(**FLAT)])
class TestProbabilities:
    @pytest.mark.parametrize("options", [{}, {"multi_class": "ovr"}])
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_they_sum_to_one_and_agree_with_predictions(
        self, estimator, options, n_classes, problem
    ):
        X, y = problem
        kept = np.flatnonzero(np.isin(y, ["a", "b", "c"][:n_classes]))
        X, y = X[kept], y[kept]
        model = clone(estimator).set_params(loss="log_loss", max_iter=8, C=100, **options)
        p = model.fit(X, y).predict_proba(X)
        assert p.shape == (len(y), n_classes)
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_array_equal(model.classes_[p.argmax(axis=1)], model.predict(X))
        assert log_loss(y, p) < np.log(n_classes)

    def test_each_label_has_its_own(self, estimator, problem):
        X, y = problem
        Y = np.stack([y == "a", y != "c"], axis=1).astype(int)
        model = clone(estimator).set_params(loss="log_loss", C=100).fit(X, Y)
        p = model.predict_proba(X)
        np.testing.assert_array_equal((p > 0.5).astype(int), model.predict(X))

    def test_other_losses_have_none_and_say_what_to_do(self, estimator, problem):
        model = clone(estimator).fit(*problem)
        assert not hasattr(model, "predict_proba")
        with pytest.raises(AttributeError, match="predict_proba"):
            model.predict_proba(problem[0])


def test_centring_alone_does_not_make_warnings(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        JointClassifier(ENCODER, **SMALL).fit(*problem)


def test_a_class_in_place_of_an_encoder_is_named(problem):
    with pytest.raises(TypeError, match="encoder is the class VLADEncoder: pass an instance of it"):
        JointClassifier(VLADEncoder, **SMALL).fit(*problem)

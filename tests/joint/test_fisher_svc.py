"""Joint training: what it starts from, what it reaches, and what stops it."""

import pickle
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    ImagePatches,
    JointFisherSVC,
    PowerL2Normalizer,
)
from skfisher.joint import descent
from skfisher.training import verdict
from skfisher.training.epochs import Diverged, run_epoch

LINE_SEARCH = {"solver": "line_search", "train": "mixture"}
SMALL = {"n_components": 2, "max_iter": 3, "batch_size": 8, "random_state": 0}


@pytest.fixture(scope="module")
def problem():
    """Bags of three classes that differ in the spread of single features."""
    rng = np.random.default_rng(0)
    y = np.arange(36) % 3
    scale = np.ones((3, 4))
    scale[1, 0] = scale[2, 1] = 1.6
    bags = [rng.normal(scale=scale[c], size=(rng.integers(8, 25), 4)) for c in y]
    return Bags.from_list(bags), np.array(["a", "b", "c"])[y]


def state_of(model):
    """Return the fitted arrays of a model, by name."""
    names = ("weights_", "means_", "variances_", "coef_", "intercept_", "map_weight_", "map_bias_")
    return {name: getattr(model, name) for name in names if getattr(model, name) is not None}


def assert_equal_models(one, other):
    for name, values in state_of(one).items():
        np.testing.assert_array_equal(values, state_of(other)[name], err_msg=name)


def digits(dtype=np.float32):
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    images = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)])
    return ImagePatches(3).fit_transform(images.astype(dtype)), y


# What it starts from.


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


# What it reaches.


def test_joint_training_beats_the_frozen_model_on_unseen_digits():
    X, y = digits()
    gains = []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[:500], order[500:]
        model = JointFisherSVC(n_components=2, max_iter=40, random_state=seed)
        model.fit(X[train], y[train])
        gains.append(model.score(X[test], y[test]) - model.baseline_.score(X[test], y[test]))
    assert min(gains) > 0
    assert np.mean(gains) >= 0.02


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge", "quadratic", "log_loss", "dual"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "natural"])
def test_every_solver_lowers_every_loss(loss, solver, problem):
    X, y = problem
    rate = {"adam": 1e-2, "sgd": 1e-2, "natural": {"mixture": 1e-2, "features": 0.1}}[solver]
    options = {**SMALL, "max_iter": 15, "learning_rate": rate, "batch_size": 36}
    model = JointFisherSVC(**options, loss=loss, solver=solver).fit(X, y, X_val=X, y_val=y)
    losses = model.history_["validation_loss"]
    assert losses[-1] < losses[0]


def test_the_linear_signal_raises_margins_under_a_fixed_classifier(problem):
    X, y = problem
    options = {**SMALL, "max_iter": 1, "batch_size": 36, "loss": "linear"}
    model = JointFisherSVC(**options).fit(X, y)
    signs = np.where(y[:, None] == model.classes_, 1, -1)
    frozen, trained = (
        m.transform(X) @ model.network_coef_.T + model.network_intercept_
        for m in (model.baseline_, model)
    )
    # the same SVM by another solver
    np.testing.assert_allclose(model.network_coef_, model.baseline_.coef_, rtol=0, atol=0.1)
    assert (signs * trained).sum() > (signs * frozen).sum()


def test_a_model_for_each_class(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, multi_class="ovr").fit(X, y)
    assert model.means_.shape == (3, 2, 4)
    assert model.map_weight_.shape == (3, 4, 4)
    assert model.coef_.shape == (3, 18)
    assert model.transform(X).shape == (36, 54)
    assert model.get_feature_names_out()[[0, 53]].tolist() == [
        "class0_weight_k0",
        "class2_variance_k1_d3",
    ]
    # each is what a model of that class against the rest becomes
    alone = JointFisherSVC(**SMALL).fit(X, y == "b")
    np.testing.assert_allclose(model.means_[1], alone.means_)
    np.testing.assert_allclose(model.decision_function(X)[:, 1], alone.decision_function(X))


@pytest.mark.parametrize("multi_class", ["shared", "ovr"])
def test_several_labels_a_bag(multi_class, problem):
    X, y = problem
    labels = np.column_stack([y == "a", y != "b", np.zeros(36)]).astype(int)
    options = {**SMALL, "max_iter": 20, "multi_class": multi_class}
    model = JointFisherSVC(**options).fit(X, labels, X_val=X, y_val=labels)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict(X).shape == (36, 3)
    decision = model.decision_function(X)
    np.testing.assert_array_equal(model.predict(X), decision > 0)
    assert (decision[:, 2] < 0).all()  # a label that no bag has
    frozen = model.baseline_.decision_function(X)
    before, after = (average_precision_score(labels[:, :2], d[:, :2]) for d in (frozen, decision))
    assert after > before
    assert 0 <= model.history_["validation_score"][-1] <= 1


def test_binary_decisions_have_one_column(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, np.where(y == "a", "yes", "no"))
    decision = model.decision_function(X)
    assert decision.shape == (36,)
    assert model.coef_.shape == (1, 18)
    np.testing.assert_array_equal(model.predict(X), np.where(decision > 0, "yes", "no"))


def test_weights_of_classes_move_decisions(problem):
    X, y = problem
    towards = [
        JointFisherSVC(**SMALL, class_weight=w).fit(X, y).decision_function(X)[:, 0].mean()
        for w in ({"a": 0.1}, None, {"a": 10.0})
    ]
    assert towards[0] < towards[1] < towards[2]
    few = np.where(np.arange(36) < 4, "few", "many")
    balanced = JointFisherSVC(**SMALL, class_weight="balanced").fit(X, few)
    plain = JointFisherSVC(**SMALL).fit(X, few)
    assert (balanced.predict(X) == "few").sum() > (plain.predict(X) == "few").sum()


def test_history_tells_every_epoch(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    assert set(model.history_) == {
        "loss",
        "gradient_norm",
        "smallest_weight",
        "smallest_variance",
        "seconds",
    }
    assert {len(values) for values in model.history_.values()} == {3}
    assert model.n_iter_ == model.best_iter_ == 3
    assert model.history_["smallest_weight"][-1] == pytest.approx(2 * model.weights_.min())
    assert model.history_["loss"][-1] < model.history_["loss"][0]


def test_history_has_an_entry_an_epoch_whatever_was_measured(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, warm_start=True).fit(X, y)
    model.fit(X, y, X_val=X[:9], y_val=y[:9]).fit(X, y).partial_fit(X, y)
    assert {len(values) for values in model.history_.values()} == {model.n_iter_} == {10}
    for name in ("validation_loss", "validation_score"):
        known = np.isfinite(model.history_[name])
        np.testing.assert_array_equal(known, [0, 0, 0, 1, 1, 1, 0, 0, 0, 0])
    assert np.isfinite(model.history_["loss"]).all()


def test_verbose_prints_a_line_an_epoch(problem, capsys):
    JointFisherSVC(**SMALL, verbose=1).fit(*problem)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("JointFisherSVC: epoch 1 of 3: loss ")


# The papers' own systems.


def test_the_system_of_wieschollek_et_al(problem):
    X, y = problem
    model = JointFisherSVC.wieschollek(2, max_iter=2, random_state=0)
    assert (model.loss, model.solver, model.learning_rate) == ("linear", "sgd", 1e-4)
    model.fit(X, y)
    assert model.means_.shape == (3, 2, 4)
    assert 0 < np.abs(model.map_weight_ - model.baseline_.map_weight_).max() < 0.1


def test_the_system_of_sydorov_et_al_goes_downhill(problem):
    X, y = problem
    model = JointFisherSVC.sydorov(2, max_iter=5, random_state=0).fit(X, y)
    assert model.map_weight_ is None
    assert model.history_["loss"] == sorted(model.history_["loss"], reverse=True)
    assert model.weights_.sum() == pytest.approx(1)
    # whatever the steps, it ends where an SVM fits the bags it has better than at the start
    assert np.abs(model.means_ - model.baseline_.means_).max() > 1e-3


# The same again.


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(problem, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.threads.ROWS_PER_TASK", 64)
    X, y = problem
    one, two = (JointFisherSVC(**SMALL, n_jobs=n_jobs).fit(X, y) for n_jobs in (None, 2))
    assert_equal_models(one, two)
    np.testing.assert_array_equal(one.transform(X), two.transform(X))
    other = JointFisherSVC(**{**SMALL, "random_state": 1}).fit(X, y)
    assert np.abs(other.means_ - one.means_).max() > 1e-6


def test_memory_maps_of_integers_train_as_arrays_do(problem, tmp_path):
    X, y = problem
    values = (40 * X.values + 128).clip(0, 255).astype(np.uint8)
    X = Bags(values, X.starts, X.stops)
    X.save(tmp_path)
    at_once = JointFisherSVC(**SMALL, max_descriptors=10).fit(X, y)
    with config_context(working_memory=0):
        by_and_by = JointFisherSVC(**SMALL, max_descriptors=10).fit(Bags.load(tmp_path), y)
    assert by_and_by.transform(X).dtype == np.float32
    for name, values in state_of(by_and_by).items():
        # float32 products of other shapes, amplified by some steps of Adam
        np.testing.assert_allclose(values, state_of(at_once)[name], rtol=2e-2, atol=2e-3)


def test_memory_does_not_grow_with_the_descriptors(tmp_path):
    # 23 MiB of bytes, which would be 92 MiB as float32 numbers
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, size=(24 * 60_000, 16), dtype=np.uint8)
    Bags.from_lengths(values, np.full(24, 60_000)).save(tmp_path)
    del values
    X, y = Bags.load(tmp_path), np.arange(24) % 2
    model = JointFisherSVC(4, max_iter=1, batch_size=24, feature_map="linear", random_state=0)
    with config_context(working_memory=16):
        tracemalloc.start()
        model.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 40 * 2**20


def test_memory_does_not_grow_with_the_descriptors_to_validate_with(problem, monkeypatch):
    X, y = problem
    whitened = []
    original = JointFisherSVC._whitened
    monkeypatch.setattr(
        JointFisherSVC, "_whitened", lambda *args: whitened.append(args) or original(*args)
    )
    large = X[np.tile(np.arange(36), 5)]
    n_bytes = 8 * 4 * (X.n_descriptors + large.n_descriptors)
    models = {}
    for n_mib in (4 * n_bytes / 2**20 - 0.01, 4 * n_bytes / 2**20 + 0.01):
        with config_context(working_memory=n_mib):
            options = {**SMALL, "early_stopping": True}
            model = JointFisherSVC(**options).fit(X, y, X_val=large, y_val=np.tile(y, 5))
            models[len(whitened)] = model
    assert set(models) == {0, 2}
    np.testing.assert_allclose(models[0].coef_, models[2].coef_, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_kept(dtype, problem):
    X, y = problem
    X = Bags(X.values.astype(dtype), X.starts, X.stops)
    model = JointFisherSVC(**SMALL).fit(X, y)
    assert model.transform(X).dtype == dtype
    assert model.decision_function(X).dtype == dtype
    assert {values.dtype for values in state_of(model).values()} == {np.dtype(np.float64)}


def test_float32_learns_what_float64_learns():
    X, y = digits(np.float64)
    X, y = X[:200], y[:200]
    narrow = Bags(X.values.astype(np.float32), X.starts, X.stops)
    # One step: the slopes of the power near 0 make paths part slowly in any arithmetic.
    options = {"n_components": 2, "max_iter": 1, "batch_size": 200, "solver": "sgd"}
    options |= {"learning_rate": 0.1, "random_state": 0}
    wide, model = JointFisherSVC(**options).fit(X, y), JointFisherSVC(**options).fit(narrow, y)
    assert np.abs(wide.means_ - wide.baseline_.means_).max() > 0.01
    np.testing.assert_allclose(model.means_, wide.means_, atol=5e-4)
    np.testing.assert_allclose(model.map_weight_, wide.map_weight_, atol=5e-4)
    assert model.history_["loss"][0] == pytest.approx(wide.history_["loss"][0], rel=1e-4)


@pytest.mark.parametrize("store", ["pickle", "joblib"])
def test_models_persist(store, problem, tmp_path):
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    if store == "pickle":
        back = pickle.loads(pickle.dumps(model))
    else:
        joblib.dump(model, tmp_path / "model")
        back = joblib.load(tmp_path / "model")
    np.testing.assert_array_equal(back.decision_function(X), model.decision_function(X))
    assert back.baseline_.score(X, y) == model.baseline_.score(X, y)


def test_models_persist_by_skops(problem):
    skops = pytest.importorskip("skops.io")
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    data = skops.dumps(model)
    trusted = skops.get_untrusted_types(data=data)
    assert trusted == ["skfisher.joint.fisher_svc.JointFisherSVC"]
    back = skops.loads(data, trusted=trusted)
    np.testing.assert_array_equal(back.decision_function(X), model.decision_function(X))


def test_searches_and_pandas_output(problem):
    X, y = problem
    search = GridSearchCV(JointFisherSVC(**SMALL), {"n_components": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["n_components"] in (1, 2)
    assert cross_val_score(JointFisherSVC(**SMALL), X.to_list(), y, cv=2).shape == (2,)
    frame = JointFisherSVC(**SMALL).set_output(transform="pandas").fit(X, y).transform(X)
    assert frame.columns[0] == "weight_k0"
    assert frame.shape == (36, 18)


# What stops it, and how it goes on.


def stop_after(n, error=KeyboardInterrupt):
    """Return a stand-in for `run_epoch` that fails in epoch `n`, counted from 0."""

    def run(chain, recipe, model, problem, epoch):
        if epoch == n:
            raise error
        return run_epoch(chain, recipe, model, problem, epoch)

    return run


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"early_stopping": True},
        {"multi_class": "ovr"},
        {"loss": "dual", "solver": "sgd"},
        {"solver": "line_search", "train": "mixture"},
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(options, problem, monkeypatch):
    X, y = problem
    options = {**SMALL, "max_iter": 5, **options}
    whole = JointFisherSVC(**options).fit(X, y)
    model = JointFisherSVC(**options, warm_start=True)
    with monkeypatch.context() as patch:
        patch.setattr(descent, "run_epoch", stop_after(3))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    assert model.n_iter_ == len(model.history_["loss"]) == 3
    assert model.predict(X).shape == (36,)
    np.testing.assert_array_equal(model.coef_, model.network_coef_)
    model.fit(X, y)
    assert model.n_iter_ == whole.n_iter_
    assert_equal_models(model, whole)


@pytest.mark.parametrize("stop", ["the last epoch", "early stopping", "a callback"])
def test_interrupted_before_the_last_svm_only_that_is_fitted(stop, problem, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    class Context:
        def subcontext(self, task_name):
            return self

        def call_on_fit_task_begin(self, **kwargs):
            pass

        def call_on_fit_task_end(self, *, estimator, **kwargs):
            return stop == "a callback" and estimator.n_iter_ == 2

    X, y = problem
    monkeypatch.setattr(JointFisherSVC, "_init_callback_context", lambda *_, **__: Context())
    options = {**SMALL, "max_iter": 5, "warm_start": True}
    if stop == "early stopping":
        options |= {"early_stopping": True, "n_iter_no_change": 1, "learning_rate": 3.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = JointFisherSVC(**options).fit(X, y)
        model = JointFisherSVC(**options)
        with monkeypatch.context() as patch:
            patch.setattr(JointFisherSVC, "_refit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                model.fit(X, y)
        assert model.predict(X).shape == (36,)
        model.fit(X, y)
        assert model.n_iter_ == whole.n_iter_
        assert_equal_models(model, whole)
        model.fit(X, y)  # nothing is left to resume
    assert model.n_iter_ > whole.n_iter_


def test_an_interrupt_in_the_first_epoch_leaves_the_frozen_model(problem, monkeypatch):
    X, y = problem
    model = JointFisherSVC(**SMALL, warm_start=True)
    with monkeypatch.context() as patch:
        patch.setattr(descent, "run_epoch", stop_after(0))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    assert model.n_iter_ == 0
    assert_equal_models(model, model.baseline_)
    assert_equal_models(model.fit(X, y), JointFisherSVC(**SMALL).fit(X, y))


def test_an_interrupt_before_the_frozen_model_leaves_the_model_before(problem, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    expected = model.decision_function(X)
    monkeypatch.setattr(DiagonalGaussianMixture, "fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[::-1], y)
    np.testing.assert_array_equal(model.decision_function(X), expected)


def test_warm_start_after_the_end_trains_as_long_again(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, warm_start=True).fit(X, y)
    first = model.means_
    baseline = model.baseline_
    model.fit(X, y)
    assert model.n_iter_ == len(model.history_["loss"]) == 6
    assert model.baseline_ is baseline
    assert np.abs(model.means_ - first).max() > 0
    with pytest.raises(ValueError, match="not among the classes"):
        model.fit(X, np.where(y == "a", "z", y))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore:divide")
def test_numbers_that_are_not_finite_stop_training(problem):
    X, y = problem
    options = {**SMALL, "solver": "sgd", "learning_rate": 1e200, "clip_norm": None}
    with pytest.warns(
        ConvergenceWarning, match=r"In epoch 1 the (loss|gradient|parameter).* no lo"
    ):
        model = JointFisherSVC(**options).fit(X, y)
    assert model.n_iter_ == 0
    for name, values in state_of(model.baseline_).items():
        np.testing.assert_allclose(state_of(model)[name], values, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore:divide")
@pytest.mark.parametrize("learning_rate", [1e4, 1e6, 1e30])
def test_a_last_step_too_far_is_not_taken(learning_rate, problem):
    X, y = problem
    options = {**SMALL, "max_iter": 1, "batch_size": 36, "clip_norm": None}
    with pytest.warns(ConvergenceWarning, match="In epoch 1 .* was no longer finite"):
        model = JointFisherSVC(**options, solver="sgd", learning_rate=learning_rate).fit(X, y)
    assert model.n_iter_ == 0
    np.testing.assert_allclose(model.transform(X), model.baseline_.transform(X), atol=1e-9)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore:divide")
def test_steps_too_large_for_digits_leave_a_model_that_encodes():
    X, y = digits()
    X, y = X[:200], y[:200]
    options = {"solver": "sgd", "learning_rate": 10, "clip_norm": None, "max_iter": 2}
    with pytest.warns(ConvergenceWarning, match="was no longer finite"):
        model = JointFisherSVC(4, **options, random_state=0).fit(X, y)
    assert np.isfinite(model.transform(X)).all()
    assert (model.weights_ > 0).all()


def test_finite_numbers_that_make_a_model_worse_are_told(problem, monkeypatch):
    X, y = problem
    options = {**SMALL, "n_components": 4, "max_iter": 20, "learning_rate": 3.0}
    found = "score of the last SVM is 0.*, that of baseline_ 0.*"
    with pytest.warns(ConvergenceWarning, match=f"{found}.*Lower learning_rate") as caught:
        model = JointFisherSVC(**options).fit(X, y)
    assert [w.filename for w in caught] == [__file__]
    assert model.score(X, y) < model.baseline_.score(X, y) - 0.1
    # where the score does not tell, the loss does, and where that does not, the mixture
    monkeypatch.setattr(verdict, "score_of", lambda *_: np.nan)
    with pytest.warns(ConvergenceWarning, match="loss of the last SVM is .*, that of baseline_"):
        JointFisherSVC(**options).fit(X, y)
    monkeypatch.setattr(verdict, "WIDE_MARGIN", np.inf)
    with pytest.warns(ConvergenceWarning, match="K times the smallest weight .* is .*e-"):
        model = JointFisherSVC(**options).fit(X, y)
    assert 4 * model.weights_.min() < 1e-3


@pytest.mark.parametrize("options", [{}, {"multi_class": "ovr"}, {"learning_rate": 0}])
def test_sound_training_is_not_called_worse(options, problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JointFisherSVC(**SMALL, **options).fit(*problem)


def test_the_epoch_before_a_fault_is_kept(problem, monkeypatch):
    X, y = problem
    two = JointFisherSVC(**{**SMALL, "schedule": "constant", "max_iter": 2}).fit(X, y)
    monkeypatch.setattr(descent, "run_epoch", stop_after(2, Diverged("the gradient by means")))
    with pytest.warns(ConvergenceWarning, match="In epoch 3 the gradient by means was no longer"):
        model = JointFisherSVC(**SMALL, schedule="constant").fit(X, y)
    assert model.n_iter_ == 2
    assert_equal_models(model, two)


def test_early_stopping_waits_and_goes_back(problem):
    X, y = problem
    options = {**SMALL, "max_iter": 200, "learning_rate": 0.1, "schedule": "constant"}
    model = JointFisherSVC(**options, early_stopping=True, n_iter_no_change=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    losses = model.history_["validation_loss"]
    assert model.n_iter_ < 200
    assert model.n_iter_ == model.best_iter_ + 4
    if model.best_iter_:
        assert min(losses) == losses[model.best_iter_ - 1]
        shorter = JointFisherSVC(**{**options, "max_iter": model.best_iter_}, early_stopping=True)
        assert_equal_models(model, shorter.fit(X, y))


def test_a_validation_loss_that_never_falls_is_told(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, early_stopping=True, n_iter_no_change=1, learning_rate=3.0)
    with pytest.warns(ConvergenceWarning, match="validation loss never fell"):
        model.fit(X, y)
    assert model.best_iter_ == 0
    np.testing.assert_allclose(model.means_, model.baseline_.means_, rtol=1e-12)


def test_bags_of_ones_own_validate(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL, early_stopping=True).fit(
        X[:24], y[:24], X_val=X[24:], y_val=y[24:]
    )
    assert len(model.history_["validation_loss"]) == 3
    # all of X is trained on, as without validation
    plain = JointFisherSVC(**SMALL).fit(X[:24], y[:24])
    assert model.history_["loss"] == plain.history_["loss"]


def test_callbacks_see_every_epoch_and_may_stop(problem, monkeypatch):
    X, y = problem
    calls = []

    class Context:
        def subcontext(self, task_name):
            calls.append(task_name)
            return self

        def call_on_fit_task_begin(self, *, estimator, X=None, y=None):
            calls.append("begin")

        def call_on_fit_task_end(self, *, estimator, X=None, y=None, reconstruction_attributes):
            assert estimator.predict(problem[0]).shape == (36,)
            calls.append(estimator.n_iter_)
            return estimator.n_iter_ == 2

    def start(self, max_subtasks):
        assert max_subtasks == 3
        return Context()

    monkeypatch.setattr(JointFisherSVC, "_init_callback_context", start)
    model = JointFisherSVC(**SMALL).fit(X, y)
    assert calls == ["begin", "epoch", "begin", 1, "epoch", "begin", 2, 2]
    assert model.n_iter_ == 2
    assert np.abs(model.coef_ - model.network_coef_).max() > 0  # the last SVM was fitted


def test_a_progress_bar_runs(problem):
    callback = pytest.importorskip("sklearn.callback")
    JointFisherSVC(**SMALL).set_callbacks(callback.ProgressBar()).fit(*problem)


def test_partial_fit_learns_from_parts(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL)
    model.partial_fit(X[:18], y[:18], classes=["a", "b", "c"])
    for _ in range(15):
        model.partial_fit(X[18:], y[18:]).partial_fit(X[:18], y[:18])
    assert model.n_iter_ == 31
    np.testing.assert_array_equal(model.coef_, model.network_coef_)
    assert model.score(X, y) > model.baseline_.score(X, y)


def test_partial_fit_takes_classes_that_come_later(problem):
    X, y = problem
    order = np.argsort(y, kind="stable")
    model = JointFisherSVC(**SMALL)
    model.partial_fit(X[order[:20]], y[order[:20]], classes=["a", "b", "c"])
    assert "c" not in model.predict(X)
    for _ in range(40):
        model.partial_fit(X, y)
    assert "c" in model.predict(X)


def test_partial_fit_goes_on_after_fit(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    before = model.means_
    model.partial_fit(X, y)
    assert model.n_iter_ == 4
    assert 0 < np.abs(model.means_ - before).max() < 0.2


# What bad input gets.


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"train": ()}, "names nothing to train"),
        ({"train": "features", "feature_map": "identity"}, "names nothing to train"),
        ({"train": ("gmm",)}, "train names 'gmm': it may name 'features'"),
        ({"C": 0}, "'C' parameter"),
        ({"C": -1.0}, "'C' parameter"),
        ({"learning_rate": -1e-2}, "'learning_rate' parameter"),
        ({"learning_rate": {"features": float("inf")}}, "must be a finite number"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": {"mixture": -1}}, r"learning_rate\['mixture'\]=-1 must be"),
        ({"learning_rate": {"mix": 1}}, "learning_rate names 'mix'"),
        ({"learning_rate": True}, "learning_rate=True must be a finite number"),
        ({"learning_rate": {"features": False}}, r"learning_rate\['features'\]=False must be"),
        ({"n_features_out": 5}, "n_features_out=5 is more than the 4 features"),
        ({"n_features_out": 3, "map_init": "xavier"}, "needs a square map"),
        ({"solver": "line_search"}, "trains the mixture alone"),
        ({"solver": "line_search", "train": "mixture", "loss": "linear"}, "bounded below"),
        ({**LINE_SEARCH, "schedule": "constant"}, "no use for schedule='constant': leave it at 'c"),
        ({**LINE_SEARCH, "clip_norm": None}, "no use for clip_norm=None: leave it at 1.0"),
        ({**LINE_SEARCH, "max_descriptors": 5}, "no use for max_descriptors=5"),
        ({**LINE_SEARCH, "weight_map": "sigmoid"}, "no use for weight_map='sigmoid'"),
        ({"class_weight": {"d": 2.0}}, r"class_weight names \['d'\]"),
        ({"class_weight": {"a": float("inf")}}, r"class_weight\['a'\]=inf must be a finite"),
        ({"n_components": 1000}, "n_components=1000 needs at least 1000 descriptors"),
        ({"device": "gpu"}, "device='gpu' is not known"),
    ],
)
def test_parameters_that_cannot_be(parameters, message, problem):
    with pytest.raises(ValueError, match=message):
        JointFisherSVC(**{**SMALL, **parameters}).fit(*problem)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: y[:-1], "y has 35 labels, but X has 36 bags"),
        (lambda y: np.repeat("a", 36), "one class only"),
        (lambda y: np.r_[np.nan, np.ones(35)], r"y\[0\] is NaN"),
        (lambda y: np.array([*y[:35], None], dtype=object), r"y\[35\] is None: every bag needs"),
        (lambda y: np.linspace(0, 1, 36), "Unknown label type"),
        (lambda y: np.arange(72).reshape(36, 2) % 3, "several columns"),
        (lambda y: None, "the target y is None"),
    ],
)
def test_labels_that_cannot_be(labels, message, problem):
    X, y = problem
    with pytest.raises((ValueError, TypeError), match=message):
        JointFisherSVC(**SMALL).fit(X, labels(y))


def test_rates_that_are_not_named_are_those_by_default(problem):
    X, y = problem
    named = JointFisherSVC(**SMALL, learning_rate={"features": 0.003}).fit(X, y)
    rates = {"features": 0.003, "mixture": 1e-2, "classifier": 1e-2}
    assert_equal_models(named, JointFisherSVC(**SMALL, learning_rate=rates).fit(X, y))


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


def test_partial_fit_needs_its_classes(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    model.partial_fit(X, y, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="not those of the first call"):
        model.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match="holds the class 'z'"):
        model.partial_fit(X, np.repeat("z", 36))
    with pytest.raises(ValueError, match="holds label indicators"):
        model.partial_fit(X, np.eye(3, dtype=int)[np.arange(36) % 3])


@pytest.mark.parametrize("again", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("n_components", 3, "2"),
        ("feature_map", "identity", "'tanh'"),
        ("feature_map", "linear", "'tanh'"),
        ("multi_class", "ovr", "'shared'"),
        ("n_features_out", 2, "4"),
        ("map_scale", 1.0, "0.25"),
        ("whiten", False, "True"),
        ("power", 1.0, "0.5"),
        ("include_weights", False, "True"),
    ],
)
def test_going_on_needs_the_model_of_before(name, value, found, again, problem):
    model = JointFisherSVC(**SMALL, warm_start=True).fit(*problem)
    message = f"goes on from a fit with {name}={found}, but now it is {value!r}: .*warm_start=False"
    model.set_params(**{name: value})
    with pytest.raises(ValueError, match=message):
        getattr(model, again)(*problem)
    model.set_params(warm_start=False).fit(*problem)


def test_parameters_set_later_do_not_change_what_was_fitted(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    expected, names = model.decision_function(X), model.get_feature_names_out()
    model.set_params(include_weights=False, feature_map="identity", power=1.0)
    np.testing.assert_array_equal(model.decision_function(X), expected)
    np.testing.assert_array_equal(model.get_feature_names_out(), names)


@pytest.mark.parametrize(
    ("before", "after", "n_bags", "message"),
    [
        ({}, {"solver": "sgd"}, 36, "solver='adam', but now it is 'sgd'"),
        ({}, {"train": "mixture"}, 36, "train=.*, but now it is .*mixture"),
        ({}, {"weight_map": "sigmoid"}, 36, "weight_map='softmax', but now it is 'sigmoid'"),
        ({}, {"early_stopping": True}, 36, "early_stopping=False, but now it is True"),
        ({"early_stopping": True}, {"early_stopping": False}, 36, "early_stopping=True, but now"),
        ({"loss": "dual"}, {}, 30, "n_bags=36, but now it is 30"),
        ({}, {}, 30, "n_bags=36, but now it is 30"),
    ],
)
def test_an_interrupted_fit_is_resumed_as_it_was(
    before, after, n_bags, message, problem, monkeypatch
):
    X, y = problem
    model = JointFisherSVC(**SMALL, warm_start=True, **before)
    with monkeypatch.context() as patch:
        patch.setattr(descent, "run_epoch", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    model.set_params(**after)
    with pytest.raises(ValueError, match=f"{message}.*warm_start=False"):
        model.fit(X[:n_bags], y[:n_bags])
    assert model.n_iter_ == 2
    model.set_params(**{"solver": "adam", "weight_map": "softmax"} | before).partial_fit(X, y)
    assert model.n_iter_ == 3


def test_an_interrupted_fit_is_resumed_with_the_validation_it_had(problem, monkeypatch):
    X, y = problem
    model = JointFisherSVC(**SMALL, warm_start=True, early_stopping=True)
    with monkeypatch.context() as patch:
        patch.setattr(descent, "run_epoch", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="validation='X_val', but now it is 'a part of X'"):
        model.fit(X, y)
    model.fit(X, y, X_val=X, y_val=y)


def test_partial_fit_keeps_its_solver(problem):
    X, y = problem
    model = JointFisherSVC(**SMALL).partial_fit(X, y, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="solver='adam', but now it is 'sgd'"):
        model.set_params(solver="sgd").partial_fit(X, y)
    model.set_params(solver="adam").partial_fit(X[:20], y[:20])
    assert model.n_iter_ == 2


@pytest.mark.parametrize(
    "fit",
    [
        lambda model, X, y: model.fit(X, y[:-1]),
        lambda model, X, y: model.set_params(train="gmm").fit(X, y),
        lambda model, X, y: model.fit(X, y, X_val=X),
        lambda model, X, y: model.set_params(class_weight={"a": -1}).fit(X, y),
    ],
)
def test_input_that_is_refused_leaves_the_model_as_it_was(fit, problem):
    X, y = problem
    model = JointFisherSVC(**SMALL).fit(X, y)
    expected = model.decision_function(X)
    wide = Bags(np.column_stack([X.values, X.values[:, 0]]), X.starts, X.stops)
    with pytest.raises(ValueError, match=r"labels|names 'gmm'|belong together|not negative"):
        fit(model, wide, y)
    assert model.n_features_in_ == 4
    np.testing.assert_array_equal(model.decision_function(X), expected)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], "classes holds one class only, 'a'"),
        ([], "classes is empty"),
        ([0.0, np.nan, 1.0], r"classes\[1\] is NaN"),
        (["a", None], r"classes\[1\] is None"),
        ("abc", "classes is a single value"),
    ],
)
def test_classes_that_cannot_be(classes, message, problem):
    X, y = problem
    with pytest.raises(ValueError, match=message):
        JointFisherSVC(**SMALL).partial_fit(X, y, classes=classes)


def test_a_batch_larger_than_the_set_is_clipped(problem):
    X, y = problem
    with pytest.warns(UserWarning, match="batch_size=100 is larger than n_samples=36") as caught:
        clipped = JointFisherSVC(**{**SMALL, "batch_size": 100}).fit(X, y, X_val=X, y_val=y)
    assert [w.filename for w in caught] == [__file__]  # once, and pointing here
    assert_equal_models(clipped, JointFisherSVC(**{**SMALL, "batch_size": 36}).fit(X, y))


def test_a_default_that_is_clipped_is_no_reason_to_warn(problem):
    X, y = problem
    default = {name: value for name, value in SMALL.items() if name != "batch_size"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JointFisherSVC(**default).fit(X[:12], y[:12])


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (lambda y: np.r_[["rare"], y[1:]], 0.2, "the class 'rare' has 1 bag only"),
        (lambda y: y, 0.05, "validation_fraction=0.05 of 36 bags is 2, .* 3 bags, one of each"),
        (lambda y: y, 0.95, "validation_fraction=0.95 of 36 bags is 35, .* 3 bags, one of each"),
        (lambda y: np.eye(3, dtype=int)[np.arange(36) % 3], 0.999, "of 36 bags is 36"),
    ],
)
def test_classes_too_small_to_hold_back_are_told_before_any_work(
    labels, fraction, message, problem, monkeypatch
):
    X, y = problem
    options = {**SMALL, "early_stopping": True, "validation_fraction": fraction}
    monkeypatch.setattr(JointFisherSVC, "_fit_whitening", None)
    with pytest.raises(ValueError, match=message):
        JointFisherSVC(**options).fit(X, labels(y))


def test_validation_without_any_positive_has_no_score(problem):
    X, y = problem
    labels = np.column_stack([y == "a", y != "b"]).astype(int)
    model = JointFisherSVC(**SMALL).fit(X, labels, X_val=X, y_val=np.zeros((36, 2), dtype=int))
    assert np.isnan(model.history_["validation_score"]).all()
    assert np.isfinite(model.history_["validation_loss"]).all()
    rare = np.zeros((36, 2), dtype=int)
    rare[0] = 1  # in the part to train on
    JointFisherSVC(**SMALL, early_stopping=True, validation_fraction=0.05).fit(X, rare)


def test_half_a_validation_set_is_refused(problem):
    X, y = problem
    with pytest.raises(ValueError, match="belong together"):
        JointFisherSVC(**SMALL).fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="y_val has 35 labels"):
        JointFisherSVC(**SMALL).fit(X, y, X_val=X, y_val=y[:-1])


def test_a_clone_is_not_fitted(problem):
    model = clone(JointFisherSVC(**SMALL).fit(*problem))
    assert not hasattr(model, "coef_")
    assert model.get_params()["n_components"] == 2

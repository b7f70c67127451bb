"""JointFisherSVC: what training reaches, in whatever form bags and labels come."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from skfisher import (
    Bags,
    JointFisherSVC,
)
from tests.joint.common import (
    SMALL,
    assert_equal_models,
    digits,
    state_of,
)
from tests.memory import peak_memory


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
    options = {**SMALL, "max_iter": 15, "learning_rate": 1e-2, "batch_size": 36}
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
    assert after >= before
    losses = model.history_["validation_loss"]
    assert losses[-1] < losses[0]
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
    losses = np.array(model.history_["loss"])
    # every step goes downhill; the SVM fitted before it has a penalty beside this loss
    assert (np.diff(losses) < 0.01 * losses[0]).all()
    assert losses[-1] < 0.98 * losses[0]
    assert model.weights_.sum() == pytest.approx(1)
    # whatever the steps, it ends where an SVM fits the bags it has better than at the start
    assert np.abs(model.means_ - model.baseline_.means_).max() > 1e-3


def test_the_same_seed_gives_the_same_bits_whatever_the_threads(problem, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 64)
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
        assert peak_memory(lambda: model.fit(X, y), n_calls=1) < 40 * 2**20


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


def test_a_clone_is_not_fitted(problem):
    model = clone(JointFisherSVC(**SMALL).fit(*problem))
    assert not hasattr(model, "coef_")
    assert model.get_params()["n_components"] == 2

"""Interrupts: what they leave, and how training goes on from there."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skfisher import (
    DiagonalGaussianMixture,
    JointFisherSVC,
)
from skfisher.joint import descent
from tests.joint.common import (
    SMALL,
    assert_equal_models,
    stop_after,
)


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

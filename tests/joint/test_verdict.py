"""What stops training, and what is said of a model that training has made worse."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skfisher import (
    JointFisherSVC,
)
from skfisher.joint import descent
from skfisher.training import verdict
from skfisher.training.classification import Classification
from skfisher.training.epochs import Diverged
from tests.joint.common import (
    SMALL,
    assert_equal_models,
    digits,
    state_of,
    stop_after,
)


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
    options = {"solver": "sgd", "learning_rate": 100, "clip_norm": None, "max_iter": 2}
    with pytest.warns(ConvergenceWarning, match="was no longer finite"):
        model = JointFisherSVC(4, **options, random_state=0).fit(X, y)
    assert np.isfinite(model.transform(X)).all()
    assert (model.weights_ > 0).all()


def test_finite_numbers_that_make_a_model_worse_are_told(problem, monkeypatch):
    X, y = problem
    options = {**SMALL, "n_components": 4, "max_iter": 20, "learning_rate": 3.0}
    found = "score of the last linear model is 0.*, that of baseline_ 0.*"
    with pytest.warns(ConvergenceWarning, match=f"{found}.*Lower learning_rate") as caught:
        model = JointFisherSVC(**options).fit(X, y)
    assert [w.filename for w in caught] == [__file__]
    assert model.score(X, y) < model.baseline_.score(X, y) - 0.1
    # where the score does not tell, the loss does, and where that does not, the mixture
    monkeypatch.setattr(Classification, "score", lambda *_: np.nan)
    with pytest.warns(ConvergenceWarning, match="loss of the last linear model .* of baseline_"):
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

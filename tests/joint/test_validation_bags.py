"""Bags to validate with: held back or given."""

import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skfisher import DescriptorTransformer, JointFisherSVC
from tests.joint.common import (
    SMALL,
    assert_equal_models,
)


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
    with pytest.raises(ValueError, match="y_val has 35 labels, but X_val has 36 bags"):
        JointFisherSVC(**SMALL).fit(X, y, X_val=X, y_val=y[:-1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pipelines_transform_bags_to_validate_with_if_told_so(problem):
    X, y = problem
    validation = {"X_val": X[:9], "y_val": y[:9]}
    model = JointFisherSVC(**SMALL, early_stopping=True)
    first = DescriptorTransformer(PCA(2, random_state=0))
    transformed = first.fit_transform(X)
    expected = model.fit(transformed, y, X_val=transformed[:9], y_val=y[:9]).history_[
        "validation_loss"
    ]
    with config_context(enable_metadata_routing=True):
        model = JointFisherSVC(**SMALL, early_stopping=True)
        model.set_fit_request(X_val=True, y_val=True)
        told = make_pipeline(first, model, transform_input=["X_val"]).fit(X, y, **validation)
        assert told[-1].history_["validation_loss"] == expected
        search = GridSearchCV(told, {"jointfishersvc__C": [1.0]}, cv=2)
        found = search.fit(X, y, **validation).best_estimator_[-1]
        assert found.history_["validation_loss"] == expected
        with pytest.raises(ValueError, match=r"^X_val\[0\] has .*transform_input=\['X_val'\]"):
            make_pipeline(first, model).fit(X, y, **validation)
    with pytest.raises(ValueError, match=r"^X_val\[0\] has .*set_fit_request\(X_val=True, y_val"):
        make_pipeline(first, JointFisherSVC(**SMALL, early_stopping=True)).fit(
            X, y, jointfishersvc__X_val=X[:9], jointfishersvc__y_val=y[:9]
        )

"""The classifier by dual coordinate ascent: scikit-learn's LinearSVC, and labels of every kind."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import LinearSDCA
from skfisher.svm.solver import Solver

TIGHT = {"tol": 1e-10, "max_iter": 5000, "random_state": 0}


def labelled(n_classes, n=90):
    x, y = make_classification(
        n, 8, n_informative=5, n_classes=n_classes, flip_y=0.2, random_state=0
    )
    return StandardScaler().fit_transform(x) / 3, np.array(["no", "so", "yes"])[y]


def peer(**options):
    return LinearSVC(dual=True, tol=1e-9, max_iter=10**6, random_state=0, **options)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_weight": {"yes": 5.0, "no": 0.5}},
        {"fit_intercept": False, "C": 0.1},
        {"intercept_scaling": 2.0},
    ],
    ids=str,
)
def test_is_the_model_of_linear_svc(n_classes, loss, options):
    x, y = labelled(n_classes)
    if n_classes == 2:
        y = np.where(y == "no", "no", "yes")
    weights = np.random.default_rng(1).uniform(0.5, 2, size=len(x))
    ours = LinearSDCA(loss=loss, **TIGHT, **options).fit(x, y, sample_weight=weights)
    theirs = peer(loss=loss, **options).fit(x, y, sample_weight=weights)
    scale = abs(theirs.coef_).max()
    assert_allclose(ours.coef_, theirs.coef_, atol=1e-4 * scale)
    assert_allclose(ours.intercept_, np.broadcast_to(theirs.intercept_, len(ours.intercept_)),
                    atol=1e-4 * scale)  # fmt: skip
    assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-3 * scale)
    assert_array_equal(ours.classes_, theirs.classes_)
    assert np.mean(ours.predict(x) == theirs.predict(x)) > 0.98


@pytest.mark.parametrize("n_classes", [2, 3])
def test_balanced_classes_count_by_the_weights_of_their_samples(n_classes):
    x, y = labelled(n_classes)
    x, y = x[7:], y[7:]
    times = np.random.default_rng(0).integers(1, 4, size=len(x))
    weighted = LinearSDCA(class_weight="balanced", **TIGHT).fit(x, y, sample_weight=times)
    again = np.repeat(np.arange(len(x)), times)
    theirs = peer(class_weight="balanced").fit(x[again], y[again])
    assert_allclose(weighted.coef_, theirs.coef_, atol=1e-4 * abs(theirs.coef_).max())


def test_label_indicators_are_problems_of_their_own():
    x, y = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
    x = StandardScaler().fit_transform(x) / 3
    ours = LinearSDCA(**TIGHT).fit(x, y)
    theirs = OneVsRestClassifier(peer()).fit(x, y)
    decision = theirs.decision_function(x)
    assert_allclose(ours.decision_function(x), decision, atol=1e-3 * abs(decision).max())
    assert_array_equal(ours.predict(x), (ours.decision_function(x) > 0).astype(int))
    balanced = LinearSDCA(class_weight="balanced", **TIGHT).fit(x, y)
    theirs = OneVsRestClassifier(peer(class_weight="balanced")).fit(x, y)
    decision = theirs.decision_function(x)
    assert_allclose(balanced.decision_function(x), decision, atol=1e-3 * abs(decision).max())


def test_float32_in_float32_out():
    x, y = labelled(3)
    model = LinearSDCA(random_state=0).fit(x.astype(np.float32), y)
    assert model.coef_.dtype == model.intercept_.dtype == np.float32
    assert model.decision_function(x.astype(np.float32)).dtype == np.float32
    assert model.decision_function(x).dtype == np.float64
    assert model.dual_gap_ < model.tol


def test_a_fit_that_starts_where_the_last_one_ended_has_nothing_to_do():
    x, y = labelled(3)
    model = LinearSDCA(warm_start=True, random_state=0).fit(x, y)
    coef = model.coef_
    assert model.fit(x, y).n_iter_ == 0
    assert_allclose(model.coef_, coef, atol=1e-12 * abs(coef).max())


def test_warm_start_goes_on_from_the_last_fit(rng):
    y = np.arange(800) % 3
    x = rng.normal(size=(3, 900))[y] + rng.normal(size=(800, 900))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    model = LinearSDCA(warm_start=True, random_state=0).fit(x, y)
    cold = model.n_iter_
    assert model.fit(x, y).n_iter_ == 0
    assert model.set_params(C=1.1).fit(x, y).n_iter_ < cold
    with pytest.raises(ValueError, match=r"duals_ is of shape \(800, 3\)"):
        model.fit(x[:80], y[:80])


def test_an_interrupt_leaves_the_last_state_usable(monkeypatch):
    x, y = labelled(3)
    model = LinearSDCA(tol=0, max_iter=50, random_state=0)
    advance, rounds = Solver.advance, []

    def interrupted(self):
        if len(rounds) == 3:
            raise KeyboardInterrupt
        rounds.append(None)
        advance(self)

    monkeypatch.setattr(Solver, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y)
    monkeypatch.undo()
    assert model.n_iter_ == 3
    with pytest.warns(ConvergenceWarning):
        shorter = LinearSDCA(tol=0, max_iter=3, random_state=0).fit(x, y)
    assert_array_equal(model.decision_function(x), shorter.decision_function(x))


def test_callbacks_see_a_usable_model_after_every_pass_and_may_stop():
    pytest.importorskip("sklearn.callback")
    x, y = labelled(3)
    callback = StopAfter(3, x)
    with pytest.warns(ConvergenceWarning):
        model = LinearSDCA(tol=0, random_state=0).set_callbacks(callback).fit(x, y)
    assert model.n_iter_ == 3
    assert_array_equal(callback.decisions[-1], model.decision_function(x))
    assert (callback.decisions[0] != callback.decisions[1]).any()


class StopAfter:
    """A callback that keeps decision values after each pass, and stops the fit."""

    def __init__(self, n_passes, x):
        self.n_passes, self.x, self.decisions = n_passes, x, []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name != "pass":
            return False
        self.decisions.append(fitted_estimator.decision_function(self.x))
        return len(self.decisions) == self.n_passes


def test_says_when_it_has_not_converged():
    x, y = labelled(3)
    with pytest.warns(ConvergenceWarning, match="2 passes with a duality gap of .* raise max_iter"):
        LinearSDCA(C=100.0, max_iter=2).fit(x, y)


@pytest.mark.parametrize(
    ("y", "options", "weights", "message"),
    [
        (["no"] * 90, {}, None, "one class only, 'no'"),
        (None, {"class_weight": {"maybe": 2.0}}, None, "maybe"),
        (None, {}, -np.ones(90), "[Nn]egative values"),
        (None, {"C": 0.0}, None, "'C' parameter"),
    ],
)
def test_bad_input_is_named(y, options, weights, message):
    x, labels = labelled(3)
    with pytest.raises(ValueError, match=message):
        LinearSDCA(**options).fit(x, labels if y is None else y, sample_weight=weights)

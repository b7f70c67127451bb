import copy
import inspect
import io
import pickle
import warnings
from numbers import Integral

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

import skfisher
import skfisher.contract.estimator
from skfisher import _compat
from skfisher._compat import (
    CallbackSupportMixin,
    Interval,
    NullCallbackContext,
    NullCallbackSupportMixin,
    _fit_context,
)
from skfisher.contract.estimator import BagEstimator
from skfisher.contract.validation import check_bags

HAS_CALLBACKS = CallbackSupportMixin is not NullCallbackSupportMixin


class Counter(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BagEstimator):
    """Fits in steps, as EM does, calling every hook where an estimator calls it."""

    _parameter_constraints: dict = {"max_iter": [Interval(Integral, 1, None, closed="left")]}

    def __init__(self, max_iter=5, fail_at=None):
        self.max_iter = max_iter
        self.fail_at = fail_at

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        bags = check_bags(self, X, reset=True)
        progress = self._init_callback_context(max_subtasks=self.max_iter)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._n_features_out = bags.n_features
        for n_iter in range(1, self.max_iter + 1):
            self.n_iter_ = n_iter
            step = progress.subcontext(task_name="em-iteration")
            step.call_on_fit_task_begin(estimator=self)
            if n_iter == self.fail_at:
                raise ArithmeticError("as asked")
            self.means_ = bags.values.mean(axis=0, keepdims=True)
            if step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict):
                break
        progress.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return np.stack([bag.mean(axis=0) for bag in check_bags(self, X, reset=False)])


class BeforeCallbacks(NullCallbackSupportMixin, BaseEstimator):
    """As `Counter`, on the stand-ins for scikit-learn below 1.9."""

    def __init__(self, max_iter=5, fail_at=None):
        self.max_iter = max_iter
        self.fail_at = fail_at

    fit = Counter.fit.__wrapped__


X = np.arange(24.0).reshape(4, 3, 2)


class Recorder:
    """A callback that writes down what it is told."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.events.append(f"end {context.task_name}")
        fitted_estimator.transform([np.ones((1, 2))])
        return self.stop_after is not None and estimator.n_iter_ >= self.stop_after

    def teardown(self, estimator, context):
        self.events.append("teardown")


STEP = ["begin em-iteration", "end em-iteration"]
needs_callbacks = pytest.mark.skipif(not HAS_CALLBACKS, reason="scikit-learn >= 1.9 has callbacks")


@needs_callbacks
def test_every_hook_is_called_in_order():
    recorder = Recorder()
    Counter(max_iter=2).set_callbacks(recorder).fit(X)
    assert recorder.events == ["setup", "begin fit", *STEP, *STEP, "end fit", "teardown"]


@needs_callbacks
def test_a_callback_may_stop_the_fit():
    recorder = Recorder(stop_after=3)
    assert Counter(max_iter=9).set_callbacks(recorder).fit(X).n_iter_ == 3


@needs_callbacks
def test_callbacks_are_torn_down_after_an_error():
    recorder = Recorder()
    with pytest.raises(ArithmeticError, match="as asked"):
        Counter(fail_at=2).set_callbacks(recorder).fit(X)
    assert recorder.events[-2:] == ["begin em-iteration", "teardown"]


@needs_callbacks
def test_nothing_of_the_callbacks_stays_in_the_model():
    estimator = Counter().set_callbacks(Recorder()).fit(X)
    assert "_callback_fit_ctx" not in vars(estimator)


@needs_callbacks
def test_progress_bar(capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    Counter(max_iter=3).set_callbacks(ProgressBar()).fit(X)
    shown = capsys.readouterr().out
    assert "Counter - fit" in shown
    assert "100%" in shown


@needs_callbacks
def test_progress_bar_of_a_search(capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    search = GridSearchCV(make_pipeline(Counter()), {"counter__max_iter": [1, 2]}, cv=2)
    search.scoring = lambda estimator, X, y=None: float(estimator[0].n_iter_)
    search.set_callbacks(ProgressBar()).fit(X)
    assert search.best_params_ == {"counter__max_iter": 2}
    assert "GridSearchCV - fit" in capsys.readouterr().out


def test_stand_ins_make_the_same_calls_silent():
    estimator = BeforeCallbacks(max_iter=3).fit(X)
    assert estimator.n_iter_ == 3
    context = estimator._init_callback_context(max_subtasks=None)
    assert isinstance(context, NullCallbackContext)
    with context.propagate_callback_context(Counter()):
        pass


def test_stand_ins_refuse_callbacks_with_the_remedy():
    assert isinstance(BeforeCallbacks().set_callbacks(), BeforeCallbacks)
    with pytest.raises(RuntimeError, match=r"scikit-learn >= 1\.9"):
        BeforeCallbacks().set_callbacks(Recorder())


@needs_callbacks
@pytest.mark.parametrize("name", ["subcontext", "call_on_fit_task_begin", "call_on_fit_task_end"])
def test_stand_ins_have_the_signatures_of_scikit_learn(name):
    from sklearn.callback import CallbackContext

    theirs, ours = (getattr(cls, name) for cls in (CallbackContext, NullCallbackContext))
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    assert str(inspect.signature(NullCallbackSupportMixin._init_callback_context)) == str(
        inspect.signature(CallbackSupportMixin._init_callback_context)
    )


def test_the_mixin_is_that_of_scikit_learn_where_it_has_one():
    try:
        from sklearn.callback import CallbackSupportMixin as expected
    except ImportError:
        expected = NullCallbackSupportMixin
    assert _compat.CallbackSupportMixin is expected
    assert issubclass(BagEstimator, expected)


# Tags, parameters, links


def test_tags():
    tags = get_tags(Counter())
    assert tags.input_tags.three_d_array
    assert tags.input_tags.two_d_array  # False would silently skip scikit-learn's checks
    assert not tags.input_tags.sparse
    assert not tags.no_validation
    assert not tags._skip_test


@pytest.mark.parametrize("max_iter", [0, -1, 1.5, "many", None])
def test_parameters_are_checked_at_fit(max_iter):
    with pytest.raises(ValueError, match="The 'max_iter' parameter of Counter must be an int"):
        Counter(max_iter=max_iter).fit(X)


def test_clone_and_set_output():
    estimator = clone(Counter(max_iter=2)).fit(X)
    assert not hasattr(clone(estimator), "n_iter_")
    assert list(estimator.get_feature_names_out()) == ["counter0", "counter1"]


# Saved models


def dump_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return joblib.load(io.BytesIO(file.getvalue()))


def dump_skops(estimator):
    skops = pytest.importorskip("skops.io")
    state = skops.dumps(estimator)
    return skops.loads(state, trusted=skops.get_untrusted_types(data=state))


ROUND_TRIPS = {
    "pickle": lambda estimator: pickle.loads(pickle.dumps(estimator)),
    "joblib": dump_joblib,
    "skops": dump_skops,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", ROUND_TRIPS)
def test_round_trip(way):
    estimator = Counter().fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored = ROUND_TRIPS[way](estimator)
    assert vars(restored).keys() == vars(estimator).keys()
    assert "_skfisher_version" not in vars(restored)
    np.testing.assert_array_equal(restored.transform(X), estimator.transform(X))


@pytest.mark.parametrize(
    ("saved_by", "warns"),
    [("1.4.2", False), ("1.4.0", False), ("1.4", False), ("1.3.2", True), ("2.4.2", True)],
)
def test_another_minor_version_warns(monkeypatch, saved_by, warns):
    monkeypatch.setattr(skfisher.contract.estimator, "__version__", saved_by)
    state = pickle.dumps(Counter().fit(X))
    monkeypatch.setattr(skfisher.contract.estimator, "__version__", "1.4.2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pickle.loads(state)
    words = f"Counter was saved by skfisher {saved_by} and is loaded by 1.4.2"
    assert [words in str(warning.message) for warning in caught] == [True] * warns


def test_a_state_without_a_version_warns():
    state = Counter().fit(X).__getstate__()
    assert state.pop("_skfisher_version") == skfisher.__version__
    with pytest.warns(UserWarning, match="saved by skfisher unknown"):
        Counter().__setstate__(state)
    assert "_skfisher_version" not in state


def test_state_is_not_that_of_the_estimator():
    estimator = Counter().fit(X)
    estimator.__getstate__()["means_"] = None
    assert estimator.means_ is not None


INTERVALS = {
    f"{name}-{parameter}": interval
    for name in skfisher.__all__
    for parameter, constraints in getattr(
        getattr(skfisher, name), "_parameter_constraints", {}
    ).items()
    for interval in constraints
    if hasattr(interval, "left")
}


@pytest.mark.parametrize("interval", INTERVALS.values(), ids=INTERVALS)
def test_true_and_false_are_no_numbers(interval):
    assert not interval.is_satisfied_by(True)
    assert not interval.is_satisfied_by(False)


def test_an_estimator_refuses_true_in_place_of_a_number():
    with pytest.raises(ValueError, match=r"'max_iter' parameter of Counter must be .* Got True"):
        Counter(True).fit(X)

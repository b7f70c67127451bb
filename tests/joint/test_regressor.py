"""Joint training for numbers: what it promises beside what all joint models do."""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.svm import LinearSVR

from skfisher import Bags, FisherVectorEncoder, JointRegressor, SecondOrderPooling, VLADEncoder
from skfisher.joint import descent
from tests.joint.common import assert_equal_models, stop_after

SMALL = {"max_iter": 3, "batch_size": 8, "random_state": 0}
LOSSES = ["squared_error", "epsilon_insensitive", "squared_epsilon_insensitive"]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def regressor(**options):
    return JointRegressor(FisherVectorEncoder(2, max_iter=2), **{**SMALL, **options})


def spreads(n, seed):
    """Return bags, and the deviation of the first feature of each, in a unit of its own."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.5, 2, size=n)
    bags = [rng.normal(size=(rng.integers(8, 20), 4)) * [s, 1, 1, 1] for s in spread]
    return Bags.from_list(bags), 40 * spread + 300


X, Y = spreads(40, 0)
X_NEW, Y_NEW = spreads(30, 1)
SEVERAL = np.column_stack([Y, -1e-3 * Y, np.arange(40)])


@every_loss
def test_training_improves_on_the_frozen_model(loss):
    model = regressor(loss=loss, max_iter=20).fit(X, Y)
    assert is_regressor(model)
    assert model.n_iter_ == len(model.history_["loss"]) == 20
    assert model.history_["loss"][-1] < 0.8 * model.history_["loss"][0]
    frozen, trained = (m.score(X_NEW, Y_NEW) for m in (model.baseline_, model))
    assert trained > max(frozen, 0.5)
    assert model.score(X_NEW, Y_NEW) == pytest.approx(r2_score(Y_NEW, model.predict(X_NEW)))


@pytest.mark.parametrize("y", [Y, SEVERAL], ids=["one number", "several"])
def test_predictions_are_those_of_the_linear_model_it_shows(y):
    model = regressor().fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.coef_.shape == (y.size // 40, model.transform(X).shape[1])
    expected = model.transform(X) @ model.coef_.T + model.intercept_
    assert_allclose(model.predict(X), expected.reshape(y.shape), rtol=1e-9)
    assert_allclose(model.target_mean_, np.atleast_1d(y.mean(axis=0)))
    assert_allclose(model.target_scale_, np.atleast_1d(y.std(axis=0)))


def test_the_last_linear_model_is_a_ridge_regression():
    model = regressor(C=2.0).fit(X, SEVERAL, sample_weight=np.arange(40) % 3 + 0.5)
    weights = np.arange(40) % 3 + 0.5
    expected = Ridge(alpha=1 / (2 * 2.0)).fit(model.transform(X), SEVERAL, sample_weight=weights)
    assert_allclose(model.coef_, expected.coef_, rtol=1e-6, atol=1e-9)
    assert_allclose(model.intercept_, expected.intercept_, rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_the_last_linear_model_is_that_of_linear_svr(loss):
    model = regressor(loss=loss, epsilon=5.0, C=0.5).fit(X, Y)
    scale, mean = model.target_scale_[0], model.target_mean_[0]
    dual = loss == "epsilon_insensitive"
    theirs = LinearSVR(C=0.5, epsilon=5 / scale, loss=loss, dual=dual, tol=1e-8, max_iter=10**5)
    theirs.set_params(random_state=0).fit(model.transform(X), (Y - mean) / scale)
    expected = mean + scale * theirs.predict(model.transform(X))
    assert_allclose(model.predict(X), expected, atol=0.02 * scale)


@every_loss
def test_the_unit_of_the_numbers_does_not_matter(loss):
    one = regressor(loss=loss, epsilon=2.0).fit(X, Y)
    other = regressor(loss=loss, epsilon=2e-4).fit(X, 1e-4 * Y - 7)
    # what is not exact is the standardisation of y, and what training makes of that
    assert_allclose(other.predict(X), 1e-4 * one.predict(X) - 7, atol=1e-7)
    assert_allclose(other.history_["loss"], one.history_["loss"], rtol=1e-6)


def test_errors_within_epsilon_do_not_count():
    wide = regressor(loss="epsilon_insensitive", epsilon=np.ptp(Y)).fit(X, Y)
    assert wide.history_["loss"] == [0.0] * 3
    assert not wide.coef_.any()
    assert_allclose(wide.predict(X), Y.mean())


def test_a_constant_column_comes_back():
    y = np.column_stack([Y, np.full(40, 5.0)])
    assert_array_equal(regressor().fit(X, y).predict(X)[:, 1], 5.0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "epsilon_insensitive", "epsilon": 1.0},
        {"early_stopping": True, "n_iter_no_change": 2},
        {"sampling": "loss"},
        {"solver": "structured_natural", "learning_rate": 1e-3},
        {"solver": "line_search", "train": "mixture", "feature_map": "identity"},
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_interrupted_and_resumed_is_uninterrupted(options, monkeypatch):
    options = {"max_iter": 5, **options}
    whole = regressor(**options).fit(X, SEVERAL)
    model = regressor(**options, warm_start=True)
    with monkeypatch.context() as patch:
        patch.setattr(descent, "run_epoch", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, SEVERAL)
    assert model.n_iter_ == 2
    assert model.predict(X).shape == (40, 3)  # it is usable
    model.fit(X, SEVERAL)
    assert_equal_models(model, whole)


def test_a_warm_start_keeps_the_units():
    model = regressor(warm_start=True).fit(X, Y)
    model.fit(X[:20], Y[:20])
    assert model.n_iter_ == 6
    assert_allclose(model.target_mean_, Y.mean())
    with pytest.raises(ValueError, match=r"y has shape \(40, 3\), but the model was fitted to"):
        model.fit(X, SEVERAL)


@pytest.mark.filterwarnings("ignore:batch_size=1000 is larger")
def test_whole_weights_are_as_many_bags():
    weights = np.arange(40) % 3
    index = np.repeat(np.arange(40), weights)
    options = {"batch_size": 1000, "max_iter": 2}
    weighted = regressor(**options).fit(X, Y, sample_weight=weights)
    repeated = regressor(**options).fit(X[index], Y[index])
    assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-4)
    assert_allclose(weighted.history_["loss"], repeated.history_["loss"], rtol=1e-4)


def test_bags_to_validate_with_are_measured_in_the_same_units():
    model = regressor(learning_rate=1e-12).fit(X, Y, X_val=X_NEW, y_val=Y_NEW)
    errors = (model.baseline_.predict(X_NEW) - Y_NEW) / Y.std()
    assert_allclose(model.history_["validation_loss"], (errors**2).mean(), rtol=1e-6)
    frozen = model.baseline_.score(X_NEW, Y_NEW)
    assert_allclose(model.history_["validation_score"], frozen, rtol=1e-6)


def test_early_stopping_keeps_the_best_epoch():
    model = regressor(early_stopping=True, max_iter=20, n_iter_no_change=2, schedule="constant")
    model.fit(X, Y)
    losses = model.history_["validation_loss"]
    assert model.best_iter_ == 1 + np.argmin(losses)
    assert len(losses) == model.best_iter_ + 2 < 20


def test_parts_are_learnt_from_one_after_the_other():
    model = regressor().partial_fit(X[:20], SEVERAL[:20])
    assert_allclose(model.target_mean_, SEVERAL[:20].mean(axis=0))
    model.partial_fit(X[20:21], SEVERAL[20:21])  # one bag, and so constant numbers
    before = model.score(X, SEVERAL)
    for _ in range(10):
        model.partial_fit(X[20:], SEVERAL[20:]).partial_fit(X[:20], SEVERAL[:20])
    assert model.n_iter_ == 22
    assert model.score(X, SEVERAL) > before
    assert_allclose(model.coef_, model.network_coef_)


def test_float32_is_close_to_float64():
    narrow = Bags(X.values.astype(np.float32), X.starts, X.stops)
    model = regressor().fit(narrow, Y)
    assert model.transform(narrow).dtype == np.float32
    assert model.predict(narrow).dtype == np.float64  # the numbers of y were
    assert_allclose(model.predict(narrow), regressor().fit(X, Y).predict(X), atol=1e-2 * Y.std())


@every_loss
def test_threads_and_copies_change_no_bit(loss, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    one, two = (regressor(loss=loss, n_jobs=n).fit(X, SEVERAL) for n in (None, 2))
    assert_equal_models(one, two)
    assert_array_equal(pickle.loads(pickle.dumps(two)).predict(X), one.predict(X))


@pytest.mark.parametrize("encoder", [VLADEncoder(2), SecondOrderPooling(n_components=2)])
def test_other_encoders_are_trained_too(encoder):
    model = JointRegressor(encoder, **SMALL).fit(X, Y)
    assert model.history_["loss"][-1] < model.history_["loss"][0]


def test_its_linear_model_is_the_group_regressor():
    frozen = regressor(train=("features", "mixture")).fit(X, Y)
    assert_array_equal(frozen.network_coef_, frozen.baseline_.coef_)
    with pytest.raises(ValueError, match="may name 'features', 'mixture', 'regressor'"):
        regressor(train="classifier").fit(X, Y)


def test_training_that_made_it_worse_is_told():
    with pytest.warns(ConvergenceWarning, match="score of the last linear model is .* baseline_"):
        model = regressor(learning_rate=5.0, max_iter=20, C=0.1).fit(X, Y)
    assert model.score(X, Y) < model.baseline_.score(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regressor().fit(X, Y)


def spoilt(value):
    y = Y.copy()
    y[17] = value
    return y


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda m: m.fit(X, spoilt(np.nan)), r"y\[17\] is NaN"),
        (lambda m: m.fit(X, spoilt(np.inf)), r"y\[17\] is infinity"),
        (lambda m: m.fit(X, Y[:-1]), "y has 39 values, but X has 40 bags"),
        (lambda m: m.fit(X, np.full(40, 2.0)), "y is 2.0 for every bag"),
        (lambda m: m.fit(X, Y, sample_weight=np.arange(40) == 3), "y is .* for every bag"),
        (lambda m: m.fit(X, Y.astype(str)), "y holds strings, .* JointClassifier"),
        (lambda m: m.fit(X, Y, X_val=X, y_val=SEVERAL), r"y_val has shape \(40, 3\)"),
        (lambda m: m.fit(X, Y, X_val=X), "X_val and y_val belong together"),
        (lambda m: m.set_params(epsilon=-1).fit(X, Y), "'epsilon' parameter"),
        (lambda m: m.set_params(loss="squared_hinge").fit(X, Y), "'loss' parameter"),
        (
            lambda m: m.set_params(early_stopping=True, validation_fraction=0.9).fit(X[:1], Y[:1]),
            "y is .* for every bag|early_stopping holds bags back",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_model(fit, message):
    model = regressor().fit(X, Y)
    expected = model.predict(X)
    with pytest.raises(ValueError, match=message):
        fit(model)
    assert_array_equal(model.predict(X), expected)


def test_cross_validation_takes_it():
    found = cross_val_predict(regressor(max_iter=1), X, SEVERAL, cv=3)
    assert found.shape == (40, 3)
    assert clone(regressor(epsilon=2.0)).epsilon == 2.0

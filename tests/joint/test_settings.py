"""Parameters and labels that cannot be, and what is said of them."""

import warnings

import numpy as np
import pytest

from skfisher import (
    Bags,
    JointFisherSVC,
)
from tests.joint.common import (
    LINE_SEARCH,
    SMALL,
    assert_equal_models,
)


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
        ({"learning_rate": True}, "'learning_rate' parameter of .* must be .* Got True"),
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

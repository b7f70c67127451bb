"""Bags that come part by part."""

import numpy as np
import pytest

from skfisher import (
    JointFisherSVC,
)
from tests.joint.common import (
    SMALL,
)


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

"""Eigenvalues, drawn without a screen."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher import MeanPooling, SecondOrderPooling, SpectrumDisplay


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def bags(rng):
    return [rng.normal(size=(n, 4)) * [5, 2, 1, 0.3] for n in (20, 30, 40)]


@pytest.mark.parametrize("power", [0.5, 0.3])
def test_values_are_those_of_covariances_and_their_powers(bags, power):
    encoder = SecondOrderPooling(
        "covariance", power=power, standardize=False, ridge=0.0, normalize="power-l2"
    ).fit(bags)
    display = SpectrumDisplay.from_estimator(encoder, bags)
    expected = np.array([np.linalg.eigvalsh(np.cov(bag.T, bias=True))[::-1] for bag in bags])
    assert_allclose(display.before, expected, rtol=1e-9)
    assert_allclose(display.after, expected**power, rtol=1e-9)
    assert encoder.normalize == "power-l2"
    medians = [np.median(v / v[:, :1], axis=0) for v in (display.before, display.after)]
    for line, median in zip(display.lines_, medians, strict=True):
        assert_allclose(line.get_ydata(), median)
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["covariance", f"its power {power:g}"]


@pytest.mark.parametrize("function", ["log", "newton_schulz", "identity"])
@pytest.mark.parametrize("statistic", ["gaussian", "second_moment"])
def test_every_matrix_has_a_picture(bags, statistic, function):
    encoder = SecondOrderPooling(statistic, function=function).fit(bags)
    _, ax = plt.subplots()
    display = SpectrumDisplay.from_estimator(encoder, bags, ax=ax)
    display.figure_.canvas.draw()
    assert display.ax_ is ax
    assert display.before.shape == (3, 4 + (statistic == "gaussian"))
    assert np.isfinite(display.lines_[1].get_ydata()).all()


def test_other_encoders_are_refused(bags):
    with pytest.raises(TypeError, match="estimator is a MeanPooling: pass a fitted Second"):
        SpectrumDisplay.from_estimator(MeanPooling().fit(bags), bags)

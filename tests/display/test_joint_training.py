"""The picture of joint training, drawn without a screen."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skfisher import JointFisherSVC, JointTrainingDisplay


@pytest.fixture
def data(rng):
    y = np.arange(24) % 3
    return [rng.normal(size=(9, 3)) + 0.5 * np.eye(3)[c] for c in y], y


@pytest.fixture
def model():
    return JointFisherSVC(n_components=2, max_iter=3, batch_size=8, random_state=0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(display):
    """Return what the curves show, by name, after a check of their epochs."""
    for line in display.lines_.values():
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, len(display.loss) + 1))
    return {name: list(line.get_ydata()) for name, line in display.lines_.items()}


def verticals(panel):
    """Return where a panel has vertical lines."""
    return [x[0] for line in panel.lines if len(x := line.get_xdata()) == 2 and x[0] == x[1]]


@pytest.mark.parametrize("multi_class", ["shared", "ovr"])
def test_the_curves_are_the_history(model, data, multi_class):
    model.set_params(multi_class=multi_class).fit(*data)
    display = JointTrainingDisplay.from_estimator(model)
    assert drawn(display) == {n: model.history_[n] for n in ("loss", "smallest_weight")}
    assert [panel.get_ylabel() for panel in display.axes_] == ["loss", "smallest $K w$"]
    assert display.axes_[0].get_legend() is None
    assert display.axes_[0] is display.ax_
    assert display.figure_ is display.ax_.figure
    assert [verticals(panel) for panel in display.axes_] == [[], []]


def test_validation_has_a_curve_and_a_panel(model, data):
    model.fit(*data, X_val=data[0][:9], y_val=data[1][:9])
    display = JointTrainingDisplay.from_estimator(model)
    names = ("loss", "validation_loss", "validation_score", "smallest_weight")
    assert drawn(display) == {name: model.history_[name] for name in names}
    homes = [display.lines_[name].axes for name in names]
    assert homes == [display.axes_[i] for i in (0, 0, 1, 2)]
    legend = display.axes_[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["training", "validation"]


@pytest.mark.parametrize("loss", ["linear", "dual"])
def test_signals_are_validated_by_another_loss_in_a_panel_of_its_own(model, data, loss):
    model.set_params(loss=loss).fit(*data, X_val=data[0][:9], y_val=data[1][:9])
    display = JointTrainingDisplay.from_estimator(model)
    names = ("loss", "validation_loss", "validation_score", "smallest_weight")
    assert [display.lines_[name].axes for name in names] == list(display.axes_)
    assert display.axes_[1].get_ylabel() == "squared hinge\n(validation)"
    assert display.axes_[0].get_legend() is None


def test_the_line_of_collapse_is_in_sight_and_weights_of_zero_are_no_error():
    for weights in ([0.9, 0.8], [0.5, 1e-4], [0.3, 0.0], [1.0, 1.0]):
        display = JointTrainingDisplay(loss=[2, 1], smallest_weight=weights).plot()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            display.figure_.canvas.draw()
        panel = display.axes_[-1]
        low, high = panel.get_ylim()
        assert 0 < low < 0.01
        assert low < max(weights) < high
        assert low < weights[1] or weights[1] == 0
        levels = [line.get_ydata() for line in panel.lines if line.get_linestyle() == "--"]
        assert levels == [[0.01, 0.01]]


def test_the_epoch_that_early_stopping_went_back_to_is_marked(model, data):
    X, y = data
    model.set_params(early_stopping=True, n_iter_no_change=2, max_iter=9, learning_rate=0.3)
    model.fit(X, y, X_val=X[:12], y_val=(y[:12] + 1) % 3)  # the longer, the worse
    assert model.best_iter_ < model.n_iter_
    display = JointTrainingDisplay.from_estimator(model)
    assert [verticals(panel) for panel in display.axes_] == 3 * [[model.best_iter_]]


def test_a_single_pass_is_a_point(model, data):
    model.partial_fit(*data, classes=[0, 1, 2])
    display = JointTrainingDisplay.from_estimator(model)
    assert len(display.loss) == 1
    assert display.lines_["loss"].get_marker() == "o"
    assert display.lines_["loss"].get_markevery() == [0]


def test_validation_of_some_epochs_has_gaps_in_the_others(model, data):
    X, y = data
    model.set_params(warm_start=True).fit(X, y)
    n = model.n_iter_
    model.fit(X, y, X_val=X[:9], y_val=y[:9]).fit(X, y)
    display = JointTrainingDisplay.from_estimator(model)
    for name in ("validation_loss", "validation_score"):
        values = drawn(display)[name]
        assert len(values) == 3 * n
        np.testing.assert_array_equal(np.isfinite(values), np.repeat([0, 1, 0], n).astype(bool))
        assert display.lines_[name].get_markevery() == []


def test_an_epoch_alone_is_a_point():
    nan = np.nan
    losses = [nan, 2.0, nan, nan, 1.0, 0.5, nan, 0.4]
    display = JointTrainingDisplay(
        loss=np.ones(8), smallest_weight=np.ones(8), validation_loss=losses
    ).plot()
    assert display.lines_["validation_loss"].get_markevery() == [1, 7]
    assert display.lines_["loss"].get_markevery() == []


def test_panels_lie_in_the_axes_given(model, data):
    model.fit(*data, X_val=data[0][:9], y_val=data[1][:9])
    figure, (_, ax) = plt.subplots(1, 2)
    display = JointTrainingDisplay.from_estimator(model, ax=ax)
    figure.canvas.draw()
    assert display.figure_ is figure
    place = ax.get_position()
    panels = [panel.get_position() for panel in display.axes_]
    assert panels[0].y1 == pytest.approx(place.y1)
    assert panels[-1].y0 == pytest.approx(place.y0)
    assert panels[0].y0 > panels[1].y1 > panels[1].y0 > panels[2].y1
    for panel in panels:
        assert (panel.x0, panel.x1) == pytest.approx((place.x0, place.x1))
    assert display.plot() is display
    assert display.figure_ is not figure


def test_only_the_classifier_itself_has_a_history():
    with pytest.raises(TypeError, match="estimator is a LogisticRegression: pass a fitted Joint"):
        JointTrainingDisplay.from_estimator(LogisticRegression())
    with pytest.raises(NotFittedError):
        JointTrainingDisplay.from_estimator(JointFisherSVC())


def test_a_frozen_model_has_nothing_to_show(model, data):
    frozen = model.fit(*data).baseline_
    with pytest.raises(ValueError, match="trained for 0 epochs"):
        JointTrainingDisplay.from_estimator(frozen)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture_can_be_saved(model, data, tmp_path, kind):
    display = JointTrainingDisplay.from_estimator(model.fit(*data))
    path = tmp_path / f"training.{kind}"
    display.figure_.savefig(path)
    assert path.stat().st_size > 1000

"""Encodings in the plane, drawn without a screen."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfisher import EncodingDisplay, MeanPooling


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def bags(rng):
    return [rng.normal(size=(5, 4)) for _ in range(12)]


Y = np.array(["b", "a", "$c"])[np.arange(12) % 3]


def test_points_are_principal_components_of_encodings(bags):
    encoder = MeanPooling().fit(bags)
    display = EncodingDisplay.from_estimator(encoder, bags, Y)
    pca = PCA(2, random_state=0)
    expected = pca.fit_transform(encoder.transform(bags))
    assert_allclose(display.points, expected, atol=1e-12)
    share = f"{pca.explained_variance_ratio_[0]:.0%}"
    assert display.ax_.get_xlabel() == f"principal component 1 ({share} of the variance)"
    assert display.figure_ is display.ax_.figure
    for label, drawn in zip(np.unique(Y), display.points_, strict=True):
        assert_allclose(drawn.get_offsets(), expected[label == Y], atol=1e-12)
    texts = display.ax_.get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["$c", "a", "b"]
    display.figure_.canvas.draw()  # a dollar sign begins no formula


def test_pipelines_and_other_projections(bags):
    model = make_pipeline(MeanPooling(), StandardScaler()).set_output(transform="pandas").fit(bags)
    svd = TruncatedSVD(2, random_state=0)
    display = EncodingDisplay.from_estimator(model, bags, projection=svd)
    assert_allclose(abs(display.points), abs(svd.fit_transform(model.transform(bags).to_numpy())))
    assert len(display.points_) == 1
    assert display.ax_.get_legend() is None
    with pytest.raises(ValueError, match=r"shape \(12, 3\) for 12 encodings: .* 2 dimensions"):
        EncodingDisplay.from_estimator(model, bags, projection=PCA(3))


def test_axes_colours_and_names_are_given(bags):
    _, ax = plt.subplots()
    display = EncodingDisplay.from_estimator(
        MeanPooling().fit(bags), bags, Y, ax=ax, class_names=["x", "y", "_z"],
        scatter_kw={"s": 3}, cmap="viridis",
    )  # fmt: skip
    assert display.ax_ is ax
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["x", "y", "_z"]
    colors = {to_rgb(points.get_facecolor()[0, :3]) for points in display.points_}
    assert len(colors) == 3
    assert display.points_[0].get_sizes().tolist() == [3]
    assert EncodingDisplay(points=display.points).plot() is not display


def test_many_classes_have_colours_of_their_own(rng):
    display = EncodingDisplay(points=rng.normal(size=(50, 2)), y=np.arange(50) // 2).plot()
    assert len({tuple(points.get_facecolor()[0]) for points in display.points_}) == 25


def test_what_cannot_be_drawn_is_refused(bags, monkeypatch):
    encoder = MeanPooling().fit(bags)
    with pytest.raises(ValueError, match=r"y has shape \(11,\), but X holds 12 bags"):
        EncodingDisplay.from_estimator(encoder, bags, Y[:11])
    with pytest.raises(ValueError, match="a picture needs 2 bags and 2 features"):
        EncodingDisplay.from_estimator(encoder, bags[:1])
    for names in (["one"], ["one", "two", "three", "four"]):
        with pytest.raises(ValueError, match=f"are {len(names)}, but y holds 3 classes"):
            EncodingDisplay.from_estimator(encoder, bags, Y, class_names=names)
    for estimator in (LogisticRegression(), MeanPooling, None):
        with pytest.raises(TypeError, match=r"estimator is .*, which has no method"):
            EncodingDisplay.from_estimator(estimator, bags)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"EncodingDisplay needs .* skfisher\[plot\]"):
        EncodingDisplay.from_estimator(encoder, bags)

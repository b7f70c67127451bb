"""Displays, drawn without a screen."""

import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import matplotlib.text
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline

from skfisher import (
    DiagonalGaussianMixture,
    FisherVectorDisplay,
    FisherVectorEncoder,
    JointTrainingDisplay,
    MixtureDisplay,
    PowerL2Normalizer,
    VLADEncoder,
)


@pytest.fixture
def bags(rng):
    return [rng.normal(size=(n, 4)) * [1, 2, 3, 4] + [0, 0, 5, 0] for n in (30, 50, 20)]


@pytest.fixture
def encoder(bags):
    return FisherVectorEncoder(n_components=3, random_state=0).fit(bags)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def outline(ellipse):
    """Return points on the outline, in the coordinates of the data."""
    return ellipse.get_patch_transform().transform(ellipse.get_path().vertices)


def test_mixture_in_two_dimensions_shows_the_parameters(encoder, bags):
    display = MixtureDisplay.from_estimator(encoder, bags, dimensions=(3, 1))
    np.testing.assert_array_equal(display.points_.get_offsets(), np.concatenate(bags)[:, [3, 1]])
    np.testing.assert_allclose(display.means, encoder.means_[:, [3, 1]])
    for k, covariance in enumerate(display.covariances):
        np.testing.assert_allclose(covariance, np.diag(encoder.variances_[k, [3, 1]]), atol=1e-12)
    assert display.ax_.get_xlabel() == "feature 3"
    assert display.figure_ is display.ax_.figure


@pytest.mark.parametrize("dimensions", [(0, 2), "principal"])
def test_outlines_are_curves_of_equal_density(encoder, bags, dimensions):
    display = MixtureDisplay.from_estimator(encoder, bags, dimensions=dimensions, n_std=2.5)
    assert len(display.ellipses_) == 3
    for ellipse in display.ellipses_:
        k = int(np.abs(display.means - ellipse.center).sum(axis=1).argmin())
        away = outline(ellipse) - display.means[k]
        distance = np.einsum("ni,ij,nj->n", away, np.linalg.inv(display.covariances[k]), away)
        # the corners of the Bezier curves that draw the ellipse lie on it, others just outside
        assert np.sqrt(distance.min()) == pytest.approx(2.5, rel=1e-6)


def test_principal_axes_agree_with_pca(encoder, bags):
    from sklearn.decomposition import PCA

    display = MixtureDisplay.from_estimator(encoder, bags, dimensions="principal")
    expected = PCA(2).fit_transform(np.concatenate(bags))
    np.testing.assert_allclose(np.abs(display.descriptors), np.abs(expected), atol=1e-9)
    largest = np.linalg.eigvalsh(np.diag(encoder.variances_[0])).max()
    assert np.linalg.eigvalsh(display.covariances[0]).max() <= largest + 1e-9


def test_a_sample_of_the_descriptors_is_drawn(encoder, bags):
    display = MixtureDisplay.from_estimator(encoder, bags, max_descriptors=17)
    assert len(display.points_.get_offsets()) == 17


def test_mixtures_and_given_axes(bags):
    mixture = DiagonalGaussianMixture(n_components=2, random_state=0, tol=1e-2).fit(bags)
    _, ax = plt.subplots()
    display = MixtureDisplay.from_estimator(
        mixture, bags, ax=ax, ellipse_kw={"linewidth": 3}, scatter_kw={"s": 1}
    )
    assert display.ax_ is ax
    assert display.ellipses_[0].get_linewidth() == 3
    assert display.plot() is display
    assert display.ax_ is not ax


def test_names_of_features_label_the_axes(rng):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rng.normal(size=(40, 3)), columns=["red", "green", "blue"])
    mixture = DiagonalGaussianMixture(n_components=2, random_state=0, tol=1e-2).fit(frame)
    display = MixtureDisplay.from_estimator(mixture, frame, dimensions=(2, 0))
    assert display.ax_.get_xlabel() == "blue"
    assert display.ax_.get_ylabel() == "red"


def test_mixtures_of_scikit_learn(bags):
    mixture = DiagonalGaussianMixture(n_components=2, random_state=0, tol=1e-2).fit(bags)
    expected = MixtureDisplay.from_estimator(mixture, bags, dimensions="principal")
    found = MixtureDisplay.from_estimator(mixture.to_sklearn(), bags, dimensions="principal")
    np.testing.assert_allclose(found.weights, expected.weights)
    np.testing.assert_allclose(found.means, expected.means)
    np.testing.assert_allclose(found.covariances, expected.covariances)


@pytest.mark.parametrize(
    ("estimator", "error", "words"),
    [
        (GaussianMixture(covariance_type="diag"), NotFittedError, "not fitted"),
        (GaussianMixture(2), ValueError, "covariance_type='full'"),
        (
            LogisticRegression(),
            TypeError,
            "estimator is a LogisticRegression: pass a fitted Fisher",
        ),
    ],
)
def test_estimators_without_a_diagonal_mixture_are_refused(bags, estimator, error, words):
    with pytest.raises(error, match=words):
        MixtureDisplay.from_estimator(estimator, bags)


@pytest.mark.parametrize("dimensions", [(0, 0), (0, 4), (-1, 0), (0, 1, 2), 1, "both", (0.5, 1)])
def test_dimensions_that_are_not_two_features_are_refused(encoder, bags, dimensions):
    with pytest.raises(ValueError, match="'principal' or two different features from 0 to 3"):
        MixtureDisplay.from_estimator(encoder, bags, dimensions=dimensions)


def test_one_feature_or_one_descriptor_has_no_principal_axes(encoder, rng):
    narrow = DiagonalGaussianMixture(n_components=1).fit([rng.normal(size=(9, 1))])
    with pytest.raises(ValueError, match="1 feature per descriptor"):
        MixtureDisplay.from_estimator(narrow, [np.ones((3, 1))], dimensions="principal")
    with pytest.raises(ValueError, match="1 descriptor"):
        MixtureDisplay.from_estimator(encoder, [np.ones((1, 4))], dimensions="principal")


@pytest.mark.parametrize("display", [MixtureDisplay, FisherVectorDisplay])
def test_estimators_must_be_fitted(display, bags):
    with pytest.raises(NotFittedError):
        display.from_estimator(FisherVectorEncoder(), bags)


@pytest.mark.parametrize(
    "estimator",
    [VLADEncoder(2), make_pipeline(FisherVectorEncoder(2)), DiagonalGaussianMixture(2), None],
    ids=str,
)
def test_what_has_no_fisher_vectors_is_named(bags, estimator):
    fitted = estimator if estimator is None else clone(estimator).fit(bags)
    words = f"estimator is .*{type(estimator).__name__[:4]}.*: pass a fitted FisherVectorEncoder"
    with pytest.raises(TypeError, match=words):
        FisherVectorDisplay.from_estimator(fitted, bags)


@pytest.mark.parametrize("include_weights", [True, False])
def test_maps_are_the_blocks_of_the_fisher_vector(encoder, bags, include_weights):
    encoder.set_params(include_weights=include_weights)
    display = FisherVectorDisplay.from_estimator(encoder, bags[:1])
    names = FisherVectorEncoder.get_feature_names_out(encoder)
    encoding = dict(zip(names, encoder.transform(bags[:1])[0], strict=True))
    for k in range(3):
        for d in range(4):
            assert display.means[k, d] == encoding[f"mean_k{k}_d{d}"]
            assert display.variances[k, d] == encoding[f"variance_k{k}_d{d}"]
    np.testing.assert_array_equal(display.images_[1].get_array(), display.variances)
    assert display.axes_[0] is display.ax_
    assert display.figure_ is display.ax_.figure


def test_the_mean_of_several_bags_is_shown(encoder, bags):
    display = FisherVectorDisplay.from_estimator(encoder, bags)
    expected = encoder.transform(bags).mean(axis=0)[-12:].reshape(3, 4)
    np.testing.assert_allclose(display.variances, expected)


def test_colours_are_centred_at_zero_and_shared(encoder, bags):
    display = FisherVectorDisplay.from_estimator(encoder, bags)
    largest = max(np.abs(display.means).max(), np.abs(display.variances).max())
    assert {image.get_clim() for image in display.images_} == {(-largest, largest)}
    assert display.plot(vmax=0.5).images_[0].get_clim() == (-0.5, 0.5)


def test_normalised_encodings_and_given_axes(encoder, bags):
    (encoding,) = PowerL2Normalizer().fit_transform(encoder.transform(bags[:1]))
    _, axes = plt.subplots(1, 2)
    display = FisherVectorDisplay.from_encoding(encoding, 3, 4, feature_names=list("abcd"))
    assert display.plot(ax=axes[1], colorbar=False) is display
    assert display.figure_ is axes[1].figure
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == list("abcd")
    # both maps lie where the given axes were
    place = axes[1].get_position()
    assert all(place.x0 - 1e-6 <= panel.get_position().x0 for panel in display.axes_)


@pytest.mark.parametrize("colorbar", [True, False])
def test_axes_without_a_grid(encoder, bags, colorbar):
    figure = plt.figure(figsize=(8, 4))
    ax = figure.add_axes([0.2, 0.2, 0.6, 0.6])
    display = FisherVectorDisplay.from_estimator(encoder, bags, ax=ax, colorbar=colorbar)
    figure.canvas.draw()
    assert display.figure_ is figure
    places = [panel.get_position() for panel in ax.child_axes]
    assert len(places) == 2 + colorbar
    assert places[0].x0 == pytest.approx(0.2)
    assert places[-1].x1 <= 0.8
    for one, next_one in pairwise(places):
        assert one.x1 < next_one.x0
        assert (one.y0, one.y1) == pytest.approx((0.2, 0.8))


def test_a_fisher_vector_of_zeros_is_white():
    display = FisherVectorDisplay.from_encoding(np.zeros(14), 2, 3).plot()
    assert display.images_[0].get_clim() == (-1, 1)


def test_vectors_of_another_length_are_refused():
    with pytest.raises(
        ValueError, match=r"has 14 entries, or 12 without weights, got shape \(13,\)"
    ):
        FisherVectorDisplay.from_encoding(np.zeros(13), 2, 3)


def test_entries_without_a_colour_and_names_without_a_feature_are_refused():
    with pytest.raises(ValueError, match="encoding contains NaN or infinity"):
        FisherVectorDisplay.from_encoding(np.r_[np.zeros(13), np.nan], 2, 3)
    with pytest.raises(ValueError, match="feature_names are 2, but n_features=3"):
        FisherVectorDisplay.from_encoding(np.zeros(14), 2, 3, feature_names=["a", "b"])


# Names as users give them: each is a formula, half a formula or an error to matplotlib's parser
NAMES = ["price $", "$a_1$", "x_1^2", r"C:\data\new", "$\\frac{$", "50%", "a & b # {c}", "$$"]


def texts(figure):
    """Return the texts of a figure that begin with the names above, as they are drawn."""
    figure.canvas.draw()
    found = {}
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() in NAMES:
            found[text.get_text()] = text._preprocess_math(text.get_text())
    return found


@pytest.mark.parametrize("usetex", [False, True])
def test_names_of_users_are_no_formulas(rng, usetex):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rng.normal(size=(40, len(NAMES))), columns=NAMES)
    encoder = FisherVectorEncoder(n_components=2, random_state=0).fit(frame)
    plain = {name: (name, False) for name in NAMES}
    for i in range(0, len(NAMES), 2):
        mixture = MixtureDisplay.from_estimator(encoder, frame, dimensions=(i, i + 1))
        assert texts(mixture.figure_) == {name: plain[name] for name in NAMES[i : i + 2]}
    encodings = FisherVectorDisplay.from_estimator(encoder, frame)
    assert texts(encodings.figure_) == plain
    # also where every text is meant to be typeset by LaTeX, save for our own, which needs LaTeX
    with plt.rc_context({"text.usetex": usetex}):
        _, ax = plt.subplots()
        encodings.plot(ax=ax, colorbar=False)
        labels = [label for panel in encodings.axes_ for label in panel.get_xticklabels()]
        assert [label.get_text() for label in labels] == 2 * NAMES
        assert not any(label.get_usetex() or label.get_parse_math() for label in labels)
        mixture.plot()
        for label in (mixture.ax_.xaxis.label, mixture.ax_.yaxis.label):
            assert not label.get_usetex()
            assert not label.get_parse_math()


def test_displays_name_what_they_need(encoder, bags, monkeypatch):
    made = [
        MixtureDisplay.from_estimator(encoder, bags),
        FisherVectorDisplay.from_estimator(encoder, bags),
        JointTrainingDisplay(loss=[2, 1], smallest_weight=[1, 1]),
    ]
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for display in made:
        words = rf"^{type(display).__name__} needs matplotlib.* Install skfisher\[plot\]"
        with pytest.raises(ImportError, match=words):
            display.plot()
        with pytest.raises(ImportError, match=words):
            type(display).from_estimator(*[encoder, bags][: 1 + hasattr(display, "means")])


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_can_be_saved(encoder, bags, tmp_path, kind):
    for number, display in enumerate(
        [
            MixtureDisplay.from_estimator(encoder, bags, dimensions="principal"),
            FisherVectorDisplay.from_estimator(encoder, bags),
        ]
    ):
        path = tmp_path / f"{number}.{kind}"
        display.figure_.savefig(path)
        assert path.stat().st_size > 1000

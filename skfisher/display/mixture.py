"""Pictures of mixtures."""

import math
import operator

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.dense import describe
from skfisher.arrays.libraries import to_host
from skfisher.bags.sampling import draw_descriptors
from skfisher.codebooks.fitting import MixtureFitter
from skfisher.codebooks.given import mixture_of
from skfisher.contract.validation import check_bags
from skfisher.display.pyplot import PLAIN_TEXT, axes_of, import_pyplot
from skfisher.encoders.fisher import FisherVectorEncoder

__all__ = ["MixtureDisplay", "mixture_shown"]


class MixtureDisplay:
    """A mixture in the plane: an ellipse for each component, over the descriptors.

    Use `from_estimator` to make it from a fitted estimator.

    Parameters
    ----------
    descriptors : ndarray of shape (n, 2)
        The descriptors in the plane.
    weights : ndarray of shape (n_components,)
        Share of each component.
    means : ndarray of shape (n_components, 2)
        Centres in the plane.
    covariances : ndarray of shape (n_components, 2, 2)
        Covariances in the plane.
    axis_names : tuple of two str, default=("", "")
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    points_ : matplotlib PathCollection
        The descriptors.
    ellipses_ : list of matplotlib Ellipse
        The outline of each component.

    See Also
    --------
    FisherVectorDisplay : A Fisher vector as maps.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skfisher import FisherVectorEncoder, ImagePatches, MixtureDisplay
    >>> bags = ImagePatches(patch_size=4).fit_transform(load_digits().images[:100])
    >>> encoder = FisherVectorEncoder(n_components=4, random_state=0).fit(bags)
    >>> display = MixtureDisplay.from_estimator(encoder, bags, dimensions="principal")
    """

    def __init__(self, *, descriptors, weights, means, covariances, axis_names=("", "")):
        self.descriptors = descriptors
        self.weights = weights
        self.means = means
        self.covariances = covariances
        self.axis_names = axis_names

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        dimensions=(0, 1),
        max_descriptors=5000,
        random_state=0,
        ax=None,
        **kwargs,
    ):
        """Display two dimensions of a fitted mixture and of bags.

        Parameters
        ----------
        estimator : DiagonalGaussianMixture, FisherVectorEncoder or GaussianMixture
            Fitted; scikit-learn's mixture with ``covariance_type="diag"``.
        X : Bags, list of arrays, 3-D array or table
            The bags whose descriptors are drawn.
        dimensions : pair of int or "principal", default=(0, 1)
            Two features of a descriptor, or the two principal axes of the descriptors drawn.
        max_descriptors : int, default=5000
            How many descriptors to draw, chosen at random from all bags together.
        random_state : int, RandomState instance or None, default=0
            Seed of that choice.
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : MixtureDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` is none of those.
        ValueError
            If its covariances are not diagonal, `dimensions` are not two different features, or
            descriptors have only one.
        """
        import_pyplot(cls)
        weights, means, variances = mixture_shown(estimator)
        bags = check_bags(estimator, X, reset=False)
        width = bags.n_features
        sample, _ = draw_descriptors(bags, max_descriptors, random_state)
        x = to_host(sample.pack().values).astype(np.float64)
        origin, names = np.zeros(width), ("", "")
        if isinstance(dimensions, str) and dimensions == "principal":
            if width < 2:
                raise ValueError("X has 1 feature per descriptor: a picture needs 2.")
            origin = x.mean(axis=0)
            _, _, axes = np.linalg.svd(x - origin, full_matrices=False)
            if len(axes) < 2:
                raise ValueError("X has 1 descriptor: principal axes need at least 2.")
            axes = axes[:2]
            # Signs of singular vectors are arbitrary: fix them.
            axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
            names = ("first principal axis", "second principal axis")
        else:
            dimensions = _check_dimensions(dimensions, width)
            axes = np.eye(width)[list(dimensions)]
            known = getattr(estimator, "feature_names_in_", [f"feature {j}" for j in range(width)])
            names = tuple(known[j] for j in dimensions)
        display = cls(
            descriptors=(x - origin) @ axes.T,
            weights=np.asarray(weights),
            means=(means - origin) @ axes.T,
            covariances=np.einsum("id,kd,jd->kij", axes, variances, axes),
            axis_names=names,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, n_std=1.5, cmap="viridis", scatter_kw=None, ellipse_kw=None):
        """Draw the descriptors and the ellipses.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        n_std : float, default=1.5
            Half axes of an ellipse in standard deviations. An ellipse of 1.5 holds two thirds of
            a component's descriptors in the plane.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours of the components, by their weight.
        scatter_kw, ellipse_kw : dict, default=None
            Passed to matplotlib's ``scatter`` and ``Ellipse``.

        Returns
        -------
        display : MixtureDisplay
            Itself.
        """
        ax = axes_of(self, ax)
        import matplotlib as mpl
        from matplotlib.patches import Ellipse

        points = {"s": 5, "color": "0.35", "alpha": 0.3, "linewidths": 0, "rasterized": True}
        self.points_ = ax.scatter(*self.descriptors.T, **(points | (scatter_kw or {})))

        norm = mpl.colors.Normalize(0, self.weights.max())
        colors = mpl.colormaps.get_cmap(cmap)(norm(self.weights))
        self.ellipses_ = []
        # Light components last, so that heavy ones do not hide them.
        for k in np.argsort(-self.weights):
            lengths, directions = np.linalg.eigh(self.covariances[k])
            tilt = math.degrees(math.atan2(directions[1, 1], directions[0, 1]))
            major, minor = 2 * n_std * np.sqrt(np.maximum(lengths[::-1], 0))
            style = {
                "facecolor": (*colors[k, :3], min(0.15, 3 / len(colors))),
                "edgecolor": (*colors[k, :3], 0.9),
                "linewidth": 1.5,
            }
            ellipse = Ellipse(
                self.means[k], major, minor, angle=tilt, **(style | (ellipse_kw or {}))
            )
            self.ellipses_.append(ax.add_patch(ellipse))
        ax.scatter(*self.means.T, s=12, color=colors, edgecolors="white", linewidths=0.5, zorder=3)
        ax.set_xlabel(self.axis_names[0], **PLAIN_TEXT)
        ax.set_ylabel(self.axis_names[1], **PLAIN_TEXT)
        ax.autoscale_view()
        ax.spines[["top", "right"]].set_visible(False)
        bar = ax.figure.colorbar(mpl.cm.ScalarMappable(norm, cmap), ax=ax, label="weight")
        bar.outline.set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def mixture_shown(estimator):
    """Return weights, means and variances of a fitted estimator."""
    if isinstance(estimator, FisherVectorEncoder):
        check_is_fitted(estimator)
        estimator = estimator.mixture_
    if not isinstance(estimator, MixtureFitter | GaussianMixture):
        raise TypeError(
            f"estimator is {describe(estimator)}: pass a fitted FisherVectorEncoder, "
            "DiagonalGaussianMixture or sklearn.mixture.GaussianMixture(covariance_type='diag')."
        )
    return mixture_of(estimator)


def _check_dimensions(dimensions, width):
    try:
        i, j = (operator.index(d) for d in dimensions)
    except (TypeError, ValueError):
        i = j = -1
    if i == j or not (0 <= i < width and 0 <= j < width):
        raise ValueError(
            f"dimensions={dimensions!r} must be 'principal' or two different features from 0 to "
            f"{width - 1}."
        )
    return i, j

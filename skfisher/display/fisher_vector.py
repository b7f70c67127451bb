"""Pictures of Fisher vectors."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.dense import as_dense, describe
from skfisher.arrays.libraries import to_host
from skfisher.display.pyplot import PLAIN_TEXT, import_pyplot

__all__ = ["FisherVectorDisplay"]


class FisherVectorDisplay:
    r"""A Fisher vector as two maps, components by features.

    The first map shows how the bag would move the means of each component, the second how it would
    change the variances, in units in which the mixture's own descriptors average to zero. Red is an
    increase, blue a decrease, white no change.

    Use `from_estimator` to make it from a fitted encoder.

    Parameters
    ----------
    means : ndarray of shape (n_components, n_features)
        The part of the Fisher vector that belongs to the means.
    variances : ndarray of shape (n_components, n_features)
        The part that belongs to the variances.
    feature_names : list of str, default=None
        Names of the features, shown if there are at most 24.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
        Those of the two maps.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
        The figure of `axes_`.
    images_ : list of two matplotlib AxesImage
        The maps.

    See Also
    --------
    MixtureDisplay : The mixture in the plane.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skfisher import FisherVectorDisplay, FisherVectorEncoder, ImagePatches
    >>> bags = ImagePatches(patch_size=4).fit_transform(load_digits().images[:100])
    >>> encoder = FisherVectorEncoder(n_components=4, random_state=0).fit(bags)
    >>> display = FisherVectorDisplay.from_estimator(encoder, bags[:1])
    >>> display.means.shape
    (4, 16)
    """

    def __init__(self, *, means, variances, feature_names=None):
        self.means = means
        self.variances = variances
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None, **kwargs):
        """Encode bags and display the mean of their Fisher vectors.

        Parameters
        ----------
        estimator : FisherVectorEncoder, or a joint model of Fisher vectors
            Fitted; the last step, if it is in a pipeline.
        X : Bags, list of arrays, 3-D array or table
            The bags to encode: ``bags[[i]]`` for one, ``bags[y == c]`` for what a class has in
            common.
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure. The two maps share its place.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : FisherVectorDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` is something else.
        NotFittedError
            If it is not fitted.
        """
        import_pyplot(cls)
        if hasattr(estimator, "transform"):
            check_is_fitted(estimator)
        if not (hasattr(estimator, "transform") and hasattr(estimator, "means_")):
            raise TypeError(
                f"estimator is {describe(estimator)}: pass a fitted FisherVectorEncoder, the step "
                "before the classifier if it is in a pipeline."
            )
        encoding = to_host(estimator.transform(X)).mean(axis=0)
        known = getattr(estimator, "feature_names_in_", None)
        display = cls.from_encoding(
            encoding, *estimator.means_.shape, feature_names=None if known is None else list(known)
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_encoding(cls, encoding, n_components, n_features, *, feature_names=None):
        """Cut a Fisher vector into its maps, without drawing them.

        Parameters
        ----------
        encoding : array-like of shape (K + 2 K D,) or (2 K D,)
            A Fisher vector, normalised or not, or anything in its order, such as the
            coefficients of a linear classifier.
        n_components : int
            K.
        n_features : int
            D.
        feature_names : list of str, default=None
            Names of the D features.

        Returns
        -------
        display : FisherVectorDisplay
            Call its `plot`.

        Raises
        ------
        ValueError
            If the length fits neither form, there are not D names, or entries are not finite.
        """
        encoding = as_dense(encoding, "encoding")
        size = n_components * n_features
        if encoding.shape not in ((2 * size,), (2 * size + n_components,)):
            raise ValueError(
                f"a Fisher vector of n_components={n_components}, n_features={n_features} has "
                f"{2 * size + n_components} entries, or {2 * size} without weights, got shape "
                f"{encoding.shape}."
            )
        if not np.isfinite(to_host(encoding)).all():
            raise ValueError("encoding contains NaN or infinity, which has no colour.")
        if feature_names is not None and len(feature_names) != n_features:
            raise ValueError(
                f"feature_names are {len(feature_names)}, but n_features={n_features}: give one "
                "name for each."
            )
        means, variances = encoding[-2 * size :].reshape(2, n_components, n_features)
        return cls(means=means, variances=variances, feature_names=feature_names)

    def plot(self, ax=None, *, cmap="RdBu_r", vmax=None, colorbar=True):
        """Draw the two maps on one scale of colours.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure. The two maps share its place.
        cmap : str or matplotlib Colormap, default="RdBu_r"
            A diverging map of colours; its middle is zero.
        vmax : float, default=None
            The value at the ends of the colours, by default the largest magnitude.
        colorbar : bool, default=True
            Whether to add a scale of the colours.

        Returns
        -------
        display : FisherVectorDisplay
            Itself.
        """
        plt = import_pyplot(type(self))
        n_components, n_features = self.means.shape
        bar_ax = None
        if ax is None:
            size = (min(2.5 + 0.36 * n_features, 11), min(1.6 + 0.2 * n_components, 7))
            figure, axes = plt.subplots(1, 2, sharey=True, figsize=size, layout="constrained")
        else:
            figure = ax.figure
            ax.set_axis_off()
            place = ax.get_subplotspec()
            if place is None:  # made by figure.add_axes
                axes, bar_ax = _inset_panels(ax, colorbar)
            else:
                axes = place.subgridspec(1, 2, wspace=0.08).subplots(sharey=True)
        if vmax is None:
            vmax = max(np.abs(self.means).max(), np.abs(self.variances).max()) or 1.0
        style = {"cmap": cmap, "vmin": -vmax, "vmax": vmax, "aspect": "auto"}
        self.images_ = []
        for panel, block, title in zip(
            axes, (self.means, self.variances), ("means", "variances"), strict=True
        ):
            self.images_.append(panel.imshow(block, interpolation="nearest", **style))
            panel.set(title=title, xlabel="feature")
            panel.spines[:].set_color("0.8")
            panel.tick_params(length=2)
            panel.yaxis.get_major_locator().set_params(integer=True)
            panel.xaxis.get_major_locator().set_params(integer=True)
            if self.feature_names is not None and n_features <= 24:
                panel.set_xticks(range(n_features), self.feature_names, rotation=90, **PLAIN_TEXT)
                panel.set_xlabel("")
        axes[0].set_ylabel("component")
        if colorbar:
            room = {"ax": list(axes), "pad": 0.02} if bar_ax is None else {"cax": bar_ax}
            bar = figure.colorbar(self.images_[0], label="Fisher vector", **room)
            bar.outline.set_visible(False)
        self.axes_, self.ax_, self.figure_ = axes, axes[0], figure
        return self


def _inset_panels(ax, colorbar):
    """Return an array of two panels side by side in `ax`, and one for the colours or None."""
    width = 0.43 if colorbar else 0.48
    left = ax.inset_axes([0, 0, width, 1])
    right = ax.inset_axes([width + 0.04, 0, width, 1], sharey=left)
    right.tick_params(labelleft=False)
    return np.array([left, right]), ax.inset_axes([0.94, 0, 0.03, 1]) if colorbar else None

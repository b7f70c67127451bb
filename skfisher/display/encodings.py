"""Pictures of encodings: a point for each bag."""

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA

from skfisher.arrays.dense import as_numpy, describe
from skfisher.arrays.libraries import to_host
from skfisher.contract.labels import read_labels
from skfisher.display.pyplot import PLAIN_TEXT, axes_of, import_pyplot

__all__ = ["EncodingDisplay"]


class EncodingDisplay:
    """Encodings in the plane: a point for each bag, a colour for each class.

    Use `from_estimator` to make it from a fitted encoder.

    Parameters
    ----------
    points : ndarray of shape (n_bags, 2)
        The encodings in the plane.
    y : ndarray of shape (n_bags,), default=None
        Classes.
    axis_names : tuple of two str, default=("", "")
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    points_ : list of matplotlib PathCollection
        The points of each class, in the order of ``np.unique(y)``.

    See Also
    --------
    FisherVectorDisplay : One Fisher vector, or a mean of several, as maps.
    MixtureDisplay : Descriptors in the plane.

    Examples
    --------
    >>> from skfisher import EncodingDisplay, FisherVectorEncoder
    >>> from skfisher.datasets import load_digits_patches
    >>> digits = load_digits_patches()
    >>> bags, y = digits.data[:200], digits.target[:200]
    >>> encoder = FisherVectorEncoder(4, normalize="power-l2", random_state=0).fit(bags)
    >>> display = EncodingDisplay.from_estimator(encoder, bags, y)
    >>> display.points.shape
    (200, 2)
    """

    def __init__(self, *, points, y=None, axis_names=("", "")):
        self.points = points
        self.y = y
        self.axis_names = axis_names

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, projection=None, ax=None, **kwargs):
        """Encode bags and project them to the plane.

        Parameters
        ----------
        estimator : transformer
            A fitted encoder, or a pipeline whose last step is a transformer.
        X : Bags, list of arrays, or whatever the estimator takes
            The samples to encode.
        y : array-like of shape (n_bags,), default=None
            Classes, for colours.
        projection : transformer, default=None
            Any scikit-learn transformer to two dimensions, such as :class:`sklearn.manifold.TSNE`;
            a clone is fitted to the encodings. By default principal components.
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : EncodingDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` is no transformer.
        ValueError
            If encodings are not projected to two dimensions, or `y` has another length.
        """
        import_pyplot(cls)
        if isinstance(estimator, type) or not hasattr(estimator, "transform"):
            raise TypeError(
                f"estimator is {describe(estimator)}, which has no method transform: pass a fitted "
                "encoder, or pipeline[:-1] of a pipeline that ends in a classifier."
            )
        encodings = np.asarray(to_host(estimator.transform(X)), dtype=np.float64)
        names = ("", "")
        if projection is None:
            if min(encodings.shape) < 2:
                raise ValueError(
                    f"encodings have shape {encodings.shape}: a picture needs 2 bags and 2 "
                    "features."
                )
            pca = PCA(2, random_state=0)
            points = pca.fit_transform(encodings)
            shares = pca.explained_variance_ratio_
            names = tuple(
                f"principal component {j + 1} ({share:.0%} of the variance)"
                for j, share in enumerate(shares)
            )
        else:
            points = as_numpy(clone(projection).fit_transform(encodings, y))
        if points.shape != (len(encodings), 2):
            raise ValueError(
                f"{projection} returned an array of shape {points.shape} for {len(encodings)} "
                "encodings: a picture needs 2 dimensions of each."
            )
        if y is not None:
            y = read_labels(y)
            if y.shape != (len(points),):
                raise ValueError(f"y has shape {y.shape}, but X holds {len(points)} bags.")
        return cls(points=points, y=y, axis_names=names).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, class_names=None, cmap=None, scatter_kw=None):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        class_names : list of str, default=None
            Names of the classes in the order of ``np.unique(y)``, by default the classes.
        cmap : str or matplotlib Colormap, default=None
            Colours of the classes, by default "tab10" for up to ten, else "turbo".
        scatter_kw : dict, default=None
            Passed to matplotlib's ``scatter``.

        Returns
        -------
        display : EncodingDisplay
            Itself.

        Raises
        ------
        ValueError
            If there are not as many names as classes.
        """
        classes = () if self.y is None else np.unique(self.y)
        if class_names is not None and len(class_names) != len(classes):
            raise ValueError(
                f"class_names={class_names!r} are {len(class_names)}, but y holds {len(classes)} "
                "classes: give one name for each."
            )
        ax = axes_of(self, ax)
        import matplotlib as mpl

        style = {"s": 14, "alpha": 0.8, "linewidths": 0, **(scatter_kw or {})}
        self.points_ = []
        if self.y is None:
            self.points_.append(ax.scatter(*self.points.T, **style))
        else:
            few = len(classes) <= 10
            colors = mpl.colormaps.get_cmap(cmap or ("tab10" if few else "turbo"))
            places = (
                range(len(classes)) if cmap is None and few else np.linspace(0, 1, len(classes))
            )
            for label, place in zip(classes, places, strict=True):
                mine = self.points[self.y == label]
                self.points_.append(ax.scatter(*mine.T, color=colors(place), **style))
            names = [str(name) for name in (classes if class_names is None else class_names)]
            legend = ax.legend(
                self.points_, names, frameon=False, loc="upper left", bbox_to_anchor=(1, 1),
                ncols=1 + len(names) // 20,
            )  # fmt: skip
            for text in legend.get_texts():
                text.set(**PLAIN_TEXT)
        ax.set_xlabel(self.axis_names[0], **PLAIN_TEXT)
        ax.set_ylabel(self.axis_names[1], **PLAIN_TEXT)
        ax.spines[["top", "right"]].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

"""Pictures of images, with the component that each patch fell to."""

import numpy as np
from sklearn.base import clone
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.libraries import to_host
from skfisher.descriptors.images import with_channels
from skfisher.descriptors.patches import ImagePatches
from skfisher.descriptors.reading import read_array, read_image
from skfisher.descriptors.sift import DenseSIFT
from skfisher.display.pyplot import axes_of, import_pyplot

__all__ = ["ComponentDisplay"]


class ComponentDisplay:
    """An image, and which component or word each of its patches fell to.

    Use `from_estimator` to make it from a fitted pipeline.

    Parameters
    ----------
    image : ndarray of shape (height, width) or (height, width, 3)
        The image.
    positions : ndarray of shape (n_patches, 2)
        x and y of the centre of each patch, in pixels.
    components : ndarray of int of shape (n_patches,)
        Component or word of each patch.
    n_components : int
        Number of components or words.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    image_ : matplotlib AxesImage
        The image.
    points_ : matplotlib PathCollection
        The patches.

    See Also
    --------
    MixtureDisplay : The mixture in the plane of two features.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from skfisher import ComponentDisplay, FisherVectorEncoder, ImagePatches
    >>> images = load_digits().images[:100]
    >>> model = make_pipeline(ImagePatches(3), FisherVectorEncoder(4, random_state=0)).fit(images)
    >>> display = ComponentDisplay.from_estimator(model, images[0])
    >>> display.components.shape
    (36,)
    """

    def __init__(self, *, image, positions, components, n_components):
        self.image = image
        self.positions = positions
        self.components = components
        self.n_components = n_components

    @classmethod
    def from_estimator(cls, estimator, image, *, ax=None, **kwargs):
        """Cut an image into patches, and find the most likely component for each.

        Parameters
        ----------
        estimator : Pipeline
            A fitted pipeline whose first step is `ImagePatches` or `DenseSIFT`. The first later
            step that has a mixture or words assigns patches to them; the steps between transform
            descriptors.
        image : array of shape (height, width) or (height, width, n_channels), or path
            The image.
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        **kwargs
            Passed to `plot`.

        Returns
        -------
        display : ComponentDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `estimator` is not such a pipeline.
        """
        import_pyplot(cls)
        extractor, before, encoder = _steps(estimator)
        check_is_fitted(encoder)
        bags = extractor.transform([image])
        for step in before:
            bags = step.transform(bags)
        components, n_components = _components(encoder, bags)
        placed = clone(extractor).set_params(positions=1.0).fit_transform([image])
        if isinstance(image, str) or hasattr(image, "__fspath__"):
            image = read_array(str(image), extractor.reader or read_image)
        image = with_channels(image, "image")
        height, width = image.shape[:2]
        positions = (placed.values[:, -2:].astype(np.float64) + 0.5) * (width, height) - 0.5
        image = image if image.shape[2] in (3, 4) else image[..., 0]
        display = cls(
            image=image, positions=positions, components=components, n_components=n_components
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, cmap=None, image_cmap="gray", colorbar=True, scatter_kw=None):
        """Draw the image, and over it a square for each patch.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, by default a new figure.
        cmap : str or matplotlib Colormap, default=None
            Colours of the components, by default "tab10" or "tab20" if these have enough colours,
            else "turbo".
        image_cmap : str or matplotlib Colormap, default="gray"
            Colours of an image with one channel.
        colorbar : bool, default=True
            Whether to add a scale of the components.
        scatter_kw : dict, default=None
            Passed to matplotlib's ``scatter``; ``{"s": 9}`` for smaller squares.

        Returns
        -------
        display : ComponentDisplay
            Itself.
        """
        ax = axes_of(self, ax)
        import matplotlib as mpl

        k = self.n_components
        colors = mpl.colormaps.get_cmap(
            cmap or ("tab10" if k <= 10 else "tab20" if k <= 20 else "turbo")
        )
        listed = isinstance(colors, mpl.colors.ListedColormap) and k <= colors.N <= 20
        colors = mpl.colors.ListedColormap(
            colors(range(k)) if listed else colors(np.linspace(0, 1, k))
        )
        norm = mpl.colors.BoundaryNorm(np.arange(k + 1) - 0.5, k)
        self.image_ = ax.imshow(self.image, cmap=image_cmap)
        style = {"s": 36, "marker": "s", "alpha": 0.75, "linewidths": 0, **(scatter_kw or {})}
        self.points_ = ax.scatter(
            *self.positions.T, c=self.components, cmap=colors, norm=norm, **style
        )
        ax.set(xticks=[], yticks=[])
        if colorbar:
            bar = ax.figure.colorbar(self.points_, ax=ax, label="component")
            bar.set_ticks(np.unique(np.linspace(0, k - 1, min(k, 16)).round().astype(int)))
            bar.minorticks_off()
            bar.outline.set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _steps(estimator):
    """Return the step that cuts images, those that transform descriptors, and the encoder."""
    steps = [step for _, step in getattr(estimator, "steps", [])]
    steps = [step for step in steps if step is not None and not isinstance(step, str)]
    if steps and isinstance(steps[0], ImagePatches | DenseSIFT):
        for i, step in enumerate(steps[1:], 1):
            if hasattr(step, "predict_proba") and hasattr(step, "means_"):
                return steps[0], steps[1:i], step
            if hasattr(step, "mixture_") or hasattr(step, "cluster_centers_"):
                return steps[0], steps[1:i], step
    raise TypeError(
        f"estimator is a {type(estimator).__name__}: pass a fitted pipeline that begins with "
        "ImagePatches or DenseSIFT and holds an encoder with a mixture or words."
    )


def _components(encoder, bags):
    """Return the component or word of every descriptor, and how many there are."""
    if hasattr(encoder, "cluster_centers_"):
        centers = encoder.cluster_centers_
        return pairwise_distances_argmin(to_host(bags.values), centers), len(centers)
    mixture = getattr(encoder, "mixture_", encoder)
    return to_host(mixture.predict(bags)), len(mixture.means_)

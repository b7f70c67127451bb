"""Images in, bags of flattened patches out."""

import functools
from numbers import Integral, Real

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval
from skfisher.arrays.exact import check_exact
from skfisher.arrays.libraries import float_dtype
from skfisher.bags.feature_names import check_features, names_in
from skfisher.contract.estimator import BagEstimator
from skfisher.contract.validation import check_table
from skfisher.descriptors.extraction import ExtractionMixin, Work, paths_in
from skfisher.descriptors.images import (
    IMAGES,
    as_images,
    check_channels,
    check_finite,
    check_scale,
    scale_of,
    with_channels,
)
from skfisher.descriptors.reading import read_array, read_image
from skfisher.warning import warn_caller

__all__ = ["ImagePatches", "patches_of_image"]


class ImagePatches(ExtractionMixin, TransformerMixin, BagEstimator):
    """Cut every image into overlapping patches: one bag per image, one descriptor per patch.

    A patch is flattened row by row, the channels of a pixel side by side.

    Parameters
    ----------
    patch_size : int or tuple (height, width), default=8
        Size of a patch in pixels.
    step : int or tuple (rows, columns), default=1
        Distance between patches in pixels. By default, a patch starts at every pixel, which suits
        small images; 4 or more suits photographs. Patches start at the top left corner; left-over
        pixels at the bottom and right are dropped.
    positions : float, default=None
        Append the position of the centre of each patch in its image: x and y from -0.5 (left, top)
        to 0.5 (right, bottom), times this number. A mixture of such patches can learn that sky is
        at the top. By default, nothing is appended.
    reader : callable, default=None
        Function that returns the image at a path. By default, NumPy reads ``.npy`` files and OpenCV
        all others, with colours in the order red, green, blue.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels of the images seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if it was given a table whose names are all strings.

    See Also
    --------
    DescriptorTransformer : Reduce or scale the patches, for instance by PCA.
    DenseSIFT : Patches described by their gradients.
    SpatialPyramid : Encode the parts of an image one by one.

    Notes
    -----
    The following are read as images, all with the same number of channels:

    - a list of paths, whose images are read one by one, so that a difference between two files is
      only found on the way;
    - an array (n_images, height, width) or (n_images, height, width, n_channels);
    - a list of arrays (height, width) or (height, width, n_channels) of different sizes;
    - a table (n_images, n_channels): images of a single pixel, because the estimators of this
      package read a table as one descriptor per sample. The output is a table too.

    Patches keep the dtype of the images, so bytes stay bytes; later steps convert them chunk by
    chunk. With `positions`, they are float32, or float64 if the images need it.

    Nothing is rescaled. Bytes go from 0 to 255 and floats mostly from 0 to 1, so the images of a
    list must all have the same integer dtype, or all be floats. `transform` warns if they differ
    from those in `fit`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skfisher import ImagePatches
    >>> ImagePatches(patch_size=4, step=2).fit_transform(load_digits().images)
    <Bags: n_bags=1797, n_descriptors=16173 (9 a bag), n_features=16, float64, cpu>
    """

    _parameter_constraints: dict = {
        "patch_size": [Interval(Integral, 1, None, closed="left"), tuple],
        "step": [Interval(Integral, 1, None, closed="left"), tuple],
        "positions": [Interval(Real, 0, float(np.finfo(np.float32).max), closed="both"), None],
        "reader": [callable, None],
        "n_jobs": [Integral, None],
    }

    _samples, _takes = IMAGES, f"images: a list of {IMAGES}"

    def __init__(self, patch_size=8, *, step=1, positions=None, reader=None, n_jobs=None):
        self.patch_size = patch_size
        self.step = step
        self.positions = positions
        self.reader = reader
        self.n_jobs = n_jobs

    def _look(self, X, reset):
        if not reset:
            check_is_fitted(self)
        patch_size, step = _pair(self.patch_size, "patch_size"), _pair(self.step, "step")
        describe = functools.partial(
            patches_of_image, patch_size=patch_size, step=step, positions=self.positions
        )
        paths = paths_in(X)
        if paths is not None:
            return self._look_at_files(paths, describe, reset)
        who = type(self).__name__
        images = as_images(X, who)
        is_table = images is None
        if is_table:
            if not reset and self._fit_on_bags:
                raise ValueError(
                    "X is a table (2-D), but ImagePatches was fitted on images: write [X] for a "
                    "single image, X.reshape(n, height, width) for n flattened ones."
                )
            images = check_table(self, X, reset=reset, dtype="numeric")[:, None, None, :]
        n_channels = check_channels(images, None if reset else self.n_features_in_, who)
        scale = check_scale(images)
        for i, image in enumerate(images):
            _check_size(image, f"X[{i}]", patch_size, is_table)
            check_finite(image, f"X[{i}]")
        if not reset and scale != self._scale and not is_table:
            warn_caller(
                f"ImagePatches was fitted on images of {self._scale}, and these are of {scale}: "
                "nothing is rescaled, so convert them if their values do not mean the same."
            )
        if reset:
            self._keep(scale, n_channels, is_table)
        arguments = [(image, f"X[{i}]") for i, image in enumerate(images)]
        return Work(describe, arguments, is_table)

    def _look_at_files(self, paths, describe, reset):
        reader = read_image if self.reader is None else self.reader
        if reset:
            image = with_channels(read_array(paths[0], reader), paths[0])
            self._keep(scale_of(image), image.shape[2], False)
        describe = functools.partial(
            _patches_of_file, reader=reader, n_channels=self.n_features_in_, scale=self._scale,
            describe=describe,
        )  # fmt: skip
        return Work(describe, [(path,) for path in paths])

    def _keep(self, scale, n_channels, is_table):
        self._scale, self._fit_on_bags = scale, not is_table
        if not is_table:
            check_features(self, None, n_channels, reset=True)

    def get_feature_names_out(self, input_features=None):
        """Name the columns of a patch, such as ``x0_r2_c3`` for channel 0 of row 2, column 3.

        Parameters
        ----------
        input_features : array-like of str of shape (n_channels,), default=None
            Names of the channels, by default ``x0``, ``x1``, ...

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        channels = names_in(self, input_features)
        height, width = _pair(self.patch_size, "patch_size")
        names = [f"{c}_r{i}_c{j}" for i in range(height) for j in range(width) for c in channels]
        if self.positions is not None:
            names += ["position_x", "position_y"]
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def patches_of_image(image, name="X[0]", *, patch_size, step, positions=None):
    """Cut an image into patches.

    Parameters
    ----------
    image : array of shape (height, width, n_channels)
    name : str, default="X[0]"
        What messages call it.
    patch_size, step : (int, int)
    positions : float, default=None
        By what positions are multiplied that are appended.

    Returns
    -------
    patches : array of shape (n_patches, patch height * patch width * n_channels)
        With positions, two columns wider, and of a floating-point dtype.
    """
    (height, width), (down, right) = patch_size, step
    windows = sliding_window_view(image, (height, width), axis=(0, 1))[::down, ::right]
    n_down, n_right = windows.shape[:2]
    windows = windows.transpose(0, 1, 3, 4, 2)
    if positions is None:
        return windows.reshape(n_down * n_right, -1)
    check_exact(image, name)
    patches = np.empty((n_down * n_right, windows[0, 0].size + 2), float_dtype(image.dtype))
    patches[:, :-2] = windows.reshape(len(patches), -1)
    x = (right * np.arange(n_right) + width / 2) / image.shape[1] - 0.5
    y = (down * np.arange(n_down) + height / 2) / image.shape[0] - 0.5
    patches[:, -2] = positions * np.tile(x, n_down)
    patches[:, -1] = positions * np.repeat(y, n_right)
    return patches


def _patches_of_file(path, *, reader, n_channels, scale, describe):
    image = with_channels(read_array(path, reader), path)
    if (image.shape[2], scale_of(image)) != (n_channels, scale):
        raise ValueError(
            f"{path} has {image.shape[2]} channels of {scale_of(image)}, but the first image of "
            f"`fit` has {n_channels} of {scale}: all must be alike. Convert them in a `reader`."
        )
    _check_size(image, path, describe.keywords["patch_size"])
    check_finite(image, path)
    return describe(image, path)


def _check_size(image, name, patch_size, is_table=False):
    if image.shape[0] < patch_size[0] or image.shape[1] < patch_size[1]:
        hint = (
            " A table (2-D) is read as images of one pixel: write [X] for a single image, "
            "X.reshape(n, height, width) for n flattened ones."
        )
        first = f" If its channels come first, write np.moveaxis({name}, 0, -1)."
        raise ValueError(
            f"{name} is {image.shape[0]} x {image.shape[1]} pixels, smaller than a patch of "
            f"{patch_size[0]} x {patch_size[1]}: lower patch_size or drop it."
            + (hint if is_table else "")
            + (first if image.shape[2] > 4 else "")
        )


def _pair(value, name):
    """Read a number or a pair of numbers."""
    if isinstance(value, Integral):
        return value, value
    if len(value) != 2 or not all(isinstance(v, Integral) and v >= 1 for v in value):
        raise ValueError(f"{name}={value!r} must be a whole number above 0, or a pair of them.")
    return value

"""Images in, bags of flattened patches out."""

from numbers import Integral, Real

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, _fit_context
from skfisher.arrays.dense import as_dense, describe, listed, nesting, no_array, odd_one_out
from skfisher.arrays.exact import check_exact
from skfisher.arrays.libraries import float_dtype, is_cupy
from skfisher.bags.bags import Bags
from skfisher.bags.feature_names import check_features, names_in
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.set_output import BagOutputMixin
from skfisher.contract.validation import check_table
from skfisher.warning import warn_caller

__all__ = ["ImagePatches"]

IMAGE = "an image is an array of shape (height, width) or (height, width, n_channels)"
IMAGES = "arrays of shape (height, width) or (height, width, n_channels), one per image"


class ImagePatches(BagOutputMixin, TransformerMixin, BagEstimator):
    """Cut every image into overlapping patches: one bag per image, one descriptor per patch.

    A patch is flattened row by row, the channels of a pixel side by side.

    Parameters
    ----------
    patch_size : int or tuple (height, width), default=8
        Size of a patch in pixels.
    step : int or tuple (rows, columns), default=1
        Distance of patches in pixels. By default a patch starts at every pixel, which suits small
        images; 4 or more suits photographs. Patches start at the top left corner; pixels at the
        bottom and right that fill no whole step are left out.
    positions : float, default=None
        Append where the centre of each patch lies in its image, x and y from -0.5 (left, top) to
        0.5 (right, bottom), times this number. A mixture of patches with positions knows that sky
        is above. By default nothing is appended.

    Attributes
    ----------
    n_features_in_ : int
        Number of channels of the images seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if it was given a table whose names are all strings.

    See Also
    --------
    DescriptorTransformer : Reduce or scale the patches, for instance by PCA.
    skfisher.descriptors.dense_sift : Patches described by their gradients.

    Notes
    -----
    The following are read as images, all with the same number of channels:

    - an array (n_images, height, width) or (n_images, height, width, n_channels);
    - a list of arrays (height, width) or (height, width, n_channels) of different sizes;
    - a table (n_images, n_channels): images of a single pixel, as a table passed to other
      estimators of this package is one descriptor per sample. Its output is a table too.

    Patches keep the dtype of the images, so that bytes stay bytes; what follows converts them
    chunk by chunk. With `positions` they are float32, or float64 where the images need it.

    Nothing is rescaled. As bytes go from 0 to 255 and floats mostly from 0 to 1, all images of a
    list are of one integer dtype, or all of floats; and `transform` warns if they are not as they
    were in `fit`.

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
    }

    _takes = f"images: a list of {IMAGES}"

    def __init__(self, patch_size=8, *, step=1, positions=None):
        self.patch_size = patch_size
        self.step = step
        self.positions = positions

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the parameters and the images, and remember the number of channels.

        Parameters
        ----------
        X : array or list of arrays
            Images, see Notes of the class.
        y : None
            Ignored.

        Returns
        -------
        self : ImagePatches

        Raises
        ------
        TypeError
            If an image is no array, or not made of real numbers.
        ValueError
            If there are no images, or if they differ in their number of channels or in whether
            they are bytes or floats, hold NaN or infinity, or are smaller than a patch. The
            message names the image.
        """
        _pair(self.step, "step")
        self._read(X, reset=True)
        return self

    def _transform(self, X):
        check_is_fitted(self)
        images, is_table = self._read(X, reset=False)
        bags = cut_patches(
            images, _pair(self.patch_size, "patch_size"), _pair(self.step, "step"), self.positions
        )
        return bags.values if is_table else bags

    def _read(self, X, *, reset):
        """Return a sequence of images (height, width, n_channels), and if `X` was a table."""
        images = as_images(X)
        is_table = images is None
        if is_table:
            if not reset and self._fit_on_bags:
                raise ValueError(
                    "X is a table (2-D), but ImagePatches was fitted on images: write [X] for a "
                    "single image, X.reshape(n, height, width) for n flattened ones."
                )
            images = check_table(self, X, reset=reset, dtype="numeric")[:, None, None, :]
        fitted = None if reset else self.n_features_in_
        n_channels = _check_channels(images, fitted)
        scale = _check_scale(images)
        for i, image in enumerate(images):
            _check_image(image, i, _pair(self.patch_size, "patch_size"), is_table)
        if not reset and scale != self._scale and not is_table:
            warn_caller(
                f"ImagePatches was fitted on images of {self._scale}, and these are of {scale}: "
                "nothing is rescaled, so convert them if their values do not mean the same."
            )
        if reset:
            self._scale = scale
            self._fit_on_bags = not is_table
            if not is_table:
                check_features(self, None, n_channels, reset=True)
        return images, is_table

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


def cut_patches(images, patch_size, step, positions=None):
    """Cut images (height, width, n_channels) into patches, one bag per image.

    Memory beyond the result is that of the patches of one image.
    """
    (height, width), (down, right) = patch_size, step
    lengths = [
        ((image.shape[0] - height) // down + 1) * ((image.shape[1] - width) // right + 1)
        for image in images
    ]
    n_pixels = height * width * images[0].shape[2]
    dtype = np.result_type(*{image.dtype for image in images})
    if positions is None:
        values = np.empty((sum(lengths), n_pixels), dtype)
    else:
        values = np.empty((sum(lengths), n_pixels + 2), float_dtype(dtype))
    bags = Bags.from_lengths(values, lengths)
    for i, (image, bag) in enumerate(zip(images, bags, strict=True)):
        if values.dtype.kind == "f":
            check_exact(image, f"X[{i}]")
        windows = sliding_window_view(image, (height, width), axis=(0, 1))[::down, ::right]
        bag[:, :n_pixels] = windows.transpose(0, 1, 3, 4, 2).reshape(len(bag), n_pixels)
        if positions is not None:
            n_down, n_right = windows.shape[:2]
            x = (right * np.arange(n_right) + width / 2) / image.shape[1] - 0.5
            y = (down * np.arange(n_down) + height / 2) / image.shape[0] - 0.5
            bag[:, n_pixels] = positions * np.tile(x, n_down)
            bag[:, n_pixels + 1] = positions * np.repeat(y, n_right)
    return bags


def as_images(X):
    """Return `X` as a sequence of arrays (height, width, n_channels), or None for a table."""
    if isinstance(X, Bags):
        raise TypeError("X is Bags already: ImagePatches takes images, and makes bags of them.")
    X = listed(X, of=IMAGES)
    if X is None or isinstance(X, str | bytes):
        raise TypeError(f"X is {describe(X)}, but a list of {IMAGES} is needed.")
    if not isinstance(X, list | tuple):
        if nesting(X) < 3:
            return None
        images = _with_channels(X, "X", 3)
        if len(images) == 0:
            raise ValueError("X holds no images: at least 1 is needed.")
        if images.size == 0:
            raise ValueError(f"X[0] is empty, of shape {X.shape[1:]}, and so are all others.")
        return images
    if len(X) == 0:
        raise ValueError("X holds no images: at least 1 is needed.")
    for i, image in enumerate(X):
        if nesting(image) == 0 or isinstance(image, Bags):
            raise no_array(image, f"X[{i}]", IMAGE)
        if isinstance(image, list | tuple) and len(image) == 0:
            raise ValueError(f"X[{i}] is empty: drop it.")
    if max(map(nesting, X)) < 2:
        return None
    return [_with_channels(image, f"X[{i}]", 2) for i, image in enumerate(X)]


def _with_channels(array, name, n_dims):
    """Return `array` of `n_dims` dimensions and one of channels, added if missing."""
    array = as_dense(array, name)
    if is_cupy(array):
        raise TypeError(f"{name} is on a GPU, but images are cut on the CPU: write {name}.get().")
    if n_dims == 2 and array.size == 0:
        raise ValueError(f"{name} is empty, of shape {array.shape}: drop it.")
    if array.ndim not in (n_dims, n_dims + 1):
        shape = ("n_images, " if n_dims == 3 else "") + "height, width"
        raise ValueError(
            f"{name} has shape {array.shape}: ({shape}) or ({shape}, n_channels) is needed."
        )
    return array[..., None] if array.ndim == n_dims else array


def _check_channels(images, fitted):
    """Return the number of channels, which all images and those of `fit` must have in common."""
    found = [image.shape[2] for image in images]
    odd, usual = odd_one_out(found, fitted)
    if odd is not None:
        raise ValueError(
            f"X[{odd}] has {found[odd]} channels, but X[{usual}] has {found[usual]}: all images "
            "must have the same number."
        )
    if fitted not in (None, found[0]):
        raise ValueError(
            f"the images have {found[0]} channels, but ImagePatches was fitted on images of "
            f"{fitted}."
        )
    return found[0]


def _check_scale(images):
    """Return what the values of images are, which all images must have in common."""
    found = ["floats" if image.dtype.kind == "f" else str(image.dtype) for image in images]
    odd, usual = odd_one_out(found)
    if odd is not None:
        raise ValueError(
            f"X[{odd}] has dtype {images[odd].dtype}, but X[{usual}] has {images[usual].dtype}: "
            "their values may not mean the same, such as 255 and 1.0 for white. Convert them, for "
            "instance bytes to floats by / 255."
        )
    return found[0]


def _check_image(image, i, patch_size, is_table):
    if image.shape[0] < patch_size[0] or image.shape[1] < patch_size[1]:
        first = f"np.moveaxis(X[{i}], 0, -1)"
        hint = (
            " A table (2-D) is read as images of one pixel: write [X] for a single image, "
            "X.reshape(n, height, width) for n flattened ones."
        )
        raise ValueError(
            f"X[{i}] is {image.shape[0]} x {image.shape[1]} pixels, smaller than a patch of "
            f"{patch_size[0]} x {patch_size[1]}: lower patch_size or drop it."
            + (hint if is_table else "")
            + (f" If its channels come first, write {first}." if image.shape[2] > 4 else "")
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        row, column, _ = np.argwhere(~np.isfinite(image))[0]
        raise ValueError(f"X[{i}] contains NaN or infinity at row {row}, column {column}.")


def _pair(value, name):
    """Read a number or a pair of numbers."""
    if isinstance(value, Integral):
        return value, value
    if len(value) != 2 or not all(isinstance(v, Integral) and v >= 1 for v in value):
        raise ValueError(f"{name}={value!r} must be a whole number above 0, or a pair of them.")
    return value

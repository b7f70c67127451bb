"""Images, read from whatever they come in, and checked before they are described."""

import numpy as np

from skfisher.arrays.dense import as_dense, describe, listed, nesting, no_array, odd_one_out
from skfisher.arrays.libraries import is_cupy
from skfisher.bags.bags import Bags

__all__ = [
    "IMAGES",
    "as_images",
    "check_channels",
    "check_finite",
    "check_scale",
    "scale_of",
    "with_channels",
]

IMAGE = "an image is an array of shape (height, width) or (height, width, n_channels)"
IMAGES = "arrays of shape (height, width) or (height, width, n_channels), one per image"


def as_images(X, who):
    """Return `X` as a sequence of arrays (height, width, n_channels), or None for a table.

    Parameters
    ----------
    X : array, list of arrays or table
    who : str
        The estimator that takes them.

    Raises
    ------
    TypeError
        If `X`, or an image, is no array of real numbers on the host.
    ValueError
        If there are no images, or one is of another shape. The message names it.
    """
    if isinstance(X, Bags):
        raise TypeError(f"X is Bags already: {who} takes images, and makes bags of them.")
    X = listed(X, of=IMAGES)
    if X is None or isinstance(X, str | bytes):
        raise TypeError(f"X is {describe(X)}, but a list of {IMAGES}, or of paths, is needed.")
    if not isinstance(X, list | tuple):
        if nesting(X) < 3:
            return None
        images = with_channels(X, "X", 3)
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
    return [with_channels(image, f"X[{i}]", 2) for i, image in enumerate(X)]


def with_channels(array, name, n_dims=2):
    """Return an array of `n_dims` dimensions and one of channels, added if missing.

    Parameters
    ----------
    array : array-like
    name : str
        What messages call it.
    n_dims : {2, 3}, default=2
        2 for an image, 3 for several.
    """
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


def check_channels(images, fitted, who):
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
            f"the images have {found[0]} channels, but {who} was fitted on images of {fitted}."
        )
    return found[0]


def scale_of(image):
    """Return what the values of an image are: "floats", or the name of a dtype of integers."""
    return "floats" if image.dtype.kind == "f" else str(image.dtype)


def check_scale(images):
    """Return what the values of images are, which all images must have in common."""
    found = [scale_of(image) for image in images]
    odd, usual = odd_one_out(found)
    if odd is not None:
        raise ValueError(
            f"X[{odd}] has dtype {images[odd].dtype}, but X[{usual}] has {images[usual].dtype}: "
            "their values may not mean the same, such as 255 and 1.0 for white. Convert them, for "
            "instance bytes to floats by / 255."
        )
    return found[0]


def check_finite(image, name):
    """Refuse NaN and infinity."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        row, column = np.argwhere(~np.isfinite(image))[0][:2]
        raise ValueError(f"{name} contains NaN or infinity at row {row}, column {column}.")

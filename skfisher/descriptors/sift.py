"""Dense SIFT: images to bags of descriptors on a regular grid."""

from collections.abc import Iterator
from numbers import Integral, Real

import numpy as np

from skfisher._compat import Interval, validate_parameter_constraints
from skfisher.arrays.dense import as_dense, describe, listed, nesting, no_array
from skfisher.bags.bags import Bags
from skfisher.parallel.threads import map_in_order

__all__ = ["dense_sift"]

IMAGES = "uint8 arrays of shape (height, width), one per image"

PARAMETERS = {
    "patch_size": [Interval(Real, 0, np.inf, closed="neither")],
    "step": [Interval(Integral, 1, None, closed="left")],
    "scales": ["array-like"],
    "n_jobs": [Integral, None],
}


def dense_sift(images, *, patch_size=24, step=8, scales=(1.0, 0.707, 0.5, 0.354), n_jobs=None):
    """Describe images by SIFT on a regular grid, at several scales.

    Each image is shrunk by every scale in turn; on each version a grid of square patches is
    described by 4 x 4 histograms of 8 gradient orientations [1]_, computed by OpenCV, all in the
    upright orientation. The positions are not kept.

    Parameters
    ----------
    images : iterable of uint8 arrays of shape (height, width)
        Grey images, of any sizes. SIFT looks at differences from 0 to 255, so images of other
        dtypes, whose scale cannot be known, are refused.
    patch_size : float, default=24
        Side of a patch in pixels of the shrunken image.
    step : int, default=8
        Distance of patches in pixels of the shrunken image.
    scales : sequence of float, default=(1.0, 0.707, 0.5, 0.354)
        Factors on the side of an image. Scales at which no patch fits are left out.
    n_jobs : int, default=None
        Number of threads, see scikit-learn's glossary.

    Returns
    -------
    descriptors : Bags of uint8, 128 wide
        One bag per image. OpenCV rounds SIFT to whole numbers, so uint8 loses nothing and
        takes a quarter of the memory. Apply `PowerL2Normalizer` to every descriptor for the
        RootSIFT of Arandjelović and Zisserman [2]_.

    Raises
    ------
    ImportError
        If OpenCV is not installed.
    TypeError
        If an image is no array.
    ValueError
        If there are no images; if one is not a grey uint8 image, is empty, or smaller than a
        patch at every scale; or if a parameter is not above 0.

    References
    ----------
    .. [1] D. Lowe (2004), "Distinctive image features from scale-invariant keypoints",
       International Journal of Computer Vision 60(2).
    .. [2] R. Arandjelović and A. Zisserman (2012), "Three things everyone should know to improve
       object retrieval", CVPR.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.descriptors import dense_sift
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    >>> dense_sift([image]).lengths
    array([69])
    """
    try:
        import cv2  # noqa: F401 - the workers import it too; say here what is missing
    except ImportError as error:
        raise ImportError(
            "dense_sift needs OpenCV, which is not installed. Install skfisher[images]."
        ) from error
    validate_parameter_constraints(
        PARAMETERS,
        {"patch_size": patch_size, "step": step, "scales": scales, "n_jobs": n_jobs},
        "dense_sift",
    )
    scales = _check_scales(scales)
    images = _check_images(images, patch_size, max(scales))
    tasks = ((image, patch_size, step, scales) for image in images)
    return Bags.from_list(map_in_order(_sift_of_image, tasks, n_jobs=n_jobs))


def _check_scales(scales):
    """Return the factors as a list of numbers above 0."""
    factors = np.asarray(scales).tolist()
    fine = isinstance(factors, list) and all(
        isinstance(factor, Real) and 0 < factor < np.inf for factor in factors
    )
    if not factors or not fine:
        raise ValueError(f"scales={scales!r} must be at least one number, and all above 0.")
    return factors


def _check_images(images, patch_size, largest):
    """Return grey images as a list of uint8 arrays that hold a patch each at the largest scale."""
    images = listed(list(images) if isinstance(images, Iterator) else images, "images", of=IMAGES)
    if images is None or isinstance(images, str | bytes | Bags):
        raise TypeError(f"images is {describe(images)}, but a list of {IMAGES} is needed.")
    if getattr(images, "ndim", 3) == 2:
        raise ValueError("images is two-dimensional: write [images] if it is a single image.")
    if len(images) == 0:
        raise ValueError("images holds no images: at least 1 is needed.")
    for i, image in enumerate(images):
        if nesting(image) == 0:
            raise no_array(image, f"images[{i}]", "an image is an array of shape (height, width)")
    images = [as_dense(image, f"images[{i}]") for i, image in enumerate(images)]
    for i, image in enumerate(images):
        if image.size == 0:
            raise ValueError(f"images[{i}] is empty, of shape {image.shape}: drop it.")
        if image.ndim != 2:
            remedy = "convert it to grey first"
            if image.ndim == 3 and 1 in (image.shape[0], image.shape[2]):
                place = "[0]" if image.shape[0] == 1 else "[:, :, 0]"
                remedy = f"write images[{i}]{place}"
            raise ValueError(
                f"images[{i}] has shape {image.shape}, but (height, width) is needed: {remedy}."
            )
        if image.dtype != np.uint8:
            raise ValueError(
                f"images[{i}] has dtype {image.dtype}, whose scale cannot be known, but uint8 is "
                f"needed: write np.uint8(255 * images[{i}]) if it goes from 0 to 1, or "
                f"np.uint8(images[{i}]) if it goes from 0 to 255."
            )
        if _shrunk(min(image.shape), largest) < patch_size:
            at_scale = "" if largest == 1 else f" at the largest scale, {largest:g}"
            raise ValueError(
                f"images[{i}] is {image.shape[0]} x {image.shape[1]} pixels, smaller than a patch "
                f"of {patch_size:g}{at_scale}."
            )
    return images


def _shrunk(side, scale):
    """Return the side of an image that OpenCV has resized."""
    return round(side * scale)


def _sift_of_image(image, patch_size, step, scales):
    import cv2

    # OpenCV draws the 4 x 4 histograms 1.5 keypoint sizes apart, so a patch spans 6 sizes.
    sift, size = cv2.SIFT_create(), patch_size / 6
    found = []
    for scale in scales:
        if _shrunk(min(image.shape), scale) < patch_size:
            continue
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rows, columns = (_grid(side, patch_size, step) for side in small.shape)
        points = [cv2.KeyPoint(float(x), float(y), size, 0.0) for y in rows for x in columns]
        found.append(sift.compute(small, points)[1].astype(np.uint8))
    return np.concatenate(found)


def _grid(side, patch_size, step):
    """Return the centres of the patches that fit in `side` pixels, the rest shared by both ends."""
    n = int((side - patch_size) // step) + 1
    return (side - 1) / 2 + step * (np.arange(n) - (n - 1) / 2)

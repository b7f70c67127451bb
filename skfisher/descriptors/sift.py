"""Dense SIFT: images to bags of descriptors on a regular grid."""

import functools
from collections.abc import Iterator
from numbers import Integral, Real

import numpy as np
from sklearn.base import TransformerMixin

from skfisher._compat import Interval, validate_parameter_constraints
from skfisher.arrays.dense import as_dense, describe, listed, nesting, no_array
from skfisher.bags.bags import Bags
from skfisher.contract.estimator import BagEstimator
from skfisher.descriptors.extraction import ExtractionMixin, Work, paths_in
from skfisher.descriptors.images import IMAGES, as_images, check_finite, with_channels
from skfisher.descriptors.reading import import_opencv, read_array, read_image
from skfisher.parallel.threads import map_in_order

__all__ = ["DenseSIFT", "dense_sift"]

GREY_IMAGES = "uint8 arrays of shape (height, width), one per image"

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
        Grey images, of any sizes. SIFT expects values from 0 to 255, so images of other dtypes,
        whose scale cannot be known, are refused.
    patch_size : float, default=24
        Side of a patch in pixels of the shrunken image.
    step : int, default=8
        Distance between patches in pixels of the shrunken image.
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
        If an image is not an array.
    ValueError
        If there are no images; if one is not a grey uint8 image, is empty, or smaller than a
        patch at every scale; or if a parameter is not above 0.

    See Also
    --------
    skfisher.DenseSIFT : A transformer that also takes files, colours and floats.

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
    import_opencv("dense_sift")  # here, and not in a thread, is said what is missing
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
    images = listed(
        list(images) if isinstance(images, Iterator) else images, "images", of=GREY_IMAGES
    )
    if images is None or isinstance(images, str | bytes | Bags):
        raise TypeError(f"images is {describe(images)}, but a list of {GREY_IMAGES} is needed.")
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
        _check_size(image, f"images[{i}]", patch_size, largest)
    return images


def _check_size(image, name, patch_size, largest):
    if _shrunk(min(image.shape[:2]), largest) < patch_size:
        at_scale = "" if largest == 1 else f" at the largest scale, {largest:g}"
        raise ValueError(
            f"{name} is {image.shape[0]} x {image.shape[1]} pixels, smaller than a patch of "
            f"{patch_size:g}{at_scale}."
        )


def _shrunk(side, scale):
    """Return the side of an image that OpenCV has resized."""
    return round(side * scale)


def _sift_of_image(image, patch_size, step, scales, positions=None):
    import cv2

    # OpenCV draws the 4 x 4 histograms 1.5 keypoint sizes apart, so a patch spans 6 sizes.
    sift, size = cv2.SIFT_create(), patch_size / 6
    found, places = [], []
    for scale in scales:
        if _shrunk(min(image.shape), scale) < patch_size:
            continue
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rows, columns = (_grid(side, patch_size, step) for side in small.shape)
        points = [cv2.KeyPoint(float(x), float(y), size, 0.0) for y in rows for x in columns]
        found.append(sift.compute(small, points)[1].astype(np.uint8))
        if positions is not None:
            height, width = small.shape
            x, y = (columns + 0.5) / width - 0.5, (rows + 0.5) / height - 0.5
            places.append(np.column_stack([np.tile(x, len(y)), np.repeat(y, len(x))]))
    found = np.concatenate(found)
    if positions is None:
        return found
    return np.hstack([found, positions * np.concatenate(places)], dtype=np.float32)


def _grid(side, patch_size, step):
    """Return the centres of the patches that fit in `side` pixels, the rest shared by both ends."""
    n = int((side - patch_size) // step) + 1
    return (side - 1) / 2 + step * (np.arange(n) - (n - 1) / 2)


class DenseSIFT(ExtractionMixin, TransformerMixin, BagEstimator):
    """Describe images by SIFT on a regular grid, at several scales: one bag per image.

    Like :func:`~skfisher.descriptors.dense_sift`, but also for files, colours and floats, with
    optional positions.

    Parameters
    ----------
    patch_size : float, default=24
        Side of a patch in pixels of the shrunken image.
    step : int, default=8
        Distance between patches in pixels of the shrunken image.
    scales : sequence of float, default=(1.0, 0.707, 0.5, 0.354)
        Factors on the side of an image. Scales at which no patch fits are left out.
    positions : float, default=None
        Append the position of the centre of each patch in its image: x and y from -0.5 (left, top)
        to 0.5 (right, bottom), times this number. By default, nothing is appended.
    reader : callable, default=None
        Function that returns the image at a path. By default, NumPy reads ``.npy`` files and OpenCV
        all others.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.

    See Also
    --------
    ImagePatches : Uses pixels as they are.
    DescriptorTransformer : With ``make_pipeline(PowerL2Normalizer(), PCA(64))``, RootSIFT in 64
        dimensions.
    SpatialPyramid : Encode the parts of an image one by one.

    Notes
    -----
    Images are a list of paths, a list of arrays (height, width) or (height, width, 3), or an array
    of several images of the same size. Colours, in the order red, green, blue, are turned into
    grey. SIFT expects values from 0 to 255: floats are taken as shares of white, from 0 to 1, and
    multiplied; integers of 16 bits are divided.

    Descriptors are 128 whole numbers from 0 to 255, as uint8. With `positions`, they are 130
    float32 numbers, and take four times as much memory.

    Nothing is learned: `transform` may be called without `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import DenseSIFT
    >>> images = np.random.default_rng(0).random((3, 64, 80))
    >>> DenseSIFT().fit_transform(images)
    <Bags: n_bags=3, n_descriptors=207 (69 a bag), n_features=128, uint8, cpu>
    """

    _parameter_constraints: dict = {
        **PARAMETERS,
        "positions": [Interval(Real, 0, float(np.finfo(np.float32).max), closed="both"), None],
        "reader": [callable, None],
    }

    _samples = IMAGES

    def __init__(
        self,
        patch_size=24,
        *,
        step=8,
        scales=(1.0, 0.707, 0.5, 0.354),
        positions=None,
        reader=None,
        n_jobs=None,
    ):
        self.patch_size = patch_size
        self.step = step
        self.scales = scales
        self.positions = positions
        self.reader = reader
        self.n_jobs = n_jobs

    def _look(self, X, reset):
        import_opencv("DenseSIFT")
        scales = _check_scales(self.scales)
        describe = functools.partial(
            _sift_of_sample, patch_size=self.patch_size, step=self.step, scales=scales,
            positions=self.positions, reader=read_image if self.reader is None else self.reader,
        )  # fmt: skip
        paths = paths_in(X)
        if paths is not None:
            return Work(describe, [(path, path) for path in paths])
        images = as_images(X, "DenseSIFT")
        if images is None:
            raise ValueError(
                "X is two-dimensional, but DenseSIFT takes images: write [X] for a single image, "
                "X.reshape(n, height, width) for n flattened ones."
            )
        samples = [(image, f"X[{i}]") for i, image in enumerate(images)]
        for image, name in samples:
            _check_image(image, name, self.patch_size, max(scales))
        return Work(describe, samples)

    def get_feature_names_out(self, input_features=None):
        """Name the features: ``r0_c1_o2`` is direction 2 in row 0, column 1 of the 4 x 4 cells.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str objects
        """
        names = [f"r{i}_c{j}_o{k}" for i in range(4) for j in range(4) for k in range(8)]
        if self.positions is not None:
            names += ["position_x", "position_y"]
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False  # a table is no image
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _sift_of_sample(sample, name, *, patch_size, step, scales, positions, reader):
    if isinstance(sample, str):
        sample = with_channels(read_array(sample, reader), name)
        _check_image(sample, name, patch_size, max(scales))
    return _sift_of_image(_grey(sample), patch_size, step, scales, positions)


def _check_image(image, name, patch_size, largest):
    """Refuse what cannot be turned into a grey image of bytes that holds a patch."""
    n_channels = image.shape[2]
    if n_channels not in (1, 3):
        remedy = ""
        if n_channels in (2, 4):
            remedy = f": leave transparency out by {name}[..., :{n_channels - 1}]"
        elif image.shape[0] in (1, 3):
            remedy = f": if channels come first, write np.moveaxis({name}, 0, -1)"
        raise ValueError(
            f"{name} has {n_channels} channels, but 1 (grey) or 3 (red, green, blue) are "
            f"needed{remedy}."
        )
    _check_size(image, name, patch_size, largest)
    if image.dtype.kind == "f":
        check_finite(image, name)
        low, high = image.min(), image.max()
        if low < 0 or high > 1:
            raise ValueError(
                f"{name} holds floats from {low:g} to {high:g}, but 0 is black and 1 is white: "
                f"write np.uint8({name}) if it goes from 0 to 255, else rescale it."
            )
    elif image.dtype not in (np.uint8, np.uint16):
        remedy = f"np.uint8({name}) if it goes from 0 to 255"
        if image.dtype.kind == "b":
            remedy = f"255 * np.uint8({name}) if True is white"
        raise ValueError(
            f"{name} has dtype {image.dtype}, whose scale cannot be known: write {remedy}."
        )


def _grey(image):
    """Return an image (height, width) of bytes."""
    import cv2

    if image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)
    elif image.dtype.kind == "f":
        image = np.rint(255 * image.astype(np.float64)).astype(np.uint8)
    if image.shape[2] == 1:
        return image[..., 0]
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)

"""From a signal or an image to its local descriptors: MFCC frames and dense SIFT."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import dct, rfft

from skfisher.arrays.dense import as_dense, check_unmasked
from skfisher.arrays.libraries import float_dtype
from skfisher.bags.bags import Bags
from skfisher.parallel.threads import map_in_order
from skfisher.process_state import one_blas_thread

__all__ = ["deltas", "dense_sift", "mfcc"]


@one_blas_thread
def mfcc(
    signal,
    sample_rate,
    *,
    n_coefficients=20,
    n_bands=40,
    window=0.025,
    step=0.010,
    pre_emphasis=0.97,
):
    r"""Describe a sound by the mel-frequency cepstrum of its short-time frames.

    The signal is pre-emphasised, :math:`s_t - a s_{t-1}`, cut into overlapping frames under a
    Hamming window, and the power spectrum of each frame is summed in triangular bands that are
    equally wide on the mel scale, :math:`m = 2595 \log_{10}(1 + f / 700)`. The cosine transform
    of the logarithm of these sums decorrelates them; its first coefficients are the descriptor
    [1]_.

    Parameters
    ----------
    signal : array of shape (n_samples,)
        One channel. Integers are divided by the largest value of their type; unsigned ones,
        which sounds of 8 bits are stored as, are silent at half their range.
    sample_rate : float
        Samples per second.
    n_coefficients : int, default=20
        Coefficients kept, the first (the frame's mean log energy) included.
    n_bands : int, default=40
        Mel bands between zero and half the sample rate.
    window : float, default=0.025
        Length of a frame in seconds. A shorter signal is padded with silence to one frame.
    step : float, default=0.010
        Distance of frames in seconds.
    pre_emphasis : float, default=0.97
        The factor :math:`a`.

    Returns
    -------
    coefficients : array of shape (n_frames, n_coefficients)
        float32, or float64 if the signal is wider than float32.

    Raises
    ------
    TypeError
        If the signal is no numbers.
    ValueError
        If the signal is complex, not one-dimensional, is empty, or holds values that are masked
        or not finite; if more coefficients than bands are asked for; or if the sample rate is too
        low for `window` or `step`.

    See Also
    --------
    deltas : Rates of change to append to the coefficients.

    References
    ----------
    .. [1] S. Davis and P. Mermelstein (1980), "Comparison of parametric representations for
       monosyllabic word recognition in continuously spoken sentences", IEEE Transactions on
       Acoustics, Speech, and Signal Processing 28(4).

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.descriptors.extraction import mfcc
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> mfcc(tone, 8000).shape
    (98, 20)
    """
    signal = _check_signal(signal)
    if n_coefficients > n_bands:
        raise ValueError(
            f"n_coefficients={n_coefficients} cannot exceed n_bands={n_bands}: the cosine "
            "transform of n_bands numbers has no more."
        )
    length = _samples(window, "window", sample_rate)
    hop = _samples(step, "step", sample_rate)
    emphasised = signal.copy()
    emphasised[1:] -= pre_emphasis * signal[:-1]
    if len(emphasised) < length:
        emphasised = np.pad(emphasised, (0, length - len(emphasised)))
    frames = sliding_window_view(emphasised, length)[::hop] * np.hamming(length).astype(
        signal.dtype
    )

    n_fft = 1 << (length - 1).bit_length()
    spectrum = rfft(frames, n_fft)
    power = (spectrum.real**2 + spectrum.imag**2) / n_fft
    bands = power @ _mel_bands(n_bands, n_fft, sample_rate).astype(signal.dtype).T
    # The floor keeps digital silence finite, and lies below the noise of 16-bit sound, 3e-11.
    log_bands = np.log(np.maximum(bands, 1e-12))
    return dct(log_bands, type=2, norm="ortho", axis=1)[:, :n_coefficients]


def _check_signal(signal):
    """Return `signal` as a finite floating-point array of one dimension, or raise."""
    signal = as_dense(signal, "signal")
    if signal.ndim != 1 or signal.size == 0:
        raise ValueError(
            f"mfcc needs a signal of shape (n_samples,) with at least 1 sample, got shape "
            f"{signal.shape}: pass one channel at a time."
        )
    kind, dtype = signal.dtype.kind, float_dtype(signal.dtype)
    if kind == "u":  # what a signed integer of this width would hold
        half = np.iinfo(signal.dtype).max // 2
        signal = (signal.astype(dtype) - (half + 1)) / half
    else:
        signal = signal.astype(dtype) / (np.iinfo(signal.dtype).max if kind == "i" else 1)
    if not np.isfinite(signal).all():
        where = int(np.argmin(np.isfinite(signal)))
        raise ValueError(f"the signal contains NaN or infinity at sample {where}.")
    return signal


def _samples(seconds, name, sample_rate):
    """Return the nearest number of samples, or say that it is 0."""
    samples = seconds * sample_rate
    if not 0.5 < samples < math.inf:
        raise ValueError(
            f"{name}={seconds} is {samples:g} samples at sample_rate={sample_rate}, but must be "
            f"at least 1: raise {name}, or give the rate in samples per second."
        )
    return round(samples)


def _mel_bands(n_bands, n_fft, sample_rate):
    """Return triangular filters, one row per band, over the frequencies of the transform."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, n_bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling))


@one_blas_thread
def deltas(frames, *, width=2):
    r"""Return the rate of change of each coefficient, fitted over neighbouring frames.

    .. math:: d_t = \frac{\sum_{n=1}^{N} n (c_{t+n} - c_{t-n})}{2 \sum_{n=1}^{N} n^2}

    The slope of the least-squares line through the :math:`2N + 1` frames around :math:`t`; the
    first and the last frame are repeated beyond the ends.

    Parameters
    ----------
    frames : array of shape (n_frames, n_coefficients)
    width : int, default=2
        The number of neighbours on either side, :math:`N`.

    Returns
    -------
    slopes : array of the shape of `frames`, per frame; float32 or float64

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.descriptors.extraction import deltas
    >>> deltas(np.arange(6.0)[:, None]).ravel()
    array([0.5, 0.8, 1. , 1. , 0.8, 0.5])
    """
    frames = as_dense(frames, "frames")
    frames = frames.astype(float_dtype(frames.dtype), copy=False)
    padded = np.pad(frames, ((width, width), (0, 0)), mode="edge")
    kernel = np.arange(-width, width + 1, dtype=frames.dtype)
    return sliding_window_view(padded, len(kernel), axis=0) @ (kernel / (kernel @ kernel))


def dense_sift(images, *, patch_size=24, step=8, scales=(1.0, 0.707, 0.5, 0.354), n_jobs=None):
    """Describe images by SIFT on a regular grid, at several scales.

    Each image is shrunk by every scale in turn; on each version a grid of square patches is
    described by 4 x 4 histograms of 8 gradient orientations [1]_, computed by OpenCV, all in the
    upright orientation. The positions are not kept.

    Parameters
    ----------
    images : iterable of uint8 arrays of shape (height, width)
        Grey images, of any sizes.
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
    ValueError
        If an image is not a grey uint8 image, or smaller than a patch at every scale; or if
        a parameter is not above 0.

    References
    ----------
    .. [1] D. Lowe (2004), "Distinctive image features from scale-invariant keypoints",
       International Journal of Computer Vision 60(2).
    .. [2] R. Arandjelović and A. Zisserman (2012), "Three things everyone should know to improve
       object retrieval", CVPR.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.descriptors.extraction import dense_sift
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
    images, scales = list(images), list(scales)
    _check_grid(patch_size, step, scales)
    largest = max(scales)
    for i, image in enumerate(images):
        check_unmasked(image, f"images[{i}]")
        if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8):
            raise ValueError(
                f"images[{i}] must be a uint8 array of shape (height, width), got "
                f"{_describe(image)}: convert it to grey first."
            )
        if _shrunk(min(image.shape), largest) < patch_size:
            at_scale = "" if largest == 1 else f" at the largest scale, {largest:g}"
            raise ValueError(
                f"images[{i}] is {image.shape[0]} x {image.shape[1]} pixels, smaller than a patch "
                f"of {patch_size:g}{at_scale}."
            )
    tasks = ((image, patch_size, step, scales) for image in images)
    return Bags.from_list(map_in_order(_sift_of_image, tasks, n_jobs=n_jobs))


def _check_grid(patch_size, step, scales):
    """Refuse parameters that are not above 0."""
    for name, value in [("patch_size", patch_size), ("step", step)]:
        if not value > 0:
            raise ValueError(f"{name}={value!r} must be above 0.")
    if not scales or not all(scale > 0 for scale in scales):
        raise ValueError(f"scales={scales!r} must be at least one number, and all above 0.")


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


def _describe(x):
    """Name the type, and for an array the dtype and shape, for an error message."""
    if isinstance(x, np.ndarray):
        return f"{x.dtype} of shape {x.shape}"
    return type(x).__name__

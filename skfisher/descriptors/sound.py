"""Mel-frequency cepstral coefficients of a sound, and their rates of change."""

import math
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import dct, rfft

from skfisher._compat import Interval, validate_parameter_constraints
from skfisher.arrays.dense import as_dense
from skfisher.arrays.exact import check_exact
from skfisher.arrays.libraries import float_dtype, is_cupy
from skfisher.process_state import one_blas_thread
from skfisher.warning import warn_caller

__all__ = ["cepstrum", "check_signal", "deltas", "framing_of", "mfcc", "scaled"]

POSITIVE = [Interval(Real, 0, np.inf, closed="neither")]
COUNT = [Interval(Integral, 1, None, closed="left")]
PARAMETERS = {
    "sample_rate": POSITIVE,
    "n_coefficients": COUNT,
    "n_bands": COUNT,
    "window": POSITIVE,
    "step": POSITIVE,
    "pre_emphasis": [Interval(Real, 0, 1, closed="both")],
}
NUMBERS_PER_BLOCK = 2**18
# Sound in [-1, 1] hardly overshoots by that much, and whole numbers do at once.
LOUD = 16


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
        One channel, which may be a memory map: beyond the result, memory is bounded. Floats are
        expected to lie between -1 and 1. Integers of up to 32 bits are divided by the largest value
        of their type; unsigned ones, in which sounds of 8 bits are stored, are silent at half their
        range. The scale of a sound affects its first coefficient, and how much of it counts as
        silence.
    sample_rate : float
        Samples per second.
    n_coefficients : int, default=20
        Number of coefficients to keep, including the first (the frame's mean log energy).
    n_bands : int, default=40
        Number of mel bands between zero and half the sample rate.
    window : float, default=0.025
        Length of a frame in seconds. A shorter signal is padded with silence to one frame.
    step : float, default=0.010
        Distance between frames in seconds.
    pre_emphasis : float, default=0.97
        The factor :math:`a`.

    Returns
    -------
    coefficients : array of shape (n_frames, n_coefficients)
        float32, or float64 if the signal is wider than float32.

    Raises
    ------
    TypeError
        If the signal does not hold numbers, or has a dtype that does not tell its scale, such as
        int64.
    ValueError
        If the signal is complex, not one-dimensional, is empty, holds values that are masked or
        not finite, or is too loud for its dtype; if more coefficients than bands are asked for;
        or if the sample rate is too low for `window` or `step`.

    Warns
    -----
    UserWarning
        If floats go far beyond 1, or integers of 32 bits stay within 16; or if a band is so
        narrow that it holds no frequency of the transform, and is silent in every frame.

    See Also
    --------
    deltas : Rates of change to append to the coefficients.
    skfisher.MFCC : A transformer of files or arrays.

    References
    ----------
    .. [1] S. Davis and P. Mermelstein (1980), "Comparison of parametric representations for
       monosyllabic word recognition in continuously spoken sentences", IEEE Transactions on
       Acoustics, Speech, and Signal Processing 28(4).

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.descriptors import mfcc
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> mfcc(tone, 8000).shape
    (98, 20)
    """
    validate_parameter_constraints(
        PARAMETERS,
        {
            "sample_rate": sample_rate,
            "n_coefficients": n_coefficients,
            "n_bands": n_bands,
            "window": window,
            "step": step,
            "pre_emphasis": pre_emphasis,
        },
        "mfcc",
    )
    framing = framing_of(
        sample_rate, n_coefficients=n_coefficients, n_bands=n_bands, window=window, step=step,
        pre_emphasis=pre_emphasis,
    )  # fmt: skip
    signal = check_signal(signal, "signal")
    return cepstrum(signal, framing)


class Framing(NamedTuple):
    """How a sound is cut into frames, and what is kept of them."""

    length: int  # of a frame, in samples
    hop: int
    n_fft: int
    filters: np.ndarray  # (n_bands, n_fft // 2 + 1)
    n_coefficients: int
    pre_emphasis: float


def framing_of(sample_rate, *, n_coefficients, n_bands, window, step, pre_emphasis):
    """Return how sounds of a sample rate are cut, or say which parameters contradict each other.

    Parameters
    ----------
    sample_rate : float
    n_coefficients, n_bands : int
    window, step : float
    pre_emphasis : float
        As of `mfcc`.

    Returns
    -------
    framing : Framing
    """
    if n_coefficients > n_bands:
        raise ValueError(
            f"n_coefficients={n_coefficients} cannot exceed n_bands={n_bands}: the cosine "
            "transform of n_bands numbers has no more."
        )
    length = _samples(window, "window", sample_rate)
    hop = _samples(step, "step", sample_rate)
    n_fft = 1 << (length - 1).bit_length()
    filters = _mel_bands(n_bands, n_fft, sample_rate)
    _warn_of_empty_bands(filters, sample_rate / n_fft, sample_rate, window)
    return Framing(length, hop, n_fft, filters, n_coefficients, pre_emphasis)


def cepstrum(signal, framing, name="the signal"):
    """Return the coefficients of every frame of a signal that `check_signal` let pass.

    Parameters
    ----------
    signal : array of shape (n_samples,)
    framing : Framing
    name : str
        What messages call it.

    Returns
    -------
    coefficients : array of shape (n_frames, n_coefficients)
    """
    length, hop, n_fft = framing.length, framing.hop, framing.n_fft
    dtype = float_dtype(signal.dtype)
    filters = framing.filters.astype(dtype)
    if len(signal) < length:
        signal = scaled(signal, dtype)
        signal = np.pad(signal, (0, length - len(signal)))
    windows = sliding_window_view(signal, length)[::hop]
    coefficients = np.empty((len(windows), framing.n_coefficients), dtype)
    hamming = np.hamming(length).astype(dtype)
    n_frames = max(1, NUMBERS_PER_BLOCK // n_fft)
    for first in range(0, len(windows), n_frames):
        frames = scaled(windows[first : first + n_frames], dtype)
        # What comes before each frame; before the first there is silence.
        starts = hop * np.arange(first, first + len(frames))
        before = np.where(starts > 0, scaled(signal[starts - 1], dtype), 0)
        before = np.concatenate([before[:, None], frames[:, :-1]], axis=1)
        frames = (frames - dtype.type(framing.pre_emphasis) * before) * hamming
        with np.errstate(over="ignore", invalid="ignore"):
            spectrum = rfft(frames, n_fft)
            power = (spectrum.real**2 + spectrum.imag**2) / n_fft
            bands = power @ filters.T
        if not np.isfinite(bands).all():
            raise ValueError(
                f"{name} is too loud for {dtype}, and its power is infinity: divide it, so "
                "that it lies between -1 and 1."
            )
        # The floor keeps digital silence finite, and lies below the noise of 16-bit sound, 3e-11.
        log_bands = np.log(np.maximum(bands, 1e-12))
        spectra = dct(log_bands, type=2, norm="ortho", axis=1)
        coefficients[first : first + len(frames)] = spectra[:, : framing.n_coefficients]
    return coefficients


def check_signal(signal, name):
    """Return `signal` as a finite array of one dimension and of a known scale, or raise.

    Parameters
    ----------
    signal : array-like
    name : str
        What messages call it.
    """
    signal = as_dense(signal, name)
    if is_cupy(signal):
        raise TypeError(f"{name} is on a GPU, but mfcc works on the CPU: write {name}.get().")
    if signal.size == 0:
        raise ValueError(f"{name} is empty, of shape {signal.shape}: at least 1 sample is needed.")
    if signal.ndim != 1:
        raise ValueError(
            f"mfcc needs a signal of shape (n_samples,), but {name} got shape {signal.shape}: pass "
            "one channel at a time."
        )
    if signal.dtype.kind == "b" or (signal.dtype.kind in "iu" and signal.dtype.itemsize > 4):
        raise TypeError(
            f"{name} has dtype {signal.dtype}, which does not tell the scale of a sound: write "
            f"{name}.astype(np.int16) if its samples have 16 bits, or divide it, so that it lies "
            "between -1 and 1."
        )
    peak = 0
    for first in range(0, len(signal), NUMBERS_PER_BLOCK):
        block = signal[first : first + NUMBERS_PER_BLOCK]
        if not np.isfinite(block).all():
            where = first + int(np.argmin(np.isfinite(block)))
            raise ValueError(f"{name} contains NaN or infinity at sample {where}.")
        peak = max(peak, abs(float(block.max())), abs(float(block.min())))
    subject = "The signal" if name == "signal" else name
    if signal.dtype.kind == "f" and peak > LOUD:
        warn_caller(
            f"{subject} goes up to {peak:g}, but floats are expected to lie between -1 and 1: "
            "divide it by the largest value it can have, 32768 for samples of 16 bits."
        )
    if signal.dtype == np.int32 and 0 < peak < 2**15:
        warn_caller(
            f"{subject} has dtype int32 but goes up to {peak:g} only: if its samples have 16 bits, "
            f"write {name}.astype(np.int16)."
        )
    return signal


def scaled(signal, dtype):
    """Return samples as floats of a dtype, integers divided by the largest value of their type."""
    if signal.dtype.kind == "f":
        return signal.astype(dtype)
    largest = np.iinfo(signal.dtype).max
    if signal.dtype.kind == "i":
        return signal.astype(dtype) / largest
    half = largest // 2  # what a signed integer of this width would hold
    return (signal.astype(dtype) - (half + 1)) / half


def _samples(seconds, name, sample_rate):
    """Return the nearest number of samples, or say that it is 0."""
    samples = seconds * sample_rate
    if not 0.5 < samples < 2**31:
        raise ValueError(
            f"{name}={seconds} is {samples:g} samples at sample_rate={sample_rate}, but must be "
            f"at least 1, and fewer than 2**31: give {name} in seconds and the rate in samples "
            "per second."
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


def _warn_of_empty_bands(filters, distance, sample_rate, window):
    n_empty = int((filters.max(axis=1) == 0).sum())
    if n_empty:
        warn_caller(
            f"{n_empty} of {len(filters)} mel bands hold no frequency, and are silent in every "
            f"frame: at sample_rate={sample_rate} and window={window} the frequencies are "
            f"{distance:g} Hz apart. Lower n_bands, or raise window."
        )


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

    Raises
    ------
    TypeError
        If the frames do not hold numbers.
    ValueError
        If the frames are not two-dimensional, are empty, or hold values that are masked or not
        finite; or if `width` is less than 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.descriptors import deltas
    >>> deltas(np.arange(6.0)[:, None]).ravel()
    array([0.5, 0.8, 1. , 1. , 0.8, 0.5])
    """
    validate_parameter_constraints({"width": COUNT}, {"width": width}, "deltas")
    frames = _check_frames(frames)
    n, dtype = len(frames), float_dtype(frames.dtype)
    slopes = np.empty(frames.shape, dtype)
    n_rows = max(1, NUMBERS_PER_BLOCK // frames.shape[1])
    for first in range(0, n, n_rows):
        block = slopes[first : first + n_rows]
        rows = np.arange(first, first + len(block))
        block[:] = 0
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(1, width + 1):  # differences, so that what is constant gives 0
                later = frames[np.minimum(rows + k, n - 1)].astype(dtype)
                block += k * (later - frames[np.maximum(rows - k, 0)])
        block /= width * (width + 1) * (2 * width + 1) / 3  # twice the sum of squares
        if not np.isfinite(block).all():
            raise ValueError(
                f"the slopes of frames are too large for {dtype}: divide the frames first."
            )
    return slopes


def _check_frames(frames):
    """Return `frames` as a finite array (n_frames, n_coefficients), or raise."""
    frames = as_dense(frames, "frames")
    check_exact(frames, "frames")
    if is_cupy(frames):
        raise TypeError("frames are on a GPU, but deltas works on the CPU: write frames.get().")
    if frames.ndim != 2 or frames.size == 0:
        raise ValueError(
            "deltas needs frames of shape (n_frames, n_coefficients), at least 1 of each, got "
            f"shape {frames.shape}."
        )
    if not np.isfinite(frames).all():
        frame, coefficient = np.argwhere(~np.isfinite(frames))[0]
        raise ValueError(
            f"the frames contain NaN or infinity at frame {frame}, coefficient {coefficient}."
        )
    return frames

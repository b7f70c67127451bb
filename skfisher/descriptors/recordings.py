"""Recordings in, bags of mel-frequency cepstral coefficients out."""

import functools
from numbers import Integral, Real

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval
from skfisher.arrays.dense import as_dense, describe, listed, nesting, no_array
from skfisher.arrays.libraries import float_dtype
from skfisher.bags.bags import Bags
from skfisher.bags.paths import naming
from skfisher.contract.estimator import BagEstimator
from skfisher.descriptors.extraction import ExtractionMixin, Work, paths_in
from skfisher.descriptors.reading import read_wav
from skfisher.descriptors.sound import (
    PARAMETERS,
    cepstrum,
    check_signal,
    deltas,
    framing_of,
    scaled,
)

__all__ = ["MFCC"]

RECORDING = "a recording is an array of shape (n_samples,) or (n_samples, n_channels)"
RECORDINGS = "arrays of shape (n_samples,) or (n_samples, n_channels), one per recording"


class MFCC(ExtractionMixin, TransformerMixin, BagEstimator):
    """Describe recordings by the mel-frequency cepstrum of their frames: one bag per recording.

    Like :func:`~skfisher.descriptors.mfcc`, but for files and lists of signals, with optional rates
    of change. Frames are in order of time.

    Parameters
    ----------
    sample_rate : float, default=None
        Samples per second, by default those of the first file in `fit`. For arrays, the rate must
        be given. Files with another rate are refused.
    n_coefficients : int, default=20
        Number of coefficients to keep, including the first (the frame's mean log energy).
    n_bands : int, default=40
        Number of mel bands between zero and half the sample rate.
    window : float, default=0.025
        Length of a frame in seconds. A shorter recording is padded with silence to one frame.
    step : float, default=0.010
        Distance between frames in seconds.
    pre_emphasis : float, default=0.97
        Share of the previous sample that is subtracted from each sample.
    deltas : {0, 1, 2}, default=0
        1 appends the rate of change of each coefficient; 2 also appends the rate of change of these
        rates.
    reader : callable, default=None
        Function that returns the signal at a path and its sample rate, such as ``soundfile.read``.
        By default, WAV files are read.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.

    Attributes
    ----------
    sample_rate_ : float
        Samples per second of the recordings.

    See Also
    --------
    PositionAppender : Appends the position of a frame in its recording.
    DescriptorTransformer : Scale the coefficients, for instance by ``StandardScaler()``.

    Notes
    -----
    Recordings are a list of paths or of arrays (n_samples,) or (n_samples, n_channels), or an array
    with a recording of the same length in each row. Channels are averaged. Floats are expected to
    lie between -1 and 1, and integers of up to 32 bits are divided by the largest value of their
    type.

    Coefficients are float32, or float64 if a recording is wider than float32.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import MFCC
    >>> rng = np.random.default_rng(0)
    >>> recordings = [rng.uniform(-1, 1, size=n) for n in (8000, 6000)]
    >>> MFCC(sample_rate=8000, deltas=1).fit_transform(recordings)
    <Bags: n_bags=2, n_descriptors=171 (73 to 98 a bag), n_features=40, float64, cpu>
    """

    _parameter_constraints: dict = {
        **PARAMETERS,
        "sample_rate": [*PARAMETERS["sample_rate"], None],
        "deltas": [Interval(Integral, 0, 2, closed="both")],
        "reader": [callable, None],
        "n_jobs": [Integral, None],
    }

    _samples = RECORDINGS

    def __init__(
        self,
        sample_rate=None,
        *,
        n_coefficients=20,
        n_bands=40,
        window=0.025,
        step=0.010,
        pre_emphasis=0.97,
        deltas=0,
        reader=None,
        n_jobs=None,
    ):
        self.sample_rate = sample_rate
        self.n_coefficients = n_coefficients
        self.n_bands = n_bands
        self.window = window
        self.step = step
        self.pre_emphasis = pre_emphasis
        self.deltas = deltas
        self.reader = reader
        self.n_jobs = n_jobs

    def _look(self, X, reset):
        if not reset:
            check_is_fitted(self)
        paths = paths_in(X)
        recordings = _as_recordings(X) if paths is None else None
        reader = read_wav if self.reader is None else self.reader
        sample_rate = self.sample_rate if reset else self.sample_rate_
        if sample_rate is None and paths is None:
            raise ValueError(
                "sample_rate=None is that of files, but arrays do not tell theirs: write, for "
                "instance, MFCC(sample_rate=16000)."
            )
        if sample_rate is None:
            _, sample_rate = _read(paths[0], reader)
        framing = framing_of(
            sample_rate, n_coefficients=self.n_coefficients, n_bands=self.n_bands,
            window=self.window, step=self.step, pre_emphasis=self.pre_emphasis,
        )  # fmt: skip
        if reset:
            self.sample_rate_ = sample_rate
        if paths is None:
            describe_one = functools.partial(_frames, framing=framing, n_deltas=self.deltas)
            return Work(describe_one, [(x, f"X[{i}]") for i, x in enumerate(recordings)])
        describe_one = functools.partial(
            _frames_of_file, framing=framing, n_deltas=self.deltas, reader=reader,
            sample_rate=sample_rate,
        )  # fmt: skip
        return Work(describe_one, [(path,) for path in paths])

    def get_feature_names_out(self, input_features=None):
        """Name the features: ``mfcc0``, and ``mfcc0_delta``, ``mfcc0_delta2`` for its changes.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str objects
        """
        endings = ("", "_delta", "_delta2")[: self.deltas + 1]
        return np.asarray(
            [f"mfcc{j}{ending}" for ending in endings for j in range(self.n_coefficients)],
            dtype=object,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # rows of samples are no table of features
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _as_recordings(X):
    """Return `X` as a list of signals that the coefficients can be computed of."""
    X = listed(X, of=RECORDINGS)
    if X is None or isinstance(X, str | bytes | Bags):
        raise TypeError(f"X is {describe(X)}, but a list of {RECORDINGS}, or of paths, is needed.")
    if not isinstance(X, list | tuple):
        X = as_dense(X, "X")
    if len(X) == 0:
        raise ValueError("X holds no recordings: at least 1 is needed.")
    if nesting(X) == 1:
        raise ValueError("X is one recording: write [X], as a list of recordings is needed.")
    for i, recording in enumerate(X):
        if nesting(recording) == 0:
            raise no_array(recording, f"X[{i}]", RECORDING)
    return [_as_mono(recording, f"X[{i}]") for i, recording in enumerate(X)]


def _as_mono(recording, name):
    """Return a signal of one channel, the mean of those there are."""
    recording = as_dense(recording, name)
    if recording.ndim != 2 or recording.size == 0:
        return check_signal(recording, name)
    if recording.shape[0] < recording.shape[1]:
        raise ValueError(
            f"{name} has shape {recording.shape}, but (n_samples, n_channels) is needed: if its "
            f"channels come first, write {name}.T."
        )
    channels = [check_signal(channel, name) for channel in recording.T]
    dtype = float_dtype(recording.dtype)
    return np.mean([scaled(channel, dtype) for channel in channels], axis=0, dtype=dtype)


def _read(path, reader):
    """Return the signal of a file and its samples per second, which is a number above 0."""
    with naming(path):
        read = reader(path)
        if not isinstance(read, tuple | list) or len(read) != 2:
            raise ValueError(f"the reader returned {describe(read)}, not a signal and its rate")
        signal, rate = read
        if not isinstance(rate, Real) or not 0 < rate < np.inf:
            remedy = ""
            if isinstance(signal, Real):  # as scipy.io.wavfile.read has it
                remedy = ": the signal comes first, as in lambda path: read(path)[::-1]"
            raise ValueError(
                "the reader returned a signal and its rate, which has to be a number above 0, but "
                f"is {describe(rate)}{remedy}"
            )
    return signal, rate


def _frames(signal, name, *, framing, n_deltas):
    orders = [cepstrum(signal, framing, name)]
    for _ in range(n_deltas):
        orders.append(deltas(orders[-1]))
    return np.hstack(orders)


def _frames_of_file(path, *, framing, n_deltas, reader, sample_rate):
    signal, found = _read(path, reader)
    if found != sample_rate:
        raise ValueError(
            f"{path} has {found} samples per second, but {sample_rate} are expected: resample it, "
            "for instance by scipy.signal.resample_poly in a `reader`."
        )
    return _frames(_as_mono(signal, path), path, framing=framing, n_deltas=n_deltas)

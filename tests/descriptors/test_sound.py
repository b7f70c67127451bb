"""MFCC frames and deltas."""

import warnings
from array import array
from collections import deque

import numpy as np
import pytest
from scipy.fft import dct
from scipy.signal import get_window, lfilter, stft

from skfisher.descriptors import deltas, mfcc
from tests.memory import peak_memory


def mfcc_by_loops(signal, rate, n_coefficients, n_bands):
    """Return the coefficients as the formulas read, for windows of 25 ms every 10 ms."""
    length, hop, n_fft = rate * 25 // 1000, rate // 100, 256
    emphasised = lfilter([1, -0.97], 1, signal)
    to_mel = lambda f: 2595 * np.log10(1 + f / 700)
    corners = np.linspace(0, to_mel(rate / 2), n_bands + 2)
    corners = 700 * (10 ** (corners / 2595) - 1)
    rows = []
    for start in range(0, len(signal) - length + 1, hop):
        frame = emphasised[start : start + length] * get_window("hamming", length, fftbins=False)
        power = np.abs(np.fft.rfft(frame, n_fft)) ** 2 / n_fft
        energies = []
        for low, centre, high in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * rate / n_fft
                if low < f <= centre:
                    total += p * (f - low) / (centre - low)
                elif centre < f < high:
                    total += p * (high - f) / (high - centre)
            energies.append(np.log(max(total, 1e-12)))
        rows.append(dct(energies, norm="ortho")[:n_coefficients])
    return np.array(rows)


def test_mfcc_agrees_with_plain_loops(rng):
    signal = rng.normal(size=1000)
    found = mfcc(signal, 8000, n_coefficients=13, n_bands=20)
    np.testing.assert_allclose(found, mfcc_by_loops(signal, 8000, 13, 20), rtol=1e-9, atol=1e-9)


def test_a_louder_sound_differs_in_the_first_coefficient_only(rng):
    signal = rng.normal(size=2000)
    change = mfcc(4 * signal, 8000) - mfcc(signal, 8000)
    np.testing.assert_allclose(change[:, 0], np.log(16) * np.sqrt(40), rtol=1e-6)
    np.testing.assert_allclose(change[:, 1:], 0, atol=1e-9)


def test_frames_agree_with_the_power_of_a_tone():
    # a tone in the middle of the spectrum: its frames all look alike, and like no other tone's
    rate = 16000
    tones = [np.sin(2 * np.pi * f * np.arange(rate) / rate) for f in (500, 3000)]
    first, second = (mfcc(tone, rate) for tone in tones)
    assert np.ptp(first[:, 1:5], axis=0).max() < 0.1 * np.abs(first - second)[:, 1:5].max()
    frequencies, _, spectrum = stft(tones[1], rate, nperseg=400)
    assert frequencies[np.abs(spectrum).mean(axis=1).argmax()] == pytest.approx(3000, abs=40)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(1, 1), (199, 1), (200, 1), (279, 1), (280, 2), (8000, 98)]
)
def test_number_of_frames(rng, n_samples, n_frames):
    frames = mfcc(rng.normal(size=n_samples), 8000)
    assert frames.shape == (n_frames, 20)
    assert np.isfinite(frames).all()


def test_integers_are_scaled_by_their_largest_value_and_silence_is_finite(rng):
    signal = (1000 * rng.normal(size=800)).astype(np.int16)
    found = mfcc(signal, 8000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mfcc(signal / 32767, 8000), rtol=1e-4, atol=1e-3)
    assert np.isfinite(mfcc(np.zeros(800, dtype=np.int16), 8000)).all()


@pytest.mark.parametrize(
    ("signal", "params", "words"),
    [
        (np.zeros((800, 2)), {}, r"got shape \(800, 2\): pass one channel"),
        (np.zeros(0), {}, "at least 1 sample"),
        (np.array([0, 1, np.nan, 2]), {}, "NaN or infinity at sample 2"),
        (np.zeros(800), {"n_bands": 10}, "n_coefficients=20 cannot exceed n_bands=10"),
        (np.zeros(800), {"step": 1e-5}, "step=1e-05 is 0.08 samples at sample_rate=8000"),
        (np.zeros(800), {"window": -1.0}, "'window' parameter of mfcc must be a float .* Got -1.0"),
        (np.zeros(800), {"window": 1e9}, r"window=1000000000.0 is 8e\+12 samples .* fewer than"),
        (np.zeros(800), {"n_bands": 40.0}, "'n_bands' parameter of mfcc must be an int"),
        (np.zeros(800), {"n_coefficients": 0}, "'n_coefficients' parameter of mfcc"),
        (np.zeros(800), {"step": "10 ms"}, "'step' parameter of mfcc must be a float"),
        (np.zeros(800), {"step": np.inf}, "'step' parameter of mfcc"),
        (np.zeros(800), {"pre_emphasis": 1.5}, "'pre_emphasis' parameter of mfcc"),
        (np.zeros(800), {"sample_rate": 10}, "window=0.025 is 0.25 samples at sample_rate=10,"),
        (np.zeros(800), {"sample_rate": np.nan}, "'sample_rate' parameter of mfcc"),
        (np.zeros(800), {"sample_rate": None}, "'sample_rate' parameter of mfcc"),
        (np.full(800, 1e30, np.float32), {}, "too loud for float32, and its power is infinity"),
        (np.full(800, 1e200), {}, "too loud for float64"),
    ],
)
@pytest.mark.filterwarnings("ignore:The signal goes up to")
def test_bad_signals_are_refused(signal, params, words):
    with pytest.raises(ValueError, match=words):
        mfcc(signal, **{"sample_rate": 8000, **params})


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (np.zeros(800, complex), "Complex data not supported: signal has dtype complex128"),
        (np.array(["a", "b"]), "signal has dtype <U1, but real numbers are needed"),
        (np.ma.masked_equal([1.0, 2.0], 2.0), r"signal\[1\] is masked"),
        (None, "signal is None"),
        (np.zeros(800, bool), "signal has dtype bool, which does not tell the scale"),
        (np.zeros(800, np.int64), r"signal has dtype int64, .* write signal.astype\(np.int16\)"),
        ([0, 100, -100], "signal has dtype int64"),
        (np.zeros(800, np.uint64), "signal has dtype uint64"),
    ],
)
def test_signals_are_real_numbers(signal, words):
    with pytest.raises((TypeError, ValueError), match=words):
        mfcc(signal, 8000)


def test_signals_as_buffers(rng):
    signal = rng.integers(-9999, 9999, size=800).astype(np.int16)
    expected = mfcc(signal, 8000)
    for same in (array("h", signal.tolist()), memoryview(signal), deque((signal / 32767).tolist())):
        np.testing.assert_allclose(mfcc(same, 8000), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("signed", "unsigned"), [("int8", "uint8"), ("int16", "uint16")])
def test_unsigned_sounds_are_centred(rng, signed, unsigned):
    signal = rng.integers(-100, 100, size=800).astype(signed)
    stored = (signal.astype(np.int64) + 2 ** (8 * signal.itemsize - 1)).astype(unsigned)
    np.testing.assert_array_equal(mfcc(stored, 8000), mfcc(signal, 8000))


def test_deltas_are_the_slopes_of_fitted_lines(rng):
    frames = rng.normal(size=(9, 3)).astype(np.float32)
    found = deltas(frames, width=2)
    assert found.dtype == np.float32
    for t in range(2, 7):
        expected = np.polyfit(range(5), frames[t - 2 : t + 3], 1)[0]
        np.testing.assert_allclose(found[t], expected, rtol=1e-4, atol=1e-6)


def test_deltas_of_one_frame_are_zero():
    assert not deltas(np.ones((1, 4))).any()


def test_frames_of_long_recordings_are_those_of_their_parts(rng):
    signal = rng.uniform(-1, 1, size=200_000)
    whole, step = mfcc(signal, 8000), 80
    for first in range(1, len(whole), 500):
        start = (first - 1) * step
        part = mfcc(signal[start : start + 501 * step], 8000)[1:400]
        np.testing.assert_allclose(whole[first : first + len(part)], part, rtol=1e-9, atol=1e-9)
    frames = rng.normal(size=(30_000, 20))
    whole = deltas(frames, width=3)
    for first in range(3, len(whole), 4_000):
        part = deltas(frames[first - 3 : first + 4_000], width=3)[3:-3]
        np.testing.assert_array_equal(whole[first : first + len(part)], part)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = []
    for seconds in (30, 240):
        sound = np.memmap(tmp_path / "sound", np.int16, "w+", shape=16000 * seconds)
        sound[::50] = 1000
        frames = mfcc(sound, 16000)
        peak = peak_memory(lambda sound=sound: deltas(mfcc(sound, 16000)), n_calls=2)
        peaks.append(peak - 2 * frames.nbytes)
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_defaults_leave_no_band_empty(rng, rate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(mfcc(rng.uniform(-1, 1, size=rate), rate)).all()


@pytest.mark.parametrize(
    ("rate", "params"), [(2000, {}), (8000, {"window": 0.004}), (16000, {"n_bands": 128})]
)
def test_empty_bands_are_warned_of(rng, rate, params):
    with pytest.warns(
        UserWarning, match=r"of \d+ mel bands hold no frequency.* Lower n_bands"
    ) as w:
        mfcc(rng.uniform(-1, 1, size=rate), rate, **params)
    assert w[0].filename == __file__


def test_scales_that_cannot_be_are_warned_of(rng):
    signal = rng.integers(-9999, 9999, size=800)
    with pytest.warns(UserWarning, match="goes up to 9.* between -1 and 1: .* 32768"):
        mfcc(signal.astype(float), 8000)
    with pytest.warns(UserWarning, match=r"dtype int32 but .* signal.astype\(np.int16\)"):
        mfcc(signal.astype(np.int32), 8000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = mfcc(signal.astype(np.int16), 8000)
        for same in (signal / 32768, signal.astype(np.int32) * 2**16):
            np.testing.assert_allclose(mfcc(same, 8000), expected, rtol=1e-3, atol=1e-3)
        mfcc(np.zeros(800, np.int32), 8000)


@pytest.mark.parametrize(
    ("frames", "width", "words"),
    [
        (np.zeros(9), 2, r"deltas needs frames of shape .* got shape \(9,\)"),
        (np.zeros((0, 4)), 2, "at least 1 of each"),
        (np.full((3, 2), np.nan), 2, "NaN or infinity at frame 0, coefficient 0"),
        (None, 2, "frames is None"),
        (np.ma.masked_equal([[1.0, 2.0]], 2.0), 2, r"frames\[0\] is masked at \[1\]"),
        (np.zeros((9, 4)), 0, "'width' parameter of deltas must be an int"),
        (np.zeros((9, 4)), 1.5, "'width' parameter of deltas must be an int"),
        (np.array([[-3e38], [3e38]], np.float32), 1, "too large for float32"),
    ],
)
def test_bad_frames_are_refused(frames, width, words):
    with pytest.raises((TypeError, ValueError), match=words):
        deltas(frames, width=width)


def test_deltas_of_integers_do_not_wrap():
    frames = np.array([[250], [5], [250]], np.uint8)
    np.testing.assert_allclose(deltas(frames, width=1).ravel(), [-122.5, 0, 122.5])


def test_deltas_of_constants_are_zero(rng):
    assert not deltas(np.tile(rng.normal(size=4), (7, 1)), width=4).any()

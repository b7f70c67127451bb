"""MFCC frames, deltas and dense SIFT."""

import sys

import numpy as np
import pytest
from scipy.fft import dct
from scipy.signal import get_window, lfilter, stft

from skfisher.descriptors import deltas, dense_sift, mfcc


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
        (np.zeros(800), {"window": -1.0}, "window=-1.0 is -8000 samples"),
        (np.zeros(800), {"sample_rate": 10}, "window=0.025 is 0.25 samples at sample_rate=10,"),
        (np.zeros(800), {"sample_rate": np.nan}, "sample_rate=nan"),
    ],
)
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
    ],
)
def test_signals_are_real_numbers(signal, words):
    with pytest.raises((TypeError, ValueError), match=words):
        mfcc(signal, 8000)


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


def test_dense_sift_agrees_with_opencv_on_a_grid(rng):
    cv2 = pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(40, 56), dtype=np.uint8)
    (found,) = dense_sift([image], patch_size=24, step=8, scales=[1.0])
    # patches start at 0, 8, 16 and 0, 8, ..., 32, and are described around their centres
    points = [
        cv2.KeyPoint(x + 11.5, y + 11.5, 4.0, 0.0) for y in (0, 8, 16) for x in range(0, 33, 8)
    ]
    expected = cv2.SIFT_create().compute(image, points)[1]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_patch_reaches_as_far_as_its_size(rng):
    image = rng.integers(0, 256, size=(120, 120), dtype=np.uint8)
    (whole,) = dense_sift([image], patch_size=120, step=1, scales=[1.0])
    changed = image.copy()
    changed[:20] = 128
    (other,) = dense_sift([changed], patch_size=120, step=1, scales=[1.0])
    # histograms of 8 orientations in 4 x 4 cells of 30 pixels: the top row changes most
    change = np.abs(whole.astype(int) - other).reshape(4, 4, 8).sum(axis=(1, 2))
    assert change[0] > 3 * change[2:].max()


def test_scales_add_up_and_patches_must_fit(rng):
    image = rng.integers(0, 256, size=(48, 48), dtype=np.uint8)
    bags = dense_sift([image, image[:30, :24]], scales=[1.0, 0.5, 0.25])
    # 4 x 4 patches in 48 x 48, one in 24 x 24, none in 12 x 12; one in 30 x 24
    assert bags.lengths.tolist() == [17, 1]


def test_scales_at_which_nothing_fits_are_left_out(rng):
    pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(30, 40), dtype=np.uint8)
    (found,) = dense_sift([image], scales=[1.0, 0.5, 1e-4])
    np.testing.assert_array_equal(found, dense_sift([image], scales=(1.0,))[0])
    # 31 x 41 are shrunk to 24 x 32 (23.87 is rounded), 30 x 40 to 23 x 31
    scale = 0.77
    assert dense_sift([np.pad(image, ((0, 1), (0, 1)))], scales=[scale]).lengths.tolist() == [2]
    with pytest.raises(ValueError, match=r"smaller than a patch of 24 at the largest scale, 0.77"):
        dense_sift([image], scales=[0.5, scale])


def test_images_may_come_from_a_generator(rng):
    pytest.importorskip("cv2")
    images = [rng.integers(0, 256, size=(30, 30), dtype=np.uint8) for _ in range(3)]
    np.testing.assert_array_equal(
        dense_sift(image for image in images).values, dense_sift(images).values
    )


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"step": 0}, "step=0 must be above 0"),
        ({"patch_size": -1.0}, "patch_size=-1.0 must be above 0"),
        ({"scales": []}, r"scales=\[\] must be at least one number"),
        ({"scales": [1.0, 0.0]}, r"scales=\[1.0, 0.0\] must be .* above 0"),
    ],
)
def test_parameters_of_the_grid_are_above_zero(params, words):
    with pytest.raises(ValueError, match=words):
        dense_sift([np.zeros((64, 80), np.uint8)], **params)


def test_threads_do_not_change_descriptors(rng):
    pytest.importorskip("cv2")
    images = [rng.integers(0, 256, size=(40, 30 + n), dtype=np.uint8) for n in range(6)]
    one, two = dense_sift(images), dense_sift(images, n_jobs=2)
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.lengths, two.lengths)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([np.zeros((30, 30), np.uint8), np.zeros((30, 20), np.uint8)], r"images\[1\] is 30 x 20"),
        ([np.zeros((30, 30))], r"images\[0\] must be a uint8 array .* got float64"),
        ([np.zeros((30, 30, 3), np.uint8)], r"got uint8 of shape \(30, 30, 3\)"),
        (["image.jpg"], "got str"),
    ],
)
def test_bad_images_are_named(images, words):
    with pytest.raises(ValueError, match=words):
        dense_sift(images)


def test_opencv_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"Install skfisher\[images\]"):
        dense_sift([np.zeros((30, 30), np.uint8)])

"""MFCC."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.io import wavfile
from sklearn.exceptions import NotFittedError

from skfisher import MFCC, Bags
from skfisher.descriptors import deltas, mfcc

SOUNDS = [np.random.default_rng(i).uniform(-1, 1, size=900 + 50 * i) for i in range(3)]


@pytest.mark.parametrize("n_deltas", [0, 1, 2])
def test_coefficients_are_those_of_the_functions(n_deltas):
    options = {"n_coefficients": 5, "n_bands": 12, "window": 0.02, "step": 0.015}
    bags = MFCC(8000, deltas=n_deltas, pre_emphasis=0.9, **options).fit_transform(SOUNDS)
    for bag, sound in zip(bags, SOUNDS, strict=True):
        expected = [mfcc(sound, 8000, pre_emphasis=0.9, **options)]
        for _ in range(n_deltas):
            expected.append(deltas(expected[-1]))
        assert_array_equal(bag, np.hstack(expected))


def test_rows_of_an_array_are_recordings():
    table = np.stack([sound[:900] for sound in SOUNDS])
    expected = MFCC(8000).fit_transform(list(table))
    for form in (table, table[:, :, None], table.tolist()):
        assert_array_equal(MFCC(8000).fit_transform(form).values, expected.values)


def test_channels_are_averaged():
    stereo = np.stack([SOUNDS[0], 0.5 * SOUNDS[0]], axis=1)
    found = MFCC(8000).fit_transform([stereo])
    np.testing.assert_allclose(found[0], mfcc(0.75 * SOUNDS[0], 8000), rtol=1e-9, atol=1e-9)
    whole = np.int16(30000 * stereo)
    np.testing.assert_allclose(
        MFCC(8000).fit_transform([whole])[0],
        mfcc(whole.mean(axis=1) / 32767, 8000),
        rtol=1e-3,
        atol=1e-3,
    )


def test_the_sample_rate_is_that_of_the_files(tmp_path):
    paths = [str(tmp_path / f"{i}.wav") for i in range(3)]
    for path, sound in zip(paths, SOUNDS, strict=True):
        wavfile.write(path, 11025, sound)
    extractor = MFCC().fit(paths)
    assert extractor.sample_rate_ == 11025
    assert_array_equal(extractor.transform(SOUNDS).values, extractor.transform(paths).values)
    assert_array_equal(extractor.transform(SOUNDS)[1], mfcc(SOUNDS[1], 11025))
    wavfile.write(paths[1], 8000, SOUNDS[1])
    with pytest.raises(ValueError, match=r"1\.wav has 8000 samples per second, but 11025"):
        extractor.transform(paths)
    with pytest.raises(ValueError, match=r"0\.wav has 11025 samples per second, but 16000"):
        MFCC(16000).fit_transform(paths)


@pytest.mark.parametrize(
    ("sounds", "error", "words"),
    [
        (SOUNDS[0], ValueError, r"X is one recording: write \[X\]"),
        ([], ValueError, "X holds no recordings"),
        (None, TypeError, "X is None, but a list of arrays"),
        ("a.wav", TypeError, "X is 'a.wav', but a list of arrays"),
        (Bags.from_list([np.ones((3, 2))]), TypeError, "X is Bags, but a list of arrays"),
        ([SOUNDS[0], None], TypeError, r"X\[1\] is None, but a recording is .* Drop it"),
        ([SOUNDS[0], SOUNDS[0] * np.nan], ValueError, r"X\[1\] contains NaN or inf.* at sample 0"),
        ([SOUNDS[0], np.zeros((2, 900))], ValueError, r"X\[1\] has shape .* write X\[1\]\.T"),
        ([SOUNDS[0], np.zeros(0)], ValueError, r"X\[1\] is empty, of shape \(0,\)"),
        ([SOUNDS[0], np.zeros(9, int)], TypeError, r"X\[1\] has dtype int64, .* X\[1\]\.astype"),
        ({"a": SOUNDS[0]}, TypeError, r"list of arrays .* per recording, such as list\(X\.values"),
    ],
)
def test_bad_recordings_are_named(sounds, error, words):
    with pytest.raises(error, match=words):
        MFCC(8000).fit(sounds)


def test_arrays_do_not_tell_their_sample_rate():
    with pytest.raises(ValueError, match=r"write, for instance, MFCC\(sample_rate=16000\)"):
        MFCC().fit(SOUNDS)
    with pytest.raises(NotFittedError):
        MFCC(8000).transform(SOUNDS)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"sample_rate": 0}, "'sample_rate' parameter of MFCC"),
        ({"deltas": 3}, "'deltas' parameter of MFCC"),
        ({"n_bands": 10}, "n_coefficients=20 cannot exceed n_bands=10"),
        ({"step": 1e-9}, "step=1e-09 is .* samples at sample_rate=8000"),
        ({"reader": "wav"}, "'reader' parameter of MFCC"),
    ],
)
def test_bad_parameters_are_named_before_any_work(params, words):
    with pytest.raises(ValueError, match=words):
        MFCC(**{"sample_rate": 8000, **params}).fit(SOUNDS)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((8000, SOUNDS[0]), r"its rate, which has to be .* is an ndarray: the signal comes first"),
        ((SOUNDS[0], None), "which has to be a number above 0, but is None$"),
        ((SOUNDS[0], 0), "but is 0$"),
        (SOUNDS[0], "the reader returned an ndarray, not a signal and its rate"),
        (None, "the reader returned None"),
    ],
)
@pytest.mark.parametrize("sample_rate", [None, 8000])
def test_what_a_reader_returns_is_checked(tmp_path, found, words, sample_rate):
    (tmp_path / "a.wav").touch()
    mfcc = MFCC(sample_rate, reader=lambda path: found)
    with pytest.raises(ValueError, match=r"a\.wav cannot be read: .*" + words):
        mfcc.fit_transform([tmp_path / "a.wav"])


@pytest.mark.filterwarnings("ignore:X.*goes up to")
def test_recordings_without_samples_or_too_loud_are_named():
    with pytest.raises(ValueError, match=r"X\[1\] is empty, of shape \(0, 2\)"):
        MFCC(8000).fit([SOUNDS[0], np.zeros((0, 2))])
    with pytest.raises(ValueError, match=r"X\[1\] is too loud for float64"):
        MFCC(8000).fit_transform([SOUNDS[0], 1e300 * SOUNDS[0]])


def test_loud_recordings_are_warned_of_by_name():
    with pytest.warns(UserWarning, match=r"X\[1\] goes up to 8985") as caught:
        MFCC(8000).fit_transform([SOUNDS[0], 9000 * SOUNDS[1]])
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_names_of_features():
    names = MFCC(8000, n_coefficients=2, deltas=2).get_feature_names_out()
    assert names.tolist() == [
        "mfcc0", "mfcc1", "mfcc0_delta", "mfcc1_delta", "mfcc0_delta2", "mfcc1_delta2",
    ]  # fmt: skip

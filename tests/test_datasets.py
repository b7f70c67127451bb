"""Data sets as bags: the built-in one, and folders in the expected layout."""

from functools import partial

import numpy as np
import pytest
from scipy.io import wavfile
from sklearn.datasets import load_digits

from skfisher.bags.bags import Bags
from skfisher.datasets import (
    load_digits_patches,
    load_fsdd,
    load_japanese_vowels,
    load_scene15,
)


def test_digits_are_bags_of_their_patches():
    digits = load_digits_patches(patch_size=3, step=5, positions=None)
    images, target = load_digits().images, load_digits().target
    assert digits.data.lengths.tolist() == [4] * 1797
    np.testing.assert_array_equal(digits.data[7][3], images[7, 5:8, 5:8].ravel())
    np.testing.assert_array_equal(digits.target, target)
    np.testing.assert_array_equal(digits.images, images)
    assert digits.target_names.tolist() == list("0123456789")


@pytest.mark.parametrize("by_argument", [False, True])
def test_fsdd_reads_names_and_sounds(rng, tmp_path, monkeypatch, by_argument):
    (tmp_path / "fsdd").mkdir()
    for name, n_samples in [("3_theo_12", 1000), ("0_george_5", 2000), ("9_lucas_7", 300)]:
        signal = (1000 * rng.normal(size=n_samples)).astype(np.int16)
        wavfile.write(tmp_path / "fsdd" / f"{name}.wav", 8000, signal)
    monkeypatch.setenv("SKFISHER_DATA", "nowhere" if by_argument else str(tmp_path))
    recordings = load_fsdd(data_home=tmp_path if by_argument else None)
    assert recordings.target.tolist() == [0, 3, 9]
    assert recordings.groups.tolist() == ["george", "theo", "lucas"]
    assert recordings.data.lengths.tolist() == [23, 11, 2]
    assert recordings.data.n_features == 40
    assert recordings.data.dtype == np.float32
    assert recordings.filenames[1].endswith("3_theo_12.wav")


def test_japanese_vowels_reads_series_of_different_lengths(tmp_path):
    (tmp_path / "japanese_vowels").mkdir()
    (tmp_path / "japanese_vowels" / "JapaneseVowels_TRAIN.ts").write_text(
        "#A comment\n@dimensions 2\n@data\n1.5,2,-3:4,5,6e-1:9\n7,8:9,10:1\n"
    )
    utterances = load_japanese_vowels(data_home=tmp_path)
    assert isinstance(utterances.data, Bags)
    np.testing.assert_array_equal(utterances.data[0], [[1.5, 4], [2, 5], [-3, 0.6]])
    np.testing.assert_array_equal(utterances.data[1], [[7, 9], [8, 10]])
    assert utterances.target_names[utterances.target].tolist() == ["9", "1"]


def test_scene15_reads_grey_images_by_class(rng, tmp_path):
    cv2 = pytest.importorskip("cv2")
    for name, shape in [("Office", (20, 30)), ("Coast", (24, 16))]:
        folder = tmp_path / "scene15" / "train" / name
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "image_0001.jpg"), np.full(shape, 77, dtype=np.uint8))
    scenes = load_scene15(data_home=tmp_path)
    assert [image.shape for image in scenes.images] == [(24, 16), (20, 30)]
    assert np.abs(scenes.images[0].astype(int) - 77).max() <= 1  # JPEG
    assert scenes.images[0].dtype == np.uint8
    assert scenes.target_names[scenes.target].tolist() == ["Coast", "Office"]


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (load_fsdd, "7_jackson_32.wav"),
        (load_japanese_vowels, "JapaneseVowels_TRAIN.ts"),
        (load_scene15, r"scene15/train/Bedroom/image_0001.jpg"),
    ],
)
def test_missing_data_are_asked_for(tmp_path, monkeypatch, load, words):
    with pytest.raises(FileNotFoundError, match=words) as caught:
        load(data_home=tmp_path)
    assert str(tmp_path) in str(caught.value)
    monkeypatch.delenv("SKFISHER_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=f"SKFISHER_DATA is not set.*{words}"):
        load()


@pytest.fixture(params=["sound", "sound of floats", "series", "image"])
def small_set(request, rng, tmp_path):
    """Return a reader and the only file of its folder, which is whole."""
    if request.param == "series":
        path = tmp_path / "japanese_vowels" / "JapaneseVowels_TRAIN.ts"
        path.parent.mkdir()
        path.write_text("@dimensions 2\n@classLabel true 1 9\n@data\n1.5,2:4,6e-1:9\n")
        return partial(load_japanese_vowels, data_home=tmp_path), path
    if request.param == "image":
        cv2 = pytest.importorskip("cv2")
        path = tmp_path / "scene15" / "train" / "Office" / "image_0001.jpg"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), rng.integers(0, 256, size=(16, 16), dtype=np.uint8))
        return partial(load_scene15, data_home=tmp_path), path
    path = tmp_path / "fsdd" / "3_theo_12.wav"
    path.parent.mkdir()
    signal = rng.uniform(-1, 1, size=300).astype(np.float32)
    wavfile.write(path, 8000, signal if "floats" in request.param else np.int16(9999 * signal))
    return partial(load_fsdd, data_home=tmp_path), path


def test_files_that_are_cut_short_are_named(small_set):
    load, path = small_set
    whole = path.read_bytes().strip() if path.suffix == ".ts" else path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read") as caught:
            load()
        assert str(path) in str(caught.value)
    path.write_bytes(whole)
    assert len(load().target) == 1


@pytest.mark.filterwarnings("ignore::scipy.io.wavfile.WavFileWarning")  # of chunks it skips
@pytest.mark.filterwarnings("ignore:The signal goes up to")
def test_damaged_files_are_named_or_read(small_set, rng):
    load, path = small_set
    whole, messages = path.read_bytes(), []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(min(len(whole), 100))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = load()
        except ValueError as error:
            messages.append(str(error))
        else:
            assert len(found.target) == 1
            assert "images" in found or np.isfinite(found.data.values).all()
    assert messages
    assert all(str(path) in message for message in messages)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("@data\n1,2:3,?:a\n", "line 2 is not a series of numbers.*'?'"),
        ("@data\n1,2:3,nan:a\n", "line 2 holds NaN or infinity in dimension 1 at frame 1"),
        ("@data\n1,2:3:a\n", "line 2 is not a series of numbers"),
        ("@data\n1,2:3,4:a\n\n1,2:a\n", "line 4 has 1 dimensions, not 2"),
        ("@dimensions 3\n@data\n1,2:3,4:a\n", "line 3 has 2 dimensions, not 3"),
        ("@classLabel true a b\n@data\n1,2:3,4:c\n", "line 3 has the label 'c'"),
        ("1,2:3,4:a\n", "no series follow a line @data"),
    ],
)
def test_lines_that_are_no_utterances_are_named(tmp_path, content, words):
    path = tmp_path / "japanese_vowels" / "JapaneseVowels_TRAIN.ts"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=f"TRAIN.ts cannot be read: {words}"):
        load_japanese_vowels(data_home=tmp_path)


@pytest.mark.parametrize(
    ("name", "signal", "rate", "words"),
    [
        ("1_a_2", np.array([0, np.nan], np.float32), 8000, "NaN or infinity at sample 1"),
        ("1_a_2", np.zeros((9, 2), np.int16), 8000, r"got shape \(9, 2\): pass one channel"),
        ("1_a_2", np.zeros(9, np.int16), 16000, "16000 samples per second.* have 8000"),
        ("1_a_b_2", np.zeros(9, np.int16), 8000, "DIGIT_SPEAKER_NUMBER.wav"),
        ("x_a_2", np.zeros(9, np.int16), 8000, "DIGIT_SPEAKER_NUMBER.wav"),
    ],
)
def test_sounds_of_other_sets_are_named(tmp_path, name, signal, rate, words):
    (tmp_path / "fsdd").mkdir()
    wavfile.write(tmp_path / "fsdd" / f"{name}.wav", rate, signal)
    with pytest.raises(ValueError, match=rf"{name}.wav cannot be read: .*{words}"):
        load_fsdd(data_home=tmp_path)


def test_real_folders_hold_what_their_descriptions_say(data_folder):
    recordings = load_fsdd(data_home=data_folder)
    assert len(recordings.data) == len(recordings.target) == len(recordings.groups)
    assert set(recordings.target) == set(range(10))
    assert len(set(recordings.groups)) == 6
    utterances = load_japanese_vowels(data_home=data_folder)
    assert utterances.data.n_features == 12
    assert len(utterances.target_names) == 9

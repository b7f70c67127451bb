"""Bags in files: save and load."""

import hashlib
import json
import pickle
import re

import numpy as np
import pytest

from skfisher.bags.bags import Bags
from tests.bags.test_bags import assert_same_bags, make_list
from tests.memory import peak_memory


@pytest.mark.parametrize("mmap_mode", ["r", None])
def test_save_and_load(tmp_path, mmap_mode, xp):
    bags = Bags.from_list([xp.asarray(a) for a in make_list(dtype=np.float32)])[[4, 0, 0]]
    bags.save(tmp_path / "some" / "bags")
    loaded = Bags.load(tmp_path / "some" / "bags", mmap_mode=mmap_mode)
    assert_same_bags(loaded, bags.to_list())
    assert loaded.dtype == np.float32
    assert isinstance(loaded.values, np.memmap) == (mmap_mode == "r")
    assert loaded.values.flags.writeable == (mmap_mode is None)


def test_saved_files_are_plain_arrays_that_the_manifest_names(tmp_path):
    arrays = make_list()
    Bags.from_list(arrays).save(str(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    files = {name: tmp_path / entry["file"] for name, entry in manifest["arrays"].items()}
    assert {*tmp_path.iterdir()} == {*files.values(), tmp_path / "manifest.json"}
    assert re.fullmatch("values-[0-9a-f]{32}.npy", files["values"].name)
    values = np.load(files["values"], allow_pickle=False)
    np.testing.assert_array_equal(values, np.concatenate(arrays))
    np.testing.assert_array_equal(np.load(files["lengths"], allow_pickle=False), [3, 1, 4, 2, 5])
    for name, entry in manifest["arrays"].items():
        assert entry["sha256"] == hashlib.sha256(files[name].read_bytes()).hexdigest()
    assert manifest["arrays"]["values"]["shape"] == [15, 2]
    assert manifest["arrays"]["lengths"]["dtype"] == "<i8"


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">f4", "float16", "int64"])
def test_save_keeps_the_dtype(tmp_path, dtype):
    bags = Bags.from_lengths((np.arange(12).reshape(6, 2) % 2).astype(dtype), [2, 4])
    bags.save(tmp_path)
    assert Bags.load(tmp_path).dtype == np.dtype(dtype)
    assert_same_bags(Bags.load(tmp_path), bags.to_list())


def test_save_fortran_and_strided_values(tmp_path):
    values = np.asfortranarray(np.arange(24.0).reshape(6, 4))[::2, 1:3]
    Bags.from_lengths(values, [1, 2]).save(tmp_path)
    np.testing.assert_array_equal(Bags.load(tmp_path).values, values)


def test_save_over_the_files_being_read(tmp_path):
    arrays = make_list()
    Bags.from_list(arrays).save(tmp_path)
    Bags.load(tmp_path)[::-2].save(tmp_path)
    assert_same_bags(Bags.load(tmp_path), arrays[::-2])


def test_bags_over_a_file_that_was_replaced_stay_usable(tmp_path):
    arrays = make_list()
    Bags.from_list(arrays).save(tmp_path)
    bags = Bags.load(tmp_path)
    for _ in range(3):
        bags.save(tmp_path)
    assert_same_bags(bags, arrays)
    assert_same_bags(pickle.loads(pickle.dumps(bags)), arrays)


def test_save_no_bags(tmp_path):
    Bags(np.ones((3, 2)), [], []).save(tmp_path)
    loaded = Bags.load(tmp_path)
    assert len(loaded) == 0
    assert loaded.n_features == 2


def test_save_takes_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("skfisher.bags.saving.SAVE_BYTES", 2**18)
    bags = Bags.from_lengths(np.zeros((2**16, 32)), np.full(2**10, 2**6))[::-1]  # 16 MB, copied
    assert peak_memory(lambda: bags.save(tmp_path)) < 4 * 2**18


@pytest.mark.parametrize("mmap_mode", ["r", "c", "r+", None])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (1, 1)])
def test_small_and_empty_arrays_are_saved_and_loaded(tmp_path, shape, mmap_mode):
    bags = Bags.from_lengths(np.full(shape, 7, np.float32), [shape[0]])
    bags.save(tmp_path)
    loaded = Bags.load(tmp_path, mmap_mode=mmap_mode, verify=True)
    np.testing.assert_array_equal(loaded.values, bags.values)
    assert loaded.lengths.tolist() == [shape[0]]
    assert loaded.dtype == np.float32


@pytest.mark.parametrize("mmap_mode", ["w+", "w", "", 1, True])
def test_load_opens_no_file_to_overwrite_it(tmp_path, mmap_mode):
    Bags.from_list(make_list()).save(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"mmap_mode={mmap_mode!r} must be")):
        Bags.load(tmp_path, mmap_mode=mmap_mode)
    assert_same_bags(Bags.load(tmp_path), make_list())


# Folders of plain files, as other programs write them


@pytest.fixture
def plain(tmp_path):
    """Return a folder of values.npy and lengths.npy, without a manifest."""
    np.save(tmp_path / "values.npy", np.concatenate(make_list()))
    np.save(tmp_path / "lengths.npy", [3, 1, 4, 2, 5])
    return tmp_path


@pytest.mark.parametrize("mmap_mode", ["r", None])
def test_plain_files_are_read_and_replaced(plain, mmap_mode):
    assert_same_bags(Bags.load(plain, mmap_mode=mmap_mode), make_list())
    np.save(plain / "values.npy", np.asfortranarray(np.concatenate(make_list())))
    assert_same_bags(Bags.load(plain, mmap_mode=mmap_mode), make_list())
    with pytest.raises(ValueError, match=r"no manifest\.json with checksums"):
        Bags.load(plain, verify=True)
    Bags.load(plain, mmap_mode=mmap_mode)[1:].save(plain)
    assert_same_bags(Bags.load(plain, verify=True), make_list()[1:])
    assert len([*plain.iterdir()]) == 3


def test_load_says_what_is_missing(plain, tmp_path):
    (plain / "lengths.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"lengths\.npy does not exist: .*manifest\.json"):
        Bags.load(plain)
    with pytest.raises(FileNotFoundError, match=r"values\.npy does not exist: .*manifest\.json"):
        Bags.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        (np.array([3, 1]), "does not hold bags: lengths sum to 4, but values has 15"),
        (np.array([16, -1]), r"does not hold bags: lengths\[1\] is -1"),
        (np.array([15.0]), "does not hold bags: lengths must be integers"),
        (np.array([[15]]), "does not hold bags: lengths must be one-dimensional"),
        (
            np.array([15, 2**63], np.uint64),
            r"does not hold bags: lengths\[1\] is 9223372036854775808",
        ),
        (np.array([2**62] * 4 + [15]), "does not hold bags: lengths sum to 18446744073709551631"),
        (np.array(15), "does not hold bags: lengths must be one-dimensional"),
    ],
)
def test_load_says_what_is_inconsistent(plain, lengths, words):
    np.save(plain / "lengths.npy", lengths)
    with pytest.raises(ValueError, match=words):
        Bags.load(plain)


@pytest.mark.parametrize("mmap_mode", ["r", None])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([{}], dtype=object), r"values\.npy cannot be read as a plain .*object"),
        (np.array(["a"]), r"values\.npy .* holds <U1, not real numbers"),
        (np.ones((15, 2), complex), r"values\.npy .* holds complex128, not real numbers"),
        (np.ones((15, 2), "M8[s]"), r"values\.npy .* not real numbers"),
        (np.ones(15), r"does not hold bags: values must have shape"),
        (np.array(15.0), r"does not hold bags"),
    ],
)
def test_load_opens_real_numbers_alone(plain, values, words, mmap_mode):
    np.save(plain / "values.npy", values, allow_pickle=True)
    with pytest.raises(ValueError, match=words):
        Bags.load(plain, mmap_mode=mmap_mode)


def test_load_says_which_file_is_damaged(plain):
    whole = (plain / "values.npy").read_bytes()
    for damaged in (whole[:-8], whole[:4], b"", whole + b"more"):
        (plain / "values.npy").write_bytes(damaged)
        for mmap_mode in ("r", None):
            with pytest.raises(ValueError, match=r"values\.npy cannot be read as a plain"):
                Bags.load(plain, mmap_mode=mmap_mode)

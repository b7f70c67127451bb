"""Bags of many files."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import Bags, DeepFisherEncoder, FisherVectorEncoder
from skfisher.bags.file_rows import FileRows

LENGTHS = (3, 1, 40, 2, 7, 12)


@pytest.fixture
def arrays(rng):
    return [rng.normal(size=(n, 4)).astype(np.float32) for n in LENGTHS]


@pytest.fixture
def paths(arrays, tmp_path):
    paths = [tmp_path / f"{i}.npy" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths


def test_rows_are_those_of_the_stacked_array(arrays, paths):
    whole, rows = np.concatenate(arrays), FileRows(paths)
    assert (rows.shape, rows.dtype, len(rows)) == (whole.shape, whole.dtype, len(whole))
    for first in range(0, len(whole), 3):
        for last in (first, first + 1, first + 30, None):
            assert_array_equal(rows[first:last], whole[first:last])
    some = np.random.default_rng(1).integers(-len(whole), len(whole), size=20)
    mask = np.arange(len(whole)) % 3 == 0
    for key in (
        some,
        some.reshape(4, 5),
        mask,
        some[:0],
        5,
        -1,
        np.int64(3),
        slice(None, None, -2),
    ):
        assert_array_equal(rows[key], whole[key])
    narrow = rows[:, 1:-1]
    assert narrow.shape == (len(whole), 2)
    assert_array_equal(narrow[some], whole[some, 1:-1])
    assert_array_equal(narrow[:, 1:][2:50], whole[2:50, 2:-1])
    assert_array_equal(np.asarray(rows), whole)
    with pytest.raises(IndexError, match="out of bounds"):
        rows[len(whole)]
    with pytest.raises(IndexError, match="cut as"):
        rows[:3, :2]


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "u1"])
def test_files_give_the_bits_of_a_list(tmp_path, rng, dtype, fortran):
    arrays = [(50 * rng.random((n, 4))).astype(dtype) for n in LENGTHS]
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", np.asfortranarray(array) if fortran else array)
    bags = Bags.from_files([str(tmp_path / f"{i}.npy") for i in range(len(arrays))])
    in_memory = Bags.from_list([array.astype(array.dtype.newbyteorder("=")) for array in arrays])
    assert bags.dtype == in_memory.dtype
    for encoder in (
        FisherVectorEncoder(3, random_state=0),
        DeepFisherEncoder((2, 2), n_positions=2, random_state=0),
    ):
        assert_array_equal(
            encoder.fit(bags).transform(bags), encoder.fit(in_memory).transform(in_memory)
        )


def test_npz_files_and_readers(arrays, tmp_path, paths):
    np.savez(tmp_path / "a.npz", arrays[0])
    np.savez_compressed(tmp_path / "b.npz", x=arrays[2])
    bags = Bags.from_files([tmp_path / "a.npz", tmp_path / "b.npz", paths[1]])
    for bag, expected in zip(bags, [arrays[0], arrays[2], arrays[1]], strict=True):
        assert_array_equal(bag, expected)
    np.savez(tmp_path / "two.npz", x=arrays[0], y=arrays[1])
    with pytest.raises(ValueError, match=r"two\.npz cannot be read: it holds 2 arrays.*'x'"):
        Bags.from_files([tmp_path / "two.npz"])
    bags = Bags.from_files([tmp_path / "two.npz"], reader=lambda path: np.load(path)["y"])
    assert_array_equal(bags[0], arrays[1])


def test_data_frames_name_their_features(tmp_path):
    for name in "ab":
        pd.DataFrame({"x": [1.0, 2], "y": [3.0, 4]}).to_csv(tmp_path / f"{name}.csv", index=False)
    bags = Bags.from_files([tmp_path / "a.csv", tmp_path / "b.csv"], reader=pd.read_csv)
    assert bags.feature_names.tolist() == ["x", "y"]
    pd.DataFrame({"x": [1.0], "z": [2.0]}).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(
        ValueError, match=r"c\.csv has the feature names \('x', 'z'\), but .*a\.csv"
    ):
        Bags.from_files([tmp_path / f"{name}.csv" for name in "abc"], reader=pd.read_csv)


def test_no_file_stays_open(arrays, tmp_path):
    resource = pytest.importorskip("resource")
    paths = [tmp_path / f"{i}.npy" for i in range(300)]
    for path in paths:
        np.save(path, arrays[0])
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        bags = Bags.from_files(paths)
        assert len(list(bags)) == 300
        FisherVectorEncoder(2, random_state=0, n_jobs=2).fit_transform(bags)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_files_are_not_written_to(paths, arrays):
    bags = Bags.from_files(paths)
    bags[0][:] = 0
    assert_array_equal(bags[0], arrays[0])
    assert_array_equal(np.load(paths[0]), arrays[0])


def test_bags_travel_as_paths(paths, arrays):
    many = Bags.from_files(paths * 300)
    sent = pickle.dumps(many)
    assert len(sent) < many.n_descriptors * 4 * 4
    assert_array_equal(pickle.loads(sent)[2], arrays[2])
    y = np.arange(len(paths) * 4) % 2
    bags = Bags.from_files(paths * 4)
    model = make_pipeline(FisherVectorEncoder(2, random_state=0), LinearSVC(random_state=0))
    assert_array_equal(
        cross_val_score(model, bags, y, cv=3, n_jobs=2),
        cross_val_score(model, bags.pack(), y, cv=3),
    )


def test_descriptors_pass_through_a_device(paths, arrays, stand_in):
    encoder = FisherVectorEncoder(2, random_state=0, device="cuda")
    found = encoder.fit(Bags.from_files(paths)).transform(Bags.from_files(paths))
    expected = encoder.fit(arrays).transform(arrays)
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_bags_are_joined_packed_and_saved(paths, arrays, tmp_path):
    bags = Bags.from_files(paths)
    joined = Bags.concatenate([bags[:2], bags[4:]])
    assert joined.values is bags.values
    assert Bags.concatenate([bags, Bags.from_list(arrays)]).n_descriptors == 2 * sum(LENGTHS)
    assert isinstance(bags.pack().values, np.ndarray)
    bags.save(tmp_path / "bags")
    assert_array_equal(Bags.load(tmp_path / "bags").values, np.concatenate(arrays))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((2, 5), np.float32), "has 5 features per descriptor, but .*0.npy has 4"),
        (np.zeros((2, 4)), "holds float64, but .*0.npy holds float32: convert all to one dtype"),
        (np.zeros(4, np.float32), r"cannot be read: it holds an array of shape \(4,\)"),
        (np.zeros((2, 4), complex), "cannot be read .*complex128, not real numbers"),
        (np.zeros((2, 4), np.longdouble), r"cannot be read: it holds .*float64"),
        (b"no array", "cannot be read .*"),
        (b"", "cannot be read .*"),
    ],
)
def test_bad_files_are_named(paths, content, words):
    if isinstance(content, bytes):
        paths[3].write_bytes(content)
    else:
        np.save(paths[3], content)
    with pytest.raises(ValueError, match=rf"3\.npy {words}"):
        Bags.from_files(paths)


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        ([], ValueError, "paths holds no paths"),
        ("a.npy", TypeError, "paths is 'a.npy': pass a list of paths"),
        (["a.npy"], FileNotFoundError, r"paths\[0\] is 'a\.npy', which is not a file"),
        ([1], TypeError, r"paths\[0\] is 1, but"),
        (None, TypeError, "paths is None: pass a list of paths"),
        ({"a.npy"}, TypeError, "paths is a set: pass a list of paths"),
    ],
)
def test_what_is_no_list_of_paths(bad, kind, words):
    with pytest.raises(kind, match=words):
        Bags.from_files(bad)


def test_a_file_that_fails_later_is_named(paths):
    bags = Bags.from_files(paths)
    np.save(paths[2], np.zeros((5, 4), np.float32))
    with pytest.raises(
        ValueError, match=r"2\.npy cannot be read: it holds float32 of shape \(5, 4"
    ):
        FisherVectorEncoder(2).fit(bags)
    paths[2].unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.npy"):
        FisherVectorEncoder(2).fit(bags)


def test_a_bag_without_descriptors_is_named(paths):
    np.save(paths[1], np.zeros((0, 4), np.float32))
    bags = Bags.from_files(paths)
    assert bags.lengths[1] == 0
    with pytest.raises(ValueError, match=r"X\[1\] is empty"):
        FisherVectorEncoder(2).fit(bags)
    assert_array_equal(bags.values[:5], np.concatenate([bags[0], bags[2][:2]]))

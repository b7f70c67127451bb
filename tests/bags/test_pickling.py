"""Bags on their way to other processes: packed, pickled, and shared as memory maps."""

import mmap
import os
import pickle

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.parallel import Parallel, delayed

from skfisher.bags.bags import Bags
from skfisher.bags.mapped import MappedFile, is_mapped, sendable
from skfisher.parallel.threads import map_in_order
from tests.bags.test_bags import assert_same_bags, make_list


@st.composite
def any_bags(draw):
    n = draw(st.integers(0, 12))
    cuts = st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted)
    boundaries = np.array(draw(st.lists(cuts, max_size=6)), dtype=int).reshape(-1, 2)
    return Bags(np.arange(2.0 * n).reshape(n, 2), boundaries[:, 0], boundaries[:, 1])


@given(any_bags(), st.integers(1, 9))
def test_blocks_are_the_descriptors_in_order(bags, n_rows):
    blocks = list(bags.blocks(n_rows))
    assert all(len(block) == n_rows for block in blocks[:-1])
    expected = np.concatenate([bags.values[:0], *bags])
    np.testing.assert_array_equal(np.concatenate([bags.values[:0], *blocks]), expected)
    assert sum(map(len, blocks)) == bags.n_descriptors


@given(any_bags())
def test_pack_and_pickle_keep_the_bags(bags):
    packed = bags.pack()
    assert_same_bags(packed, bags.to_list())
    assert len(packed.values) == bags.n_descriptors
    assert packed.pack() is packed
    assert_same_bags(pickle.loads(pickle.dumps(bags)), bags.to_list())


def test_blocks_of_neighbouring_bags_are_views(xp):
    bags = Bags.from_list([xp.ones((t, 2)) for t in (3, 4, 5)])
    for block in bags[1:].blocks(4):
        block[:] = 2
    assert (bags.values[3:] == 2).all()


def test_a_small_subset_pickles_small():
    bags = Bags.from_lengths(np.zeros((10_000, 8)), np.full(1000, 10))
    subset = bags[[3, 500, 7]]
    state = pickle.dumps(subset)
    assert len(state) < 3 * 10 * 8 * 8 + 2000
    assert_same_bags(pickle.loads(state), subset.to_list())
    assert len(pickle.loads(state).values) == 30


def test_a_large_subset_pickles_with_its_values():
    # workers then share one copy of `values` whatever the fold
    bags = Bags.from_list(make_list())
    assert pickle.loads(pickle.dumps(bags[1:])).values.shape == bags.values.shape


def test_pickle_keeps_the_library(xp):
    bags = Bags.from_list([xp.ones((t, 2)) for t in (1, 9, 2)])
    restored = pickle.loads(pickle.dumps(bags[::2]))
    assert type(restored.values) is type(bags.values)


def test_read_only_values():
    values = np.arange(12.0).reshape(6, 2)
    values.flags.writeable = False
    bags = Bags.from_lengths(values, [1, 2, 3])
    assert bags.values is values
    assert not bags[1].flags.writeable
    assert_same_bags(pickle.loads(pickle.dumps(bags[[2, 0]])), [values[3:], values[:1]])


@pytest.fixture
def mapped(tmp_path):
    """Bags over a memory map of 4 MB, which joblib shares and does not copy."""
    values = np.arange(2**19, dtype=np.float64).reshape(-1, 8)
    np.save(tmp_path / "mapped.npy", values)
    values = np.load(tmp_path / "mapped.npy", mmap_mode="r")
    return Bags.from_lengths(values, np.full(64, len(values) // 64))


def test_mapped_values_stay_mapped(mapped):
    assert isinstance(mapped.values, np.memmap)
    assert mapped[:3].values is mapped.values
    assert repr(mapped).endswith("memory-mapped>")
    assert type(mapped[0]) is type(next(iter(mapped))) is np.ndarray
    assert np.shares_memory(mapped[0], mapped.values)


def test_a_memory_map_that_was_pickled_is_none(mapped):
    copy = pickle.loads(pickle.dumps(mapped.values))
    assert isinstance(copy, np.memmap)
    assert repr(Bags(copy, [0], [1])).endswith("cpu>")
    # views of a map, of any type, look into its file
    for values in (mapped.values[10:], np.asarray(mapped.values), mapped.values.view(np.uint8)):
        assert repr(Bags(values, [0], [1])).endswith("memory-mapped>")


def test_mapped_bags_are_pickled_as_the_path_of_their_file(mapped):
    for bags in (mapped, mapped[[5, 3]]):
        state = pickle.dumps(bags)
        assert len(state) < 2000
        copy = pickle.loads(state)
        assert "values" not in vars(copy)  # the file is opened when it is asked for
        assert copy.values.filename == os.fspath(mapped.values.filename)
        assert_same_bags(copy, bags.to_list())


def test_pickled_bags_are_what_was_written_to_their_file(mapped):
    writable = Bags.from_lengths(np.load(mapped.values.filename, mmap_mode="r+"), mapped.lengths)
    writable.values[3] = -1
    assert_same_bags(pickle.loads(pickle.dumps(writable)), writable.to_list())


def test_where_the_file_of_pickled_bags_is_missing_their_use_names_it(mapped, tmp_path):
    states = [pickle.dumps(mapped), pickle.dumps(mapped)]
    os.utime(tmp_path / "mapped.npy", (0, 0))
    with pytest.raises(ValueError, match=r"mapped\.npy, .* was changed"):
        pickle.loads(states[0]).values  # noqa: B018
    if os.name != "nt":
        (tmp_path / "mapped.npy").unlink()
        with pytest.raises(FileNotFoundError, match=r"mapped\.npy, which these .* is not here"):
            pickle.loads(states[0]).n_features  # noqa: B018


def test_a_small_part_of_a_map_of_joblibs_is_packed(tmp_path, monkeypatch):
    # which sends maps of its own as such, and deletes their files
    folder = tmp_path / "joblib_memmapping_folder_1"
    folder.mkdir()
    np.save(folder / "shared.npy", np.arange(2**19, dtype=np.float64).reshape(-1, 8))
    bags = Bags.from_lengths(np.load(folder / "shared.npy", mmap_mode="r"), np.full(64, 2**10))
    assert len(bags[:3].__getstate__()["values"]) == bags[:3].n_descriptors
    monkeypatch.setattr("skfisher.bags.bags.PACK_MAPPED_BYTES", 1000)
    assert bags[:3].__getstate__()["values"] is bags.values


def first_three(bags):
    return bags[:3]


def test_bags_that_workers_return_outlive_joblibs_maps(mapped, rng):
    in_memory = Bags.from_lengths(rng.normal(size=(2**16, 8)), np.full(64, 2**10))  # 4 MB
    with joblib.parallel_config(backend="loky", n_jobs=2):
        found = Parallel()(delayed(first_three)(bags) for bags in (mapped, in_memory))
    for bags, given_ in zip(found, (mapped, in_memory), strict=True):
        assert_same_bags(bags, given_[:3].to_list())
    assert [is_mapped(bags.values) for bags in found] == [True, False]


def test_large_views_that_no_path_tells_of_are_pickled_with_a_warning(mapped, monkeypatch):
    monkeypatch.setattr("skfisher.bags.mapped.LARGE", 2**20)
    bags = Bags(mapped.values[::-1], mapped.starts, mapped.stops)
    with pytest.warns(UserWarning, match=r"4 MiB of mapped descriptors are copied .* save these"):
        copy = pickle.loads(pickle.dumps(bags))
    assert_same_bags(copy, bags.to_list())


def describe(bags, i):
    return isinstance(bags, Bags), isinstance(bags.values, np.memmap), float(bags[i].sum())


def path_and_sum(bags, i):
    return bags.values.filename, float(bags[i].sum())


def test_joblib_workers_share_large_values_by_memory_map(rng):
    bags = Bags.from_lengths(rng.normal(size=(2**16, 8)), np.full(64, 2**10))  # 4 MB
    with joblib.parallel_config(backend="loky"):
        found = Parallel(n_jobs=2)(delayed(describe)(bags, i) for i in range(4))
    assert found == [(True, True, float(bags[i].sum())) for i in range(4)]


def test_joblib_workers_open_mapped_files(mapped):
    with joblib.parallel_config(backend="loky"):
        found = Parallel(n_jobs=2)(delayed(path_and_sum)(mapped, i) for i in range(4))
    path = os.fspath(mapped.values.filename)
    assert found == [(path, float(mapped[i].sum())) for i in range(4)]


# Views that joblib would send as a file name and a place, and read otherwise


def views(values):
    """Return views of an array (64, 6), of every kind of strides."""
    return {
        "whole": values,
        "rows": values[10:50],
        "reversed rows": values[::-1],
        "reversed columns": values[:, ::-1],
        "both reversed": values[::-1, ::-1],
        "every second row": values[::2],
        "every third row from the end": values[-2::-3],
        "columns": values[:, 1:4],
        "every second column": values[:, ::2],
        "transposed": values.T,
        "folded": values.reshape(32, 12),
        "folded columns": values.T.reshape(12, 32),
        "repeated row": np.broadcast_to(values[3], (64, 6)),
        "repeated column": np.broadcast_to(values[:, 2:3], (64, 6)),
        "as integers": values.view(np.int64),
        "other class": np.asarray(values)[5:],
        "windows": np.lib.stride_tricks.sliding_window_view(values, 4, axis=0)[:, 2],
    }


def open_map(folder, kind):
    """Return an array (64, 6) that looks into a file."""
    path, n_before = folder / f"{kind}.bin", 40
    numbers = np.arange(64 * 6, dtype=np.float64)
    path.write_bytes(bytes(n_before) + numbers.tobytes())
    options = {"dtype": np.float64, "offset": n_before}
    if kind == "flat":
        return np.memmap(path, mode="r", shape=64 * 6, **options).reshape(64, 6)
    if kind == "column":
        return np.memmap(path, mode="r", shape=(64 * 6, 1), **options).reshape(64, 6)
    if kind == "fortran":
        return np.memmap(path, mode="r", shape=(64, 6), order="F", **options)
    if kind == "mmap":
        with open(path, "rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(whole, np.float64, offset=n_before).reshape(64, 6)
    values = np.memmap(path, mode=kind, shape=(64, 6), **options)
    if kind == "c":
        values[7] = -1  # in this process alone
    return values


def contents(*objects):
    return [
        x.values[x.starts.min() : x.stops.max()].tolist() if isinstance(x, Bags) else x.tolist()
        for x in objects
    ]


KINDS_OF_MAPS = ["r", "c", "r+", "fortran", "flat", "column", "mmap"]


def all_views(folder):
    """Return bags over views of maps of every kind, which are named."""
    found = {}
    for kind in KINDS_OF_MAPS:
        for name, values in views(open_map(folder, kind)).items():
            found[f"{kind}, {name}"] = Bags(values, [0, 1], [len(values), 3])
    return found


def test_mapped_views_reach_workers_as_they_are(tmp_path):
    found = all_views(tmp_path)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        arrived = joblib.Parallel()(joblib.delayed(contents)(bags) for bags in found.values())
        tasks = [(bags.values,) for bags in found.values()]
        sent = list(map_in_order(contents, tasks, n_jobs=2))
    for (name, bags), ours, theirs in zip(found.items(), arrived, sent, strict=True):
        assert ours == [bags.values.tolist()], name
        assert theirs == [bags.values.tolist()], name


@pytest.mark.parametrize("library", ["pickle", "cloudpickle"])
def test_mapped_views_are_pickled_as_they_are(tmp_path, library):
    library = pytest.importorskip(library)
    for name, bags in all_views(tmp_path).items():
        arrived = library.loads(library.dumps(bags))
        np.testing.assert_array_equal(arrived.values, bags.values, err_msg=name)
        np.testing.assert_array_equal(arrived.stops, bags.stops)


def test_only_what_joblib_would_misread_is_copied(tmp_path):
    found = all_views(tmp_path)
    found = {name: bags for name, bags in found.items() if is_mapped(bags.values)}
    by_path = {name for name, bags in found.items() if sendable(bags.values) is bags.values}
    assert by_path == {name for name, bags in found.items() if "_file" in bags.__getstate__()}
    in_order = {"whole", "rows", "folded", "as integers", "other class"}
    assert by_path == {f"{kind}, {name}" for kind in ("r", "r+", "flat") for name in in_order}


def test_what_is_sendable_is_found_again_by_path_and_place(tmp_path):
    n_files = 0
    for name, bags in all_views(tmp_path).items():
        values = sendable(bags.values)
        if is_mapped(values):
            n_files += 1
            found = pickle.loads(pickle.dumps(MappedFile.of(values))).open()
            np.testing.assert_array_equal(found, bags.values, err_msg=name)
    assert n_files == 15


def test_a_file_that_is_not_the_same_elsewhere_is_named(mapped, tmp_path):
    file = MappedFile.of(mapped.values)
    with pytest.raises(FileNotFoundError, match=r"gone, .* is not here. Keep the file where every"):
        file._replace(path=str(tmp_path / "gone")).open()
    with pytest.raises(ValueError, match="is another file here, or was changed"):
        file._replace(written=0).open()


def test_a_map_whose_file_is_gone_is_copied(mapped, tmp_path):
    if os.name == "nt":
        pytest.skip("a mapped file cannot be deleted there")
    (tmp_path / "mapped.npy").unlink()
    with joblib.parallel_config(backend="loky", n_jobs=2):
        (found,) = joblib.Parallel()(joblib.delayed(describe)(b, 1) for b in [mapped])
    assert found[2] == float(mapped[1].sum())


def test_an_array_that_tasks_share_is_copied_once(mapped):
    reversed_rows = mapped.values[::-1]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        found = list(map_in_order(address, [(reversed_rows, i) for i in range(6)], n_jobs=2))
    # joblib maps what it sends again into one file, by the identity of the array
    assert {first for _, first in found} == {float(reversed_rows[0, 0])}
    assert len({name for name, _ in found}) == 1


def address(values, number):
    return getattr(values, "filename", None), float(values[0, 0])


def test_joblib_hash_follows_content():
    # what Pipeline(memory=...) relies on
    bags = Bags.from_list(make_list())
    assert joblib.hash(bags) == joblib.hash(Bags.from_list(make_list()))
    assert joblib.hash(bags) != joblib.hash(bags[::-1])
    assert joblib.hash(bags[:1]) == joblib.hash(Bags.from_list(make_list()[:1]))

import hashlib
import io
import json
import mmap
import os
import pickle
import re
import tracemalloc

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils import _safe_indexing, indexable, resample, shuffle
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples, check_array, check_consistent_length

from skfisher.arrays.libraries import to_host
from skfisher.bags.bags import Bags
from skfisher.bags.mapped import is_mapped
from skfisher.parallel.threads import map_in_order

dispatch = pytest.mark.parametrize("dispatch", [False, True], ids=["dispatch off", "dispatch on"])


def make_list(lengths=(3, 1, 4, 2, 5), n_features=2, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(t, n_features)).astype(dtype) for t in lengths]


def assert_same_bags(bags, arrays):
    assert isinstance(bags, Bags)
    assert len(bags) == len(arrays)
    for bag, array in zip(bags, arrays, strict=True):
        np.testing.assert_array_equal(to_host(bag), to_host(array))


# The container


def test_attributes(xp):
    values = xp.arange(12, dtype=xp.float32).reshape(6, 2)
    bags = Bags(values, [4, 0], [6, 4])
    assert bags.values is values
    assert bags.shape == (2,) == (len(bags),)
    assert bags.ndim == 1
    assert bags.dtype == xp.float32
    assert bags.device == values.device
    assert bags.n_features == 2
    assert bags.n_descriptors == 6
    assert type(bags.starts) is type(bags.stops) is np.ndarray
    assert bags.starts.dtype == bags.stops.dtype == bags.lengths.dtype == np.int64
    np.testing.assert_array_equal(bags.lengths, [2, 4])


def test_boundaries_on_any_device_come_to_the_host(xp):
    bags = Bags(xp.ones((4, 1)), xp.asarray([0, 1]), xp.asarray([1, 4]))
    assert type(bags.starts) is np.ndarray
    np.testing.assert_array_equal(Bags.from_lengths(bags.values, xp.asarray([1, 3])).stops, [1, 4])


@pytest.mark.parametrize("dtype", ["uint64", "uint8", "int32", object])
def test_integers_of_any_width_are_boundaries(dtype):
    bags = Bags(np.ones((5, 2)), np.array([0, 3], dtype), np.array([3, 5], dtype))
    assert bags.starts.dtype == bags.stops.dtype == np.int64
    np.testing.assert_array_equal(bags.lengths, [3, 2])
    np.testing.assert_array_equal(
        Bags.from_lengths(bags.values, np.array([3, 2], dtype)).stops, [3, 5]
    )


def test_boundaries_are_copied():
    starts = np.array([0, 3])
    bags = Bags(np.ones((5, 2)), starts, [3, 5])
    starts[:] = 99
    np.testing.assert_array_equal(bags.starts, [0, 3])


def test_a_bag_is_a_view(xp):
    values = xp.zeros((5, 2))
    bags = Bags(values, [0, 3], [3, 5])
    bags[1][:] = 7
    assert (values[3:] == 7).all()
    assert (values[:3] == 0).all()
    assert bags[1].shape == (2, 2)


@pytest.mark.parametrize("key", [-1, -5, 0, np.int64(2), np.uint8(3), np.array(1)])
def test_integer_key_gives_a_bag(key):
    arrays = make_list()
    np.testing.assert_array_equal(Bags.from_list(arrays)[key], arrays[int(key)])
    np.testing.assert_array_equal(Bags.from_list(arrays)[key, ...], arrays[int(key)])


@pytest.mark.parametrize("key", [5, -6, np.int64(5), [0, 5], np.array([-6])])
def test_past_the_end_is_an_index_error(key):
    with pytest.raises(IndexError, match="out of bounds"):
        Bags.from_list(make_list())[key]


@pytest.mark.parametrize("key", [1.0, "a", None, True, [[0, 1]], np.array([0.5]), (0, 1)])
def test_a_key_numpy_would_not_take_is_an_index_error(key):
    with pytest.raises(IndexError):
        Bags.from_list(make_list())[key]


def test_a_mask_of_another_length_is_an_index_error():
    with pytest.raises(IndexError, match="boolean"):
        Bags.from_list(make_list())[[True, False]]


def test_subsets_share_values():
    bags = Bags.from_list(make_list())
    mask = np.array([True, False, False, True, False])
    for key in [slice(1, 4), [3, 0], np.array([3, 0]), mask, mask.tolist(), ([3, 0], ...)]:
        assert bags[key].values is bags.values
    assert bags.take([3, 0]).values is bags.values


@st.composite
def bags_and_key(draw):
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=8))
    n = len(lengths)
    key = draw(
        st.one_of(
            st.slices(n),
            st.lists(st.integers(-n, n - 1), max_size=10),
            st.lists(st.booleans(), min_size=n, max_size=n),
        )
    )
    return lengths, key


@given(bags_and_key())
def test_indexing_is_that_of_an_object_array(case):
    lengths, key = case
    arrays = make_list(lengths)
    model = np.empty(len(arrays), dtype=object)
    model[:] = arrays
    bags = Bags.from_list(arrays)
    expected = list(model[key])
    assert_same_bags(bags[key], expected)
    if not isinstance(key, slice):
        assert_same_bags(bags[np.asarray(key, dtype=None if key else int), ...], expected)
        assert_same_bags(bags.take(key), expected)
    # a subset of a subset
    assert_same_bags(bags[key][::-1], expected[::-1])


def test_indices_on_a_device(xp):
    arrays = make_list()
    bags = Bags.from_list([xp.asarray(array) for array in arrays])
    for subset in (bags[xp.asarray([2, 0])], bags[xp.asarray([2, 0]), ...]):
        assert_same_bags(subset, [arrays[2], arrays[0]])
    assert_same_bags(bags.take(xp.asarray([2, 0])), [arrays[2], arrays[0]])
    assert_same_bags(xp.take(bags, xp.asarray([2, 0]), axis=0), [arrays[2], arrays[0]])


def test_take_has_the_signature_of_numpy():
    arrays = make_list()
    bags = Bags.from_list(arrays)
    np.testing.assert_array_equal(bags.take(-2), arrays[-2])
    assert_same_bags(np.take(bags, [4, 1], axis=0), [arrays[4], arrays[1]])
    assert_same_bags(bags.take([4, 1], 0, None, "raise"), [arrays[4], arrays[1]])
    assert_same_bags(bags.take([5, -6], mode="wrap"), [arrays[0], arrays[4]])
    assert_same_bags(bags.take([99, -3], mode="clip"), [arrays[4], arrays[0]])
    assert_same_bags(bags.take([]), [])
    with pytest.raises(IndexError, match="out of bounds"):
        bags.take([5])
    with pytest.raises(ValueError, match="axis=1"):
        bags.take([0], axis=1)
    with pytest.raises(ValueError, match="out"):
        bags.take([0], out=bags)
    with pytest.raises(IndexError, match="one dimension"):
        bags.take([[0, 1]])


def test_iteration_and_to_list():
    arrays = make_list()
    bags = Bags.from_list(arrays)
    assert_same_bags(bags, arrays)
    assert isinstance(bags.to_list(), list)
    assert all(np.shares_memory(bag, bags.values) for bag in bags.to_list())


def test_bags_have_no_rectangular_form():
    bags = Bags.from_list(make_list())
    words = r"Bags have no rectangular form: put what takes tables .* after the encoder"
    for convert in (np.asarray, np.array, lambda x: np.asarray(x, dtype=object), check_array):
        with pytest.raises(TypeError, match=words):
            convert(bags)


@pytest.mark.parametrize("name", ["fit", "iloc", "__dataframe__"])
def test_what_scikit_learn_must_not_find(name):
    # each would send scikit-learn down the path of estimators or data frames
    assert not hasattr(Bags.from_list(make_list()), name)


@pytest.mark.parametrize(
    ("bags", "expected"),
    [
        (
            Bags.from_list(make_list(dtype=np.float32)),
            "<Bags: n_bags=5, n_descriptors=15 (1 to 5 a bag), n_features=2, float32, cpu>",
        ),
        (
            Bags.from_list(make_list((3, 3))),
            "<Bags: n_bags=2, n_descriptors=6 (3 a bag), n_features=2, float64, cpu>",
        ),
        (
            Bags(np.ones((3, 2)), [], []),
            "<Bags: n_bags=0, n_descriptors=0, n_features=2, float64, cpu>",
        ),
    ],
)
def test_repr(bags, expected):
    assert repr(bags) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones(3), [0], [1]), ValueError, r"got \(3,\)"),
        ((np.ones((3, 2, 1)), [0], [1]), ValueError, r"got \(3, 2, 1\)"),
        ((np.ones((3, 2), complex), [0], [1]), ValueError, "Complex data not supported"),
        ((np.full((3, 2), "a", object), [0], [1]), TypeError, "dtype object"),
        ((np.full((3, 2), "a"), [0], [1]), TypeError, "real numbers"),
        (
            (np.ones((3, 2)), [0.0], [1]),
            TypeError,
            r"starts must be integers, but starts\[0\] is 0.0",
        ),
        ((np.ones((3, 2)), [0], [True]), TypeError, "stops must be integers, got dtype bool"),
        ((np.ones((3, 2)), [[0]], [1]), ValueError, "starts must be one-dimensional"),
        ((np.ones((3, 2)), [0, 1], [1]), ValueError, "got 2 starts and 1 stops"),
        ((np.ones((3, 2)), [0, 2], [1, 4]), ValueError, "bag 1 starts at 2 and stops at 4"),
        ((np.ones((3, 2)), [-1], [1]), ValueError, "bag 0 starts at -1"),
        ((np.ones((3, 2)), [2], [1]), ValueError, "bag 0 starts at 2 and stops at 1"),
        # what int64 does not hold must not wrap around into something it does
        ((np.ones((3, 2)), [2**64 - 1], [1]), ValueError, r"starts\[0\] is 18446744073709551615,"),
        (
            (np.ones((3, 2)), [0], np.array([2**63], np.uint64)),
            ValueError,
            r"stops\[0\] is 9.*64 bit",
        ),
        (
            (np.ones((3, 2)), [0, 2**64], [1, 1]),
            ValueError,
            r"starts\[1\] is 18446744073709551616,",
        ),
        (
            (np.ones((3, 2)), [-(2**63) - 1], [1]),
            ValueError,
            r"starts\[0\] is -9223372036854775809",
        ),
        ((np.ones((3, 2)), [-(2**63)], [1]), ValueError, "bag 0 starts at -9223372036854775808"),
        ((np.ones((3, 2)), [0], [2**63 - 1]), ValueError, "stops at 9223372036854775807"),
        ((np.ones((3, 2)), [0, None], [1, 1]), TypeError, r"starts\[1\] is None"),
        ((np.ones((3, 2)), np.array([0, True], object), [1, 1]), TypeError, r"starts\[1\] is True"),
        ((np.ones((3, 2)), ["0"], [1]), TypeError, "starts must be integers, got dtype <U1"),
        ((np.ones((3, 2)), [[0], [0, 1]], [1]), ValueError, "starts must be a one-dimensional"),
        ((np.ones((3, 2)), [np.nan], [1]), TypeError, r"integers, but starts\[0\] is nan"),
        ((np.ones((0, 2)), [0], [1]), ValueError, "bag 0 starts at 0 and stops at 1"),
        (
            (np.broadcast_to(np.uint8(1), (2**62, 1)), [0] * 3, [2**62] * 3),
            ValueError,
            "2\\^63 descriptors or more",
        ),
    ],
)
def test_constructor_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        Bags(*arguments)


# Making


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float32", "float32"], "float32"),
        (["float32", "float64"], "float64"),
        (["uint8", "uint8"], "uint8"),
        (["uint8", "int8"], "int16"),
        (["float16", "float32"], "float32"),
        (["bool", "bool"], "bool"),
    ],
)
def test_from_list_keeps_the_dtype_that_holds_all(dtypes, expected):
    bags = Bags.from_list([np.ones((2, 3), dtype) for dtype in dtypes])
    assert bags.dtype == expected


def test_from_list_copies_and_reads_nested_lists():
    array = np.ones((2, 2))
    bags = Bags.from_list([array, [[1, 2], [3, 4], [5, 6]]])
    array[:] = 5
    assert_same_bags(bags, [np.ones((2, 2)), [[1, 2], [3, 4], [5, 6]]])


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ([], ValueError, "no bags"),
        (None, TypeError, "arrays is None, but a list of arrays of shape"),
        (5, TypeError, "arrays is 5, but a list"),
        ("word", TypeError, "arrays is 'word', but a list"),
        ([Bags([[1.0]], [0], [1])], TypeError, r"X\[0\] is Bags, .* write \*X\[0\]"),
        ([np.ones((2, 4)), np.ones((2, 5))], ValueError, r"X\[1\] has 5 features .* X\[0\] has 4"),
        ([np.ones((2, 4)), np.ones(4)], ValueError, r"X\[1\] has shape \(4,\).*X\[1\]\[None, :\]"),
        ([np.ones((2, 4)), np.ones((1, 2, 4))], ValueError, r"X\[1\] has shape \(1, 2, 4\)"),
        ([np.ones((2, 4)), []], ValueError, r"X\[1\] is empty"),
        ([np.ones((2, 4), complex)], ValueError, r"Complex data not supported: X\[0\]"),
        ([np.ones((2, 4)), np.full((2, 4), "a")], TypeError, r"X\[1\] has dtype <U1"),
        ([np.ones((2, 4)), np.full((2, 4), "a", object)], TypeError, r"X\[1\] has dtype object"),
        ([np.ones((2, 4)), [[1, 2], [3]]], ValueError, r"X\[1\] is not a rectangular array"),
        ([np.ones((2, 4)), scipy.sparse.eye_array(4)], TypeError, r"X\[1\] is sparse.*toarray"),
        ([np.ones((2, 4)), np.ones((2, 4), "M8[s]")], TypeError, r"X\[1\] has dtype datetime64"),
        ([np.ones((2, 4)), 3.0], TypeError, r"X\[1\] is 3.0, but a bag is a two-dimensional array"),
    ],
)
def test_from_list_names_the_sample(arrays, error, words):
    with pytest.raises(error, match=words):
        Bags.from_list(arrays)


@pytest.mark.gpu
def test_from_list_refuses_to_mix_devices(cupy):
    with pytest.raises(TypeError, match=r"X\[1\] is a cupy array, but X\[0\] is a numpy array"):
        Bags.from_list([np.ones((2, 2)), cupy.ones((2, 2))])


def test_values_and_lengths_in_other_forms():
    bags = Bags.from_lengths([[1, 2], [3, 4]], {"a": 1, "b": 1}.values())
    assert_same_bags(bags, [[[1, 2]], [[3, 4]]])
    for values in (None, "word"):
        with pytest.raises(TypeError, match=f"values is {values!r}, but an array of real numbers"):
            Bags.from_lengths(values, [1])


def test_from_lengths_does_not_copy(xp):
    values = xp.ones((6, 2))
    bags = Bags.from_lengths(values, [1, 0, 5])
    assert bags.values is values
    np.testing.assert_array_equal(bags.starts, [0, 1, 1])
    np.testing.assert_array_equal(bags.stops, [1, 1, 6])


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        (iter([6]), TypeError, r"lengths is a \w+: pass a list of integers, .* list\(lengths\)"),
        ({6}, TypeError, "lengths is a set: pass a list of integers"),
        (None, ValueError, "lengths must be one-dimensional"),
        ([1, 2], ValueError, "lengths sum to 3, but values has 6 descriptors"),
        ([], ValueError, "lengths sum to 0"),
        ([7, -1], ValueError, r"lengths\[1\] is -1"),
        ([6.0], TypeError, "lengths must be integers"),
        (np.array([6.0]), TypeError, "lengths must be integers, got dtype float64"),
        ([True], TypeError, "lengths must be integers"),
        ([2**63, 6], ValueError, r"lengths\[0\] is 9223372036854775808, .* 64 bits"),
        ([2**64 + 6], ValueError, r"lengths\[0\] is 18446744073709551622"),
        ([2**62] * 4 + [6], ValueError, "lengths sum to 18446744073709551622, but values has 6"),
        ([2**63 - 1, 7], ValueError, "lengths sum to 9223372036854775814"),
    ],
)
def test_from_lengths_refuses(lengths, error, words):
    with pytest.raises(error, match=words):
        Bags.from_lengths(np.ones((6, 2)), lengths)


def test_concatenate(xp):
    first = Bags.from_list([xp.asarray(array) for array in make_list()])
    second = Bags.from_list([xp.asarray(array) for array in make_list((2, 6), seed=1)])
    joined = Bags.concatenate([first[[4, 0]], second[:1], first[1:2]])
    assert_same_bags(joined, [first[4], first[0], second[0], first[1]])
    assert joined.n_descriptors == len(joined.values)  # nothing else was copied
    assert type(joined.values) is type(first.values)


def test_concatenate_subsets_of_one_container_copies_nothing():
    bags = Bags.from_list(make_list())
    joined = Bags.concatenate([bags[3:], bags[:2]])
    assert joined.values is bags.values
    assert_same_bags(joined, [bags[3], bags[4], bags[0], bags[1]])


def test_concatenate_promotes():
    parts = [Bags.from_list(make_list(dtype=dtype)) for dtype in (np.float32, np.float64)]
    assert Bags.concatenate(parts).dtype == np.float64


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ([], ValueError, "no bags"),
        ([Bags(np.ones((1, 2)), [0], [1]), np.ones((1, 2))], TypeError, r"parts\[1\] is a ndarray"),
        (
            [Bags(np.ones((1, 2)), [0], [1]), Bags(np.ones((1, 3)), [0], [1])],
            ValueError,
            r"parts\[1\] has 3 features per descriptor, but parts\[0\] has 2",
        ),
    ],
)
def test_concatenate_refuses(parts, error, words):
    with pytest.raises(error, match=words):
        Bags.concatenate(parts)


# Packing


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
    copy = pickle.loads(pickle.dumps(mapped))
    assert isinstance(copy.values, np.memmap)
    assert repr(copy).endswith("cpu>")
    # views of a map, of any type, look into its file
    for values in (mapped.values[10:], np.asarray(mapped.values), mapped.values.view(np.uint8)):
        assert repr(Bags(values, [0], [1])).endswith("memory-mapped>")


def test_a_large_mapped_subset_is_not_read_to_be_pickled(mapped, monkeypatch):
    # joblib sends the file's name instead
    monkeypatch.setattr("skfisher.bags.bags.PACK_MAPPED_BYTES", 1000)
    assert mapped[:3].__getstate__()["values"] is mapped.values
    monkeypatch.setattr("skfisher.bags.bags.PACK_MAPPED_BYTES", 2**20)
    assert len(mapped[:3].__getstate__()["values"]) == mapped[:3].n_descriptors


def describe(bags, i):
    return isinstance(bags, Bags), isinstance(bags.values, np.memmap), float(bags[i].sum())


def test_joblib_workers_share_large_values_by_memory_map(rng):
    bags = Bags.from_lengths(rng.normal(size=(2**16, 8)), np.full(64, 2**10))  # 4 MB
    with joblib.parallel_config(backend="loky"):
        found = Parallel(n_jobs=2)(delayed(describe)(bags, i) for i in range(4))
    assert found == [(True, True, float(bags[i].sum())) for i in range(4)]


def test_joblib_workers_open_mapped_files(mapped):
    with joblib.parallel_config(backend="loky"):
        found = Parallel(n_jobs=2)(delayed(describe)(mapped, i) for i in range(4))
    assert found == [(True, True, float(mapped[i].sum())) for i in range(4)]


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
    by_path = {name for name, b in found.items() if b.__getstate__()["values"] is b.values}
    in_order = {"whole", "rows", "folded", "as integers", "other class"}
    assert by_path == {f"{kind}, {name}" for kind in ("r", "r+", "flat") for name in in_order}


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


# Files


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
    monkeypatch.setattr("skfisher.bags.bags.SAVE_BYTES", 2**18)
    bags = Bags.from_lengths(np.zeros((2**16, 32)), np.full(2**10, 2**6))[::-1]  # 16 MB, copied
    tracemalloc.start()
    bags.save(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**18


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


# What scikit-learn does with samples


@dispatch
def test_namespace_is_that_of_the_values(dispatch, real_xp):
    from skfisher._compat import get_namespace

    bags = Bags.from_list([real_xp.ones((2, 2)), real_xp.ones((1, 2))])
    with sklearn.config_context(array_api_dispatch=dispatch):
        assert bags.__array_namespace__(api_version=None) is get_namespace(bags.values)[0]
        assert get_namespace(bags)[0] is get_namespace(bags.values)[0]
        assert get_namespace(bags)[1] is dispatch


@dispatch
@pytest.mark.parametrize(
    "indices", [[2, 0], np.array([2, 0]), np.array([], int), slice(1, 3), (2, 0)], ids=repr
)
def test_safe_indexing(dispatch, indices):
    arrays = make_list()
    key = list(indices) if isinstance(indices, tuple) else indices
    expected = list(np.array(arrays, dtype=object)[key])
    with sklearn.config_context(array_api_dispatch=dispatch):
        subset = _safe_indexing(Bags.from_list(arrays), indices)
    assert_same_bags(subset, expected)


@dispatch
def test_safe_indexing_by_mask_and_by_integer(dispatch):
    arrays = make_list()
    bags = Bags.from_list(arrays)
    mask = np.array([False, True, True, False, False])
    with sklearn.config_context(array_api_dispatch=dispatch):
        assert_same_bags(_safe_indexing(bags, mask), arrays[1:3])
        np.testing.assert_array_equal(_safe_indexing(bags, 3), arrays[3])


@dispatch
def test_samples_are_counted_split_and_shuffled(dispatch):
    bags = Bags.from_list(make_list((3, 1, 4, 2, 5, 2)))
    y = np.arange(6)
    with sklearn.config_context(array_api_dispatch=dispatch):
        assert _num_samples(bags) == 6
        check_consistent_length(bags, y)
        assert indexable(bags, y)[0] is bags
        train, test, y_train, y_test = train_test_split(bags, y, test_size=2, random_state=0)
        splits = list(KFold(3).split(bags, y))
        mixed, y_mixed = shuffle(bags, y, random_state=0)
        drawn, y_drawn = resample(bags, y, random_state=0)
    assert_same_bags(train, [bags[i] for i in y_train])
    assert_same_bags(test, [bags[i] for i in y_test])
    assert_same_bags(mixed, [bags[i] for i in y_mixed])
    assert_same_bags(drawn, [bags[i] for i in y_drawn])
    assert train.values is test.values is bags.values
    assert len(splits) == 3


def test_stratified_split():
    bags = Bags.from_list(make_list((3, 1, 4, 2, 5, 2, 1, 1)))
    train, test = train_test_split(bags, stratify=[0, 1] * 4, test_size=0.5, random_state=0)
    assert len(train) == len(test) == 4


def test_joblib_dump(tmp_path):
    bags = Bags.from_list(make_list())
    file = io.BytesIO()
    joblib.dump(bags[1:], file)
    file.seek(0)
    assert_same_bags(joblib.load(file), bags[1:].to_list())

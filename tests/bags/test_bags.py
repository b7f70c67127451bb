import io

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils import _safe_indexing, indexable, resample, shuffle
from sklearn.utils.validation import _num_samples, check_array, check_consistent_length

from skfisher.arrays.libraries import to_host
from skfisher.bags.bags import Bags

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

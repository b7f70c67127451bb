import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import TransformerMixin
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import _fit_context
from skfisher.arrays.libraries import float_dtype
from skfisher.bags.bags import Bags
from skfisher.contract.estimator import BagEstimator
from skfisher.contract.validation import check_bags
from tests.memory import peak_memory


class BagMean(TransformerMixin, BagEstimator):
    """The least that an estimator of bags does: one mean per bag."""

    _parameter_constraints: dict = {}

    def __init__(self, n_components=1):
        self.n_components = n_components

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        check_bags(self, X, reset=True, min_descriptors=self.n_components)
        return self

    def transform(self, X):
        check_is_fitted(self)
        bags = check_bags(self, X, reset=False)
        return np.stack([bag.mean(axis=0, dtype=float_dtype(bags.dtype)) for bag in bags])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def read(X, **kwargs):
    return check_bags(BagMean(), X, reset=True, **kwargs)


def make_list(lengths=(3, 1, 4), n_features=2):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(t, n_features)) for t in lengths]


def object_array(arrays):
    array = np.empty(len(arrays), dtype=object)
    array[:] = arrays
    return array


# Nothing is waived or expected to fail.
@parametrize_with_checks([BagMean(n_components=2)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# Every form of input


FORMS = {
    "list": lambda arrays: arrays,
    "tuple": tuple,
    "object array": object_array,
    "Series": lambda arrays: pd.Series(arrays, index=[7, 8, 9]),
    "data frames": lambda arrays: [pd.DataFrame(array) for array in arrays],
    "nested lists": lambda arrays: [array.tolist() for array in arrays],
    "lists of rows": lambda arrays: [list(array) for array in arrays],
    "Bags": Bags.from_list,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_ragged_bags(form):
    arrays = make_list()
    estimator = BagMean()
    bags = check_bags(estimator, FORMS[form](arrays), reset=True)
    for bag, array in zip(bags, arrays, strict=True):
        np.testing.assert_array_equal(bag, array)
    assert estimator.n_features_in_ == 2
    assert estimator._fit_on_bags is True


def test_bags_are_taken_as_they_are(xp):
    bags = Bags.from_list([xp.ones((2, 3)), xp.zeros((1, 3))])
    assert read(bags) is bags


def test_a_cube_is_bags_of_one_size_without_a_copy(xp):
    cube = xp.arange(24.0).reshape(3, 4, 2)
    bags = read(cube)
    assert (bags.lengths == 4).all()
    assert type(bags.values) is type(cube)
    cube[1] = -1
    assert (bags[1] == -1).all()


def test_a_mapped_cube_stays_mapped(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((3, 4, 2), dtype=np.uint8))
    cube = np.load(tmp_path / "cube.npy", mmap_mode="r")
    bags = read(cube)
    assert bags.dtype == np.uint8
    assert np.shares_memory(bags.values, cube)


def test_an_object_cube_is_what_numpy_makes_of_equal_bags():
    cube = np.array([np.ones((2, 3)), np.zeros((2, 3))], dtype=object)
    assert cube.ndim == 3
    bags = read(cube)
    assert bags.dtype == np.float64
    np.testing.assert_array_equal(bags.lengths, [2, 2])
    cube[1, 1, 1] = "word"
    with pytest.raises(TypeError, match="dtype object and is not all numbers"):
        read(cube)


@pytest.mark.parametrize(
    "convert",
    [np.asarray, np.ndarray.tolist, list, tuple, pd.DataFrame, np.asfortranarray],
    ids=["array", "lists", "list of rows", "tuple of rows", "DataFrame", "Fortran"],
)
def test_a_matrix_is_bags_of_one(convert):
    matrix = np.arange(12.0).reshape(4, 3)
    estimator = BagMean()
    bags = check_bags(estimator, convert(matrix), reset=True)
    np.testing.assert_array_equal(bags.values, matrix)
    np.testing.assert_array_equal(bags.lengths, np.ones(4))
    assert estimator.n_features_in_ == 3
    assert estimator._fit_on_bags is False


def test_a_matrix_is_not_copied(xp):
    matrix = xp.ones((4, 3))
    bags = read(matrix)
    matrix[2] = 5
    assert (bags[2] == 5).all()


@pytest.mark.parametrize("dispatch", [False, True])
def test_the_form_does_not_depend_on_dispatch(dispatch):
    with sklearn.config_context(array_api_dispatch=dispatch):
        assert isinstance(read(np.ones((4, 3))), Bags)
        assert isinstance(read(make_list()), Bags)
        assert isinstance(read(np.ones((4, 3, 2))), Bags)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "int64", "float16", "float32", "float64", ">f4"]
)
@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_any_real_dtype_is_kept(dtype, shape):
    X = np.ones(shape, dtype=dtype)
    assert read(X).dtype == dtype
    if X.ndim == 3:
        assert read(list(X)).dtype == np.dtype(dtype).newbyteorder("=")
        assert read(Bags.from_lengths(X[0], [4])).dtype == dtype


@pytest.mark.parametrize(
    "X",
    [
        np.ones((4, 3), np.longdouble),
        np.ones((2, 4, 3), np.longdouble),
        [np.ones((4, 3), np.longdouble)],
        Bags.from_lengths(np.ones((4, 3), np.longdouble), [1, 3]),
    ],
)
def test_longdouble_becomes_float64(X):
    bags = read(X)
    assert bags.dtype == np.float64
    assert (bags.values == 1).all()


# Errors


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("X", "error", "words"),
    [
        ([], ValueError, r"X holds 0 sample\(s\)"),
        ((), ValueError, r"X holds 0 sample\(s\)"),
        (Bags(np.ones((3, 2)), [], []), ValueError, r"X holds 0 sample\(s\): BagMean needs"),
        (np.ones((0, 4, 2)), ValueError, r"X holds 0 sample\(s\)"),
        (np.ones((0, 2)), ValueError, r"0 sample\(s\) .* minimum of 1 is required"),
        (np.ones((3, 0)), ValueError, r"0 feature\(s\) .* minimum of 1 is required"),
        (np.ones((3, 2, 0)), ValueError, r"0 feature\(s\)"),
        ([np.ones((3, 2)), np.ones((0, 2))], ValueError, r"X\[1\] is empty: .* Drop it, or give"),
        ([np.ones((3, 2)), []], ValueError, r"X\[1\] is empty: .* Drop it, or give"),
        (np.ones((3, 0, 2)), ValueError, r"X\[0\] is empty"),
        (Bags(np.ones((3, 2)), [0, 2], [2, 2]), ValueError, r"X\[1\] is empty"),
        ([np.ones((3, 2)), np.ones(2)], ValueError, r"X\[1\] has shape \(2,\)"),
        ([np.ones(2), np.ones((3, 2))], ValueError, r"X\[0\] has shape \(2,\)"),
        ([np.ones((3, 2)), np.ones((1, 3, 2))], ValueError, r"X\[1\] has shape \(1, 3, 2\)"),
        ([np.ones((3, 2)), None], TypeError, r"X\[1\] is None, but a bag is a two-dim.*Drop it"),
        (
            [np.ones((3, 4))] * 17 + [np.ones((3, 5))],
            ValueError,
            r"X\[17\] has 5 features per descriptor, but X\[0\] has 4: all bags must have the same",
        ),
        (
            [np.ones(3), np.ones(4)],
            ValueError,
            r"X\[1\] has length 4, but X\[0\] has length 3: .* 2-D",
        ),
        (np.ones(3), ValueError, "Reshape your data"),
        ([1.0, 2.0], ValueError, "Reshape your data"),
        (np.ones((2, 3, 4, 5)), ValueError, "X has 4 dimensions, but BagMean takes bags"),
        (3.0, ValueError, "Reshape your data"),
        (None, TypeError, "X is None, but BagMean takes bags: a list of 2-D arrays"),
        ("text", TypeError, "X is 'text', but BagMean takes bags: a list of 2-D arrays"),
        (pd.Series([1.0, 2.0]), ValueError, "Reshape your data"),
        ((array for array in make_list()), TypeError, "X is a generator: pass a list"),
        ({"a": np.ones((3, 2))}, TypeError, "X is a dict: pass a list"),
        (np.ones((3, 2), complex), ValueError, "Complex data not supported"),
        (np.ones((3, 2, 2), complex), ValueError, "Complex data not supported"),
        ([np.ones((3, 2)), np.ones((3, 2), complex)], ValueError, r"Complex .*: X\[1\]"),
        (
            [np.ones((3, 2)), np.full((3, 2), "a")],
            TypeError,
            r"X\[1\] has dtype <U1, but real",
        ),
        ([np.ones((3, 2)), np.full((3, 2), "a", object)], TypeError, r"X\[1\] has dtype object"),
        (np.full((3, 2, 2), "a"), TypeError, "dtype <U1"),
        (np.full((3, 2), "a"), TypeError, r"X has dtype <U1, but .* X\.astype\(np\.float64\)"),
        (scipy.sparse.eye_array(3, format="csr"), TypeError, "[Ss]parse data was passed"),
        ([np.ones((3, 3)), scipy.sparse.eye_array(3)], TypeError, r"X\[1\] is sparse"),
        ([np.ones((3, 2)), [[0, 0], [0, NAN], [NAN, 0]]], ValueError, r"X\[1\] .*NaN .* 1\."),
        ([np.ones((3, 2)), [[0, 0], [0, INF]]], ValueError, r"X\[1\] contains infinity in .* 1\."),
        ([[[0, 0], [-INF, 0]], [[NAN, 0]]], ValueError, r"X\[0\] contains infinity in desc.* 1\."),
        (np.array([[0, 1], [INF, 1]]), ValueError, r"X\[1\] contains infinity in descriptor 0\."),
        (pd.DataFrame({"a": [0, NAN]}), ValueError, r"X\[1\] contains NaN in descriptor 0\."),
        (np.full((2, 3, 1), NAN), ValueError, r"X\[0\] contains NaN in descriptor 0\."),
    ],
)
def test_bad_input_is_named(X, error, words):
    estimator = BagMean()
    with pytest.raises(error, match=words):
        check_bags(estimator, X, reset=True)
    assert not hasattr(estimator, "n_features_in_")


def test_message_of_an_infinity_and_nan_in_one_descriptor():
    with pytest.raises(ValueError, match=r"X\[0\] contains NaN in descriptor 0\."):
        read([[[INF, NAN, -INF]]])


@given(st.data())
def test_the_first_bad_descriptor_is_found_whatever_the_blocks(data):
    lengths = np.array(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=8)))
    bags = Bags.from_lengths(np.zeros((lengths.sum(), 2)), lengths)
    bags = bags[data.draw(st.permutations(range(len(bags))))]
    i = data.draw(st.integers(0, len(bags) - 1))
    j = data.draw(st.integers(0, int(bags.lengths[i]) - 1))
    bags[i][j, data.draw(st.integers(0, 1))] = data.draw(st.sampled_from([NAN, INF, -INF]))
    later = [(a, b) for a in range(i, len(bags)) for b in range(bags.lengths[a]) if (a, b) > (i, j)]
    for a, b in data.draw(st.lists(st.sampled_from(later), max_size=2)) if later else []:
        bags[a][b] = NAN
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "skfisher.contract.validation.FINITE_BLOCK_BYTES", data.draw(st.integers(1, 200))
        )
        with pytest.raises(ValueError, match=rf"^X\[{i}\] contains \w+ in descriptor {j}\.$"):
            read(bags)


def test_only_descriptors_of_the_bags_are_looked_at(xp):
    values = xp.ones((10, 2))
    values[4:6] = xp.nan
    bags = Bags(values, [0, 6, 1], [4, 10, 2])
    assert read(bags) is bags
    with pytest.raises(ValueError, match=r"X\[1\] contains NaN in descriptor 2\."):
        read(Bags(values, [0, 2], [4, 6]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_finite_values_whose_sum_is_not(dtype, xp):
    X = xp.full((4, 3, 2), np.finfo(dtype).max, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(X)
    X[2, 1, 0] = -xp.inf
    with pytest.raises(ValueError, match=r"X\[2\] contains infinity in descriptor 1\."):
        read(X)


def test_infinities_of_both_signs_do_not_cancel():
    with pytest.raises(ValueError, match=r"X\[0\] contains infinity in descriptor 1\."):
        read([[[0, 0], [INF, 0], [-INF, 0]]])


def test_the_look_for_nan_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr("skfisher.contract.validation.FINITE_BLOCK_BYTES", 2**18)
    bags = Bags.from_lengths(np.zeros((2**16, 32)), np.full(2**10, 2**6))[::-1]  # 16 MB
    assert peak_memory(lambda: read(bags)) < 4 * 2**18


def test_too_few_descriptors_for_the_components():
    X = np.ones((8, 5, 2))
    words = (
        "n_components=64 needs at least 64 descriptors to fit, got 40 in n_samples=8 bags: "
        r"lower n_components or pass more data\."
    )
    with pytest.raises(ValueError, match=words):
        BagMean(n_components=64).fit(X)
    BagMean(n_components=40).fit(X)


def test_too_few_descriptors_for_another_reason():
    words = "BagMean needs at least 9 descriptors to fit, got 8 in n_samples=3 bags: pass more data"
    with pytest.raises(ValueError, match=words):
        read(make_list(), min_descriptors=9)


# After a fit


def test_another_width_than_at_fit():
    estimator = BagMean().fit(make_list(n_features=4))
    words = r"X\[0\] has 5 features per descriptor, but BagMean is expecting 4 features as input"
    for X in (make_list(n_features=5), np.ones((2, 3, 5)), Bags.from_list(make_list((2,), 5))):
        with pytest.raises(ValueError, match=words):
            estimator.transform(X)
    with pytest.raises(ValueError, match=r"X\[2\] has 5 features per descriptor"):
        estimator.transform([*make_list((2, 3), 4), np.ones((1, 5))])


def test_a_matrix_after_a_fit_on_bags():
    estimator = BagMean().fit(make_list())
    X = np.ones((4, 2))
    words = r"fitted on bags: write \[X\] if X is one bag, or X\[:, None, :\] if each row is a bag"
    for matrix in (X, X.tolist(), list(X), pd.DataFrame(X)):
        with pytest.raises(ValueError, match=words):
            estimator.transform(matrix)
    # what the message says to write works
    assert estimator.transform([X]).shape == (1, 2)
    assert estimator.transform(X[:, None, :]).shape == (4, 2)


def test_bags_after_a_fit_on_a_matrix():
    estimator = BagMean().fit(np.ones((4, 2)))
    assert estimator.transform(make_list()).shape == (3, 2)
    assert estimator.transform(np.ones((5, 2))).shape == (5, 2)


def test_a_matrix_is_refused_on_bags_also_by_a_loaded_model():
    estimator = pickle.loads(pickle.dumps(BagMean().fit(make_list())))
    with pytest.raises(ValueError, match="fitted on bags"):
        estimator.transform(np.ones((4, 2)))


def test_a_second_fit_forgets_the_first():
    frame = pd.DataFrame(np.ones((4, 3)), columns=["a", "b", "c"])
    estimator = BagMean().fit(frame)
    np.testing.assert_array_equal(estimator.feature_names_in_, ["a", "b", "c"])
    estimator.fit(make_list())
    assert not hasattr(estimator, "feature_names_in_")
    assert estimator.n_features_in_ == 2
    assert estimator._fit_on_bags is True


def test_feature_names_of_another_frame():
    frame = pd.DataFrame(np.ones((4, 2)), columns=["a", "b"])
    estimator = BagMean().fit(frame)
    estimator.transform(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(frame[["b", "a"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        estimator.transform(make_list())


def test_before_a_fit_nothing_is_compared():
    assert len(check_bags(BagMean(), make_list(), reset=False)) == 3


def forms_and_dispatch():
    forms = ["list", "Bags", "cube", "object array"]
    cases = [(form, dispatch) for form in forms for dispatch in (False, True)]
    # Before 1.9, cross-validation under dispatch refuses lists whatever the estimator.
    new = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)
    return [case for case in cases if new or case != ("list", True)]


@pytest.mark.parametrize(("form", "dispatch"), forms_and_dispatch())
def test_cross_validation(form, dispatch):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = [rng.normal(size=(5, 3)) + label for label in y]
    X = {**FORMS, "cube": np.array}[form](X)
    pipeline = make_pipeline(BagMean(), KNeighborsClassifier())
    with sklearn.config_context(array_api_dispatch=dispatch):
        assert cross_val_score(pipeline, X, y, n_jobs=2).mean() > 0.8

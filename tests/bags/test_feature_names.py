import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    JointFisherSVC,
    PositionAppender,
    PowerL2Normalizer,
)

RNG = np.random.default_rng(0)
ARRAYS = [RNG.normal(size=(t, 4)) + np.arange(4) for t in (9, 6, 7, 8, 6, 9)]
Y = np.arange(6) % 2

ESTIMATORS = [
    FisherVectorEncoder(2, random_state=0),
    DiagonalGaussianMixture(2, random_state=0),
    JointFisherSVC(2, max_iter=1, random_state=0),
    DescriptorTransformer(PCA(2)),
    PositionAppender(),
]


def frames(columns="abcd"):
    """Return frames whose columns stand in the given order; each holds the same numbers."""
    return [pd.DataFrame(array, columns=list("abcd"))[list(columns)] for array in ARRAYS]


def call(estimator, X):
    return getattr(estimator, "transform", getattr(estimator, "predict", None))(X)


@pytest.mark.parametrize("make", [list, Bags.from_list], ids=["list", "Bags"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_columns_are_compared_as_in_a_table(estimator, make):
    fitted = clone(estimator).fit(make(frames()), Y)
    np.testing.assert_array_equal(fitted.feature_names_in_, list("abcd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(fitted, make(frames()))
    with pytest.raises(ValueError, match="must be in the same order as they were in fit"):
        call(fitted, make(frames("dcba")))
    other = [frame.rename(columns={"d": "e"}) for frame in frames()]
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- e\n.*yet now missing:\n- d"):
        call(fitted, make(other))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but"):
        call(fitted, make(ARRAYS))
    with pytest.warns(UserWarning, match="X has feature names, but .* fitted without"):
        call(clone(estimator).fit(make(ARRAYS), Y), make(frames()))
    fitted.fit(make(ARRAYS), Y)
    assert not hasattr(fitted, "feature_names_in_")


def test_the_words_are_those_of_scikit_learn():
    table, bags = PCA(2).fit(frames()[0]), PositionAppender().fit(frames())
    for X in (frames("dcba")[0], frames("abc")[0].assign(e=0.0)):
        with pytest.raises(ValueError, match="feature names should match") as theirs:
            table.transform(X)
        with pytest.raises(ValueError, match="feature names should match") as ours:
            bags.transform([X])
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("odd", "i", "j"), [((3,), 3, 0), ((0,), 0, 1), ((4, 5), 4, 0), ((0, 1, 2, 3), 4, 0)]
)
def test_the_bag_with_other_names_is_named(odd, i, j):
    X = frames()
    for k in odd:
        X[k] = X[k][list("dcba")]
    usual, unusual = ("abcd", "dcba") if len(odd) < 4 else ("dcba", "abcd")
    words = rf"X\[{i}\] has {list(unusual)}, but X\[{j}\] has {list(usual)}: give all bags the same"
    words = words.replace(str(list(unusual)), rf"\['{unusual[0]}', .*\]")
    words = words.replace(str(list(usual)), rf"\['{usual[0]}', .*\]")
    for read in (PositionAppender().fit, Bags.from_list):
        with pytest.raises(ValueError, match=words):
            read(X)


def test_after_a_fit_the_bag_that_differs_from_it_is_named():
    fitted = PositionAppender().fit(frames())
    with pytest.raises(ValueError, match=r"X\[0\] has \['d', .* but X\[5\] has \['a'"):
        fitted.transform([*frames("dcba")[:5], frames()[5]])


def test_frames_among_arrays_are_refused():
    mixed = [*frames()[:2], ARRAYS[2], *frames()[3:]]
    words = r"X\[2\] has no feature names, but X\[0\] has \['a'"
    for read in (PositionAppender().fit, PositionAppender().fit(frames()).transform):
        with pytest.raises(ValueError, match=words):
            read(mixed)


def test_names_that_are_no_strings():
    numbered = [pd.DataFrame(array) for array in ARRAYS]
    assert not hasattr(PositionAppender().fit(numbered), "feature_names_in_")
    mixed = [frame.rename(columns={"a": 0}) for frame in frames()]
    with pytest.raises(TypeError, match=r"X\[0\]: Feature names are only supported if all"):
        PositionAppender().fit(mixed)


def test_polars_frames_have_names():
    polars = pytest.importorskip("polars")
    X = [polars.DataFrame(array, schema=list("abcd")) for array in ARRAYS]
    fitted = FisherVectorEncoder(2, random_state=0).fit(X)
    np.testing.assert_array_equal(fitted.feature_names_in_, list("abcd"))
    np.testing.assert_array_equal(fitted.transform(X), fitted.transform(frames()))


def test_bags_keep_the_names_of_their_frames():
    bags = Bags.from_list(frames())
    shuffled = bags[[3, 1, 1]]
    others = [
        shuffled,
        bags.take([0]),
        Bags.concatenate([bags, shuffled]),
        Bags.concatenate([bags[:2].pack(), bags]),
        pickle.loads(pickle.dumps(shuffled)),
        Bags.from_lengths(frames()[0], [4, 5]),
    ]
    for other in others:
        np.testing.assert_array_equal(other.feature_names, list("abcd"))
    assert Bags.from_list(ARRAYS).feature_names is None
    with pytest.raises(ValueError, match=r"parts\[1\] has \['d'"):
        Bags.concatenate([bags, Bags.from_list(frames("dcba"))])


def test_names_of_encodings():
    fitted = FisherVectorEncoder(2, random_state=0).fit(frames())
    names = fitted.get_feature_names_out()
    assert names[[0, 2, -1]].tolist() == ["weight_k0", "mean_k0_a", "variance_k1_d"]
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        fitted.get_feature_names_out(list("dcba"))


@pytest.mark.parametrize("make", [frames, lambda: ARRAYS, lambda: Bags.from_list(frames())])
def test_names_go_from_step_to_step_where_data_frames_are_asked_for(make):
    pipeline = make_pipeline(PositionAppender(), FisherVectorEncoder(2, random_state=0))
    plain = pipeline.fit_transform(make())
    assert not hasattr(pipeline[-1], "feature_names_in_")
    pipeline.set_output(transform="pandas")
    frame = pipeline.fit_transform(make())
    assert pipeline[-1].feature_names_in_[-1] == "position"
    assert frame.columns[-1] == "variance_k1_position"
    assert frame.columns[2] == ("mean_k0_x0" if make() is ARRAYS else "mean_k0_a")
    assert list(pipeline.get_feature_names_out()) == list(frame.columns)
    np.testing.assert_array_equal(frame, plain)


# A column of arrays in a data frame


def table_with_bags(bags):
    frame = pd.DataFrame({"age": np.arange(6.0)}, index=list("uvwxyz"))
    frame["bag"] = bags
    return frame


@pytest.mark.parametrize("bags", [ARRAYS, frames()], ids=["arrays", "frames"])
def test_a_column_of_bags(bags):
    steps = FisherVectorEncoder(2, random_state=0), PowerL2Normalizer()
    table = table_with_bags(bags)
    columns = ColumnTransformer([("fv", make_pipeline(*steps), "bag")], remainder="passthrough")
    expected = make_pipeline(*map(clone, steps)).fit_transform(ARRAYS)
    found = columns.fit_transform(table)
    np.testing.assert_array_equal(found, np.c_[expected, np.arange(6.0)])
    first = "a" if bags is not ARRAYS else "d0"
    names = columns.get_feature_names_out()
    assert names[[0, 2, -1]].tolist() == ["fv__weight_k0", f"fv__mean_k0_{first}", "remainder__age"]
    frame = columns.set_output(transform="pandas").fit_transform(table)
    assert list(frame.columns) == list(names)
    assert list(frame.index) == list(table.index)
    np.testing.assert_array_equal(frame, found)


@pytest.mark.parametrize(
    "estimator", [FisherVectorEncoder(2, random_state=0), JointFisherSVC(2, max_iter=1)], ids=repr
)
def test_encodings_of_a_series_of_bags_keep_its_index(estimator):
    fitted = clone(estimator).fit(ARRAYS, Y)
    series = table_with_bags(ARRAYS)["bag"]
    plain = fitted.transform(series)
    frame = fitted.set_output(transform="pandas").transform(series)
    assert list(frame.index) == list(series.index)
    assert list(frame.columns) == list(fitted.get_feature_names_out())
    np.testing.assert_array_equal(frame, plain)


def test_a_column_of_bags_through_transformers_of_descriptors():
    steps = DescriptorTransformer(PCA(2)), PositionAppender(), FisherVectorEncoder(2)
    columns = ColumnTransformer([("fv", make_pipeline(*steps), "bag")])
    columns.set_output(transform="pandas")
    frame = columns.fit_transform(table_with_bags(ARRAYS))
    assert frame.columns[-1] == "fv__variance_k1_position"
    assert frame.columns[2] == "fv__mean_k0_pca0"
    assert list(columns.get_feature_names_out()) == list(frame.columns)


def test_bags_of_one_feature_in_a_column_bear_its_name():
    sounds = [array[:, :1] for array in ARRAYS]
    columns = ColumnTransformer([("fv", FisherVectorEncoder(1), "bag")])
    columns.fit(table_with_bags(sounds))
    assert columns.get_feature_names_out()[1] == "fv__mean_k0_bag"


def test_a_list_of_columns_is_a_table():
    columns = ColumnTransformer([("fv", FisherVectorEncoder(2), ["bag"])])
    words = r"write X\['bag'\], and in a ColumnTransformer 'bag' in place of \['bag'\]"
    with pytest.raises(ValueError, match=words):
        columns.fit(table_with_bags(ARRAYS))
    objects = table_with_bags(ARRAYS)[["bag"]].to_numpy()
    with pytest.raises(ValueError, match=r"To pass that column, write list\(X\[:, 0\]\)"):
        FisherVectorEncoder(2).fit(objects)

"""Every estimator and every kind of bad input: one clear error, before any work.

The message names the sample, what was found there, and what is wanted or what to write.
"""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.decomposition import PCA

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    GradientFeatureKernel,
    GradientFeatureMap,
    ImagePatches,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
    LinearSDCA,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    PositionAppender,
    PowerL2Normalizer,
    SecondOrderPooling,
    SpatialPyramid,
    VLADEncoder,
    Windows,
)

RNG = np.random.default_rng(0)
GOOD = [RNG.normal(size=(t, 4)) for t in (9, 6, 7, 8, 6, 9)]
TABLE = RNG.normal(size=(6, 4))
Y = np.arange(6) % 2
HEAD = DenseHead([RNG.normal(size=(4, 5)), RNG.normal(size=(5, 20))])
NAN = float("nan")

OF_BAGS = {
    "LowRankBilinearPooling": LowRankBilinearPooling(5, random_state=0),
    "GatedSecondOrderPooling": GatedSecondOrderPooling(2, random_state=0),
    "MixtureSecondOrderPooling": MixtureSecondOrderPooling(2, random_state=0),
    "CompactBilinearPooling": CompactBilinearPooling(8, random_state=0),
    "FisherVectorEncoder": FisherVectorEncoder(2, random_state=0),
    "SecondOrderPooling": SecondOrderPooling(),
    "DiagonalGaussianMixture": DiagonalGaussianMixture(2, random_state=0),
    "VLADEncoder": VLADEncoder(2, random_state=0),
    "BagOfWordsEncoder": BagOfWordsEncoder(2, random_state=0),
    "DeepFisherEncoder": DeepFisherEncoder((2, 2), random_state=0),
    "MeanPooling": MeanPooling(),
    "JointClassifier": JointClassifier(FisherVectorEncoder(2), max_iter=1, random_state=0),
    "JointFisherSVC": JointFisherSVC(2, max_iter=1, random_state=0),
    "JointRegressor": JointRegressor(FisherVectorEncoder(2), max_iter=1, random_state=0),
    "DescriptorTransformer": DescriptorTransformer(PCA(2)),
    "PositionAppender": PositionAppender(),
    "Windows": Windows(1),
    "SpatialPyramid": SpatialPyramid(MeanPooling()),
}
OF_IMAGES = {"ImagePatches": ImagePatches(patch_size=2)}
OF_TABLES = {
    "PowerL2Normalizer": PowerL2Normalizer(),
    "LinearSDCA": LinearSDCA(random_state=0),
    "GradientFeatureKernel": GradientFeatureKernel(HEAD),
    "GradientFeatureMap": GradientFeatureMap(HEAD, n_components=8),
}


class Refusing:
    """An object that says it is an array, and is none."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no array")


def with_member(i, member):
    """Return good bags with another in the place of number `i`."""
    return [*GOOD[:i], member, *GOOD[i + 1 :]]


def spoilt(array, value, at):
    array = array.copy()
    array[at] = value
    return array


def masked(array, at):
    mask = np.zeros(array.shape, bool)
    mask[at] = True
    return np.ma.array(array, mask=mask)


def column_of(arrays):
    frame = pd.DataFrame({"number": range(len(arrays))})
    frame["bag"] = arrays
    return frame[["bag"]]


CUBE = np.stack([bag[:6] for bag in GOOD])
STRUCTURED = np.zeros((3, 4), [("a", "f4"), ("b", "f4")])

# Members of a list, of bags as of images: the text must hold for both.
BAD_MEMBERS = {
    "None": (None, r"X\[3\] is None"),
    "a word": ("word", r"X\[3\] is 'word'"),
    "a dict": ({"a": 1}, r"X\[3\] is a dict"),
    "columns by name": ({"a": np.ones(3)}, r"X\[3\] is a dict, .* np.column_stack\(list\(X\[3\]"),
    "a generator": ((row for row in GOOD[3]), r"X\[3\] is a generator, .* Write list\(X\[3\]\)"),
    "bags": (Bags.from_list(GOOD), r"X\[3\] is Bags, .* to the list, write \*X\[3\]"),
    "NaN alone": (NAN, r"X\[3\] is nan, .* Drop it"),
    "a number": (np.array(3.0), r"X\[3\] is (an ndarray|\(\))"),
    "a frame not computed": (
        pl.LazyFrame({"a": [1.0]}),
        r"X\[3\] is a LazyFrame, .* Write X\[3\]\.collect\(\)",
    ),
    "what NumPy refuses": (Refusing(), r"X\[3\] is a Refusing, but (a bag|an image) is"),
    "an empty list": ([], r"X\[3\] is empty"),
    "no rows, no columns": (np.zeros((0, 0)), r"X\[3\] is empty"),
    "no rows": (np.zeros((0, 4)), r"X\[3\] is empty"),
    "no columns": (np.zeros((3, 0)), r"X\[3\] (has 0 features .* X\[0\] has 4|is empty)"),
    "four dimensions": (np.ones((1, 3, 2, 4)), r"X\[3\] has shape \(1, 3, 2, 4\)"),
    "complex": (1j * GOOD[3], r"Complex data not supported: X\[3\] has dtype complex128"),
    "strings": (GOOD[3].astype(str), r"X\[3\] has dtype <U\d+, .* X\[3\]\.astype\(np.float64\)"),
    "words as objects": (np.full((3, 4), "a", object), r"X\[3\] has dtype object .* 'a' at \[0, 0"),
    "complex objects": ((1j * GOOD[3]).astype(object), r"Complex data not supported: X\[3\] holds"),
    "dates": (np.zeros((3, 4), "M8[s]"), r"X\[3\] has dtype datetime64\[s\], .* X\[3\]\.astype\("),
    "structured": (STRUCTURED, r"X\[3\] has dtype \[.*structured_to_unstructured\(X\[3\]\)\.ast"),
    "sparse": (scipy.sparse.csr_array(GOOD[3]), r"X\[3\] is sparse, .* Write X\[3\]\.toarray\(\)"),
    "ragged": ([[1.0, 2.0], [3.0]], r"X\[3\] is not a rectangular array"),
    "NaN": (spoilt(GOOD[3], NAN, (4, 2)), r"X\[3\] contains NaN .*4"),
    "infinity": (spoilt(GOOD[3], np.inf, (4, 2)), r"X\[3\] contains (NaN or )?infinity .*4"),
    "masked": (masked(GOOD[3], (4, 2)), r"X\[3\] is masked at \[4, 2\]: .*\.filled"),
    "a missing value": (
        spoilt(GOOD[3].astype(object), pd.NA, (4, 2)),
        r"X\[3\] contains NaN .*4",
    ),
    "NA of a nullable frame": (
        pd.DataFrame(spoilt(GOOD[3], NAN, (4, 2))).astype("Float64"),
        r"X\[3\] contains NaN .*4",
    ),
}
# These are wrong for bags alone, which have one width.
BAD_BAGS = {
    "wider": (np.ones((3, 5)), r"X\[3\] has 5 features per descriptor, but X\[0\] has 4: all bags"),
    "one descriptor": (np.ones(4), r"X\[3\] has shape \(4,\), .* write X\[3\]\[None, :\]"),
    "one too many at the end": (np.ones((5, 4, 1)), r"X\[3\] has .* Write X\[3\]\[:, :, 0\]"),
    "two columns of a name": (
        pd.DataFrame(GOOD[3], columns=["a", "b", "b", "c"]),
        r"X\[3\](: .*'b'| has no feature names|.*\['a', 'b', 'b', 'c'\])",
    ),
    "one too many": (np.ones((1, 5, 4)), r"X\[3\] has shape \(1, 5, 4\), .* Write X\[3\]\[0\]"),
    "several bags": (np.ones((2, 5, 4)), r"X\[3\] has shape \(2, 5, 4\), .* pass it by itself"),
}
# What is wrong with all of X, and so for tables too.
BAD_ARRAYS = {
    "None": (None, "X is None"),
    "a word": ("word", "X is 'word'"),
    "empty lists": ([[], []], r"X\[0\] is empty, and so are all others"),
    "items": (dict(enumerate(GOOD)).items(), r"X is a dict_items: .* \[value for _, value in X\]"),
    "pairs": (
        [(i, bag) for i, bag in enumerate(GOOD)],
        r"X is a list of pairs, but .* Write \[value for _, value in X\]",
    ),
    "groups of Polars": (
        pl.DataFrame({"a": [1, 2], "b": [1.0, 2.0]}).group_by("a"),
        r"X is a GroupBy: pass a list .* \[group for _, group in X\]",
    ),
    "a generator": ((bag for bag in GOOD), r"X is a generator: pass a list .* list\(X\)"),
    "a dict": ({"a": GOOD[0]}, r"X is a dict: pass a list .* list\(X.values\(\)\)"),
    "a set": ({1.0, 2.0}, "X is a set: pass a list of 2-D arrays"),
    "groups": (
        pd.DataFrame({"a": [1, 2], "b": [1.0, 2.0]}).groupby("a"),
        r"X is a DataFrameGroupBy: pass a list .* \[group for _, group in X\]",
    ),
    "one dimension": (TABLE[0], "Expected 2D array, got 1D array instead"),
    "four dimensions": (np.ones((2, 3, 4, 5, 6)), r"X has (5 dimensions|shape \(2, 3, 4, 5, 6\))"),
    "sparse": (scipy.sparse.csr_array(TABLE), r"X is sparse, .* Write X\.toarray\(\)"),
    "complex": (1j * TABLE, "Complex data not supported: X has dtype complex128"),
    "strings": (TABLE.astype(str), r"X has dtype <U\d+, .* X\.astype\(np.float64\)"),
    "words": (np.full((3, 4), "a", object), r"X has dtype object .* 'a' at \[0, 0\]"),
    "dates": (np.zeros((3, 4), "M8[s]"), r"X has dtype datetime64\[s\], .* X\.astype\(np.int64"),
    "date columns": (
        pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 3)}),
        r"X has dtype datetime64\[.*\], .* X\.astype\(np.int64",
    ),
    "structured": (STRUCTURED, r"X has dtype \[.*structured_to_unstructured\(X\)\.astype"),
    "rows of two lengths": (
        [[1.0, 2.0], [3.0, 4.0], [5.0]],
        r"X\[2\] has length 1, but X\[0\] has length 2",
    ),
    "a row too short, first": (
        [[1.0], [3.0, 4.0], [5.0, 6.0]],
        r"X\[0\] has length 1, but X\[1\] has length 2",
    ),
    "NaN": (spoilt(TABLE, NAN, (3, 2)), r"X\[3\] contains NaN (in (descriptor 0|feature 2)|or)"),
    "infinity": (spoilt(TABLE, -np.inf, (3, 2)), r"X\[3\] contains (NaN or )?infinity"),
    "masked": (masked(TABLE, (3, 2)), r"X\[3\] is masked at \[2\]: .*\.filled"),
    "masked rows": ([*TABLE[:3], masked(TABLE[3], 2)], r"X\[3\] is masked at \[2\]"),
    "NA": (
        pd.DataFrame(spoilt(TABLE, NAN, (3, 2))).astype("Float64"),
        r"X\[3\] contains NaN",
    ),
    "a column of arrays": (column_of(GOOD), r"column 0 holds arrays, .* write X\['bag'\]"),
}
BAD_CUBES = {
    "complex cube": (1j * CUBE, "Complex data not supported: X has dtype complex128"),
    "a masked cube": (masked(CUBE, (3, 4, 2)), r"X\[3\] is masked at \[4, 2\]"),
    "a cube of strings": (CUBE.astype(str), r"X has dtype <U\d+, .* X\.astype\(np.float64\)"),
    "a cube with NaN": (spoilt(CUBE, NAN, (3, 4, 2)), r"X\[3\] contains NaN .*4"),
}


def new(name):
    return clone({**OF_BAGS, **OF_IMAGES, **OF_TABLES}[name])


def methods(fitted):
    for method in ("transform", "predict", "decision_function", "score_samples"):
        if hasattr(fitted, method):
            yield getattr(fitted, method)


def check_refused(estimator, X, words):
    """Check the error of `fit`, and that it leaves no trace."""
    before = set(vars(estimator))
    with pytest.raises((TypeError, ValueError), match=words):
        estimator.fit(X, Y)
    assert set(vars(estimator)) == before


def cases(estimators, *tables):
    for name in estimators:
        for table in tables:
            for case, (X, words) in table.items():
                yield pytest.param(name, X, words, id=f"{name}-{case}")


@pytest.mark.parametrize(
    ("name", "member", "words"),
    [*cases(OF_BAGS, BAD_MEMBERS, BAD_BAGS), *cases(OF_IMAGES, BAD_MEMBERS)],
)
def test_bad_members_of_a_list(name, member, words):
    estimator = new(name)
    for X in (with_member(3, member), tuple(with_member(3, member))):
        check_refused(estimator, X, words)
    fitted = new(name).fit(GOOD, Y)
    for method in methods(fitted):
        with pytest.raises((TypeError, ValueError), match=words):
            method(with_member(3, member))


@pytest.mark.parametrize(("name", "member", "words"), [*cases(OF_BAGS, BAD_MEMBERS, BAD_BAGS)])
def test_the_first_member_is_blamed_if_it_is_the_bad_one(name, member, words):
    words = words.replace(r"X\[0\]", "X[1]").replace(r"X\[3\]", r"X\[0\]")
    words = words.replace("X[1]", r"X\[1\]")
    check_refused(new(name), with_member(0, member), words)


@pytest.mark.parametrize(
    ("name", "X", "words"),
    [*cases({**OF_BAGS, **OF_TABLES}, BAD_ARRAYS), *cases({**OF_BAGS, **OF_IMAGES}, BAD_CUBES)],
)
def test_bad_arrays_and_tables(name, X, words):
    check_refused(new(name), X, words)
    fitted = new(name).fit(TABLE if name not in OF_IMAGES else CUBE, Y)
    for method in methods(fitted):
        with pytest.raises((TypeError, ValueError), match=words):
            method(X)


@pytest.mark.parametrize("name", OF_TABLES)
@pytest.mark.parametrize("form", [list, Bags.from_list, np.array], ids=["list", "Bags", "3-D"])
def test_tables_are_no_bags(name, form):
    words = rf"X (is Bags|is a list of arrays|has 3 dimensions), but {name} takes a table of shape"
    check_refused(new(name), form(list(CUBE)), words + ".* after the encoder")


def test_images_of_another_number_of_channels():
    images = [np.ones((4, 4, 3))] * 5
    patches = ImagePatches(patch_size=2)
    for i, other in [(0, 1), (3, 0)]:
        X = [*images[:i], np.ones((4, 4)), *images[i:]]
        with pytest.raises(ValueError, match=rf"X\[{i}\] has 1 channels, but X\[{other}\] has 3"):
            patches.fit(X)
    with pytest.raises(ValueError, match=r"X\[0\] has 1 channels, but X\[3\] has 3"):
        patches.fit(images).transform([np.ones((4, 4))] * 3 + images[:1])


def test_validation_bags_and_second_samples_are_named():
    bad = with_member(3, masked(GOOD[3], (4, 2)))
    with pytest.raises(ValueError, match=r"^X_val\[3\] is masked at \[4, 2\]"):
        OF_BAGS["JointFisherSVC"].fit(GOOD, Y, X_val=bad, y_val=Y)
    with pytest.raises(TypeError, match=r"^X_val\[3\] is None"):
        OF_BAGS["JointFisherSVC"].fit(GOOD, Y, X_val=with_member(3, None), y_val=Y)
    for value, words in [(masked(TABLE, (3, 2)), "is masked"), (NAN * TABLE, "contains NaN")]:
        with pytest.raises(ValueError, match=rf"^Y\[[03]\] {words}"):
            OF_TABLES["GradientFeatureKernel"](TABLE, value)

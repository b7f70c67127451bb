"""Labels as signs, and weights of classes."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import DataConversionWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from skfisher import DescriptorTransformer, GradientFeatureKernel, JointFisherSVC, LinearSDCA
from skfisher.contract.labels import read_classes, read_targets

RNG = np.random.default_rng(0)


def test_classes_become_columns_of_signs():
    targets = read_targets(["b", "a", "c", "b"], 4)
    assert (targets.kind, targets.classes.tolist()) == ("multiclass", ["a", "b", "c"])
    assert targets.signs.tolist() == [[-1, 1, -1], [1, -1, -1], [-1, -1, 1], [-1, 1, -1]]
    assert targets.labels(targets.signs).tolist() == ["b", "a", "c", "b"]


def test_two_classes_share_a_column():
    targets = read_targets([3, 7, 7], 3)
    assert targets.kind == "binary"
    assert targets.signs.tolist() == [[-1], [1], [1]]
    assert targets.labels(np.array([[-0.1], [0.0], [0.1]])).tolist() == [3, 3, 7]


@pytest.mark.parametrize("form", [np.array, csr_matrix])
def test_indicators_are_read_column_by_column(form):
    targets = read_targets(form([[1, 0, 0], [1, 1, 0]]), 2)
    assert (targets.kind, targets.classes.tolist()) == ("multilabel", [0, 1, 2])
    assert targets.signs.tolist() == [[1, -1, -1], [1, 1, -1]]
    assert targets.labels(targets.signs).tolist() == [[1, 0, 0], [1, 1, 0]]


def test_a_column_of_labels_is_flattened_with_a_warning():
    with pytest.warns(DataConversionWarning):
        assert read_targets(np.array([[0], [1]]), 2).kind == "binary"


def test_weights_follow_the_class_of_the_bag():
    targets = read_targets([0, 1, 2, 1], 4)
    assert targets.weights(None) is None
    weights = targets.weights({0: 2.0, 1: 0.5})
    assert weights.tolist() == [[2] * 3, [0.5] * 3, [1] * 3, [0.5] * 3]
    two = read_targets([0, 1, 1], 3).weights({0: 3.0})
    assert two.tolist() == [[3], [1], [1]]
    labels = read_targets(np.array([[1, 0], [1, 1]]), 2).weights({1: 4.0})
    assert labels.tolist() == [[1, 1], [1, 4]]


def test_balanced_weights_give_both_sides_of_every_column_the_same_sum():
    targets = read_targets([0, 1, 2, 1, 1], 5)
    weights = targets.weights("balanced")
    np.testing.assert_allclose((weights * (targets.signs > 0)).sum(axis=0), 2.5)
    np.testing.assert_allclose((weights * (targets.signs < 0)).sum(axis=0), 2.5)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"b": np.inf}, r"class_weight\['b'\]=inf must be a finite number, and not negative"),
        ({"b": np.nan}, r"class_weight\['b'\]=nan must be"),
        ({"a": 1, "b": -1.0}, r"class_weight\['b'\]=-1.0 must be"),
        ({"b": "2"}, r"class_weight\['b'\]='2' must be"),
        ({"b": None}, r"class_weight\['b'\]=None must be"),
        ({"a": 0, "b": 0.0, "c": 0}, "class_weight is 0 for every class"),
        ({"d": 2.0}, r"class_weight names \['d'\], but the classes in y are"),
    ],
)
def test_class_weights_that_cannot_be(class_weight, message):
    y = ["a", "b", "c", "a"]
    with pytest.raises(ValueError, match=message):
        read_targets(y, 4).weights(class_weight)
    with pytest.raises(ValueError, match=message):
        LinearSDCA(class_weight=class_weight).fit(np.eye(4), y)


def test_known_classes_and_kinds_bind():
    later = read_targets([1, 1], 2, classes=np.array([0, 1, 2]), kind="multiclass")
    assert later.signs.shape == (2, 3)
    with pytest.raises(ValueError, match="y_val holds the class 5"):
        read_targets([1, 5], 2, classes=np.array([0, 1]), name="y_val")
    with pytest.raises(ValueError, match="before it held label indicators"):
        read_targets([1, 0], 2, classes=np.arange(2), kind="multilabel")
    with pytest.raises(ValueError, match="y has 3 columns, but there are 2 labels"):
        read_targets(np.eye(3, dtype=int), 3, classes=np.arange(2), kind="multilabel")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (1.0, "y has a single value"),
        ([0.0, np.inf], r"y\[1\] is infinity"),
        ([0, np.nan], r"y\[1\] is NaN"),
        ([[0.0, 1.0], [np.nan, 1.0]], r"y\[1\] is NaN"),
        (["a", "a"], "one class only, 'a'"),
        ([0.5, 0.7], "Unknown label type"),
    ],
)
def test_labels_that_cannot_be(y, message):
    with pytest.raises(ValueError, match=message):
        read_targets(y, 2)


@pytest.mark.parametrize(
    ("y", "found"),
    [
        (["a", None, "b"], "None"),
        (np.array([0.0, np.nan, 1.0]), "NaN"),
        (np.array([[0, 1], [None, 1], [1, 0]], dtype=object), "None"),
        ("pandas strings", "<NA>"),
        ("pandas integers", "NaN|<NA>"),
    ],
)
def test_labels_that_are_missing_are_named(y, found):
    if isinstance(y, str):
        pandas = pytest.importorskip("pandas")
        kind = y.split()[1]
        values = {"strings": ["a", pandas.NA, "b"], "integers": [1, pandas.NA, 2]}[kind]
        y = pandas.array(values, dtype={"strings": "object", "integers": "Int64"}[kind])
    with pytest.raises(ValueError, match=rf"y\[1\] is ({found}): every bag needs a label"):
        read_targets(y, 3)


@pytest.mark.parametrize("missing", ["pandas", None, np.float32("nan")])
def test_classes_that_are_missing_are_named(missing):
    if missing == "pandas":
        missing = pytest.importorskip("pandas").NA
    with pytest.raises(
        ValueError, match=r"classes\[1\] is (<NA>|None|NaN), which cannot be a class"
    ):
        read_classes(["a", missing, "b"])


# Labels as people have them


Y = np.arange(12) % 3
WORDS = np.array(["a", "b", "c"])[Y]
CLASSIFIERS = {
    "JointFisherSVC": JointFisherSVC(2, max_iter=1, random_state=0),
    "LinearSDCA": LinearSDCA(random_state=0),
    "GradientFeatureKernel": GradientFeatureKernel(
        MLPClassifier((3,), max_iter=3, random_state=0), target="jacobian"
    ),
}
X = RNG.normal(size=(12, 4))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("y", "words"),
    [
        (Y.astype(object), r"holds int\. Write y\.astype\(int\)"),
        ((Y > 0).astype(object), r"holds bool\. Write y\.astype\(int\)"),
        (Y.astype(float).astype(object), r"holds float\. Write y\.astype\(float\)"),
        (np.array([1, "a", "b"] * 4, object), r"holds int and str\. Write y\.astype\(str\)"),
        (np.array([b"a", b"b"] * 6, object), r"holds bytes\. Write y\.astype\(str\)"),
        (pd.Series([1, None, 2] * 4, dtype="Int64"), r"y\[1\] is NaN"),
        (pd.Series([True, False, None] * 4, dtype="boolean"), r"y\[2\] is NaN"),
        (pd.Series(["a", None, "b"] * 4), r"y\[1\] is (NaN|None)"),
        (pd.Series(["a", None, "b"] * 4, dtype="category"), r"y\[1\] is (NaN|None)"),
        (np.ma.masked_equal(Y, 2), r"y\[2\] is masked"),
        (np.ma.array(Y.astype(object), mask=Y == 2), r"y\[2\] is masked"),
        ([0, np.ma.masked] * 6, r"y\[1\] is masked"),
        (np.zeros(12, [("a", int)]), r"y has dtype \[\('a'.*Write y\.astype\(int\)"),
        (np.zeros(12, "V2"), r"y has dtype .*V2\. Write y\.astype\(int\)"),
        (iter(Y), r"y is an? \w+, but a list.* Write list\(y\)"),
        (dict(enumerate(Y)), "y is a dict, but a list of labels is needed"),
        ({0, 1}, "y is a set, but a list of labels is needed"),
    ],
)
def test_labels_that_are_not_of_one_type(name, y, words):
    with pytest.raises((TypeError, ValueError), match=words):
        CLASSIFIERS[name].fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("y", "plain"),
    [
        (pd.Series(Y, dtype="Int64"), Y),
        (pd.Series(Y, dtype="UInt8"), Y.astype("uint8")),
        (pd.Series(Y > 0, dtype="boolean"), Y > 0),
        (pd.Series(Y).astype("category"), Y),
        (pd.Series(WORDS), WORDS.astype(object)),
        (pd.Series(WORDS, dtype=object), WORDS.astype(object)),
        (pd.Series(WORDS).astype("category"), WORDS.astype(object)),
        (np.ma.array(Y, mask=False), Y),
        (WORDS.astype(np.dtypes.StringDType()), WORDS),
    ],
)
def test_labels_in_the_dtypes_of_pandas(name, y, plain):
    found, expected = (CLASSIFIERS[name].fit(X, labels) for labels in (y, plain))
    if name == "GradientFeatureKernel":
        found, expected = found.network_, expected.network_
    assert found.classes_.dtype == expected.classes_.dtype
    np.testing.assert_array_equal(found.classes_, expected.classes_)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))


def test_classes_may_be_a_series_and_are_of_one_type():
    assert read_classes(pd.Series([2, 0, 1], dtype="Int64")).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"classes has dtype object .* classes\.astype\(int\)"):
        read_classes(np.array([0, 1], object))
    with pytest.raises(ValueError, match=r"classes\[1\] is masked"):
        read_classes(np.ma.masked_equal([0, 1, 2], 1))


@pytest.mark.parametrize("name", ["JointFisherSVC", "LinearSDCA"])
@pytest.mark.parametrize(
    ("y", "words"),
    [
        (Y.astype(object), r"y has dtype object and holds int\. Write y\.astype\(int\)"),
        (np.array([0, None, 1] * 4, object), r"y\[1\] is None: every bag needs a label"),
        (None, "requires y to be passed"),
    ],
)
def test_labels_to_score_are_read_as_in_fit(name, y, words):
    model = CLASSIFIERS[name].fit(X, Y)
    assert model.score(X, pd.Series(Y, dtype="Int64")) == model.score(X, Y)
    with pytest.raises(ValueError, match=words):
        model.score(X, y)


def test_supervised_transformers_of_descriptors_get_labels_that_are_read():
    bags = [X[:4], X[4:8], X[8:]]
    lda = DescriptorTransformer(LinearDiscriminantAnalysis())
    with pytest.raises(ValueError, match=r"Write y\.astype\(int\)"):
        lda.fit(bags, np.array([0, 1, 0], object))
    with pytest.raises(ValueError, match=r"y\[1\] is None"):
        lda.fit(bags, [0, None, 1])
    DescriptorTransformer(StandardScaler()).fit(bags, [0, None, 1])  # which looks at none

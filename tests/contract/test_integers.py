"""Integers are the numbers they are: no arithmetic wraps around in their own dtype, and those that
float64 does not hold are refused.
"""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import FunctionTransformer

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GradientFeatureKernel,
    GradientFeatureMap,
    ImagePatches,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
    LinearSDCA,
    PositionAppender,
    PowerL2Normalizer,
)
from skfisher.descriptors import deltas

BEYOND = 2**53 + 1
LABELS = np.arange(12) % 2
NETWORK = MLPClassifier((5,), random_state=0, max_iter=1)


def bags_of(x):
    """Cut 108 rows into 12 bags."""
    return np.split(x, 12)


def squares(x):
    return x * x


def mixture(**options):
    return DiagonalGaussianMixture(2, random_state=0, **options)


def encode(x):
    return FisherVectorEncoder(2, max_iter=1, random_state=0).fit_transform(x)


def fitted(model, x, y=LABELS):
    return model.fit(x, y).transform(x)


DOORS = {
    "mixture": lambda x: mixture(tol=1e9).fit(bags_of(x)).means_,
    "score": lambda x: mixture(tol=1e9).fit(bags_of(x)).score(bags_of(x)),
    "partial_fit": lambda x: mixture().partial_fit(bags_of(x)).variances_,
    "bags": lambda x: encode(bags_of(x)),
    "bags of one size": lambda x: encode(x.reshape(12, 9, 3)),
    "bags of one": encode,
    "normalizer": PowerL2Normalizer().fit_transform,
    "transformer": lambda x: abs(fitted(DescriptorTransformer(PCA(2)), bags_of(x)).values),
    "function": lambda x: (
        fitted(DescriptorTransformer(FunctionTransformer(squares)), bags_of(x)).values
    ),
    "positions": lambda x: fitted(PositionAppender(), bags_of(x)).values,
    "patches": lambda x: fitted(ImagePatches(3, positions=1.0), x.reshape(4, 9, 9)).values,
    "deltas": deltas,
    "linear": lambda x: LinearSDCA().fit(x, np.arange(108) % 2).decision_function(x),
    "joint": lambda x: fitted(JointFisherSVC(2, max_iter=1, random_state=0), bags_of(x)),
    "joint classifier": lambda x: fitted(
        JointClassifier(FisherVectorEncoder(2), max_iter=1, random_state=0), bags_of(x)
    ),
    "joint regressor": lambda x: fitted(
        JointRegressor(FisherVectorEncoder(2), max_iter=1, random_state=0), bags_of(x)
    ),
    "kernel": lambda x: fitted(GradientFeatureKernel(NETWORK), x[:12]),
    "gradient features": lambda x: fitted(GradientFeatureMap(NETWORK, random_state=0), x[:12]),
}


@pytest.mark.filterwarnings("ignore")  # of fits that are not let to converge
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32", "int64"])
@pytest.mark.parametrize("door", DOORS)
def test_no_arithmetic_in_a_dtype_of_integers(rng, door, dtype):
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**50)), min(limits.max, 2**50)
    x = rng.integers(low, high, size=(108, 3), endpoint=True).astype(dtype)
    x[0], x[1] = low, high  # -128 has no absolute value, 0 - 255 no sign
    wide = np.float32 if x.itemsize <= 2 else np.float64
    found, expected = DOORS[door](x), DOORS[door](x.astype(wide))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


REFUSED = {
    "bags": lambda x: FisherVectorEncoder(1).fit([x]),
    "Bags": lambda x: FisherVectorEncoder(1).fit(Bags.from_list([x])),
    "the second bag": lambda x: FisherVectorEncoder(1).fit([x[1:], x]),
    "bags of one size": lambda x: DiagonalGaussianMixture(1).fit(x[None]),
    "bags of one": lambda x: DiagonalGaussianMixture(1).fit(x),
    "bags of objects": lambda x: FisherVectorEncoder(1).fit([x.astype(object)]),
    "bags of two dtypes": lambda x: Bags.from_list([x[1:].astype(np.float32), x]),
    "joint": lambda x: JointFisherSVC(1).fit([x] * 4, [0, 1, 0, 1]),
    "transformer": lambda x: DescriptorTransformer(PCA(1)).fit([x]),
    "positions": lambda x: PositionAppender().fit_transform([x]),
    "patches": lambda x: ImagePatches(2, positions=1.0).fit_transform([x]),
    "table": lambda x: PowerL2Normalizer().fit(x),
    "nested lists": lambda x: PowerL2Normalizer().fit(x.tolist()),
    "lists with floats": lambda x: PowerL2Normalizer().fit([*x.tolist(), [0.5, 0.5]]),
    "objects": lambda x: PowerL2Normalizer().fit(x.astype(object)),
    "linear": lambda x: LinearSDCA().fit(x, [0, 1] * 4),
    "kernel": lambda x: GradientFeatureKernel(NETWORK).fit(x, [0, 1] * 4),
    "deltas": deltas,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("door", REFUSED)
def test_integers_that_float64_does_not_hold_are_named(door, dtype):
    x = np.arange(16).reshape(8, 2).astype(dtype)
    x[0, 1] = BEYOND  # which would become 2**53
    place = {"the second bag": r"X\[1\]\[0, 1\]", "bags of two dtypes": r"X\[1\]\[0, 1\]"}
    with pytest.raises(ValueError, match=f"{place.get(door, '')} is {BEYOND}: .* would be rounded"):
        REFUSED[door](x)
    x[0, 1] = BEYOND - 1
    REFUSED[door](x)


@pytest.mark.parametrize("dtype", ["int64", "Int64", "int64[pyarrow]"])
def test_columns_of_integers_beside_floats_are_not_rounded(dtype):
    pandas = pytest.importorskip("pandas")
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": [0.5, 1.5], "b": pandas.array([1, -BEYOND], dtype=dtype)})
    for read in (PowerL2Normalizer().fit, lambda x: FisherVectorEncoder(1).fit([x])):
        with pytest.raises(ValueError, match=rf"\[1, 1\] is -{BEYOND}: .* would be rounded"):
            read(frame)


def test_columns_of_polars_are_not_rounded():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [0.5, 1.5, 2.5], "b": [1, None, BEYOND]})
    for read in (PowerL2Normalizer().fit, lambda x: FisherVectorEncoder(1).fit([x])):
        with pytest.raises(ValueError, match=rf"\[2, 1\] is {BEYOND}: .* would be rounded"):
            read(frame)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_labels_stay_the_integers_they_are(rng, dtype):
    limits = np.iinfo(dtype)
    y = np.array([limits.min, limits.max - 1, limits.max] * 4, dtype=dtype)
    x = rng.normal(size=(12, 3))
    bags = [rng.normal(size=(6, 3)) for _ in y]
    for model, samples in [
        (LinearSDCA(), x),
        (JointFisherSVC(1, max_iter=1), bags),
        (JointClassifier(FisherVectorEncoder(1), max_iter=1), bags),
    ]:
        model.fit(samples, y)
        assert model.classes_.tolist() == np.unique(y).tolist()
        assert set(model.predict(samples).tolist()) <= set(y.tolist())

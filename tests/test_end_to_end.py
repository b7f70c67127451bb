"""From data to decisions, and everything between that data may be: awkward, or wrong."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    ImagePatches,
    PowerL2Normalizer,
)
from skfisher.datasets import load_fsdd

# real data


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_handwritten_digits(dtype):
    digits = load_digits()
    train, test, y_train, y_test = train_test_split(
        digits.images.astype(dtype), digits.target, stratify=digits.target, random_state=0
    )
    model = make_pipeline(
        ImagePatches(4, positions=8.0),
        DescriptorTransformer(PCA(10), random_state=0),
        FisherVectorEncoder(16, random_state=0),
        PowerL2Normalizer(),
        LinearSVC(C=10, random_state=0),
    )
    assert model.fit(train, y_train).score(test, y_test) >= 0.97


def test_spoken_digits_of_an_unheard_speaker(data_folder):
    # every fifth recording: 90 of each of six speakers, 450 to learn from
    recordings = load_fsdd(data_home=data_folder)
    some = np.arange(0, len(recordings.target), 5)
    model = make_pipeline(
        FisherVectorEncoder(8, random_state=0), PowerL2Normalizer(), LinearSVC(random_state=0)
    )
    scores = cross_val_score(
        model,
        recordings.data[some],
        recordings.target[some],
        groups=recordings.groups[some],
        cv=LeaveOneGroupOut(),
        error_score="raise",
    )
    assert len(scores) == 6
    assert scores.mean() > 0.72  # one digit in ten by chance
    assert scores.min() > 0.5


# awkward data


CENTERS = np.random.default_rng(0).normal(size=(3, 5)) * 3


def bags_of(n_bags=40, seed=1, length=None):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 120, size=n_bags) if length is None else np.full(n_bags, length)
    cluster = rng.integers(3, size=lengths.sum())
    return Bags.from_lengths(CENTERS[cluster] + rng.normal(size=(len(cluster), 5)), lengths)


def with_values(bags, values):
    return Bags(values, bags.starts, bags.stops)


def unit(encodings):
    encodings = np.asarray(encodings, dtype=np.float64)
    return encodings / np.linalg.norm(encodings, axis=1, keepdims=True)


def encoder(n_components=3, **parameters):
    return FisherVectorEncoder(n_components, random_state=0, **parameters)


def test_constant_dimensions_change_nothing_but_their_own_entries():
    plain = bags_of()
    constant = np.full((plain.n_descriptors, 2), [7.0, -1e6])
    wider = with_values(plain, np.hstack([plain.values, constant]))
    expected, model = encoder().fit_transform(plain), encoder()
    found = model.fit_transform(wider).reshape(len(plain), -1)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(model.means_[:, 5:], constant[:3])
    is_new = np.array([name.endswith(("_d5", "_d6")) for name in model.get_feature_names_out()])
    np.testing.assert_allclose(found[:, ~is_new], expected, rtol=1e-6, atol=1e-8)
    is_mean = np.array([name.startswith("mean") for name in model.get_feature_names_out()])
    assert (found[:, is_new & is_mean] == 0).all()


@pytest.mark.parametrize("value", [0.0, -3.5, 1e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_but_one_value(value, dtype):
    X = np.full((4, 6, 3), value, dtype=dtype)
    model = encoder(2)
    assert np.isfinite(model.fit_transform(X)).all()
    np.testing.assert_allclose(model.means_, value)
    assert np.isfinite(model.transform(X + dtype(1))).all()


def test_a_descriptor_twice_counts_like_each_once():
    # the vector is a mean over descriptors
    bags = bags_of()
    twice = Bags.from_list([np.repeat(bag, 2, axis=0) for bag in bags])
    model = encoder().fit(bags)
    np.testing.assert_allclose(model.transform(twice), model.transform(bags), rtol=1e-9, atol=1e-12)
    again = DiagonalGaussianMixture.from_sklearn(model_of(model)).set_params(warm_start=True)
    once = again.set_params(max_iter=50, tol=1e-9).fit(bags).score(bags)
    assert again.fit(twice).score(bags) == pytest.approx(once, abs=1e-6)


def model_of(model):
    mixture = GaussianMixture(len(model.weights_), covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = (
        model.weights_,
        model.means_,
        model.variances_,
    )
    mixture.converged_, mixture.n_iter_, mixture.lower_bound_ = True, 1, 0.0
    return mixture


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fewer_distinct_descriptors_than_components(init_params):
    distinct = np.random.default_rng(0).normal(size=(4, 3))
    X = np.repeat(distinct, 25, axis=0).reshape(10, 10, 3)
    mixture = DiagonalGaussianMixture(8, init_params=init_params, random_state=0)
    model = FisherVectorEncoder(mixture=mixture)
    assert np.isfinite(model.fit_transform(X)).all()
    assert model.weights_.sum() == pytest.approx(1)
    assert (model.weights_ > 0).all()
    assert (model.variances_ > 0).all()


def test_as_many_components_as_descriptors():
    X = [np.random.default_rng(0).normal(size=(5, 2))]
    assert np.isfinite(encoder(5).fit_transform(X)).all()


def test_bags_of_one_descriptor_in_every_form():
    rows = bags_of(n_bags=50, length=1).values
    forms = [
        rows,
        rows[:, None, :],
        list(rows[:, None, :]),
        Bags.from_lengths(rows, np.ones(50, int)),
    ]
    expected, *others = [encoder().fit_transform(X) for X in forms]
    assert np.isfinite(PowerL2Normalizer().fit_transform(expected)).all()
    for found in others:
        np.testing.assert_array_equal(found, expected)


def test_one_bag():
    bag = bags_of(n_bags=1, length=50)
    # a fitted mixture explains the mean of all it was fitted to: the gradient vanishes
    mixture = DiagonalGaussianMixture(3, tol=0, max_iter=2000, random_state=0)
    found = FisherVectorEncoder(mixture=mixture).fit_transform(bag)
    np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_huge_offsets_cost_float32_no_accuracy(offset):
    # in standard deviations; the rounding of the input itself is not the encoder's, so the
    # reference gets the same values in float64
    bags = bags_of()
    low = with_values(bags, (bags.values + offset).astype(np.float32))
    high = with_values(bags, low.values.astype(np.float64))
    converged = encoder(mixture=DiagonalGaussianMixture(3, tol=1e-6, random_state=0))
    reference = clone(converged).fit(high)
    expected = unit(reference.transform(high))
    np.testing.assert_allclose(unit(reference.transform(low)), expected, atol=1e-4)
    np.testing.assert_allclose(unit(converged.fit_transform(low)), expected, atol=1e-4)


def test_a_common_offset_changes_nothing_in_float64():
    bags = bags_of()
    moved = with_values(bags, bags.values + 1e4)
    expected = unit(encoder().fit_transform(bags))
    np.testing.assert_allclose(unit(encoder().fit_transform(moved)), expected, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_unit_of_descriptors_changes_nothing(scale, dtype):
    bags = bags_of()
    expected = unit(encoder().fit_transform(bags))
    scaled = with_values(bags, (bags.values * scale).astype(dtype))
    atol = 1e-4 if dtype == np.float32 else 1e-8
    np.testing.assert_allclose(unit(encoder().fit_transform(scaled)), expected, atol=atol)


def test_dimensions_of_very_different_scale():
    bags = bags_of()
    expected = unit(encoder(max_iter=100, variance_floor=1e-3).fit(bags).transform(bags))
    start = DiagonalGaussianMixture(3, random_state=0).fit(bags)
    scale = np.array([1e-6, 1, 1e6, 1e3, 1])
    start.__dict__.update(means_=start.means_ * scale, variances_=start.variances_ * scale**2)
    scaled = with_values(bags, (bags.values * scale).astype(np.float32))
    found = unit(FisherVectorEncoder(mixture=start).fit(scaled).transform(scaled))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64]
)
def test_integers_are_the_numbers_they_are(dtype):
    # up to the largest of the type: squares and sums of them must not wrap around
    rng = np.random.default_rng(0)
    if dtype == np.bool_:
        low, high = 0, 2
    else:
        low, high = np.iinfo(dtype).min, min(np.iinfo(dtype).max, 2**40) + 1
        low = max(low, -(2**40))
    values = rng.integers(low, high, size=(600, 3)).astype(dtype)
    bags = Bags.from_lengths(values, np.full(20, 30))
    as_float = with_values(bags, values.astype(np.float64))
    model = encoder(2).fit(as_float)
    found = model.transform(bags)
    small = np.dtype(dtype).itemsize <= 2
    assert found.dtype == (np.float32 if small else np.float64)
    atol = 1e-5 if small else 1e-12
    np.testing.assert_allclose(unit(found), unit(model.transform(as_float)), atol=atol)
    np.testing.assert_allclose(unit(encoder(2).fit_transform(bags)), unit(found), atol=10 * atol)


@pytest.mark.parametrize(("narrow", "wide"), [("float16", "float32"), (">f4", "float32"),
                                              ("longdouble", "float64")])  # fmt: skip
def test_other_floats_are_promoted(narrow, wide):
    values = bags_of().values.astype(narrow)
    bags = with_values(bags_of(), values)
    promoted = with_values(bags, values.astype(wide))
    found = encoder().fit_transform(bags)
    assert found.dtype == wide
    np.testing.assert_array_equal(found, encoder().fit_transform(promoted))


def test_sums_of_float16_do_not_overflow():
    values = np.random.default_rng(0).uniform(3e4, 6e4, size=(2000, 2)).astype(np.float16)
    X = values.reshape(20, 100, 2)
    expected = encoder(2).fit_transform(X.astype(np.float64))
    np.testing.assert_allclose(unit(encoder(2).fit_transform(X)), unit(expected), atol=1e-4)


def test_the_input_is_never_written_to():
    bags = bags_of()
    values = bags.values.copy()
    values.flags.writeable = False
    model = make_pipeline(DescriptorTransformer(PCA(2)), encoder(), PowerL2Normalizer())
    model.fit_transform(with_values(bags, values))
    np.testing.assert_array_equal(values, bags.values)

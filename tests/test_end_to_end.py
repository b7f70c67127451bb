"""From data to decisions, and everything between that data may be: awkward, or wrong."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
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


# bad input


GOOD = [np.random.default_rng(i).normal(size=(5, 3)) for i in range(4)]


def among_good(position, bag):
    return [*GOOD[:position], bag, *GOOD[position:]]


def spoiled(value, descriptor):
    bag = GOOD[0].copy()
    bag[descriptor, 1] = value
    return bag


BAD = {
    "no bags": ([], ValueError, "X holds 0 sample"),
    "no bags, 3-D": (np.empty((0, 5, 3)), ValueError, "X holds 0 sample"),
    "no bags, Bags": (Bags(np.ones((2, 3)), [], []), ValueError, "X holds 0 sample"),
    "an empty bag": (among_good(2, np.empty((0, 3))), ValueError, r"X\[2\] is empty.*Drop it"),
    "an empty list": (among_good(1, []), ValueError, r"X\[1\] is empty.*Drop it"),
    "an empty bag, Bags": (
        Bags(np.ones((3, 3)), [0, 1, 1], [1, 1, 3]),
        ValueError,
        r"X\[1\] is empty",
    ),
    "a vector": (
        among_good(1, np.ones(3)),
        ValueError,
        r"X\[1\] has shape \(3,\), but a bag is a two-dimensional.*write X\[1\]\[None, :\]",
    ),
    "a cube": (
        among_good(3, np.ones((2, 2, 3))),
        ValueError,
        r"X\[3\] has shape \(2, 2, 3\), but a bag is a two-dimensional",
    ),
    "4-D": (np.ones((2, 2, 2, 3)), ValueError, "X has 4 dimensions"),
    "another width": (
        among_good(2, np.ones((5, 4))),
        ValueError,
        r"X\[2\] has 4 features per descriptor, but X\[0\] has 3: all bags must have the same",
    ),
    "NaN": (
        among_good(2, spoiled(np.nan, 3)),
        ValueError,
        r"X\[2\] contains NaN in descriptor 3",
    ),
    "infinity": (
        among_good(1, spoiled(-np.inf, 4)),
        ValueError,
        r"X\[1\] contains infinity in descriptor 4",
    ),
    "NaN, 3-D": (
        np.array([GOOD[0], spoiled(np.nan, 2)]),
        ValueError,
        r"X\[1\] contains NaN in descriptor 2",
    ),
    "infinity, float16": (
        [GOOD[0].astype(np.float16), spoiled(np.inf, 0).astype(np.float16)],
        ValueError,
        r"X\[1\] contains infinity in descriptor 0",
    ),
    "complex": (
        among_good(1, 1j * GOOD[0]),
        ValueError,
        r"Complex data not supported: X\[1\] has dtype complex128",
    ),
    "complex, 3-D": (1j * np.array(GOOD), ValueError, "Complex data not supported: X has dtype"),
    "strings": (
        among_good(1, np.full((2, 3), "a")),
        TypeError,
        r"X\[1\] has dtype <U1, but real numbers are needed",
    ),
    "strings, 3-D": (np.full((2, 2, 3), "a"), TypeError, "X has dtype <U1"),
    "objects": (
        among_good(1, np.full((2, 3), "a", object)),
        TypeError,
        r"X\[1\] has dtype object and is not all numbers: it holds 'a' at \[0, 0\]",
    ),
    "dates": (among_good(1, np.zeros((2, 3), "M8[s]")), TypeError, r"X\[1\] has dtype datetime64"),
    "sparse": (
        among_good(2, sparse.csr_array(GOOD[0])),
        TypeError,
        r"X\[2\] is sparse, but a dense array is needed. Write X\[2\].toarray\(\)",
    ),
    "all sparse": (
        sparse.csr_matrix(GOOD[0]),
        TypeError,
        r"X is sparse, .* X.toarray\(\)",
    ),
    "a dict": ({"a": GOOD[0]}, TypeError, "X is a dict: pass a list of 2-D arrays"),
    "an iterator": (iter(GOOD), TypeError, "X is a list_iterator: pass a list of 2-D arrays"),
}


@pytest.fixture
def fitted():
    return encoder(2).fit(GOOD)


@pytest.fixture
def no_work(fitted, monkeypatch):
    """Fail where clusters, EM or encoding begin."""

    def reached(*args, **kwargs):
        raise AssertionError("work was begun")

    for name in ("global_moments", "draw_rows", "initial_mixture", "em_iterations"):
        monkeypatch.setattr(f"skfisher.codebooks.fitting.{name}", reached)
    monkeypatch.setattr("skfisher.codebooks.fitting.stepwise_update", reached)
    monkeypatch.setattr("skfisher.encoders.encoder.encode_bags", reached)
    for X in (GOOD, np.array(GOOD)):  # the traps are where good input goes
        for method in (encoder(2).fit, encoder(2).partial_fit, fitted.transform):
            with pytest.raises(AssertionError, match="work was begun"):
                method(X)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_any_work(case, fitted):
    X, error, words = BAD[case]
    for method in (encoder(2).fit, encoder(2).partial_fit, fitted.partial_fit, fitted.transform):
        with pytest.raises(error, match=words):
            method(X)


@pytest.mark.usefixtures("no_work")
def test_bad_input_to_an_encoder_with_a_mixture():
    mixture = GaussianMixture(2, covariance_type="diag").fit(np.vstack(GOOD))
    for X, error, words in BAD.values():
        with pytest.raises(error, match=words):
            FisherVectorEncoder(mixture=mixture).fit(X)


@pytest.mark.usefixtures("no_work")
def test_another_width_at_transform(fitted):
    words = r"X\[0\] has 4 features per descriptor, but FisherVectorEncoder is expecting 3"
    for X in ([np.ones((2, 4))], np.ones((2, 2, 4))):
        for method in (fitted.transform, fitted.partial_fit):
            with pytest.raises(ValueError, match=words):
                method(X)


@pytest.mark.usefixtures("no_work")
def test_a_table_after_bags(fitted):
    words = r"X is two-dimensional, but FisherVectorEncoder was fitted on bags: write \[X\] if"
    for X in (GOOD[0], GOOD[0].tolist(), np.ones((2, 4))):
        with pytest.raises(ValueError, match=words):
            fitted.transform(X)


@pytest.mark.usefixtures("no_work")
def test_too_few_descriptors():
    words = (
        "n_components=21 needs at least 21 descriptors to fit, got 20 in n_samples=4 bags: lower"
    )
    for method in (encoder(21).fit, encoder(21).partial_fit):
        with pytest.raises(ValueError, match=words):
            method(GOOD)
    with pytest.raises(ValueError, match=words):
        FisherVectorEncoder(mixture=DiagonalGaussianMixture(21)).fit(GOOD)


@pytest.mark.usefixtures("no_work")
def test_not_fitted():
    with pytest.raises(NotFittedError):
        encoder().transform(GOOD)
    with pytest.raises(NotFittedError):
        encoder().get_feature_names_out()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "values"),
    {
        "n_components": [0, -1, 2.5, "2", None],
        "max_iter": [0, 1.5, "a", None],
        "variance_floor": [0, 1, -1, np.nan, "x"],
        "max_descriptors": [0, 1.5, "all"],
        "normalize": ["l2", True],
        "n_jobs": [1.5, "two"],
        "random_state": [-1, "s"],
        "include_weights": ["no", None],
        "mixture": [3, "gmm"],
        "device": [0, "gpu", "cuda:x"],
    }.items(),
)
def test_bad_parameters_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name}(' parameter of Fisher|={value!r} is not)"):
            encoder(2).set_params(**{name: value}).fit(GOOD)


def test_fewer_descriptors_asked_for_than_components():
    words = "max_descriptors=2 leaves fewer descriptors than n_components=3: raise it"
    with pytest.raises(ValueError, match=words):
        encoder(3, max_descriptors=2).fit(GOOD)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("mixture", "error", "words"),
    [
        (KMeans(2), TypeError, "mixture is a KMeans: pass a DiagonalGaussianMixture or a sklearn"),
        (FrozenEstimator(KMeans(2)), TypeError, "mixture is a KMeans"),
        (GaussianMixture(2), ValueError, "covariance_type='full': Fisher vectors need diagonal"),
        (FrozenEstimator(DiagonalGaussianMixture(2)), NotFittedError, "not fitted yet"),
        (DiagonalGaussianMixture(0), ValueError, "'n_components' parameter of DiagonalGauss"),
        (DiagonalGaussianMixture(2, tol=-1), ValueError, "'tol' parameter of DiagonalGaussianM"),
        (
            DiagonalGaussianMixture(2, init_params="random"),
            ValueError,
            "'init_params' parameter of DiagonalGaussianM",
        ),
        (
            GaussianMixture(2, covariance_type="diag").fit(np.eye(4)),
            ValueError,
            r"X\[0\] has 3 features per descriptor, but mixture was fitted on 4",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_mixture_is_named(mixture, error, words):
    with pytest.raises(error, match=words):
        FisherVectorEncoder(mixture=mixture).fit(GOOD)


def test_not_converging_says_what_to_do():
    with pytest.warns(match="EM did not gain less than tol=0 within max_iter=2.*raise max_iter"):
        DiagonalGaussianMixture(2, tol=0, max_iter=2, random_state=0).fit(GOOD)


def test_an_encoder_asks_for_no_convergence(recwarn):
    encoder(2, max_iter=1).fit(GOOD)
    assert not recwarn

"""Second-order pooling: plain loops, presets, and whatever bags there are."""

import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import Bags, JointClassifier, SecondOrderPooling

D = 4
ROOT_OF_2 = np.sqrt(2)


def make_bags(rng, lengths=(1, 2, 3, 9, 30, 300), d=D, dtype=np.float64):
    # dimensions of different sizes, far from the origin
    size, place = np.logspace(-1, 1, d), np.linspace(-5, 5, d)
    return [(rng.normal(size=(t, d)) * size + place).astype(dtype) for t in lengths]


def vector(q):
    """Return the triangle of a matrix, entry by entry."""
    d = len(q)
    return np.array([q[i, j] * (ROOT_OF_2 if i < j else 1) for i in range(d) for j in range(i, d)])


def root(m, power=0.5):
    """Return a power of a matrix that may have no full rank, by its singular values."""
    u, s, _ = np.linalg.svd(m, hermitian=True)
    s[s < 1e-12 * s[0]] = 0
    return (u * s**power) @ u.T


def moments(bag):
    mean = bag.mean(axis=0)
    return mean, sum(np.outer(row - mean, row - mean) for row in bag) / len(bag)


def gaussian(bag):
    extended = np.hstack([bag, np.ones((len(bag), 1))])
    return extended.T @ extended / len(bag)


def test_the_default_is_the_unit_root_of_the_gaussian_embedding(rng):
    bags = make_bags(rng)
    rows = np.vstack(bags)
    encodings = SecondOrderPooling().fit(bags).transform(bags)
    for bag, encoding in zip(bags, encodings, strict=True):
        q = root(gaussian((bag - rows.mean(axis=0)) / rows.std(axis=0)))
        np.testing.assert_allclose(encoding, vector(q / np.linalg.norm(q)), atol=1e-8)
        assert np.linalg.norm(encoding) == pytest.approx(1)


def signed_root(v):
    v = np.sign(v) * np.sqrt(np.abs(v))
    return v / np.linalg.norm(v)


def iterated(p, n_iter=5):
    a, y, z = np.trace(p), p / np.trace(p), np.eye(len(p))
    for _ in range(n_iter):
        m = (3 * np.eye(len(p)) - z @ y) / 2
        y, z = y @ m, m @ z
    return np.sqrt(a) * y


def second_moment(bag):
    return bag.T @ bag / len(bag)


def covariance(bag):
    return moments(bag)[1]


# what each paper computes of a bag with more descriptors than dimensions
PAPERS = {
    "bcnn": (SecondOrderPooling.bcnn(), lambda x: signed_root(vector(second_moment(x)))),
    "improved B-CNN": (
        SecondOrderPooling.improved_bcnn(),
        lambda x: signed_root(vector(scipy.linalg.sqrtm(second_moment(x)))),
    ),
    "MPN-COV": (
        SecondOrderPooling.mpn_cov(),
        lambda x: vector(scipy.linalg.sqrtm(covariance(x))),
    ),
    "MPN-COV, M-l2": (
        SecondOrderPooling.mpn_cov(norm="spectral"),
        lambda x: vector(scipy.linalg.sqrtm(covariance(x) / np.linalg.eigvalsh(covariance(x))[-1])),
    ),
    "MPN-COV, M-Fro": (
        SecondOrderPooling.mpn_cov(norm="frobenius", power=0.3),
        lambda x: vector(root(covariance(x), 0.3) / np.linalg.norm(root(covariance(x), 0.3))),
    ),
    "iSQRT-COV": (SecondOrderPooling.isqrt_cov(), lambda x: vector(iterated(covariance(x)))),
    "G2DeNet": (SecondOrderPooling.g2denet(), lambda x: vector(scipy.linalg.sqrtm(gaussian(x)))),
}


@pytest.mark.parametrize(("encoder", "reference"), PAPERS.values(), ids=PAPERS)
def test_systems_of_the_literature_are_one_call(encoder, reference, rng):
    bags = make_bags(rng, lengths=(9, 20, 300))
    encodings = clone(encoder).fit(bags).transform(bags)
    for bag, encoding in zip(bags, encodings, strict=True):
        np.testing.assert_allclose(encoding, reference(bag), rtol=1e-7, atol=1e-8)


def test_o2p_is_the_logarithm_of_second_moments_and_a_ridge(rng):
    bags = make_bags(rng, lengths=(1, 9, 300))
    encoder = SecondOrderPooling.o2p().fit(bags)
    ridge = 1e-3 * np.vstack(bags).var(axis=0).mean()
    assert encoder.ridge_ == pytest.approx(ridge)
    for bag, encoding in zip(bags, encoder.transform(bags), strict=True):
        expected = vector(scipy.linalg.logm(second_moment(bag) + ridge * np.eye(D)))
        np.testing.assert_allclose(encoding, expected, atol=1e-6)


@pytest.mark.parametrize("function", ["power", "log", "newton_schulz", "identity"])
@pytest.mark.parametrize("statistic", ["gaussian", "covariance", "second_moment"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_bag_is_too_short_and_no_dimension_too_dull(statistic, function, dtype, rng):
    bags = make_bags(rng, lengths=(1, 2, 3, 1, 40), dtype=dtype)
    for bag in bags:
        bag[:, 2] = 7  # constant
    bags[0] = np.repeat(bags[0], 3, axis=0)  # of equal descriptors
    encoder = SecondOrderPooling(statistic, function=function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encodings = encoder.fit(bags).transform(bags)
    assert encodings.dtype == dtype
    assert np.isfinite(encodings).all()
    assert encoder.scale_[2] == 1
    if statistic == "covariance" and function != "log":
        assert (encodings[[0, 3]] == 0).all()  # one descriptor has no covariance


@pytest.mark.parametrize("encoder", [SecondOrderPooling(), SecondOrderPooling.mpn_cov()])
def test_fewer_descriptors_than_dimensions_keep_their_digits_in_float32(encoder, rng):
    wide = [rng.normal(size=(32, 64)) + 1000 for _ in range(20)]
    narrow = [bag.astype(np.float32) for bag in wide]
    wide = [bag.astype(np.float64) for bag in narrow]
    found = encoder.fit(narrow).transform(narrow)
    expected = clone(encoder).fit(wide).transform(wide)
    assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("statistic", ["gaussian", "covariance", "second_moment"])
@pytest.mark.parametrize("options", [{}, {"function": "log"}, {"n_components": 4, "power": 0.3}])
def test_products_of_few_descriptors_encode_as_their_sums_do(statistic, options, rng):
    bags = [rng.normal(size=(t, 9)) * np.logspace(-2, 2, 9) + 3 for t in (1, 2, 3, 5, 6, 7, 30)]
    encoder = SecondOrderPooling(statistic, **options).fit(bags)
    layer, values = encoder.pooling(), Bags.from_list(bags)
    q = layer.prepare(layer.parameters(vars(encoder)), np.dtype(np.float64))
    sums = layer.sums(q, values.values, values.starts, values.stops)
    by_sums = layer.read(q, sums, values.lengths)
    np.testing.assert_allclose(encoder.transform(bags), by_sums, atol=1e-7)


def test_one_dimension(rng):
    bags = [rng.normal(size=(t, 1)) for t in (1, 5, 20)]
    encodings = SecondOrderPooling("covariance", norm=None, standardize=False).fit_transform(bags)
    np.testing.assert_allclose(encodings[:, 0], [bag.std() for bag in bags], atol=1e-12)


@pytest.mark.parametrize("function", ["power", "log", "newton_schulz"])
def test_results_depend_on_the_bag_alone(function, rng):
    bags = make_bags(rng, lengths=rng.integers(1, 40, size=50), dtype=np.float32)
    encoder = SecondOrderPooling(function=function).fit(bags)
    together = encoder.transform(bags)
    order = rng.permutation(len(bags))
    again = encoder.set_params(n_jobs=2).transform(Bags.from_list([bags[i] for i in order]))
    np.testing.assert_array_equal(again, together[order])
    alone = np.vstack([encoder.transform([bag]) for bag in bags])
    np.testing.assert_array_equal(alone, together)


def test_partial_fit_is_fit_on_all(rng):
    bags = make_bags(rng)
    for options in ({}, {"n_components": 2}, {"function": "log"}):
        parts = SecondOrderPooling(**options).partial_fit(bags[:2]).partial_fit(bags[2:])
        whole = SecondOrderPooling(**options).fit(bags)
        np.testing.assert_allclose(parts.mean_, whole.mean_, rtol=1e-12)
        np.testing.assert_allclose(parts.scale_, whole.scale_, rtol=1e-12)
        np.testing.assert_allclose(parts.transform(bags), whole.transform(bags), atol=1e-7)
    parts.fit(bags[:3])  # begins again
    rows = np.vstack(bags[:3])
    np.testing.assert_allclose(parts.mean_, rows.mean(axis=0))


def test_a_projection_of_moments_is_that_of_descriptors(rng):
    bags = make_bags(rng)
    encoder = SecondOrderPooling(n_components=2, norm=None).fit(bags)
    rows = (np.vstack(bags) - encoder.mean_) / encoder.scale_
    axes = encoder.projection_
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    variances = np.linalg.eigvalsh(np.cov(rows, rowvar=False, bias=True))
    np.testing.assert_allclose(np.var(rows @ axes.T, axis=0), variances[::-1][:2])
    mapped = [(bag - encoder.mean_) / encoder.scale_ @ axes.T for bag in bags]
    expected = SecondOrderPooling(norm=None, standardize=False).fit_transform(mapped)
    np.testing.assert_allclose(encoder.transform(bags), expected, atol=1e-7)
    names = ["second_p0_p0", "second_p0_p1", "mean_p0", "second_p1_p1", "mean_p1", "bias"]
    assert list(encoder.get_feature_names_out()) == names


def test_columns_are_named_after_dimensions(rng):
    bags = make_bags(rng, d=2)
    encoder = SecondOrderPooling("covariance").fit(bags)
    names = encoder.get_feature_names_out(["x", "y"])
    assert list(names) == ["second_x_x", "second_x_y", "second_y_y"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 9}, r"n_components=9 is more than the 4 features .* take 4 or fewer"),
        ({"function": "log", "ridge": 0}, r"needs a ridge above 0.* take ridge=None"),
        ({"function": "log", "norm": "trace"}, r"norm='trace' needs eigenvalues of one sign"),
        ({"function": "newton_schulz", "n_iter": 16}, r"n_iter=16 steps .* take 15 or fewer"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(options, message, rng):
    with pytest.raises(ValueError, match=message):
        SecondOrderPooling(**options).fit(make_bags(rng))
    with pytest.raises(ValueError, match=message):
        JointClassifier(SecondOrderPooling(**options)).fit(make_bags(rng), np.arange(6) % 2)


def test_many_steps_are_fine_with_a_ridge(rng):
    bags = make_bags(rng)
    encoder = SecondOrderPooling(function="newton_schulz", n_iter=40, ridge=1e-3)
    exact = SecondOrderPooling(ridge=1e-3).fit_transform(bags)
    np.testing.assert_allclose(encoder.fit_transform(bags), exact, atol=1e-6)


def test_too_long_encodings_are_refused_with_the_way_out():
    bags = np.zeros((2, 1, 1536), dtype=np.float32)
    message = r"1536 features .* makes 1181953 numbers a bag.*PCA.*n_components.*CompactBilinear"
    with pytest.raises(ValueError, match=message):
        SecondOrderPooling().fit(bags)
    assert SecondOrderPooling(n_components=3).fit_transform(bags).shape == (2, 10)


def test_a_fill_value_is_named(rng):
    bags = make_bags(rng, dtype=np.float32)
    encoder = SecondOrderPooling().fit(bags)
    bags[3][2, 1] = 3e38
    with pytest.raises(ValueError, match=r"X\[3\] .*fill value"):
        encoder.transform(bags)


def test_settings_can_be_searched(rng):
    y = np.arange(24) % 2
    bags = [rng.normal(size=(20, 3)) * (1 + c) for c in y]
    pipeline = make_pipeline(SecondOrderPooling(), StandardScaler(with_std=False), LinearSVC())
    grid = {
        "secondorderpooling": [SecondOrderPooling(), SecondOrderPooling.isqrt_cov()],
        "linearsvc__C": [1, 10],
    }
    assert GridSearchCV(pipeline, grid, cv=3).fit(bags, y).best_score_ > 0.8


def test_joint_training_starts_at_the_encoder_and_learns_the_projection(rng):
    # of two classes that differ in their last direction, which has the least variance
    y = np.arange(40) % 2
    size = np.array([3.0, 2.0, 1.0, 0.5])
    bags = [rng.normal(size=(30, 4)) * size * np.array([1, 1, 1, 1 + 0.6 * c]) for c in y]
    encoder = SecondOrderPooling(n_components=2, standardize=False)
    options = {"feature_map": "identity", "map_scale": 1.0, "whiten": False, "random_state": 0}
    frozen = JointClassifier(encoder, max_iter=0, center=False, **options).fit(bags, y)
    assert frozen.projection_.shape == (2, 4)
    model = JointClassifier(encoder, max_iter=60, batch_size=10, **options).fit(bags, y)
    assert model.score(bags, y) > model.baseline_.score(bags, y)
    assert np.abs(model.projection_[:, 3]).max() > np.abs(model.baseline_.projection_[:, 3]).max()
    # without a projection there is nothing but map and classifier to train
    plain = JointClassifier(SecondOrderPooling(), max_iter=2, random_state=0).fit(bags, y)
    assert {"map_weight_", "mean_", "ridge_"} <= set(vars(plain))


def test_joint_training_goes_through_the_map(rng):
    y = np.arange(30) % 2
    bags = [rng.normal(size=(t, 3)) * (1 + 0.3 * c) for t, c in zip(range(1, 31), y, strict=True)]
    for encoder in (SecondOrderPooling(), SecondOrderPooling.isqrt_cov()):
        model = JointClassifier(encoder, max_iter=20, batch_size=10, random_state=0).fit(bags, y)
        assert model.history_["loss"][-1] < model.history_["loss"][0]


@given(seed=st.integers(0, 2**16), shift=st.floats(-100, 100), size=st.floats(0.01, 100))
def test_standardised_encodings_know_no_unit(seed, shift, size):
    rng = np.random.default_rng(seed)
    bags = [rng.normal(size=(int(t), 3)) for t in rng.integers(1, 9, size=5)]
    moved = [size * bag + shift for bag in bags]
    found = SecondOrderPooling().fit_transform(bags)
    # null eigenvalues are roots of rounding at worst
    np.testing.assert_allclose(SecondOrderPooling().fit_transform(moved), found, atol=1e-5)
    repeated = [np.repeat(bag, 3, axis=0) for bag in bags]
    np.testing.assert_allclose(SecondOrderPooling().fit_transform(repeated), found, atol=1e-5)

"""Mean, deviation and maximum against NumPy, bag by bag."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import clone
from sklearn.preprocessing import normalize

from skfisher import Bags, JointClassifier, MeanPooling, PowerL2Normalizer

STATISTICS = {
    "mean": lambda bag: bag.mean(axis=0),
    "mean_std": lambda bag: np.concatenate([bag.mean(axis=0), bag.std(axis=0)]),
    "max": lambda bag: bag.max(axis=0),
}
every_statistic = pytest.mark.parametrize("statistic", STATISTICS)


def bags_of(dtype=np.float64, offset=0.0, d=3):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, size=20)
    return [(rng.normal(size=(n, d)) + offset).astype(dtype) for n in lengths]


def reference(bags, statistic):
    return np.array([STATISTICS[statistic](bag.astype(np.float64)) for bag in bags])


@every_statistic
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_encodings_are_the_statistics_of_each_bag(statistic, dtype, offset):
    bags = [np.abs(bag).astype(dtype) for bag in bags_of(offset=min(offset, 100))]
    if dtype != "uint8":
        bags = bags_of(dtype, offset)
    found = MeanPooling(statistic).fit_transform(bags)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    # what a number of this size is rounded to; deviations are rounded at their own
    rtol = 1e-12 if dtype == "float64" else 1e-7
    np.testing.assert_allclose(found, reference(bags, statistic), rtol=rtol, atol=rtol)


@settings(max_examples=50, deadline=None)
@given(
    x=arrays(np.float64, (7, 2), elements=st.integers(-9999, 9999).map(lambda n: n / 128)),
    statistic=st.sampled_from(sorted(STATISTICS)),
)
def test_any_bags_are_pooled_as_numpy_does(x, statistic):
    bags = [x[:1], x[1:4], x[4:]]
    found = MeanPooling(statistic).fit_transform(bags)
    np.testing.assert_allclose(found, reference(bags, statistic), rtol=1e-9, atol=1e-5)


def test_one_descriptor_and_equal_ones_have_no_deviation():
    bags = [np.full((n, 2), [0.1, 1e9 / 3]) for n in (1, 3, 1000)] + [np.zeros((2, 2))]
    found = MeanPooling("mean_std").fit_transform(bags)
    np.testing.assert_array_equal(found[:, 2:], 0)


@every_statistic
def test_normalisation(statistic):
    bags = bags_of()
    plain = MeanPooling(statistic).fit(bags).transform(bags)
    for kind, expected in [
        ("l2", normalize(plain)),
        ("power-l2", PowerL2Normalizer().transform(plain)),
    ]:
        found = MeanPooling(statistic, normalize=kind).fit_transform(bags)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@every_statistic
def test_names(statistic):
    encoder = MeanPooling(statistic).fit(bags_of())
    expected = {
        "mean": ["mean_d0", "mean_d1", "mean_d2"],
        "mean_std": ["mean_d0", "mean_d1", "mean_d2", "std_d0", "std_d1", "std_d2"],
        "max": ["max_d0", "max_d1", "max_d2"],
    }[statistic]
    assert list(encoder.get_feature_names_out()) == expected


@every_statistic
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_threads_and_devices_do_not_change_a_bit(stand_in, monkeypatch, statistic, dtype):
    bags = bags_of(dtype, offset=30)
    bags.insert(3, np.concatenate(bags))
    encoder = MeanPooling(statistic).fit(bags)
    whole = encoder.transform(bags)
    for bag, one in zip(bags, whole, strict=True):
        np.testing.assert_array_equal(encoder.transform([bag])[0], one)
    monkeypatch.setattr("skfisher.layers.encode.LONG_BAG", 50)
    monkeypatch.setattr("skfisher.layers.chain.ROWS_PER_PART", 20)
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 30)
    parts = encoder.transform(bags)
    np.testing.assert_allclose(parts, whole, rtol=1e-6 if dtype == "float32" else 1e-12)
    order = np.random.default_rng(1).permutation(len(bags))
    threads = encoder.set_params(n_jobs=2).transform(Bags.from_list(bags)[order])
    np.testing.assert_array_equal(threads, parts[order])
    places = ("cuda", "cuda:1", "cuda:all")
    found = [encoder.set_params(device=device).transform(bags) for device in places]
    for there in found:
        np.testing.assert_array_equal(there, found[0])
        np.testing.assert_allclose(there, whole, rtol=1e-6)


@pytest.mark.parametrize("statistic", ["mean", "mean_std"])
def test_the_map_under_a_mean_is_trained(statistic):
    # of equal means: only a map that bends tells the classes apart by means
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = [rng.normal(size=(20, 2)) * (1 + 2 * c) for c in y]
    model = JointClassifier(MeanPooling(statistic), max_iter=30, random_state=0).fit(X, y)
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    assert (model.map_weight_ != model.baseline_.map_weight_).any()
    assert len(model.get_feature_names_out()) == (2 if statistic == "mean" else 4)


def test_what_cannot_be_trained_is_refused():
    X, y = bags_of(), np.arange(20) % 2
    with pytest.raises(TypeError, match=r"MaximumPooling, lacks .* sums_vjp"):
        JointClassifier(MeanPooling("max")).fit(X, y)
    model = JointClassifier(MeanPooling(), feature_map="identity", train="features")
    with pytest.raises(ValueError, match="names nothing to train: name 'classifier', or set max"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="'line_search' needs slopes and retract"):
        clone(model).set_params(solver="line_search", train=None).fit(X, y)


def test_a_fill_value_is_named():
    bags = bags_of(np.float64)
    encoder = MeanPooling("mean_std").fit(bags)
    bags[4] = bags[4].copy()
    bags[4][0, 0] = 1e200
    with pytest.raises(ValueError, match=r"X\[4\] has a descriptor so far from all others"):
        encoder.transform(bags)

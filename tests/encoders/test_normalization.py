"""PowerL2Normalizer and the labels of its blocks."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfisher import PowerL2Normalizer


@parametrize_with_checks(
    [PowerL2Normalizer(), PowerL2Normalizer(power=1), PowerL2Normalizer(blocks=1)]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("power", [0.3, 0.5, 1])
def test_agrees_with_scikit_learn_after_the_power(rng, power):
    X = rng.normal(size=(6, 9))
    expected = normalize(np.sign(X) * np.abs(X) ** power)
    np.testing.assert_allclose(PowerL2Normalizer(power).fit_transform(X), expected, rtol=1e-13)


def test_root_sift_is_the_square_root_of_the_l1_normalised_histogram(rng):
    # Arandjelović and Zisserman (2012)
    X = rng.integers(0, 256, size=(5, 128)).astype(np.float64)
    expected = np.sqrt(normalize(X, norm="l1"))
    np.testing.assert_allclose(PowerL2Normalizer().fit_transform(X), expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_rows_have_unit_length_and_forget_their_scale(dtype, data):
    X = data.draw(hnp.arrays(dtype, (3, 8), elements=st.floats(-1024, 1024, width=32)))
    X[np.abs(X) < 2**-10] = 0  # what is left is scaled exactly by a power of 2
    reach = np.finfo(dtype).maxexp - 12
    factor = dtype(2.0 ** data.draw(st.integers(-reach, reach)))
    blocks = data.draw(st.sampled_from([None, 1, 2, 8, [3, 0, 1, 0, 3, 1, 1, 3]]))
    normalizer = PowerL2Normalizer(data.draw(st.sampled_from([0.3, 0.5, 1, 2])), blocks=blocks)
    Y = normalizer.fit_transform(X)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(np.linalg.norm(Y, axis=1), X.any(axis=1), rtol=8 * eps)
    np.testing.assert_array_equal(normalizer.fit_transform(factor * X), Y)


@pytest.mark.parametrize(
    ("row", "dtype", "params"),
    [
        ([1e-30, 2e-30, 1e-30, 1e-30], np.float32, {"power": 1, "blocks": 2}),
        ([1e25, 2e25, 1e25, 1e25], np.float32, {"power": 1, "blocks": 2}),
        ([1e-30, 2e-30, 1e30, 1e30], np.float32, {"power": 1, "blocks": 2}),
        ([3e38, 3e38, 1e38, 0], np.float32, {"power": 1}),
        ([1e-40, 2e-40, 0, 0], np.float32, {"power": 1}),
        ([1e-310, 1e-311, 0, 0], np.float64, {"power": 1}),
        ([1e200, 2e200, 0, 0], np.float64, {"power": 3}),
    ],
)
def test_the_smallest_and_the_largest_numbers_keep_their_direction(row, dtype, params):
    row = np.array([row], dtype)
    n_blocks = params.get("blocks", 1)
    parts = row.astype(np.longdouble).reshape(n_blocks, -1)
    parts = (parts / parts.max(axis=1, keepdims=True)) ** params["power"]
    parts /= np.sqrt((parts**2).sum(axis=1, keepdims=True) * n_blocks)
    found = PowerL2Normalizer(**params).fit_transform(row)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, parts.reshape(1, -1), rtol=4 * np.finfo(dtype).eps)


def test_every_block_has_the_same_length(rng):
    X = rng.normal(size=(4, 12)) * np.repeat([1e-3, 1.0, 1e3], 4)
    Y = PowerL2Normalizer(blocks=3).fit_transform(X)
    lengths = np.linalg.norm(Y.reshape(4, 3, 4), axis=2)
    np.testing.assert_allclose(lengths, np.full((4, 3), 3**-0.5), rtol=1e-12)


def test_a_block_of_zeros_stays_zero(rng):
    X = rng.normal(size=(1, 6))
    X[0, :3] = 0
    Y = PowerL2Normalizer(blocks=2).fit_transform(X)
    assert not Y[0, :3].any()
    assert np.linalg.norm(Y) == pytest.approx(1)


def test_labels_may_be_scattered(rng):
    X = rng.normal(size=(5, 6))
    order = np.array([3, 0, 5, 1, 4, 2])
    labels = np.array([0, 0, 1, 1, 2, 2])
    expected = PowerL2Normalizer(blocks=3).fit_transform(X)[:, order]
    found = PowerL2Normalizer(blocks=10 * labels[order] - 7).fit_transform(X[:, order])
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (4, "blocks=4 does not divide n_features=6"),
        ([0, 1], r"one integer label per feature, of shape \(6,\)"),
        ([0.0, 1, 2, 3, 4, 5], "got float64"),
        (0, "'blocks' parameter"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(blocks, words):
    with pytest.raises(ValueError, match=words):
        PowerL2Normalizer(blocks=blocks).fit(np.ones((2, 6)))


@pytest.mark.parametrize("power", [0, -1, "half"])
def test_powers_that_make_no_sense_are_refused(power):
    with pytest.raises(ValueError, match="'power' parameter"):
        PowerL2Normalizer(power=power).fit(np.ones((2, 6)))


def test_float32_stays_and_integers_become_floats(rng):
    X = rng.integers(0, 255, (3, 5), dtype=np.uint8)
    assert PowerL2Normalizer().fit_transform(X.astype(np.float32)).dtype == np.float32
    found = PowerL2Normalizer().fit_transform(X)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, PowerL2Normalizer().fit_transform(X.astype(float)))


def test_works_without_fit_and_does_not_write_to_its_input(rng):
    X = rng.normal(size=(3, 4))
    before = X.copy()
    Y = PowerL2Normalizer(power=1).transform(X)
    np.testing.assert_array_equal(X, before)
    assert not np.shares_memory(X, Y)


def test_clone_pickle_and_data_frames_in_a_pipeline(rng):
    X = rng.normal(size=(8, 4))
    pipe = make_pipeline(StandardScaler(), PowerL2Normalizer(blocks=[0, 0, 1, 1]))
    expected = pipe.fit_transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipe)).transform(X), expected)
    np.testing.assert_array_equal(clone(pipe).fit_transform(X), expected)
    frame = pipe.set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == ["x0", "x1", "x2", "x3"]
    np.testing.assert_array_equal(frame.to_numpy(), expected)

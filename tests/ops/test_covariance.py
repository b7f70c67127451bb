"""Covariances of ragged bags: digits kept far from the origin, the same bits in any company."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfisher.arrays.libraries import to_host
from skfisher.ops.covariance import bag_moments, second_order_sums, second_order_sums_vjp

# on both sides of a tile of 256 rows, and bags of equal lengths apart from each other
LENGTHS = np.array([1, 5, 300, 5, 1, 1000, 256, 257, 2, 5])
STOPS = np.cumsum(LENGTHS)
STARTS = STOPS - LENGTHS
D = 6


def covariances(x, shift, starts=STARTS, stops=STOPS):
    return bag_moments(*second_order_sums(x, starts, stops, shift), stops - starts)


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, 6e-8), (np.float64, 1e-16)])
@pytest.mark.parametrize("offset", [0, 10, 100, 1000])
def test_an_offset_of_a_thousand_deviations_costs_no_digits(dtype, rounding, offset, rng):
    x = (rng.normal(size=(STOPS[-1], D)) + offset).astype(dtype)
    means, found = covariances(x, np.zeros(D))
    for start, stop, mean, covariance in zip(STARTS, STOPS, means, found, strict=True):
        bag = x[start:stop].astype(np.float64)
        centered = bag - bag.mean(axis=0)  # not by np.cov, which reads one row as one column
        expected = centered.T @ centered / len(bag)
        # products in the dtype, sums about the shift in float64
        tolerance = 30 * rounding + 30 * 1e-16 * offset**2
        np.testing.assert_allclose(covariance, expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(mean, bag.mean(axis=0), atol=1e-13 * (offset + 1) + rounding)
        np.testing.assert_array_equal(covariance, covariance.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 2, 6, 33])
def test_a_bag_has_the_same_bits_alone(dtype, d, rng):
    x = rng.normal(size=(STOPS[-1], d)).astype(dtype) + dtype(3)
    shift = rng.normal(size=d)
    sums = second_order_sums(x, STARTS, STOPS, shift)
    g = [rng.normal(size=s.shape) for s in sums]
    d_x = second_order_sums_vjp(*g, x, STARTS, STOPS, shift)
    reversed_sums = second_order_sums(x, STARTS[::-1], STOPS[::-1], shift)
    for i, (start, stop) in enumerate(zip(STARTS, STOPS, strict=True)):
        alone = np.asfortranarray(x[start:stop])
        borders = np.array([0]), np.array([stop - start])
        for own, other, backwards in zip(
            second_order_sums(alone, *borders, shift), sums, reversed_sums, strict=True
        ):
            np.testing.assert_array_equal(own[0], other[i])
            np.testing.assert_array_equal(own[0], backwards[len(STARTS) - 1 - i])
        own = second_order_sums_vjp(*(a[i : i + 1] for a in g), alone, *borders, shift)
        np.testing.assert_array_equal(own, d_x[start:stop])


def test_one_descriptor_and_equal_ones_have_no_covariance(rng):
    x = np.repeat(rng.normal(size=(3, D)).astype(np.float32) + 1000, [1, 3, 300], axis=0)
    stops = np.array([1, 4, 304])
    _, found = covariances(x, np.zeros(D), np.array([0, 1, 4]), stops)
    # of numbers of size 1e6, in float64
    np.testing.assert_allclose(found, 0, atol=1e-9)
    assert (found[0] == 0).all()


def test_gradients_at_bags_that_overlap_add_up(xp, rng):
    x = rng.normal(size=(40, D))
    starts, stops = np.array([0, 10, 5]), np.array([10, 40, 20])
    shift = np.ones(D)
    g1, g2 = rng.normal(size=(3, D)), rng.normal(size=(3, D, D))
    there = [xp.asarray(a) for a in (g1, g2, x)]
    found = to_host(second_order_sums_vjp(*there, starts, stops, shift))
    expected = np.zeros_like(x)
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        expected[start:stop] += (x[start:stop] - shift) @ (g2[i] + g2[i].T) + g1[i]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    some = starts[:2][::-1] + np.array([1, 0]), stops[:2][::-1]
    found = second_order_sums_vjp(*(a[:2] for a in there[:2]), there[2], *some, shift)
    assert (to_host(found)[10] == 0).all()  # of no bag


def test_gradients_keep_their_digits_far_from_the_shift(rng):
    # what goes through the mean cancels: in float64
    x = rng.normal(size=(STOPS[-1], D)) + 1000
    shift = np.zeros(D)
    narrow = x.astype(np.float32)
    s1, s2 = second_order_sums(x, STARTS, STOPS, shift)
    g2 = rng.normal(size=s2.shape)
    g1 = -np.einsum("nij,nj->ni", g2 + g2.transpose(0, 2, 1), s1 / LENGTHS[:, None])
    wide = second_order_sums_vjp(g1, g2, narrow.astype(np.float64), STARTS, STOPS, shift)
    found = second_order_sums_vjp(g1, g2, narrow, STARTS, STOPS, shift)
    assert np.abs(found - wide).max() < 1e-4 < np.abs(wide).max()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16])
def test_narrow_numbers_are_computed_in_float32(dtype, rng):
    x = rng.integers(0, 200, size=(STOPS[-1], D)).astype(dtype)
    sums = second_order_sums(x, STARTS, STOPS, np.zeros(D))
    expected = second_order_sums(x.astype(np.float32), STARTS, STOPS, np.zeros(D))
    for a, b in zip(sums, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    d_x = second_order_sums_vjp(*sums, x, STARTS, STOPS, np.zeros(D))
    assert d_x.dtype == np.float32


@given(
    seed=st.integers(0, 2**16),
    length=st.integers(1, 40),
    d=st.integers(1, 5),
    size=st.floats(1e-3, 1e3),
)
def test_covariances_do_not_move_and_grow_with_the_square(seed, length, d, size):
    rng = np.random.default_rng(seed)
    x, borders = rng.normal(size=(length, d)), (np.array([0]), np.array([length]))
    _, before = covariances(x, np.zeros(d), *borders)
    _, moved = covariances(size * x + 5, np.full(d, 5.0), *borders)
    np.testing.assert_allclose(moved, size**2 * before, atol=1e-9 * size**2 * (1 + 1 / size))
    assert np.linalg.eigvalsh(before[0])[0] > -1e-12

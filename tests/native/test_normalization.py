"""The kernels of power and L2 normalisation against the array code in float64."""

import numpy as np
import pytest

from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp

# about vectors of 4 to 16 numbers, and the 64 vectors that are summed in float32
WIDTHS = [1, 2, 3, 4, 5, 15, 16, 17, 33, 1023, 1024, 1025, 4128]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1.0, 1e-42, 1e-36, 3e37], ids=str)
def test_rows_of_any_width_and_size(native, rng, width, scale):
    x = (rng.uniform(-1, 1, size=(5, width)) * scale).astype(np.float32)
    x[2] = 0
    x[3, 0] = -0.0
    found = power_l2_normalize(x)
    expected = power_l2_normalize(x.astype(np.float64))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert np.signbit(found[3, 0])
    assert not found[2].any()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1.0, 1e-36, 3e37], ids=str)
def test_gradients(native, rng, width, scale):
    x = (rng.uniform(-1, 1, size=(5, width)) * scale).astype(np.float32)
    x[2] = 0
    x[3, 0] = 0
    g = rng.normal(size=x.shape).astype(np.float32)
    for floor in (None, 1e-2, 0.0):
        found = power_l2_normalize_vjp(g, x, derivative_floor=floor)
        floor = 1e-6 if floor is None else floor
        expected = power_l2_normalize_vjp(g, x.astype(np.float64), derivative_floor=floor)
        assert found.dtype == np.float32
        # of a row of one entry the direction, and so the gradient, is rounding
        size = np.maximum(np.abs(expected).max(axis=1, keepdims=True), 0.01 / scale)
        assert (np.abs(found - expected) <= 1e-5 * size + 1e-43).all()
        assert not found[2].any()
        assert found[3, 0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(native, bad):
    x = np.ones((2, 40), np.float32)
    x[1, 20] = bad
    found = power_l2_normalize(x)
    assert not np.isfinite(found[1]).all()
    np.testing.assert_allclose(found[0], 40**-0.5)


def test_strided_rows_and_inputs_that_stay(native, rng):
    x = rng.normal(size=(6, 80)).astype(np.float32)
    before = x.copy()
    np.testing.assert_array_equal(
        power_l2_normalize(x[::2, ::2]), power_l2_normalize(x[::2, ::2].copy())
    )
    np.testing.assert_array_equal(x, before)

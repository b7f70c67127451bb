"""Power and L2 normalisation near zero, where the power's derivative diverges."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.ops.normalization import (
    power_l2_normalize,
    power_l2_normalize_vjp,
    signed_power,
)


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0, 1.5])
def test_the_smooth_power_is_the_power_away_from_zero(power, rng):
    x = rng.choice([-1, 1], size=(4, 6)) * rng.uniform(0.1, 10, size=(4, 6))
    # (1 + eps^2 / x^2)^((power - 1) / 2) is 1 to eps^2 / x^2
    assert_allclose(signed_power(x, power, eps=1e-4), signed_power(x, power), rtol=1e-6)


def test_the_smooth_power_has_a_slope_at_zero():
    eps, tiny = 1e-4, 1e-9
    assert_allclose(signed_power(np.array([tiny, -tiny]), 0.5, eps=eps) / tiny, [100, -100])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"eps": 1e-4}, {"derivative_floor": 1e-3}], ids=str)
def test_gradients_near_zero_are_bounded(dtype, options, rng):
    x = rng.normal(size=(3, 5)).astype(dtype)
    x[:, 0], x[:, 1], x[2] = 0, 1e-30, 0
    d_x = power_l2_normalize_vjp(np.ones_like(x), x, **options)
    assert d_x.dtype == dtype
    assert np.isfinite(d_x).all()
    assert_array_equal(d_x[2], 0)  # a row of zeros has no direction
    slope_of = {"eps": 100, "derivative_floor": 0.5 * 1e-3**-0.5}
    for name, slope in slope_of.items():
        if name in options:
            assert abs(d_x).max() <= 4 * slope


def test_scaling_a_row_changes_nothing_but_the_size_of_its_gradient(rng):
    x, g = rng.normal(size=(2, 3, 5))
    y, d_x = power_l2_normalize(x), power_l2_normalize_vjp(g, x)
    assert_allclose(power_l2_normalize(7 * x), y, rtol=1e-12)
    assert_allclose(power_l2_normalize_vjp(g, 7 * x), d_x / 7, rtol=1e-12)
    assert_allclose((x * d_x).sum(axis=1), 0, atol=1e-12)  # Euler's theorem


def test_numpy_scalars_do_not_widen_float32(rng):
    x = rng.normal(size=(3, 5)).astype(np.float32)
    options = {"power": np.float64(0.7), "eps": np.float64(1e-3)}
    for kept in (options, {"power": options["power"]}):
        assert power_l2_normalize(x, **kept).dtype == np.float32
        assert power_l2_normalize_vjp(x, x, **kept).dtype == np.float32

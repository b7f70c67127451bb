"""The kernels of power and L2 normalisation, run on the CPU, against the array code."""

import numpy as np
import pytest

from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp

POWERS = [(0.5, None), (0.3, None), (1.0, None), (2.0, None), (0.5, 0.1), (0.3, 0.1), (1.0, 0.1)]
WIDTHS = [1, 6, 511, 512, 513, 4128]  # about the number of threads, and a Fisher vector's
every_power = pytest.mark.parametrize(("power", "eps"), POWERS)


def rows(rng, n, width):
    """Entries of very different sizes, as of Fisher vectors, and some zeros."""
    x = rng.normal(size=(n, width)) * 10.0 ** rng.uniform(-4, 1, size=(n, width))
    x[rng.random(size=x.shape) < 0.1] = 0
    return x.astype(np.float32)


def far(found, expected):
    """Return the distance of two arrays relative to the second."""
    assert found.dtype == np.float32
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@every_power
@pytest.mark.parametrize("width", WIDTHS)
def test_agrees_with_float64(kernels_on_cpu, rng, power, eps, width):
    x = rows(rng, 3, width) + np.float32(width == 1)
    g = rng.normal(size=x.shape).astype(np.float32)
    options = {"power": power, "eps": eps}
    wide_x, wide_g = x.astype(np.float64), g.astype(np.float64)
    y = power_l2_normalize(x, **options)
    assert far(y, power_l2_normalize(wide_x, **options)) < 3e-7
    for floor in (0, 1e-6, 1e-2):
        d_x = power_l2_normalize_vjp(g, x, derivative_floor=floor, **options)
        expected = power_l2_normalize_vjp(wide_g, wide_x, derivative_floor=floor, **options)
        # in a row of one entry what remains of g along y is rounding
        size = np.linalg.norm(wide_g) if width == 1 else np.linalg.norm(expected)
        assert np.linalg.norm(d_x - expected) < 2e-6 * size
    assert len(kernels_on_cpu.launched) == 4


@every_power
def test_threads_in_any_order_give_equal_bits(kernels_on_cpu, rng, power, eps):
    x, g = rows(rng, 2, 700), rows(rng, 2, 700)
    results = []
    for kernels_on_cpu.schedule in (0, 1, 2):
        y = power_l2_normalize(x, power=power, eps=eps)
        d_x = power_l2_normalize_vjp(g, x, power=power, eps=eps)
        results.append((y.tobytes(), d_x.tobytes()))
    assert results[0] == results[1] == results[2]


@every_power
def test_a_row_depends_on_itself_alone(kernels_on_cpu, rng, power, eps):
    x, g = rows(rng, 3, 40), rows(rng, 3, 40)
    y = power_l2_normalize(x, power=power, eps=eps)
    d_x = power_l2_normalize_vjp(g, x, power=power, eps=eps)
    np.testing.assert_array_equal(power_l2_normalize(x[1:2], power=power, eps=eps), y[1:2])
    np.testing.assert_array_equal(
        power_l2_normalize_vjp(g[1:2], x[1:2], power=power, eps=eps), d_x[1:2]
    )


@every_power
def test_rows_of_zeros_stay_zero_without_gradient(kernels_on_cpu, power, eps):
    x, g = np.zeros((2, 5), np.float32), np.ones((2, 5), np.float32)
    assert (power_l2_normalize(x, power=power, eps=eps) == 0).all()
    assert (power_l2_normalize_vjp(g, x, power=power, eps=eps) == 0).all()


@pytest.mark.parametrize("scale", [2.0**-120, 2.0**120])
def test_the_exact_power_forgets_the_scale_of_a_row(kernels_on_cpu, rng, scale):
    x, g = rng.normal(size=(2, 2, 50)).astype(np.float32)
    far_x = x * np.float32(scale)  # squares would vanish, or overflow
    np.testing.assert_array_equal(power_l2_normalize(far_x), power_l2_normalize(x))
    np.testing.assert_allclose(
        power_l2_normalize_vjp(g, far_x) * np.float32(scale),
        power_l2_normalize_vjp(g, x),
        rtol=1e-6,
    )


def test_nan_stays_in_its_row(kernels_on_cpu, rng):
    x = rows(rng, 3, 40)
    x[1, 7] = np.nan
    for result in (power_l2_normalize(x), power_l2_normalize_vjp(x, rows(rng, 3, 40))):
        np.testing.assert_array_equal(np.isnan(result).all(axis=1), [False, True, False])
        assert not np.isnan(result[[0, 2]]).any()


def test_views_and_wider_gradients_are_copied_and_arguments_kept(kernels_on_cpu, rng):
    x, g = rows(rng, 4, 30), rng.normal(size=(4, 30))
    copies = x.copy(), g.copy()
    y = power_l2_normalize(x[::2, 1:])
    np.testing.assert_array_equal(y, power_l2_normalize(x[::2, 1:].copy()))
    assert power_l2_normalize_vjp(g, x).dtype == np.float32
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(g, copies[1])


def test_what_the_kernels_do_not_serve_goes_to_the_array_code(kernels_on_cpu, rng, monkeypatch):
    x = rows(rng, 2, 6)
    power_l2_normalize(x, blocks=np.array([0, 0, 1, 1, 2, 2]))
    power_l2_normalize(x.astype(np.float64))
    power_l2_normalize(x[:0])
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    power_l2_normalize(x)
    power_l2_normalize_vjp(x, x)
    assert kernels_on_cpu.launched == []

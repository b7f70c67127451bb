"""Power and L2 normalisation near zero, where the power's derivative diverges."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.ops.normalization import (
    power_l2_normalize,
    power_l2_normalize_vjp,
    signed_power,
)
from tests.memory import peak_memory


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


@pytest.mark.parametrize("blocks", [None, np.array([0, 1, 0, 1, 1])], ids=["rows", "blocks"])
@pytest.mark.parametrize("factor", [2.0**-90, 2.0**90])
def test_gradients_of_tiny_and_huge_rows_are_those_of_ordinary_ones(factor, blocks, rng):
    x, g = rng.normal(size=(2, 3, 5)).astype(np.float32)
    found = power_l2_normalize_vjp(g, np.float32(factor) * x, power=1, blocks=blocks)
    assert found.dtype == np.float32
    expected = power_l2_normalize_vjp(g, x, power=1, blocks=blocks)
    assert_allclose(found * np.float32(factor), expected, rtol=1e-6)
    assert expected.any()


@pytest.mark.parametrize("eps", [None, 1e-4])
def test_zeros_have_no_gradient_whatever_the_power(eps):
    x, g = np.array([[0.0, 0.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]), np.ones((2, 4))
    for power in (0.5, 1.0):
        d_x = power_l2_normalize_vjp(g, x, power=power, blocks=np.array([0, 0, 1, 1]), eps=eps)
        assert_array_equal(d_x[0, :2], 0)
        assert_array_equal(d_x[1], 0)
        assert d_x[0, 2:].all()


def test_the_smooth_power_keeps_the_units_of_eps():
    # far below eps the power is a line, whose direction is that of x
    x = np.array([[3e-9, -4e-9]])
    assert_allclose(power_l2_normalize(x, eps=1e-3), [[0.6, -0.8]], rtol=1e-9)
    assert_allclose(power_l2_normalize(1e9 * x, eps=1e-3), power_l2_normalize(x), rtol=1e-6)
    tiny = np.array([[3e-30, -4e-30]], np.float32)
    assert_allclose(power_l2_normalize(tiny, eps=1e-3), [[0.6, -0.8]], rtol=1e-6)


def test_numpy_scalars_do_not_widen_float32(rng):
    x = rng.normal(size=(3, 5)).astype(np.float32)
    options = {"power": np.float64(0.7), "eps": np.float64(1e-3)}
    for kept in (options, {"power": options["power"]}):
        assert power_l2_normalize(x, **kept).dtype == np.float32
        assert power_l2_normalize_vjp(x, x, **kept).dtype == np.float32


@pytest.mark.parametrize(
    "blocks",
    [
        np.repeat(np.arange(4), 3),
        np.array([0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]),
        np.array([3, 0, 4, 0, 3, 1, 4, 4, 1, 0, 0, 3]),  # in any order, 2 without columns
    ],
    ids=["equal", "two widths", "mixed"],
)
def test_blocks_are_each_of_unit_length_on_any_device(device_library, blocks, rng):
    x, g = rng.normal(size=(2, 5, 12)).astype(np.float32)
    x[3] = 0
    x[1, blocks == 1] = 0
    found = [
        power_l2_normalize(device_library.asarray(x), blocks=blocks),
        power_l2_normalize_vjp(*map(device_library.asarray, (g, x)), blocks=blocks),
    ]
    u = np.sign(x) * np.sqrt(np.abs(x.astype(np.float64)))
    for label in np.unique(blocks):
        norms = np.linalg.norm(u[:, blocks == label], axis=1, keepdims=True)
        u[:, blocks == label] /= np.where(norms > 0, norms, 1)
    norms = np.linalg.norm(u, axis=1, keepdims=True)
    assert_allclose(found[0].get(), u / np.where(norms > 0, norms, 1), rtol=2e-6, atol=1e-7)
    assert_allclose(found[1].get(), power_l2_normalize_vjp(g, x, blocks=blocks), rtol=1e-4)
    # neither do results depend on chance, nor on other rows
    for row in range(5):
        alone = power_l2_normalize(device_library.asarray(x[row : row + 1]), blocks=blocks)
        np.testing.assert_array_equal(alone.get()[0], found[0].get()[row])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 1e-3}, {"power": 1}, {"power": 0.3, "blocks": np.repeat(np.arange(50), 10)}],
    ids=["exact", "smooth", "length alone", "blocks"],
)
def test_rows_are_normalised_alone_and_in_place_to_the_same_bits(dtype, options, rng):
    x = rng.normal(size=(300, 500)).astype(dtype)
    y = power_l2_normalize(x, **options)
    for i in (0, 64, 65, 299):
        assert_array_equal(power_l2_normalize(x[i : i + 1], **options)[0], y[i])
    assert_array_equal(power_l2_normalize(np.asfortranarray(x), **options), y)
    assert power_l2_normalize(x, out=x, **options) is x
    assert_array_equal(x, y)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 1e-3}, {"blocks": np.repeat(np.arange(40), 50)}],
    ids=["exact", "smooth", "blocks"],
)
def test_memory_does_not_grow_with_the_number_of_rows(in_place, options, rng):
    x = rng.normal(size=(1000, 2000))
    peak = peak_memory(lambda: power_l2_normalize(x, out=x if in_place else None, **options))
    assert peak - (0 if in_place else x.nbytes) < 2**20


def test_results_of_kernels_are_written_in_place_too(device_library, rng):
    x = device_library.asarray(rng.normal(size=(5, 12)).astype(np.float32))
    y = power_l2_normalize(x).get()
    assert power_l2_normalize(x, out=x) is x
    assert_array_equal(x.get(), y)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-150, 1, 1e150, 1e307])
def test_rows_of_any_size_have_unit_length(scale):
    # the sum of |x| overflows, or is no normal number, where the scale is extreme
    x = np.random.default_rng(0).normal(size=(5, 40)) * scale
    y = power_l2_normalize(x)
    expected = np.sign(x) * np.sqrt(np.abs(x) / np.abs(x).max(axis=1, keepdims=True))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-15)


def test_rows_of_zeros_beside_others_stay_zero():
    x = np.array([[0.0, 0.0], [9.0, -16.0]])
    np.testing.assert_allclose(power_l2_normalize(x), [[0, 0], [0.6, -0.8]], rtol=1e-15)


def test_the_order_of_rows_in_memory_leaves_no_trace():
    x = np.random.default_rng(0).normal(size=(7, 300))
    np.testing.assert_array_equal(power_l2_normalize(x), power_l2_normalize(np.asfortranarray(x)))


@pytest.mark.parametrize("native", ["0", ""])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("odd", [0.0, 1e-320, np.inf, np.nan])
def test_a_row_makes_no_difference_to_others(monkeypatch, dtype, odd, native):
    monkeypatch.setenv("SKFISHER_NATIVE", native)
    x = np.random.default_rng(0).normal(size=(6, 300)).astype(dtype)
    expected = [power_l2_normalize(row[None].copy())[0] for row in x]
    x[2] = odd
    with np.errstate(invalid="ignore"):
        y = power_l2_normalize(x)
        power_l2_normalize(x, out=x)
    np.testing.assert_array_equal(x, y)
    for i in (0, 1, 3, 4, 5):
        np.testing.assert_array_equal(y[i], expected[i])

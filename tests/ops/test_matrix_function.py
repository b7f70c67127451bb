"""Powers and logarithms of matrices: null spaces, equal eigenvalues, gradients without 0/0."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from skfisher.ops.covariance import (
    bag_moments,
    bag_moments_vjp,
    second_order_sums,
    second_order_sums_vjp,
)
from skfisher.ops.matrix_function import eigen, matrix_function, matrix_function_vjp

EPS = {dtype: float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64)}
ROOT = {"function": "power", "power": 0.5}


def root(p, dtype=np.float64):
    return matrix_function(eigen(p, eps=EPS[dtype]), **ROOT)


def test_the_root_solves_its_equation_and_so_does_its_gradient(rng):
    x = rng.normal(size=(4, 20, 8))
    p = x.transpose(0, 2, 1) @ x
    g = rng.normal(size=p.shape)
    e = eigen(p, eps=EPS[np.float64])
    found, d_p = matrix_function(e, **ROOT), matrix_function_vjp(g, e, **ROOT)
    np.testing.assert_allclose(found @ found, p, atol=1e-12)
    for matrix, upstream, gradient in zip(p, g, d_p, strict=True):
        z = scipy.linalg.sqrtm(matrix).real
        lyapunov = scipy.linalg.solve_sylvester(z, z, (upstream + upstream.T) / 2)
        np.testing.assert_allclose(gradient, lyapunov, atol=1e-13)


def test_null_eigenvalues_need_the_tolerance_of_the_dtype_of_the_sum(rng):
    d, n_rows = 64, 32
    x = rng.normal(size=(n_rows, d)).astype(np.float32)
    borders = np.array([0]), np.array([n_rows])
    p = bag_moments(*second_order_sums(x, *borders, np.zeros(d)), borders[1])[1]
    centered = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    exact = scipy.linalg.svd(centered / np.sqrt(n_rows), full_matrices=False)
    expected = (exact[2].T * exact[1]) @ exact[2]
    size = np.abs(expected).max()
    with_it = np.abs(root(p, np.float32) - expected).max() / size
    without = np.abs(root(p, np.float64) - expected).max() / size
    assert with_it < 2e-6
    assert without > 20 * with_it


@pytest.mark.parametrize("power", [0.3, 0.5, 0.8])
def test_the_gradient_by_rows_is_exact_where_there_are_fewer_rows_than_dimensions(power, rng):
    x = rng.normal(size=(4, 6))
    borders, counts, shift = (np.array([0]), np.array([4])), np.array([4]), np.zeros(6)
    options = {"function": "power", "power": power}

    def forward(x):
        sums = second_order_sums(x, *borders, shift)
        return matrix_function(eigen(bag_moments(*sums, counts)[1], eps=EPS[np.float64]), **options)

    g = rng.normal(size=(1, 6, 6))
    sums = second_order_sums(x, *borders, shift)
    means, p = bag_moments(*sums, counts)
    d_p = matrix_function_vjp(g, eigen(p, eps=EPS[np.float64]), **options)
    d_sums = bag_moments_vjp(np.zeros_like(means), d_p, sums[0], counts)
    d_x = second_order_sums_vjp(*d_sums, x, *borders, shift)
    for _ in range(5):
        direction = rng.normal(size=x.shape)
        h = 1e-6
        slope = (g * (forward(x + h * direction) - forward(x - h * direction))).sum() / (2 * h)
        assert (d_x * direction).sum() == pytest.approx(slope, rel=1e-6)


CASES = [ROOT, {"function": "power", "power": 0.3}, {"function": "log"}]


@pytest.mark.parametrize("options", CASES)
def test_equal_eigenvalues_and_rank_one_have_finite_gradients(options, rng):
    row = rng.normal(size=5)
    p = np.stack([2 * np.eye(5), np.outer(row, row), np.zeros((5, 5))])
    ridge = 0.1 if options["function"] == "log" else 0.0
    e = eigen(p, eps=EPS[np.float64], ridge=ridge)
    g = rng.normal(size=p.shape)
    d_p = matrix_function_vjp(g, e, **options)
    assert np.isfinite(matrix_function(e, **options)).all()
    assert np.isfinite(d_p).all()
    slope = {"log": 1 / 2.1, "power": options.get("power", 0) * 2 ** (options.get("power", 0) - 1)}
    both = (g[0] + g[0].T) / 2
    np.testing.assert_allclose(d_p[0], slope[options["function"]] * both, atol=1e-12)
    if options["function"] == "power":
        assert (d_p[2] == 0).all()


def test_nearly_equal_eigenvalues_lose_no_digits(rng):
    values = 1 + 1e-9 * np.arange(4)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    p = ((basis * values) @ basis.T)[None]
    g = rng.normal(size=p.shape)
    for power in (0.3, 0.7):
        options = {"function": "power", "power": power}
        d_p = matrix_function_vjp(g, eigen(p, eps=EPS[np.float64]), **options)
        np.testing.assert_allclose(d_p[0], power * (g[0] + g[0].T) / 2, atol=1e-8)


def test_what_is_not_finite_is_nan_and_does_not_touch_its_neighbours(rng):
    p = np.stack([np.eye(3), np.full((3, 3), np.nan), np.eye(3)])
    found = root(p)
    np.testing.assert_allclose(found[[0, 2]], p[[0, 2]], atol=1e-15)
    assert np.isnan(found[1]).all()


@given(
    seed=st.integers(0, 2**16),
    d=st.integers(1, 6),
    power=st.floats(0.1, 1.5),
    size=st.floats(1e-6, 1e6),
)
def test_functions_turn_with_the_matrix(seed, d, power, size):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * d, d))
    p = size * (x.T @ x + 0.1 * np.eye(d))
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    for options in ({"function": "power", "power": power}, {"function": "log"}):
        e = [eigen(m[None], eps=EPS[np.float64]) for m in (p, turn @ p @ turn.T)]
        there, turned = (matrix_function(a, **options)[0] for a in e)
        np.testing.assert_allclose(
            turned, turn @ there @ turn.T, atol=1e-11 * max(1, np.abs(there).max())
        )

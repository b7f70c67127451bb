"""Newton and Schulz's iteration: what it tends to, what it is after few steps, what breaks it."""

import numpy as np
import pytest
import scipy.linalg

from skfisher.ops.newton_schulz import newton_schulz, newton_schulz_vjp


def covariances(rng, n=3, rows=40, d=8, dtype=np.float64):
    x = rng.normal(size=(n, rows, d))
    return (x.transpose(0, 2, 1) @ x / rows).astype(dtype)


@pytest.mark.parametrize("scaling", ["trace", "frobenius"])
def test_it_tends_to_the_root(scaling, rng):
    p = covariances(rng)
    found = newton_schulz(p, n_iter=15, scaling=scaling)
    for matrix, root in zip(p, found, strict=True):
        np.testing.assert_allclose(root, scipy.linalg.sqrtm(matrix).real, atol=1e-12)


@pytest.mark.parametrize(("d", "share"), [(32, 0.91), (64, 0.77), (256, 0.45)])
def test_after_five_steps_the_root_of_the_identity_is_far_from_it(d, share):
    found = newton_schulz(np.eye(d)[None], n_iter=5)[0]
    np.testing.assert_allclose(found, share * np.eye(d), atol=0.005)


def test_a_matrix_of_zeros_stays_one_and_its_neighbours_what_they_are(rng):
    p = covariances(rng)
    expected = newton_schulz(p, n_iter=5)
    g = rng.normal(size=p.shape)
    gradients = newton_schulz_vjp(g, p, n_iter=5)
    p[1] = 0
    found, d_p = newton_schulz(p, n_iter=5), newton_schulz_vjp(g, p, n_iter=5)
    assert (found[1] == 0).all()
    assert (d_p[1] == 0).all()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
    np.testing.assert_array_equal(d_p[[0, 2]], gradients[[0, 2]])


def test_one_step_and_a_gradient_that_is_not_symmetric(rng):
    # Y = (3 A - A^2) / 2 with A = P / tr P
    p = covariances(rng, n=1)[0]
    a = p / np.trace(p)
    found = newton_schulz(p[None], n_iter=1)[0]
    np.testing.assert_allclose(found, np.sqrt(np.trace(p)) * (3 * a - a @ a) / 2, atol=1e-15)
    g = rng.normal(size=p.shape)
    d_p = newton_schulz_vjp(g[None], p[None], n_iter=1)
    np.testing.assert_array_equal(d_p, newton_schulz_vjp(g.T[None], p[None], n_iter=1))
    np.testing.assert_allclose(d_p, d_p.transpose(0, 2, 1), atol=1e-15)


@pytest.mark.parametrize(("rows", "n_iter", "tolerance"), [(256, 5, 1e-5), (32, 15, 1e-3)])
def test_float32_is_close_to_float64(rows, n_iter, tolerance, rng):
    # with fewer rows than dimensions, rounding in the null space grows by 3/2 a step
    p = covariances(rng, rows=rows, d=64, dtype=np.float32)
    wide = newton_schulz(p.astype(np.float64), n_iter=n_iter)
    found = newton_schulz(p, n_iter=n_iter)
    assert found.dtype == np.float32
    assert np.abs(found - wide).max() < tolerance * np.abs(wide).max()

"""Norms of matrices: unit, silent on zeros."""

import numpy as np
import pytest

from skfisher.ops.matrix_norm import normalize_matrices, normalize_matrices_vjp

ORDERS = {"frobenius": "fro", "spectral": 2, "trace": "nuc"}


@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("size", [1e-160, 1.0, 1e160])
def test_matrices_have_norm_one_and_zeros_stay(norm, size, rng):
    x = rng.normal(size=(3, 9, 4))
    q = size * (x.transpose(0, 2, 1) @ x)
    q[1] = 0
    found = normalize_matrices(q, norm=norm)
    for i in (0, 2):
        assert np.linalg.norm(found[i], ORDERS[norm]) == pytest.approx(1, rel=1e-12)
    assert (found[1] == 0).all()
    assert np.isfinite(normalize_matrices_vjp(np.ones_like(q), q, norm=norm)).all()


def test_the_spectral_norm_is_that_of_the_eigenvalue_farthest_from_zero():
    # a logarithm has negative ones
    q = np.diag([1.0, -4.0, 2.0])[None]
    np.testing.assert_allclose(normalize_matrices(q, norm="spectral")[0], q[0] / 4)
    d_q = normalize_matrices_vjp(np.eye(3)[None], q, norm="spectral")
    np.testing.assert_allclose(d_q[0], np.diag([1 / 4, 1 / 4 - 1 / 16, 1 / 4]), atol=1e-15)

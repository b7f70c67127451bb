"""Triangles of symmetric matrices keep their inner products."""

import numpy as np
import pytest

from skfisher.ops.triangle import side_of, triangle, triangle_vjp


def test_inner_products_are_those_of_the_matrices(rng):
    p, q = rng.normal(size=(2, 3, 5, 5))
    p, q = p + p.transpose(0, 2, 1), q + q.transpose(0, 2, 1)
    found = (triangle(p) * triangle(q)).sum(axis=1)
    np.testing.assert_allclose(found, np.trace(p @ q, axis1=1, axis2=2), rtol=1e-13)


@pytest.mark.parametrize("d", [1, 2, 5, 1535])
def test_the_side_is_known_from_the_number_of_entries(d):
    assert side_of(d * (d + 1) // 2) == d


def test_the_gradient_is_symmetric(rng):
    d_p = triangle_vjp(rng.normal(size=(2, 10)), 4)
    np.testing.assert_array_equal(d_p, d_p.transpose(0, 2, 1))

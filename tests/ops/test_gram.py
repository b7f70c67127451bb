"""Functions of matrices of low rank, by the products of their few rows."""

import numpy as np
import pytest

from skfisher.ops.gram import function_of_rows
from skfisher.ops.matrix_function import eigen, matrix_function


@pytest.mark.parametrize("t", [1, 3, 5])
@pytest.mark.parametrize(
    ("options", "ridge"),
    [
        ({"function": "power", "power": 0.5}, 0.0),
        ({"function": "power", "power": 0.3}, 0.2),
        ({"function": "log"}, 0.1),
    ],
)
def test_it_is_the_function_of_the_large_matrix(options, ridge, t, rng):
    y = rng.normal(size=(4, t, 6))
    y[1] = 0
    y[2] -= y[2].mean(axis=0)  # which takes a rank
    p = y.transpose(0, 2, 1) @ y / t
    expected = matrix_function(eigen(p, eps=2e-16, ridge=ridge), **options)
    np.testing.assert_allclose(function_of_rows(y, ridge=ridge, **options), expected, atol=1e-12)


def test_what_is_not_finite_is_nan_and_does_not_touch_its_neighbours(rng):
    y = rng.normal(size=(3, 2, 4))
    expected = function_of_rows(y, function="power", power=0.5)
    y[1, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        found = function_of_rows(y, function="power", power=0.5)
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
    assert np.isnan(found[1]).all()

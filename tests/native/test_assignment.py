"""The kernels of bags of words and VLAD against the array code in float64."""

import numpy as np
import pytest

from skfisher.ops.assignment import assignment_sums

from .cases import LENGTHS, SHAPES, Case, relative


def nearest(rng, case, scale=1.0):
    """Return the logits of the nearest centre, or soft ones the softer the smaller the scale."""
    centres = case.mixture[1].astype(np.float32)
    return scale * centres, -0.5 * scale * (centres**2).sum(axis=1)


@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
@pytest.mark.parametrize("with_moments", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_float64(native, rng, k, d, hard, with_moments, dtype):
    case = Case(rng, k, d, LENGTHS)
    linear, constant = nearest(rng, case)
    options = {"hard": hard, "with_moments": with_moments}
    s0, s1 = assignment_sums(*case.where(), linear.astype(dtype), constant.astype(dtype), **options)
    wide = linear.astype(np.float64), constant.astype(np.float64)
    expected0, expected1 = assignment_sums(*case.where(case.wide()), *wide, **options)
    assert s0.dtype == np.float64
    np.testing.assert_allclose(s0.sum(axis=1), LENGTHS, rtol=1e-6)
    assert relative(s0, expected0) < 1e-5
    if with_moments:
        assert s1.shape == (len(LENGTHS), k, d)
        assert relative(s1, expected1) < 1e-5
    else:
        assert s1 is None
        assert expected1 is None


@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
def test_a_bag_depends_on_itself_alone(native, rng, hard):
    case = Case(rng, 33, 20, LENGTHS)
    logits = nearest(rng, case)
    together = assignment_sums(*case.where(), *logits, hard=hard)
    order = rng.permutation(len(LENGTHS))
    shuffled = assignment_sums(*case.where(bags=order), *logits, hard=hard)
    for a, b in zip(shuffled, together, strict=True):
        np.testing.assert_array_equal(a, b[order])

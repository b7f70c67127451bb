"""The kernels of bags of words and VLAD against the array code in float64."""

import numpy as np
import pytest

from skfisher.ops.assignment import assignment_sums

from .cases import LENGTHS, SHAPES, Case, relative


def logits(case, dtype, *, squares=False):
    """Return the coefficients of distances to centres, in metrics of their own with `squares`."""
    frame, (_, means, variances) = case.frame, case.mixture
    if frame is not None:
        means, variances = (means - frame.shift) / frame.scale, variances / frame.scale**2
    metric = 0.5 / (variances if squares else variances.mean(axis=0))
    quadratic = -metric.astype(dtype) if squares else None
    constant = -(metric * means**2).sum(axis=1)
    return (2 * metric * means).astype(dtype), quadratic, constant.astype(dtype)


def framed(case, dtype):
    frame = case.frame
    return None if frame is None else type(frame)(*(part.astype(dtype) for part in frame))


@pytest.mark.parametrize("offset", [0, 50])
@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
@pytest.mark.parametrize("squares", [True, False])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_agrees_with_float64(native, rng, k, d, hard, squares, order, offset):
    case = Case(rng, k, d, LENGTHS, offset=offset)
    wide = logits(case, np.float64, squares=squares)
    options = {"hard": hard, "order": order}
    frame = framed(case, np.float64)
    expected = assignment_sums(*case.where(case.wide()), wide, frame=frame, **options)
    for dtype in (np.float32, np.float64):
        narrow = logits(case, dtype, squares=squares)
        frame = framed(case, dtype)
        sums = assignment_sums(*case.where(), narrow, frame=frame, **options)
        np.testing.assert_allclose(sums.s0.sum(axis=1), LENGTHS, rtol=1e-6)
        if hard and dtype == np.float32:  # a descriptor half way goes where rounding sends it
            assert (np.abs(sums.s0 - expected.s0).sum(axis=1) <= 2).all()
            continue
        for i, (found, other) in enumerate(zip(sums, expected, strict=True)):
            if i > order:
                assert found is None
                assert other is None
                continue
            assert found.dtype == np.float64
            assert found.shape == (len(LENGTHS), *(k, d)[: 1 + (i > 0)])
            assert relative(found, other) < 1e-5


@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
def test_a_bag_depends_on_itself_alone(native, rng, hard):
    case = Case(rng, 33, 20, LENGTHS)
    coefficients = logits(case, np.float32)
    together = assignment_sums(*case.where(), coefficients, hard=hard, order=2)
    order = rng.permutation(len(LENGTHS))
    shuffled = assignment_sums(*case.where(bags=order), coefficients, hard=hard, order=2)
    for a, b in zip(shuffled, together, strict=True):
        np.testing.assert_array_equal(a, b[order])

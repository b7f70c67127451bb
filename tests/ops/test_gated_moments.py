"""Second moments under a mixture against loops, and where digits could get lost."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax

from skfisher.arrays.libraries import asarray, to_host
from skfisher.ops.chunks import Frame
from skfisher.ops.gated_moments import gated_moments, gated_moments_vjp

LENGTHS = np.array([1, 7, 4, 4, 300, 2])
STOPS = np.cumsum(LENGTHS)
STARTS = STOPS - LENGTHS


def case(rng, d, k=3, offset=0.0):
    x = rng.normal(size=(STOPS[-1], d)) + offset
    coefficients = rng.normal(size=(k, d)), -rng.uniform(0.5, 1, (k, d)), rng.normal(size=k)
    return x, coefficients, Frame(np.full(d, 0.3) + offset, rng.uniform(0.5, 2, d))


def reference(x, starts, stops, coefficients, frame):
    linear, quadratic, constant = coefficients
    y = (x - frame.shift) / frame.scale
    posteriors = softmax(y @ linear.T + y**2 @ quadratic.T + constant, axis=1)
    z = np.column_stack([y, np.ones(len(y))])
    return np.stack(
        [
            np.einsum("tk,ti,tj->kij", posteriors[a:b], z[a:b], z[a:b])
            for a, b in zip(starts, stops, strict=True)
        ]
    )


def moments(xp, x, starts, stops, coefficients, frame):
    x = xp.asarray(x)
    coefficients = [asarray(c, like=x, dtype=x.dtype) for c in coefficients]
    frame = Frame(*(asarray(part, like=x) for part in frame))
    return x, coefficients, frame


@pytest.mark.parametrize("d", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_sums_are_those_of_a_loop(rng, xp, d, dtype, offset):
    x, coefficients, frame = case(rng, d, offset=offset)
    x = x.astype(dtype)  # what of an offset is lost in reading is no matter here
    expected = reference(x.astype(np.float64), STARTS, STOPS, coefficients, frame)
    frame = Frame(frame.shift.astype(dtype).astype(np.float64), frame.scale)
    expected = reference(x.astype(np.float64), STARTS, STOPS, coefficients, frame)
    x, coefficients, frame = moments(xp, x, STARTS, STOPS, coefficients, frame)
    sums = to_host(gated_moments(x, STARTS, STOPS, coefficients, frame=frame))
    assert sums.dtype == np.float64
    tolerance = 2e-6 if dtype == np.float32 else 1e-13
    scale = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    assert_allclose(sums / scale, expected / scale, atol=tolerance, rtol=0)


@pytest.mark.parametrize("d", [1, 4])
def test_gradients_are_central_differences(rng, xp, d):
    x, coefficients, frame = case(rng, d)
    g = rng.normal(size=(len(LENGTHS), 3, d + 1, d + 1))
    arguments = x, *coefficients

    def loss(x, *coefficients):
        x, coefficients, there = moments(xp, x, STARTS, STOPS, coefficients, frame)
        return (g * to_host(gated_moments(x, STARTS, STOPS, coefficients, frame=there))).sum()

    there, on_device, frame_there = moments(xp, x, STARTS, STOPS, coefficients, frame)
    d_x, d_coefficients = gated_moments_vjp(
        xp.asarray(g), there, STARTS, STOPS, on_device, frame=frame_there
    )
    nothing, same = gated_moments_vjp(
        xp.asarray(g), there, STARTS, STOPS, on_device, frame=frame_there, with_x=False
    )
    assert nothing is None
    for a, b in zip(same, d_coefficients, strict=True):
        assert_allclose(to_host(a), to_host(b))
    for i, gradient in enumerate(map(to_host, (d_x, *d_coefficients))):
        direction, h = rng.normal(size=gradient.shape), 1e-6
        moved = [
            loss(*arguments[:i], arguments[i] + s * direction, *arguments[i + 1 :]) for s in (h, -h)
        ]
        difference = (moved[0] - moved[1]) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_bags_may_overlap_and_be_cut(rng):
    x, coefficients, frame = case(rng, 4)
    starts, stops = np.array([0, 100, 50, 0]), np.array([70, 300, 53, 300])
    sums = gated_moments(x, starts, stops, coefficients, frame=frame)
    assert_allclose(sums, reference(x, starts, stops, coefficients, frame), atol=1e-12)
    g = rng.normal(size=sums.shape)
    d_x, _ = gated_moments_vjp(g, x, starts, stops, coefficients, frame=frame)
    alone = [
        gated_moments_vjp(g[[i]], x, starts[[i]], stops[[i]], coefficients, frame=frame)[0]
        for i in range(4)
    ]
    assert_allclose(d_x, sum(alone), atol=1e-11)
    x = np.concatenate([x] * 20)  # a bag of several chunks
    whole = gated_moments(x, np.array([0]), np.array([len(x)]), coefficients, frame=frame)
    assert_allclose(whole, reference(x, [0], [len(x)], coefficients, frame), rtol=1e-12, atol=1e-9)

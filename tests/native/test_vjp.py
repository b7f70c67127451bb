"""The kernels of the backward pass against the array code in float64, for every instruction set."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from skfisher.ops.fisher import fisher_sums, fisher_sums_vjp, fisher_vector_vjp
from skfisher.ops.soft_assignment import Sums

from .cases import LENGTHS, SHAPES, Case


def agree(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max() + 1e-30)


def gradient(rng, case, include_weights=True):
    k, d = case.mixture[1].shape
    width = k * (2 * d + include_weights)
    return rng.normal(size=(len(case.starts), width)).astype(np.float32)


# Found: up to 8e-6, as with the array code.
TOLERANCE = 2e-5


@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centred", "in a frame"])
def test_gradients_of_fisher_vectors(native, rng, k, d, offset):
    case = Case(rng, k, d, LENGTHS, offset=offset)
    g = gradient(rng, case)
    found = fisher_vector_vjp(g, *case.where(), *case.mixture)
    expected = fisher_vector_vjp(g, *case.where(case.wide()), *case.mixture)
    assert {a.dtype for a in found} == {np.dtype(np.float32)}
    agree(found, expected, TOLERANCE)


@hypothesis.settings(
    max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    k=st.integers(1, 70),
    d=st.integers(1, 70),
    lengths=st.lists(st.integers(1, 40) | st.integers(250, 260), min_size=1, max_size=5),
    include_weights=st.booleans(),
    with_x=st.booleans(),
    with_parameters=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(native, k, d, lengths, include_weights, with_x, with_parameters, seed):
    rng = np.random.default_rng(seed)
    case = Case(rng, k, d, lengths)
    g = gradient(rng, case, include_weights)
    options = {
        "include_weights": include_weights, "with_x": with_x, "with_parameters": with_parameters,
    }  # fmt: skip
    found = fisher_vector_vjp(g, *case.where(), *case.mixture, **options)
    expected = fisher_vector_vjp(g, *case.where(case.wide()), *case.mixture, **options)
    assert [a is None for a in found] == [a is None for a in expected]
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None]
    for a, b in pairs:
        agree([a], [b], 2 * TOLERANCE)


@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("with_x", [True, False])
def test_gradients_of_sums(native, rng, k, d, with_x):
    case = Case(rng, k, d, [300, 1, 40, 700], offset=20.0)
    sums = fisher_sums(*case.where(), *case.mixture)
    g = Sums(*(rng.normal(size=s.shape) for s in sums))
    d_x, found = fisher_sums_vjp(g, *case.where(), *case.mixture, with_x=with_x)
    expected_x, expected = fisher_sums_vjp(g, *case.where(case.wide()), *case.mixture)
    assert {a.dtype for a in found} == {np.dtype(np.float64)}
    if k > 1:  # posteriors of one component have no gradient
        agree(found, expected, TOLERANCE)
    if with_x:
        agree([d_x], [expected_x], TOLERANCE)
    else:
        assert d_x is None


def test_rows_in_several_bags_or_none(native, rng):
    case = Case(rng, 20, 20, [400])
    case.starts, case.stops = np.array([0, 100, 390, 0]), np.array([250, 300, 391, 280])
    g = gradient(rng, case)
    found = fisher_vector_vjp(g, *case.where(), *case.mixture)
    agree(found, fisher_vector_vjp(g, *case.where(case.wide()), *case.mixture), TOLERANCE)
    assert not found[0][300:390].any()
    assert not found[0][391:].any()


@pytest.mark.parametrize(("k", "d"), [(8, 16), (33, 40)])
def test_a_descriptor_depends_on_its_bag_alone(native, rng, k, d):
    case = Case(rng, k, d, LENGTHS)
    g = gradient(rng, case)
    together = fisher_vector_vjp(g, *case.where(), *case.mixture)[0]
    for i in range(len(LENGTHS)):
        bag = slice(i, i + 1)
        alone = fisher_vector_vjp(g[bag], *case.where(bags=bag), *case.mixture)[0]
        rows = slice(case.starts[i], case.stops[i])
        np.testing.assert_array_equal(alone[rows], together[rows])


def test_columns_of_a_wider_array(native, rng):
    case = Case(rng, 20, 19, [30, 300])
    wide = np.full((330, 25), np.nan, np.float32)
    wide[:, 3:22] = case.x
    g = gradient(rng, case)
    found = fisher_vector_vjp(g, *case.where(wide[:, 3:22]), *case.mixture)
    expected = fisher_vector_vjp(g, *case.where(), *case.mixture)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)

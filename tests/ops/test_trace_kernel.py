"""Trace kernels against explicit gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skfisher.ops import trace_kernel as module
from skfisher.ops.trace_kernel import (
    jacobian_trace_kernel,
    linear_kernel,
    trace_kernel,
)
from tests.memory import peak_memory


def explicit(*factors):
    """Return per-sample gradients as vectors, from one or more (activations, errors)."""
    return sum(
        np.array([np.outer(a, e).ravel() for a, e in zip(*pair, strict=True)]) for pair in factors
    )


@pytest.fixture
def factors(rng):
    return [rng.normal(size=shape) for shape in ((9, 4), (9, 3), (7, 4), (7, 3))]


def test_trace_kernel_is_the_inner_product_of_gradients(factors):
    a, e, b, v = factors
    expected = explicit((a, e)) @ explicit((b, v)).T
    assert_allclose(trace_kernel(a, e, b, v), expected, atol=1e-13)
    assert_allclose(trace_kernel(a, e), explicit((a, e)) @ explicit((a, e)).T, atol=1e-13)


def test_bias_adds_one_to_the_kernel_of_activations(factors):
    # dE/db = e, so with [a, 1] the kernel is (<a, b> + 1) <u, v>
    a, e, b, v = factors
    one = np.ones((9, 1)), np.ones((7, 1))
    augmented = trace_kernel(np.hstack([a, one[0]]), e, np.hstack([b, one[1]]), v)
    assert_allclose(augmented, trace_kernel(a, e, b, v) + e @ v.T, atol=1e-13)


def test_normalising_factors_normalises_the_gradient(factors):
    a, e, b, v = factors
    gradients, others = explicit((a, e)), explicit((b, v))
    cosine = gradients @ others.T / np.linalg.norm(gradients, axis=1)[:, None]
    cosine /= np.linalg.norm(others, axis=1)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in factors]
    assert_allclose(trace_kernel(*unit), cosine, atol=1e-14)


@pytest.mark.parametrize("n_rows", [1, 2, 4, 9, 100])
def test_result_does_not_depend_on_blocks(rng, monkeypatch, n_rows):
    a, e, b, v = (rng.normal(size=shape) for shape in ((9, 4), (9, 3), (7, 4), (7, 3)))
    whole, symmetric = trace_kernel(a, e, b, v), trace_kernel(a, e)
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", n_rows)
    assert_allclose(trace_kernel(a, e, b, v), whole, rtol=1e-13, atol=1e-14)
    assert_allclose(trace_kernel(a, e), symmetric, rtol=1e-13, atol=1e-14)


def test_wide_results_are_made_in_small_blocks(rng):
    a, e = rng.normal(size=(600, 1)), rng.normal(size=(600, 1))
    b, v = rng.normal(size=(2**15, 1)), rng.normal(size=(2**15, 1))
    peak = peak_memory(lambda: trace_kernel(a, e, b, v), n_calls=2)
    assert peak - 8 * 600 * 2**15 < 1.1 * 8 * 2**22


@pytest.mark.parametrize("n_rows", [0, 1, 7, 30, 200])
def test_symmetric_kernels_are_complete_in_small_blocks(rng, monkeypatch, n_rows):
    # NaN where nothing is written: the upper triangle has to come from the blocks as they were
    monkeypatch.setattr(module, "empty", lambda shape, like: np.full(shape, np.nan))
    a, e = rng.normal(size=(30, 5)), rng.normal(size=(30, 6))
    monkeypatch.setattr(module, "NUMBERS_PER_BLOCK", 30 * n_rows)
    assert_allclose(trace_kernel(a, e), trace_kernel(a, e, a, e))
    kernel = jacobian_trace_kernel(a, [e, 2 * e])
    assert_allclose(kernel, 5 * trace_kernel(a, e, a, e))
    assert_allclose(linear_kernel(a), a @ a.T, atol=1e-14)


def test_blocks_may_be_made_in_any_order(rng, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", 4)
    a, e, b, v = (rng.normal(size=shape) for shape in ((9, 4), (9, 3), (7, 4), (7, 3)))

    def backwards(function, tasks):
        for task in reversed(list(tasks)):
            function(*task)

    np.testing.assert_array_equal(trace_kernel(a, e, each=backwards), trace_kernel(a, e))
    np.testing.assert_array_equal(
        jacobian_trace_kernel(a, [e, e], b, [v, v], each=backwards),
        jacobian_trace_kernel(a, [e, e], b, [v, v]),
    )
    np.testing.assert_array_equal(linear_kernel(a, b, each=backwards), linear_kernel(a, b))


def test_symmetric_result_is_exactly_symmetric(rng, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", 8)
    a, e = rng.normal(size=(30, 5)).astype(np.float32), rng.normal(size=(30, 6)).astype(np.float32)
    kernel = trace_kernel(a, e)
    assert kernel.dtype == np.float32
    assert (kernel == kernel.T).all()
    assert_allclose(kernel, trace_kernel(a, e, a, e), rtol=1e-5, atol=1e-5)


@given(n=st.integers(1, 12), seed=st.integers(0, 50))
def test_kernel_is_positive_semi_definite(n, seed):
    # Schur product of two Gram matrices
    rng = np.random.default_rng(seed)
    kernel = trace_kernel(rng.normal(size=(n, 3)), rng.normal(size=(n, 2)))
    assert np.linalg.eigvalsh(kernel).min() >= -1e-12 * np.trace(kernel)


def test_linear_kernel(rng):
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    assert_allclose(linear_kernel(x, y), x @ y.T)
    assert_allclose(linear_kernel(x), x @ x.T)


def test_jacobian_kernel_sums_over_passes(rng):
    a, b = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    passes, passes_b = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 5, 2))
    gradients = np.hstack([explicit((a, e)) for e in passes])
    others = np.hstack([explicit((b, e)) for e in passes_b])
    result = jacobian_trace_kernel(a, iter(passes), b, iter(passes_b))
    assert_allclose(result, gradients @ others.T, atol=1e-13)
    assert_allclose(jacobian_trace_kernel(a, passes), gradients @ gradients.T, atol=1e-13)

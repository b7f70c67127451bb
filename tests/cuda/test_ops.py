"""Every operation gives the same by kernels, where there are some, as by array code."""

import numpy as np
import pytest

from tests.ops.test_all import OPS, arguments_of

WITH_KERNELS = {"fisher_vector", "fisher_sums", "power_l2_normalize"}


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_fused_agrees_with_unfused(kernels_on_cpu, monkeypatch, op):
    arguments = arguments_of(op, np, np.float32)
    copies = [a.copy() for a in arguments]
    y = op.forward(*arguments)
    vjp = op.vjp or (lambda *_: ())
    g = np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)
    results = [y, *vjp(g, *arguments)]
    if op.name.split("-")[0] in WITH_KERNELS and "blocks" not in op.name:
        assert len(kernels_on_cpu.launched) >= 2
    for a, b in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    expected = [op.forward(*arguments), *vjp(g, *arguments)]
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-6 * np.abs(b).max())

"""Kernels on a GPU: against the same sources on the CPU, and against the array code.

Small cases, since `make gpu` runs them under compute-sanitizer too. Every array has memory of its
own there, straight from the driver: within a pool, nobody would see a read past its end.
"""

import numpy as np
import pytest

from skfisher import Bags
from skfisher.codebooks.em import Mixture, expectation
from skfisher.cuda import module
from skfisher.ops.fisher import fisher_sums, fisher_vector, fisher_vector_vjp
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.parallel.units import HERE, row_units

pytestmark = pytest.mark.gpu

# On both sides of every tile, with and without whole vectors of four.
SHAPES = [(1, 1), (17, 39), (32, 64), (33, 24), (64, 68), (70, 130)]
LENGTHS = [1, 63, 64, 65, 700]
# Of float32 against float64, relative in the 2-norm: ten times what the CPU runs show.
TOLERANCE = 1e-5


@pytest.fixture
def gpu(cupy, monkeypatch):
    """CuPy with kernels on, and without its pool of memory."""
    monkeypatch.delenv("SKFISHER_FUSED", raising=False)
    with cupy.cuda.using_allocator(None):
        yield cupy


@pytest.fixture
def launched(gpu, monkeypatch):
    """Names of the kernels launched; each is waited for, so that a fault names its kernel."""
    names, load = [], module.kernel

    def kernel(expression, *args, **kwargs):
        function = load(expression, *args, **kwargs)

        def launch(*args, **kwargs):
            names.append(expression)
            function(*args, **kwargs)
            gpu.cuda.runtime.deviceSynchronize()

        return launch

    monkeypatch.setattr(module, "kernel", kernel)
    return names


def problem(k, d, lengths=LENGTHS, *, spread=0.5):
    """Return float32 descriptors, the borders of bags, and a mixture."""
    rng = np.random.default_rng(k * 1000 + d)
    mixture = Mixture(
        rng.dirichlet(np.full(k, 5.0)),
        rng.normal(size=(k, d)) * spread + 3,
        rng.uniform(0.5, 1.5, size=(k, d)),
    )
    x = (rng.normal(size=(sum(lengths), d)) + 3).astype(np.float32)
    stops = np.cumsum(lengths)
    return x, stops - lengths, stops, mixture


def units(x, starts, stops):
    return row_units(Bags(x, starts, stops), HERE)


def assert_close(result, expected, tolerance=TOLERANCE):
    result = result.get() if hasattr(result, "get") else result
    assert result.shape == expected.shape
    assert np.isfinite(result).all()
    error = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    assert error < tolerance


@pytest.mark.parametrize("spread", [0.5, 5.0])  # the second takes centred sums
@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_fisher_vectors(gpu, launched, monkeypatch, request, k, d, spread):
    x, starts, stops, mixture = problem(k, d, spread=spread)
    expected = fisher_vector(x.astype(np.float64), starts, stops, *mixture)
    on_gpu = gpu.asarray(x)
    result = fisher_vector(on_gpu, starts, stops, *mixture)
    assert launched
    assert isinstance(result, gpu.ndarray)
    assert result.dtype == np.float32
    assert_close(result, expected)

    n_launched = len(launched)
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    assert_close(fisher_vector(on_gpu, starts, stops, *mixture), expected)
    assert len(launched) == n_launched

    request.getfixturevalue("kernels_on_cpu")
    assert_close(result, fisher_vector(x, starts, stops, *mixture))


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_gradients(gpu, launched, monkeypatch, request, k, d):
    x, starts, stops, mixture = problem(k, d)
    g = np.random.default_rng(0).normal(size=(len(starts), k * (2 * d + 1))).astype(np.float32)
    where = starts, stops, *mixture
    expected = fisher_vector_vjp(g.astype(np.float64), x.astype(np.float64), *where)
    on_gpu = gpu.asarray(g), gpu.asarray(x), *where
    results = fisher_vector_vjp(*on_gpu)
    assert launched
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == np.float32
        assert_close(result, wanted, 1e-4)  # parameters: sums of both signs
    (d_x, *nothing) = fisher_vector_vjp(*on_gpu, with_parameters=False)
    assert nothing == [None] * 3
    assert_close(d_x, expected[0])
    (nothing, *parameters) = fisher_vector_vjp(*on_gpu, with_x=False)
    assert nothing is None

    request.getfixturevalue("kernels_on_cpu")
    on_cpu = fisher_vector_vjp(g, x, *where)
    for result, wanted in zip([d_x, *parameters], on_cpu, strict=True):
        assert_close(result, wanted)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_expectation(gpu, launched, k, d):
    x, starts, stops, mixture = problem(k, d)
    expected, frame, log_likelihood = expectation(
        units(x.astype(np.float64), starts, stops), mixture
    )
    sums, frame_on_gpu, other = expectation(units(gpu.asarray(x), starts, stops), mixture)
    assert launched
    assert other == pytest.approx(log_likelihood, rel=1e-6)
    assert_close(sums.s0, expected.s0)
    assert (frame is None) == (frame_on_gpu is None)
    for s, wanted in zip(sums, expected, strict=True):
        assert_close(s, wanted)


@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("power", [0.5, 0.3, 1.0])
def test_normalization(gpu, launched, monkeypatch, power, eps):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 5, 1001)).astype(np.float32)
    x[1] = 0
    x[2, ::2] = 0
    settings = {"power": power, "eps": eps}
    y = power_l2_normalize(gpu.asarray(x), **settings)
    d_x = power_l2_normalize_vjp(gpu.asarray(g), gpu.asarray(x), **settings)
    assert len(launched) == 2
    assert_close(y, power_l2_normalize(x, **settings))
    assert_close(d_x, power_l2_normalize_vjp(g, x, **settings))


def test_a_bag_has_the_same_bits_alone_and_among_others_and_on_any_stream(gpu, launched):
    x, starts, stops, mixture = problem(33, 68)
    x = gpu.asarray(x)
    g = gpu.ones((len(starts), 33 * (2 * 68 + 1)), dtype=np.float32)
    together = fisher_vector(x, starts, stops, *mixture).get()
    slopes = fisher_vector_vjp(g, x, starts, stops, *mixture)[0].get()
    for i in range(len(starts)):
        one = slice(i, i + 1)
        alone = fisher_vector(x, starts[one], stops[one], *mixture).get()
        np.testing.assert_array_equal(alone, together[one])
        rows = slice(starts[i], stops[i])
        d_x = fisher_vector_vjp(g[one], x, starts[one], stops[one], *mixture)[0].get()
        np.testing.assert_array_equal(d_x[rows], slopes[rows])
    backwards = fisher_vector(x, starts[::-1], stops[::-1], *mixture).get()
    np.testing.assert_array_equal(backwards[::-1], together)
    with gpu.cuda.Stream(non_blocking=True) as stream:
        elsewhere = fisher_vector(x, starts, stops, *mixture)
        stream.synchronize()
    np.testing.assert_array_equal(elsewhere.get(), together)
    assert launched


def test_rows_that_start_at_any_address(gpu, launched):
    x, starts, stops, mixture = problem(8, 64)
    expected = fisher_vector(gpu.asarray(x), starts, stops, *mixture).get()
    for shift in (1, 2, 3):
        memory = gpu.empty(x.size + shift, dtype=np.float32)
        moved = memory[shift:].reshape(x.shape)
        moved[...] = gpu.asarray(x)
        np.testing.assert_array_equal(fisher_vector(moved, starts, stops, *mixture).get(), expected)
    wide = gpu.asarray(np.concatenate([x, x], axis=1))
    for view in (wide[:, : x.shape[1]], gpu.asfortranarray(gpu.asarray(x))):
        np.testing.assert_array_equal(fisher_vector(view, starts, stops, *mixture).get(), expected)


def test_ten_thousand_bags_are_few_launches(gpu, launched):
    x, starts, stops, mixture = problem(4, 8, [3] * 10_000)
    x = gpu.asarray(x)
    fisher_vector(x, starts, stops, *mixture)
    assert len(launched) <= 5
    launched.clear()
    fisher_sums(x, starts, stops, *mixture)
    assert len(launched) <= 5

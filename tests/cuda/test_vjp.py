"""The kernels of the backward pass, run on the CPU, against the array code in float64."""

import numpy as np
import pytest

from skfisher.cuda import vjp
from skfisher.ops.fisher import fisher_sums_vjp, fisher_vector_vjp
from skfisher.ops.soft_assignment import Sums

# Components and dimensions about the tiles of 32 and 64, few and many, D a multiple of 4 or not.
SHAPES = [(1, 5), (4, 3), (17, 39), (32, 64), (33, 31), (64, 24), (65, 33), (130, 8), (5, 130)]
# Descriptors about the 64 and 128 rows of a block and the 256 of a chunk.
LENGTHS = [1, 63, 64, 65, 127, 128, 129, 3 * 256 + 1]


class Case:
    """Bags drawn near a mixture, and a gradient arriving at their Fisher vectors."""

    def __init__(self, rng, k, d, lengths, *, include_weights=True, offset=0.0, spread=0.7):
        self.stops = np.cumsum(lengths)
        self.starts = self.stops - lengths
        weights = rng.dirichlet(np.full(k, 3.0))
        means = offset + spread * rng.normal(size=(k, d))
        self.mixture = weights, means, rng.uniform(0.5, 2, size=(k, d))
        n = int(self.stops[-1])
        chosen = rng.integers(k, size=n)
        self.x = means[chosen] + np.sqrt(self.mixture[2][chosen]) * rng.normal(size=(n, d))
        self.x = self.x.astype(np.float32)
        width = 2 * k * d + (k if include_weights else 0)
        self.g = rng.normal(size=(len(lengths), width)).astype(np.float32)
        self.include_weights = include_weights

    def gradients(self, dtype=np.float32, bags=slice(None), **options):
        """Return all gradients; in float32 those of the kernels."""
        return fisher_vector_vjp(
            self.g[bags].astype(dtype), self.x.astype(dtype), self.starts[bags], self.stops[bags],
            *self.mixture, include_weights=self.include_weights, **options,
        )  # fmt: skip


def errors(case):
    """Return the distances of gradients from float64, relative, after a look at their form."""
    found, expected = case.gradients(), case.gradients(np.float64)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == np.float32
        assert f.shape == e.shape
    return [np.linalg.norm(f - e) / np.linalg.norm(e) for f, e in zip(found, expected, strict=True)]


def allowed(d):
    """Log densities are sums of D squares and round at that size, and posteriors with them."""
    return 1e-6 + 1e-7 * d


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_gradients_agree_with_float64(kernels_on_cpu, rng, k, d):
    case = Case(rng, k, d, [1, 130, 65])
    assert max(errors(case)) < allowed(d)
    assert any("posterior_vjp" in name for name in kernels_on_cpu.launched)


@pytest.mark.parametrize("include_weights", [True, False])
def test_bags_of_any_length(kernels_on_cpu, rng, include_weights):
    case = Case(rng, 9, 7, LENGTHS, include_weights=include_weights)
    assert max(errors(case)) < allowed(7)


def test_a_bag_of_more_chunks_than_a_block_has(kernels_on_cpu, rng, monkeypatch):
    case = Case(rng, 2, 3, [40 * 256 + 1, 10])
    assert max(errors(case)) < allowed(3)
    whole = case.gradients()
    monkeypatch.setattr(vjp, "SCRATCH", 50_000)
    for a, b in zip(case.gradients(), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_many_bags_in_any_order_with_rows_between(kernels_on_cpu, rng):
    case = Case(rng, 5, 6, rng.integers(1, 9, size=200))
    kept = rng.permutation(200)[:70]  # scattered, so that rows are gathered
    case.starts, case.stops, case.g = case.starts[kept], case.stops[kept], case.g[kept]
    assert max(errors(case)) < allowed(6)
    case.starts, case.stops, case.g = case.starts[:2], case.stops[:2], case.g[:2]
    d_x = case.gradients()[0]
    inside = np.concatenate([np.arange(a, b) for a, b in zip(case.starts, case.stops, strict=True)])
    assert (np.delete(d_x, inside, axis=0) == 0).all()


@pytest.mark.parametrize(("k", "d"), [(7, 5), (40, 70)])
def test_threads_in_any_order_give_equal_bits(kernels_on_cpu, rng, k, d):
    case = Case(rng, k, d, [70, 5])
    results = []
    for kernels_on_cpu.schedule in (0, 1, 2):
        results.append([gradient.tobytes() for gradient in case.gradients()])
    assert results[0] == results[1] == results[2]


def test_a_batch_in_groups_gives_equal_bits(kernels_on_cpu, rng, monkeypatch):
    # 32 bags make a block: groups begin inside blocks, and one bag is more than a group
    case = Case(rng, 6, 5, [3] * 30 + [600] + [2] * 40)
    whole = case.gradients()
    for scratch in (1, 2000, 10_000):
        monkeypatch.setattr(vjp, "SCRATCH", scratch)
        kernels_on_cpu.launched.clear()
        for a, b in zip(case.gradients(), whole, strict=True):
            np.testing.assert_array_equal(a, b)
        assert sum("posterior_vjp" in name for name in kernels_on_cpu.launched) > 2


def test_neighbours_do_not_matter(kernels_on_cpu, rng):
    case = Case(rng, 6, 5, [20, 300, 40])
    d_x = case.gradients()[0]
    alone = case.gradients(bags=slice(1, 2))[0]
    np.testing.assert_array_equal(alone[20:320], d_x[20:320])
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(case.gradients(bags=order)[0], d_x)


def test_only_what_is_wanted_is_computed(kernels_on_cpu, rng):
    case = Case(rng, 6, 5, [20, 30])
    whole = case.gradients()
    kernels_on_cpu.launched.clear()
    d_x, *none = case.gradients(with_parameters=False)
    np.testing.assert_array_equal(d_x, whole[0])
    assert none == [None, None, None]
    assert not any("moments" in name for name in kernels_on_cpu.launched)
    kernels_on_cpu.launched.clear()
    none, *parameters = case.gradients(with_x=False)
    assert none is None
    for a, b in zip(parameters, whole[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not any("descriptor_vjp" in name for name in kernels_on_cpu.launched)


def test_far_from_the_origin(kernels_on_cpu, rng):
    case = Case(rng, 8, 6, [100, 30], offset=1000.0)
    # float32 descriptors are 6e-5 apart there, but exact
    assert max(errors(case)) < allowed(6)


@pytest.mark.parametrize(("spread", "tolerance"), [(5.0, 2e-6), (40.0, 2e-5)])
def test_components_far_apart(kernels_on_cpu, rng, spread, tolerance):
    # posteriors saturate, and sums about the common mean would cancel
    case = Case(rng, 6, 5, [200, 30], spread=spread)
    found, expected = case.gradients(), case.gradients(np.float64)
    for f, e in zip(found, expected, strict=True):
        assert np.linalg.norm(f - e) < tolerance * np.linalg.norm(e)


def test_a_descriptor_far_away_keeps_the_others(kernels_on_cpu, rng):
    case = Case(rng, 6, 5, [40])
    without = case.gradients(np.float64)[0]
    case.x[7] = 1e4
    found, expected = case.gradients(), case.gradients(np.float64)
    for f, e in zip(found, expected, strict=True):
        assert np.isfinite(f).all()
        assert np.linalg.norm(f - e) < 1e-5 * np.linalg.norm(e)
    others = np.arange(40) != 7
    np.testing.assert_allclose(found[0][others], without[others], atol=1e-5 * abs(without).max())


@pytest.mark.parametrize("k", [6, 70])  # one tile of components, and two
def test_a_descriptor_whose_densities_overflow_is_told(kernels_on_cpu, rng, k):
    case = Case(rng, k, 5, [20, 30], spread=0.07)
    case.mixture[2][...] *= 1e-4
    case.x[3] = 1e18
    d_x, *parameters = case.gradients()
    assert np.isnan(d_x).any(axis=1).nonzero()[0].tolist() == [3]
    assert np.isnan(d_x[3]).all()
    assert all(np.isnan(gradient).any() for gradient in parameters)


def test_a_component_of_weight_zero_has_no_gradient(kernels_on_cpu, rng):
    case = Case(rng, 5, 4, [40, 10])
    case.mixture[0][2] = 0
    d_x, *parameters = case.gradients()
    expected = case.gradients(np.float64)
    for f, e in zip((d_x, *parameters), expected, strict=True):
        np.testing.assert_allclose(f, e, atol=1e-5 * abs(e).max())
    assert all((gradient[2] == 0).all() for gradient in parameters)


def test_arguments_are_kept_and_views_will_do(kernels_on_cpu, rng):
    case = Case(rng, 5, 8, [40, 10])
    whole = case.gradients()
    x, g = case.x.copy(), case.g.copy()
    for values in (np.hstack([x, x])[:, :8], np.concatenate([[0], x.ravel()], dtype="f4")[1:]):
        case.x = values.reshape(x.shape)
        case.g = np.repeat(g, 2, axis=0)[::2]
        for a, b in zip(case.gradients(), whole, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(case.x, x)
        np.testing.assert_array_equal(case.g, g)


def test_what_the_kernels_do_not_serve_goes_to_the_array_code(kernels_on_cpu, rng, monkeypatch):
    case = Case(rng, 5, 4, [40, 10])
    case.gradients(np.float64)
    assert kernels_on_cpu.launched == []
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    case.gradients()
    monkeypatch.delenv("SKFISHER_FUSED")
    case.starts[1] -= 1  # a descriptor in two bags
    case.gradients()
    no_bags = slice(0, 0)
    assert all((gradient == 0).all() for gradient in case.gradients(bags=no_bags))
    assert kernels_on_cpu.launched == []


@pytest.mark.parametrize("offset", [0.0, 20.0])  # about the origin, or in coordinates of its own
def test_gradients_through_sums_agree_with_float64(kernels_on_cpu, rng, monkeypatch, offset):
    case = Case(rng, 20, 15, [70, 1, 300], offset=offset)
    shapes = (3, 20), (3, 20, 15), (3, 20, 15)
    g = Sums(*(rng.normal(size=shape) for shape in shapes))
    bags = case.starts, case.stops, *case.mixture

    def gradients(x, **options):
        d_x, d_coefficients = fisher_sums_vjp(g, x, *bags, **options)
        return d_x, *d_coefficients

    found = gradients(case.x)
    assert "posterior_vjp" in kernels_on_cpu.launched[0]
    for a, b in zip(found, gradients(case.x.astype(np.float64)), strict=True):
        assert np.linalg.norm(a - b) < allowed(15) * np.linalg.norm(b)
    assert found[0].dtype == np.float32
    assert all(gradient.dtype == np.float64 for gradient in found[1:])
    none, *rest = gradients(case.x, with_x=False)
    assert none is None
    monkeypatch.setattr(vjp, "SCRATCH", 5000)
    for result in (rest, gradients(case.x)[1:]):
        for a, b in zip(result, found[1:], strict=True):
            np.testing.assert_array_equal(a, b)

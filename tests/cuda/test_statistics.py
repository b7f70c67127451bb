"""The kernels of the forward pass, run on the CPU, against the array code in float64."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from skfisher.cuda import configurations, mixture, module, statistics
from skfisher.ops.expectation import expectation_sums
from skfisher.ops.fisher import fisher_from_statistics, fisher_sums, fisher_vector
from skfisher.ops.gaussian import to_frame

from ..ops import references

# Components and dimensions about the tiles of 32 and 64, few and many, D a multiple of 4 or not.
SHAPES = [(1, 3), (2, 130), (17, 39), (32, 64), (33, 31), (64, 24), (65, 66), (130, 5)]
# Descriptors about the 64 rows of a tile and the 256 of a chunk.
LENGTHS = [1, 63, 64, 65, 255, 256, 257, 3 * 256 + 1]


class Case:
    """Bags drawn from a mixture whose means lie `spread` apart, and all of it `offset` from 0."""

    def __init__(self, rng, k, d, lengths, *, offset=0.0, spread=0.7):
        self.stops = np.cumsum(lengths)
        self.starts = self.stops - lengths
        means = offset + spread * rng.normal(size=(k, d))
        variances = rng.uniform(0.5, 2, size=(k, d))
        self.mixture = rng.dirichlet(np.full(k, 3.0)), means, variances
        n = int(self.stops[-1])
        chosen = rng.integers(k, size=n)
        x = means[chosen] + np.sqrt(variances[chosen]) * rng.normal(size=(n, d))
        self.x = x.astype(np.float32)

    def keep(self, bags):
        """Keep some bags, in the given order; their rows stay where they are."""
        bags = np.asarray(bags, dtype=int)
        self.starts, self.stops = self.starts[bags], self.stops[bags]
        return self

    def vectors(self, x=None, **options):
        """Return Fisher vectors, of float32 descriptors by the kernels."""
        x = self.x if x is None else x
        return fisher_vector(x, self.starts, self.stops, *self.mixture, **options)

    def error(self):
        """Return the distance from float64, relative to the length of each Fisher vector."""
        found, expected = self.vectors(), self.vectors(self.x.astype(np.float64))
        assert found.dtype == np.float32
        norms = np.linalg.norm(expected, axis=1)
        return float((np.linalg.norm(found - expected, axis=1) / norms).max())


# Relative to the length of a Fisher vector, which shrinks with the square root of its bag's.
# Found: up to 3e-6.
TOLERANCE = 5e-6


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_agrees_with_float64(kernels_on_cpu, rng, k, d):
    case = Case(rng, k, d, [130, 1, 65])
    assert case.error() < TOLERANCE
    assert [name.partition("<")[0] for name in kernels_on_cpu.launched] == [
        "skfisher::score", "skfisher::moments", "skfisher::bag_vectors"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "configuration",
    [*configurations.MOMENTS, *configurations.CENTRED_MOMENTS],
    ids=lambda configuration: configuration.expression,
)
def test_every_kernel_of_moments(kernels_on_cpu, rng, configuration):
    centred = configuration in configurations.CENTRED_MOMENTS
    k, d = configuration.components - 1, configuration.features - 1
    case = Case(rng, k, d, [70, 3], spread=8.0 if centred else 0.7)
    assert case.error() < TOLERANCE
    assert configuration.expression in kernels_on_cpu.launched


@pytest.mark.parametrize("include_weights", [True, False])
def test_agrees_with_a_plain_loop(kernels_on_cpu, rng, include_weights):
    case = Case(rng, 3, 5, [4, 1, 9])
    expected = references.fisher_vector(
        case.x, case.starts, case.stops, *case.mixture, include_weights=include_weights
    )
    found = case.vectors(include_weights=include_weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("k", "d"), [(9, 7), (40, 12)])
def test_bags_of_any_length(kernels_on_cpu, rng, k, d):
    assert Case(rng, k, d, LENGTHS).error() < TOLERANCE


@hypothesis.settings(
    max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    k=st.integers(1, 70),
    d=st.integers(1, 70),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(kernels_on_cpu, k, d, lengths, seed):
    # twice as much for the worst of many draws
    assert Case(np.random.default_rng(seed), k, d, lengths).error() < 2 * TOLERANCE


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize(("spread", "centred"), [(0.0, False), (2.0, False), (8.0, True)])
def test_components_far_apart(kernels_on_cpu, rng, offset, spread, centred):
    # far from each other posteriors are 0 and 1, and sums are taken about each mean
    case = Case(rng, 17, 10, [300, 20], offset=offset, spread=spread)
    assert case.error() < 1e-5
    assert any("moments" in name and "true" in name for name in kernels_on_cpu.launched) == centred


def test_components_at_the_edge_of_reach(kernels_on_cpu, rng):
    # two clouds 90 deviations apart in every dimension, components overlapping in each
    case = Case(rng, 16, 16, [300, 1], spread=0.3)
    case.mixture[1][...] += np.where(np.arange(16) % 2, -45, 45)[:, None]
    case.mixture[2][...] = 1
    case.x += np.where(rng.random(301) < 0.5, -45, 45)[:, None].astype(np.float32)
    assert case.error() < 1e-5
    assert kernels_on_cpu.launched


def test_a_descriptor_far_from_everything(kernels_on_cpu, rng):
    case = Case(rng, 6, 5, [20, 30])
    case.x[3] = 1e4
    assert case.error() < 1e-5
    case.x[3] = 1e25  # its square is not a float32 number
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = case.vectors()
    assert not np.isfinite(vectors[0]).all()
    assert np.isfinite(vectors[1]).all()


def test_a_descriptor_whose_square_overflows_in_deviations_alone(kernels_on_cpu, rng):
    # its moments are float32 numbers, its log densities are not
    case = Case(rng, 6, 5, [20, 30], spread=0.07)
    case.mixture[2][...] *= 1e-4
    case.x[3] = 1e18
    vectors = case.vectors()
    assert np.isnan(vectors[0, :6]).all()
    assert np.isfinite(vectors[1]).all()


@pytest.mark.parametrize("exponent", [-49, 49])
def test_scales_at_the_edges_of_what_is_served(kernels_on_cpu, rng, exponent):
    # 1024 squares of descriptors add up in a chunk
    case = Case(rng, 1, 20_000, [1024])
    scale = 2.0**exponent
    case.mixture = case.mixture[0], scale * case.mixture[1], scale**2 * case.mixture[2]
    case.x *= np.float32(scale)
    case.x[0] *= 100
    assert statistics.takes(case.x, *case.mixture)
    assert case.error() < TOLERANCE


def test_a_component_of_weight_zero(kernels_on_cpu, rng):
    case = Case(rng, 4, 5, [20, 30])
    case.mixture[0][2] = 0
    vectors = case.vectors()
    assert (vectors[:, 2] == 0).all()
    assert (vectors[:, 4:].reshape(2, 2, 4, 5)[:, :, 2] == 0).all()
    assert case.error() < TOLERANCE


@pytest.mark.parametrize(("k", "d"), [(7, 5), (40, 70)])
@pytest.mark.parametrize("spread", [0.7, 8.0])
def test_threads_in_any_order_give_equal_bits(kernels_on_cpu, rng, k, d, spread):
    case = Case(rng, k, d, [70, 5], spread=spread)
    results = []
    for kernels_on_cpu.schedule in (0, 1, 2):
        sums, log_likelihood = expectation_sums(case.x, case.starts, case.stops, *case.mixture)
        results.append([case.vectors().tobytes(), *(s.tobytes() for s in (*sums, log_likelihood))])
    assert results[0] == results[1] == results[2]


def test_neighbours_do_not_matter(kernels_on_cpu, rng):
    case = Case(rng, 6, 5, [20, 300, 40, 1, 7])
    vectors = case.vectors()
    order = rng.permutation(5)
    np.testing.assert_array_equal(case.keep(order).vectors(), vectors[order])
    np.testing.assert_array_equal(case.keep([2]).vectors(), vectors[order[[2]]])


def uneven(rng, lengths):
    """Return a case whose chunks have sums of such different sizes that their order matters."""
    case = Case(rng, 1, 3, lengths)
    for chunk in range(0, len(case.x), 256):
        case.x[chunk : chunk + 256] *= np.float32(10 ** rng.uniform(-9, 9))
    return case


def test_a_batch_in_groups_gives_equal_bits(kernels_on_cpu, rng, monkeypatch):
    # the bag of 16384 descriptors has 64 chunks, more than the 32 that are summed first
    case = uneven(rng, [3] * 30 + [16384] + [2] * 40)
    arguments = case.x, case.starts, case.stops, *case.mixture
    vectors, sums = case.vectors(), fisher_sums(*arguments)
    kernels_on_cpu.launched.clear()
    for scratch in (1, 1000, 30_000):
        monkeypatch.setattr(statistics, "SCRATCH", scratch)
        np.testing.assert_array_equal(case.vectors(), vectors)
        for s, whole in zip(fisher_sums(*arguments), sums, strict=True):
            np.testing.assert_array_equal(s, whole)
    assert "skfisher::add_chunks<float>" in kernels_on_cpu.launched
    monkeypatch.undo()


def test_blocks_of_chunks_are_summed_alike_in_one_step_or_two(kernels_on_cpu, rng, monkeypatch):
    case = uneven(rng, [16384, 5])
    arguments = case.x, case.starts, case.stops, *case.mixture
    direct = fisher_sums(*arguments)
    monkeypatch.setattr(statistics, "LONG_BAG", 33)
    for s, d in zip(fisher_sums(*arguments), direct, strict=True):
        np.testing.assert_array_equal(s, d)
    assert "skfisher::bag_sums<double>" in kernels_on_cpu.launched


def test_bags_anywhere_in_the_rows(kernels_on_cpu, rng):
    case = Case(rng, 5, 6, rng.integers(1, 9, size=200))
    between = np.ones(len(case.x), dtype=bool)
    for start, stop in zip(case.keep(rng.permutation(200)[:150]).starts, case.stops, strict=True):
        between[start:stop] = False
    case.x[between] = np.nan
    assert case.error() < 1e-5
    case.x[between] = 0
    assert case.keep(np.arange(60)).error() < 1e-5  # rows are gathered
    # one within another, one twice, and out of order
    case.starts, case.stops = np.array([100, 0, 50, 50]), np.array([130, 90, 60, 60])
    assert case.error() < 1e-5


def test_no_bags_have_no_vectors(kernels_on_cpu, rng):
    case = Case(rng, 3, 4, [5]).keep([])
    assert case.vectors().shape == (0, 27)
    assert not kernels_on_cpu.launched


@pytest.mark.parametrize("d", [4, 6])
def test_rows_at_any_address(kernels_on_cpu, rng, d):
    case = Case(rng, 3, d, [50, 5])
    expected = case.vectors()
    room = np.empty(case.x.size + 3, dtype=np.float32)
    views = [room[i : i + case.x.size].reshape(case.x.shape) for i in range(4)]
    views += [np.empty((len(case.x), 2 * d), np.float32)[:, ::2], np.asfortranarray(case.x)]
    for view in views:
        view[...] = case.x
        np.testing.assert_array_equal(case.vectors(view), expected)


def test_descriptors_that_must_be_copied_are_copied_in_groups(kernels_on_cpu, rng, monkeypatch):
    case = Case(rng, 3, 40, [50] * 20)
    expected = case.vectors()
    # room for the posteriors and sums of all bags, not for their descriptors
    monkeypatch.setattr(statistics, "SCRATCH", 20_000)
    kernels_on_cpu.launched.clear()
    np.testing.assert_array_equal(case.vectors(), expected)
    assert len(kernels_on_cpu.launched) == 3
    case.x = np.asfortranarray(case.x)
    np.testing.assert_array_equal(case.vectors(), expected)
    assert len(kernels_on_cpu.launched) > 6


def test_writes_where_it_is_told_and_nothing_else(kernels_on_cpu, rng):
    case = Case(rng, 3, 4, [50, 5])
    copies = [a.copy() for a in (case.x, case.starts, case.stops, *case.mixture)]
    expected = case.vectors()
    for room in (np.empty((4, 27), np.float32), np.empty((4, 54), np.float32)[:, ::2]):
        room[...] = 7
        case.vectors(out=room[1:3])
        np.testing.assert_array_equal(room[1:3], expected)
        assert (room[[0, 3]] == 7).all()
    for a, b in zip((case.x, case.starts, case.stops, *case.mixture), copies, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("spread", [0.5, 6.0])
def test_sums_are_those_of_the_array_code(kernels_on_cpu, rng, offset, spread):
    # in coordinates of their own, where the mixture has them
    case = Case(rng, 9, 7, [300, 2, 40], offset=offset, spread=spread)
    arguments = case.starts, case.stops, *case.mixture
    sums = fisher_sums(case.x, *arguments)
    assert kernels_on_cpu.launched
    wide = case.x.astype(np.float64)
    expected = fisher_sums(wide, *arguments)
    again, log_likelihood = expectation_sums(case.x, *arguments)
    expected_likelihood = expectation_sums(wide, *arguments)[1]
    for s, e, a in zip(sums, expected, again, strict=True):
        assert s.dtype == np.float64
        np.testing.assert_allclose(s, e, rtol=0, atol=1e-6 * abs(e).max())
        np.testing.assert_array_equal(a, s)
    np.testing.assert_allclose(log_likelihood, expected_likelihood, rtol=1e-6)
    lengths = case.stops - case.starts
    _, *framed, _ = to_frame(case.x, *case.mixture)
    vectors = fisher_from_statistics(sums, lengths, *framed)
    np.testing.assert_allclose(vectors, case.vectors(), rtol=0, atol=1e-5)


def test_parts_of_a_bag_add_up_to_it(kernels_on_cpu, rng):
    case = Case(rng, 3, 2, [2 * 8192 + 700])
    whole = fisher_sums(case.x, case.starts, case.stops, *case.mixture)
    borders = np.array([0, 8192, 16384, len(case.x)])
    parts = fisher_sums(case.x, borders[:-1], borders[1:], *case.mixture)
    for s, p in zip(whole, parts, strict=True):
        # 8192 descriptors are a block of chunks: the same sums in the same order
        np.testing.assert_allclose(p[0] + p[1] + p[2], s[0], rtol=1e-14, atol=1e-9)


@pytest.mark.parametrize(
    ("k", "d", "lengths"),
    [(32, 64, [10] * 10_000), (64, 24, [10**6]), (256, 512, [10**6]), (32, 64, [1, 10**6, 1])],
)
def test_one_launch_a_stage(kernels_on_cpu, monkeypatch, k, d, lengths):
    launched = []
    monkeypatch.setattr(module, "kernel", lambda name, _: lambda *a, **o: launched.append(name))
    for launchers in (statistics, mixture):  # nothing is computed, so no memory is needed
        monkeypatch.setattr(
            launchers,
            "empty",
            lambda shape, like, dtype=np.float32: np.broadcast_to(dtype(), shape),
        )
    stops = np.cumsum(lengths)
    x = np.empty((stops[-1], d), dtype=np.float32)
    parameters = np.full(k, 1 / k), np.zeros((k, d)), np.ones((k, d))
    fisher_vector(x, stops - lengths, stops, *parameters)
    stages = ["score", "moments", "bag_vectors"]
    if max(lengths) > 128 * 1024:
        stages.insert(2, "add_chunks")
    assert [name[10:].partition("<")[0] for name in launched] == stages


def test_what_the_kernels_leave_to_the_array_code(kernels_on_cpu, rng, monkeypatch):
    case = Case(rng, 3, 4, [5])
    weights, means, variances = case.mixture
    assert statistics.takes(case.x, *case.mixture)
    assert not statistics.takes(case.x.astype(np.float64), *case.mixture)
    assert not statistics.takes(case.x, weights, means, 2.0**-102 * variances)
    assert not statistics.takes(case.x, weights, means, 2.0**102 * variances)
    assert not statistics.takes(case.x, weights, 1e39 * np.abs(means), variances)
    assert not statistics.takes(case.x, weights, 1000 * means, variances)
    wide = np.broadcast_to(np.float32(1), (1, 5000))
    assert not statistics.takes(wide, np.ones(1000), *(np.broadcast_to(1.0, (1000, 5000)),) * 2)
    many = np.broadcast_to(1.0, (2**14 + 1, 4))
    assert not statistics.takes(case.x, many[:, 0], many, many)
    long = np.broadcast_to(np.float32(1), (2**31, 4))
    assert not statistics.takes(long, *case.mixture)
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    assert not statistics.takes(case.x, *case.mixture)
    case.vectors()
    assert not kernels_on_cpu.launched


def test_shared_memory_fits_every_gpu():
    # 64 KiB is what the smallest, of compute capability 7.5, gives a block
    assert max(c.shared_bytes for c in configurations.all_configurations()) <= 64 * 1024

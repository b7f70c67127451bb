"""Chunk tables, groups and packed mixtures: what the kernels are given to read."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from skfisher.cuda.groups import CHUNKS_IN_BLOCK, block_ranges, cut, scratch_numbers, window
from skfisher.cuda.layout import (
    FEATURE_TILE,
    chunk_rows,
    chunk_table,
    component_tile,
    pack_mixture,
    partial_size,
    row_width,
)
from skfisher.cuda.module import source
from skfisher.cuda.vjp import BAGS_IN_BLOCK

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=8)
COSTS = st.lists(st.integers(0, 50), min_size=1, max_size=30)


@hypothesis.given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_chunks_make_up_their_bags(lengths, seed):
    starts = np.random.default_rng(seed).integers(0, 1000, size=len(lengths))
    chunks, bag_chunks = chunk_table(starts, starts + lengths, 32, 64)
    assert chunks.dtype == bag_chunks.dtype == np.int32
    for bag, length in enumerate(lengths):
        own = chunks[bag_chunks[bag] : bag_chunks[bag + 1]]
        assert (own[:, 0] == bag).all()
        assert own[0, 1] == starts[bag]
        assert own[-1, 2] == starts[bag] + length
        assert (own[1:, 1] == own[:-1, 2]).all()
        sizes = own[:, 2] - own[:, 1]
        assert (sizes[:-1] == chunk_rows(32, 64)).all()
        assert 0 < sizes[-1] <= chunk_rows(32, 64)


def test_an_empty_bag_is_refused():
    with pytest.raises(ValueError, match="bag 1 is empty"):
        chunk_table(np.array([0, 3, 3]), np.array([3, 3, 9]), 2, 2)


@pytest.mark.parametrize(
    ("k", "d", "rows"),
    [
        (1, 1, 256),
        (64, 128, 256),
        (65, 128, 512),
        (256, 64, 512),
        (256, 65, 1024),
        (999, 999, 1024),
    ],
)
def test_chunks_grow_with_what_they_sum_to(k, d, rows):
    assert chunk_rows(k, d) == rows
    # a power of two: what starts at a chunk of a bag starts at a block of chunks too
    assert 2**15 % (rows * CHUNKS_IN_BLOCK) == 0


@hypothesis.given(costs=COSTS, most=st.integers(1, 200))
def test_cut_fills_groups_in_order(costs, most):
    groups = list(cut(costs, most))
    assert [i for first, last in groups for i in range(first, last)] == list(range(len(costs)))
    for first, last in groups:
        assert sum(costs[first:last]) <= most or last == first + 1
        assert last == len(costs) or sum(costs[first : last + 1]) > most


@hypothesis.given(counts=st.lists(st.integers(1, 100), min_size=1, max_size=9))
def test_blocks_make_up_their_bags(counts):
    ranges = np.append(5, 5 + np.cumsum(counts))
    blocks, bag_blocks = block_ranges(ranges)
    for bag in range(len(counts)):
        own = blocks[bag_blocks[bag] : bag_blocks[bag + 1] + 1]
        assert (own[0], own[-1]) == (ranges[bag], ranges[bag + 1])
        assert (np.diff(own)[:-1] == CHUNKS_IN_BLOCK).all()
        assert 0 < own[-1] - own[-2] <= CHUNKS_IN_BLOCK


def test_kernels_and_launchers_cut_sums_into_the_same_blocks():
    assert f"constexpr int CHUNKS_IN_BLOCK = {CHUNKS_IN_BLOCK};" in source()
    assert f"constexpr int BAGS_IN_BLOCK = {BAGS_IN_BLOCK};" in source()


@pytest.mark.parametrize(
    ("starts", "stops", "copied"),
    [
        ([10, 20], [20, 29], False),
        ([20, 10], [29, 20], False),
        ([10, 12], [29, 13], False),
        ([10, 95], [15, 99], True),
        ([95, 10], [99, 15], True),
    ],
)
def test_a_window_holds_the_rows_of_chunks(starts, stops, copied):
    x = np.arange(400, dtype=np.float32).reshape(100, 4)
    chunks = np.array([[7, 8], starts, stops], dtype=np.int32).T
    rows, moved = window(x, chunks)
    assert moved.dtype == np.int32
    assert np.shares_memory(rows, x) != copied
    assert (len(rows) == 9) == copied
    for (bag, start, stop), (own, begin, end) in zip(chunks, moved, strict=True):
        assert bag == own
        np.testing.assert_array_equal(rows[begin:end], x[start:stop])
    in_order = not copied and starts == [10, 20]
    numbers = scratch_numbers(chunks, 5, 4)
    per_row = row_width(5) + (0 if in_order else 4)
    assert (numbers == (chunks[:, 2] - chunks[:, 1]) * per_row + partial_size(5, 4)).all()
    numbers = scratch_numbers(chunks, 5, 4, copied=True)
    assert (
        numbers == (chunks[:, 2] - chunks[:, 1]) * (row_width(5) + 4) + partial_size(5, 4)
    ).all()


@pytest.mark.parametrize(("k", "d"), [(3, 5), (32, 64), (33, 65)])
def test_packed_mixtures_give_log_densities(rng, k, d):
    weights, means = rng.dirichlet(np.ones(k)), 50 + rng.normal(size=(k, d))
    variances = rng.uniform(0.5, 2, size=(k, d))
    packed = pack_mixture(weights, means, variances)
    kp, dp = packed.kp, packed.dp
    assert kp % component_tile(k) == 0
    assert dp % FEATURE_TILE == 0
    assert packed.params.dtype == packed.shift.dtype == np.float32
    a, b = packed.params[: 2 * dp * kp].reshape(2, dp, kp).astype(np.float64)
    log_const = packed.params[2 * dp * kp :].astype(np.float64)
    x = 50 + rng.normal(size=d)
    u = (x - packed.shift)[:, None] * a[:d, :k] - b[:d, :k]
    found = log_const[:k] - 0.5 * (u**2).sum(axis=0)
    squares = (x - means) ** 2 / variances
    expected = np.log(weights) - 0.5 * (np.log(2 * np.pi * variances) + squares).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    # what pads is never chosen, and adds nothing
    assert (log_const[k:] < -1e38).all()
    assert not a[d:].any()
    assert not b[:, k:].any()
    for centred, seen in [(False, x - packed.shift), (True, u.T)]:
        alpha, beta = packed.affine(centred=centred)
        np.testing.assert_allclose(
            alpha * seen + beta, (x - means) / np.sqrt(variances), atol=1e-12
        )


def test_reach_is_that_of_the_farthest_mean():
    means = np.array([[0.0, 0], [0, 0], [9, 0]])
    packed = pack_mixture(np.array([0.5, 0.5, 0]), means, np.full((3, 2), 9.0))
    assert packed.reach == pytest.approx(3 / 2**0.25)
    assert packed.weight_factors[1][2] == 0
    assert packed.representable
    # found once: for large mixtures this takes as long as kernels do
    assert packed.weight_factors is packed.weight_factors
    assert packed.reach is packed.reach


def test_a_mixture_that_has_changed_is_packed_again():
    weights, means, variances = np.ones(2) / 2, np.zeros((2, 3)), np.ones((2, 3))
    packed = pack_mixture(weights, means, variances)
    assert pack_mixture(weights.copy(), means, variances) is packed
    for changed in (weights, means, variances):
        changed[0] += 1
        again = pack_mixture(weights, means, variances)
        assert (again.params != packed.params).any()
        packed = again
    assert pack_mixture(weights, means[:, :2], variances[:, :2]).dp == packed.dp
    assert pack_mixture(weights, means[:, :2], variances[:, :2]).shift.shape == (2,)

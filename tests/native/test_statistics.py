"""The kernels of the forward pass against the array code in float64, for every instruction set."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from skfisher.ops.expectation import expectation_sums
from skfisher.ops.fisher import fisher_from_statistics, fisher_sums, fisher_vector
from skfisher.ops.normalization import power_l2_normalize
from skfisher.ops.soft_assignment import soft_statistics, total_statistics

from .cases import LENGTHS, SHAPES, Case, relative

# Relative to the length of a Fisher vector, which shrinks with the square root of its bag's.
# Found: up to 3e-6, as with the array code.
TOLERANCE = 5e-6


@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centred", "in a frame"])
def test_fisher_vectors_agree_with_float64(native, rng, k, d, offset):
    case = Case(rng, k, d, LENGTHS, offset=offset)
    found = fisher_vector(*case.where(), *case.mixture)
    assert found.dtype == np.float32
    assert relative(found, fisher_vector(*case.where(case.wide()), *case.mixture)) < TOLERANCE


def test_errors_are_no_larger_than_those_of_the_array_code(native, array_code, rng):
    errors = []
    for k, d in ((16, 40), (33, 64), (64, 24), (200, 8)):
        case = Case(rng, k, d, [50, 300, 2000])
        expected = fisher_vector(*case.where(case.wide()), *case.mixture)
        found = fisher_vector(*case.where(), *case.mixture)
        plain = array_code(fisher_vector, *case.where(), *case.mixture)
        errors.append([np.abs(f - expected).max() / np.abs(expected).max() for f in (found, plain)])
    ours, theirs = np.mean(errors, axis=0)
    # a little more for the luck of the draw
    assert ours < 1.2 * theirs
    assert ours < 5e-6


@hypothesis.settings(
    max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    k=st.integers(1, 70),
    d=st.integers(1, 70),
    lengths=st.lists(st.integers(1, 40) | st.integers(250, 260), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 50.0]),
    include_weights=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(native, k, d, lengths, offset, include_weights, seed):
    case = Case(np.random.default_rng(seed), k, d, lengths, offset=offset)
    expected = fisher_vector(
        *case.where(case.wide()), *case.mixture, include_weights=include_weights
    )
    found = fisher_vector(*case.where(), *case.mixture, include_weights=include_weights)
    assert found.shape == expected.shape
    # twice as much for the worst of many draws
    np.testing.assert_array_less(
        np.linalg.norm(found - expected, axis=1),
        2 * TOLERANCE * np.linalg.norm(expected, axis=1) + 1e-7,
    )


@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("include_weights", [True, False])
def test_vectors_are_read_off_sums(native, rng, k, d, include_weights):
    case = Case(rng, k, d, LENGTHS)
    sums = fisher_sums(*case.where(case.wide()), *case.mixture)
    counts = np.array(LENGTHS)
    expected = fisher_from_statistics(sums, counts, *case.mixture, include_weights=include_weights)
    wide = np.full((len(counts), expected.shape[1] + 3), np.float32(7))
    out = wide[:, :-3]  # rows that are not one behind the other
    found = fisher_from_statistics(
        sums, counts, *case.mixture, include_weights=include_weights, out=out
    )
    assert found is out
    # what is rounded once, to float32
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())
    assert (wide[:, -3:] == 7).all()


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_sums_and_their_totals(native, rng, k, d):
    case = Case(rng, k, d, LENGTHS, offset=3.0)
    rest = case.coefficients, case.frame
    wide = [c.astype(np.float64) for c in rest[0]]
    sums = soft_statistics(*case.where(), rest[0], frame=rest[1])
    expected = soft_statistics(*case.where(case.wide()), wide, frame=rest[1])
    for found, right in zip(sums, expected, strict=True):
        assert found.dtype == np.float64
        assert relative(found, right) < 1e-5
    total, likelihood = total_statistics(*case.where(), rest[0], frame=rest[1])
    right, expected_likelihood = total_statistics(*case.where(case.wide()), wide, frame=rest[1])
    for a, b in zip(total, right, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) < 1e-5
    assert likelihood == pytest.approx(expected_likelihood, rel=1e-6)


def test_expectations_of_runs(native, rng):
    case = Case(rng, 33, 20, [700, 1, 90])
    sums, likelihood = expectation_sums(*case.where(), *case.mixture)
    expected, right = expectation_sums(*case.where(case.wide()), *case.mixture)
    np.testing.assert_allclose(likelihood, right, rtol=1e-6)
    for a, b in zip(sums, expected, strict=True):
        assert relative(a, b) < 1e-5


@pytest.mark.parametrize(("k", "d"), [(8, 16), (33, 40)])
def test_a_bag_depends_on_itself_alone(native, rng, k, d):
    case = Case(rng, k, d, LENGTHS)
    together = fisher_vector(*case.where(), *case.mixture)
    order = rng.permutation(len(LENGTHS))
    shuffled = fisher_vector(*case.where(bags=order), *case.mixture)
    np.testing.assert_array_equal(shuffled, together[order])
    for bag in range(len(LENGTHS)):
        alone = fisher_vector(*case.where(bags=slice(bag, bag + 1)), *case.mixture)
        np.testing.assert_array_equal(alone[0], together[bag])
        start, stop = case.starts[bag], case.stops[bag]
        first, last = np.array([0]), np.array([stop - start])
        moved = fisher_vector(case.x[start:stop], first, last, *case.mixture)
        np.testing.assert_array_equal(moved[0], together[bag])


def test_bags_that_overlap(native, rng):
    case = Case(rng, 20, 20, [400])
    case.starts, case.stops = np.array([0, 100, 390, 0]), np.array([300, 400, 391, 400])
    expected = fisher_vector(*case.where(case.wide()), *case.mixture)
    assert relative(fisher_vector(*case.where(), *case.mixture), expected) < TOLERANCE


def laid_out(x, how):
    """Return equal descriptors in memory of another form."""
    n, d = x.shape
    if how == "columns of a wider array":
        wide = np.full((n, d + 5), np.nan, np.float32)
        wide[:, 3 : 3 + d] = x
        return wide[:, 3 : 3 + d]
    if how == "every other row":
        wide = np.full((2 * n, d), np.nan, np.float32)
        wide[::2] = x
        return wide[::2]
    if how == "columns first":
        return np.asfortranarray(x)
    if how == "backwards":
        return x[::-1, ::-1].copy()[::-1, ::-1]
    if how == "unaligned":
        memory = np.zeros(x.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(x.tobytes(), np.uint8)
        return memory[1:].view(np.float32).reshape(n, d)
    assert how == "read-only"
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "how",
    ["columns of a wider array", "every other row", "columns first", "backwards", "unaligned",
     "read-only"],
)  # fmt: skip
@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centred", "in a frame"])
def test_memory_of_any_form(native, rng, how, offset):
    case = Case(rng, 20, 19, [30, 300], offset=offset)
    x = laid_out(case.x, how)
    np.testing.assert_array_equal(
        fisher_vector(*case.where(x), *case.mixture), fisher_vector(*case.where(), *case.mixture)
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.bool_])
def test_narrower_numbers_count_as_float32(native, rng, dtype):
    case = Case(rng, 20, 19, [30, 300, 2])
    x = (case.x > 0).astype(dtype)
    bags = slice(1, 3)
    np.testing.assert_array_equal(
        fisher_sums(*case.where(x, bags), *case.mixture).s2,
        fisher_sums(*case.where(x.astype(np.float32), bags), *case.mixture).s2,
    )


@pytest.mark.parametrize("form", ["float64", "columns first", "part of a row"])
def test_results_of_any_form(native, rng, form):
    case = Case(rng, 20, 19, [30, 300])
    expected = fisher_vector(*case.where(), *case.mixture)
    out = {
        "float64": np.empty(expected.shape),
        "columns first": np.empty(expected.shape, np.float32, order="F"),
        "part of a row": np.empty((2, expected.shape[1] + 3), np.float32)[:, 2:-1],
    }[form]
    assert fisher_vector(*case.where(), *case.mixture, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_rows_so_long_that_few_fit_in_a_tile(native, rng):
    case = Case(rng, 2, 70_000, [3, 20])
    expected = fisher_vector(*case.where(case.wide()), *case.mixture)
    assert relative(fisher_vector(*case.where(), *case.mixture), expected) < TOLERANCE


@pytest.mark.parametrize("include_weights", [True, False])
@pytest.mark.parametrize(("k", "d"), [(8, 16), (33, 33)])
def test_normalised_in_the_same_pass(native, rng, k, d, include_weights):
    case = Case(rng, k, d, LENGTHS)
    options = {"include_weights": include_weights}
    found = fisher_vector(*case.where(), *case.mixture, normalize=True, **options)
    expected = power_l2_normalize(fisher_vector(*case.where(), *case.mixture, **options))
    np.testing.assert_array_equal(found, expected)
    wide = fisher_vector(*case.where(case.wide()), *case.mixture, normalize=True, **options)
    assert found.dtype == np.float32
    # the golden tolerance: an entry near 0, which is rounding, moves by its square root
    np.testing.assert_allclose(np.abs(found) * found, np.abs(wide) * wide, atol=1e-6)


def test_far_descriptors_and_weights_of_zero(native, rng):
    case = Case(rng, 16, 20, [20, 30])
    case.x[5] = 1e4
    case.mixture[0][:2] = 0, case.mixture[0][:2].sum()
    expected = fisher_vector(*case.where(case.wide()), *case.mixture)
    found = fisher_vector(*case.where(), *case.mixture)
    assert relative(found, expected) < 1e-5
    assert not found[:, 0].any()


@pytest.mark.parametrize("k", [16, 17])
def test_what_overflows_is_not_finite(native, rng, k):
    # the caller names it then
    case = Case(rng, k, 20, [20, 30])
    case.x[5] = 3e38
    found = fisher_vector(*case.where(), *case.mixture)
    assert not np.isfinite(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_separated_components(native, rng):
    case = Case(rng, 40, 30, [300, 20], spread=2.0)
    expected = fisher_vector(*case.where(case.wide()), *case.mixture)
    assert relative(fisher_vector(*case.where(), *case.mixture), expected) < TOLERANCE

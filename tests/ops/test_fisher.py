import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfisher.bags.bags import Bags
from skfisher.codebooks.em import Mixture, em_iterations
from skfisher.ops.fisher import (
    fisher_from_statistics,
    fisher_from_statistics_vjp,
    fisher_vector,
    fisher_vector_vjp,
)
from skfisher.ops.gaussian import log_joint, softmax_rows
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.ops.soft_assignment import Sums
from skfisher.parallel.units import Where, row_units

from . import references


def problem(lengths, k, d, *, seed=0, spread=0.5, offset=0.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    stops = np.cumsum(lengths)
    means = rng.normal(size=(k, d)) * spread + offset
    variances = rng.uniform(0.5, 1.5, size=(k, d))
    weights = rng.dirichlet(np.full(k, 5.0))
    component = rng.choice(k, size=stops[-1], p=weights)
    noise = rng.normal(size=(stops[-1], d))
    x = (means[component] + np.sqrt(variances[component]) * noise).astype(dtype)
    return x, stops - np.asarray(lengths), stops, weights, means, variances


@pytest.mark.parametrize(
    "lengths",
    [[1], [3000], [1, 2500, 3, 4, 4, 4, 5000, 1], [2] * 700],
    ids=["one descriptor", "long", "mixed", "many short"],
)
def test_any_lengths_agree_with_plain_loops(lengths):
    arguments = problem(lengths, 5, 3)
    np.testing.assert_allclose(
        fisher_vector(*arguments), references.fisher_vector(*arguments), rtol=1e-10, atol=1e-12
    )


def test_gradients_of_long_and_short_bags_agree_with_central_differences():
    # several chunks a bag, several bags a chunk
    x, starts, stops, *parameters = problem([1, 4000, 3, 7, 7, 7], 4, 2)
    rng = np.random.default_rng(1)
    g = rng.normal(size=(6, 20))
    gradients = fisher_vector_vjp(g, x, starts, stops, *parameters)
    arrays = [x, *parameters]
    for i, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        direction = rng.normal(size=array.shape)
        values = []
        for h in (1e-6, -1e-6):
            moved = [a + h * direction if i == j else a for j, a in enumerate(arrays)]
            values.append((g * fisher_vector(moved[0], starts, stops, *moved[1:])).sum())
        assert (gradient * direction).sum() == pytest.approx(
            (values[0] - values[1]) / 2e-6, rel=1e-6
        )


def test_gradient_without_descriptors_is_the_same_for_the_parameters():
    arguments = problem([5, 2000, 1], 3, 4)
    g = np.random.default_rng(0).normal(size=(3, 27))
    _, *with_x = fisher_vector_vjp(g, *arguments)
    nothing, *without = fisher_vector_vjp(g, *arguments, with_x=False)
    assert nothing is None
    for a, b in zip(with_x, without, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradient_without_parameters_is_the_same_for_the_descriptors():
    arguments = problem([5, 2000, 1], 3, 4)
    g = np.random.default_rng(0).normal(size=(3, 27))
    d_x, *nothing = fisher_vector_vjp(g, *arguments, with_parameters=False)
    assert nothing == [None, None, None]
    np.testing.assert_array_equal(d_x, fisher_vector_vjp(g, *arguments)[0])


def test_descriptors_outside_the_bags_have_no_gradient():
    x, _, _, *parameters = problem([30], 3, 2)
    starts, stops = np.array([20, 3]), np.array([25, 9])
    d_x = fisher_vector_vjp(np.ones((2, 15)), x, starts, stops, *parameters)[0]
    inside = np.r_[3:9, 20:25]
    assert (d_x[np.setdiff1d(np.arange(30), inside)] == 0).all()
    assert (d_x[inside] != 0).any(axis=1).all()


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5), st.integers(1, 40))
def test_weight_block_is_orthogonal_to_the_root_of_the_weights(seed, k, d, length):
    # sum_k sqrt(w_k) F_w,k = 0, as posteriors sum to 1
    arguments = problem([length], k, d, seed=seed)
    encoding = fisher_vector(*arguments)[0]
    assert abs(np.sqrt(arguments[3]) @ encoding[:k]) < 1e-12


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(2, 4))
def test_duplicated_descriptors_change_nothing(seed, length, times):
    x, starts, stops, *parameters = problem([length], 3, 2, seed=seed)
    once = fisher_vector(x, starts, stops, *parameters)
    again = fisher_vector(np.repeat(x, times, axis=0), starts, stops * times, *parameters)
    np.testing.assert_allclose(again, once, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10_000), st.floats(-50, 50), st.floats(0.01, 100))
def test_affine_maps_of_the_descriptors_change_nothing(seed, shift, scale):
    x, starts, stops, weights, means, variances = problem([20, 5], 3, 2, seed=seed)
    a, b = np.array([scale, 1 / scale]), np.array([shift, -shift])
    moved = fisher_vector(x * a + b, starts, stops, weights, means * a + b, variances * a**2)
    plain = fisher_vector(x, starts, stops, weights, means, variances)
    np.testing.assert_allclose(moved, plain, rtol=1e-6, atol=1e-8)


def test_the_whole_training_set_has_a_zero_vector_at_the_maximum_of_likelihood():
    x, starts, stops, *parameters = problem([4000], 3, 2, spread=2)
    units = row_units(Bags(x, starts, stops), Where())
    steps = em_iterations(units, Mixture(*parameters), np.full(2, 1e-6), tol=0)
    for _ in range(3000):
        mixture, _, _ = next(steps)
    assert np.abs(fisher_vector(x, starts, stops, *mixture)).max() < 1e-9


def test_separated_components_whiten_the_vectors_of_the_models_own_samples():
    # T Cov(F) is the identity on means and variances, I - q q' with q = sqrt(w) on the weights
    k, d, length, n_bags = 3, 2, 50, 4000
    arguments = problem([length] * n_bags, k, d, spread=40)
    encodings = fisher_vector(*arguments)
    covariance = length * np.cov(encodings.T, bias=True)
    root = np.sqrt(arguments[3])
    expected = np.eye(len(covariance))
    expected[:k, :k] -= np.outer(root, root)
    np.testing.assert_allclose(covariance, expected, atol=0.1)  # Monte Carlo, 4000 bags


def test_a_component_of_weight_zero_has_zero_blocks_and_gradients():
    x, starts, stops, _, means, variances = problem([40], 3, 2)
    weights = np.array([0.6, 0.0, 0.4])
    encoding = fisher_vector(x, starts, stops, weights, means, variances)[0]
    blocks = encoding[1], encoding[3 + 2 : 3 + 4], encoding[9 + 2 : 9 + 4]
    assert all((np.abs(b) < 1e-12).all() for b in blocks)
    gradients = fisher_vector_vjp(np.ones((1, 15)), x, starts, stops, weights, means, variances)
    assert all(np.isfinite(g).all() for g in gradients)
    others = fisher_vector(x, starts, stops, weights[[0, 2]], means[[0, 2]], variances[[0, 2]])[0]
    np.testing.assert_allclose(encoding[[0, 2, 3, 4, 7, 8, 9, 10, 13, 14]], others, atol=1e-12)


@pytest.mark.parametrize("spread", [0.3, 1, 3, 10])
@pytest.mark.parametrize("offset", [0, 10, 1e4])
def test_float32_descriptors_give_five_digits(spread, offset):
    x, starts, stops, *parameters = problem(
        [500] * 4, 16, 24, spread=spread, offset=offset, dtype=np.float32
    )
    narrow = fisher_vector(x, starts, stops, *parameters)
    wide = fisher_vector(x.astype(np.float64), starts, stops, *parameters)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(power_l2_normalize(narrow), power_l2_normalize(wide), atol=1e-5)


@pytest.mark.parametrize("lengths", [[30, 30, 30], [40, 30, 20], [3000, 2500, 2600]])
def test_gradients_of_a_descriptor_in_several_bags_add_up(lengths, rng):
    n = max(lengths) + 10
    x, _, _, *parameters = problem([n], 3, 4)
    starts = np.array([5, 0, 10])
    stops = starts + lengths
    g = rng.normal(size=(3, 3 + 2 * 3 * 4))
    d_x, *rest = fisher_vector_vjp(g, x, starts, stops, *parameters)
    apart = np.concatenate([x[a:b] for a, b in zip(starts, stops, strict=True)])
    ends = np.cumsum(lengths)
    d_apart, *wanted = fisher_vector_vjp(g, apart, ends - lengths, ends, *parameters)
    total = np.zeros_like(x)
    for a, b, part in zip(starts, stops, np.split(d_apart, ends[:-1]), strict=True):
        total[a:b] += part
    np.testing.assert_allclose(d_x, total, rtol=0, atol=1e-13 * np.abs(total).max())
    for found, want in zip(rest, wanted, strict=True):
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-12 * np.abs(want).max())


def test_a_descriptor_far_from_every_component_has_finite_posteriors():
    _, _, _, *parameters = problem([1], 4, 3)
    x = np.array([[1e4, -1e4, 1e4]], dtype=np.float32)
    p, _, _ = softmax_rows(log_joint(x, *parameters))
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert np.isfinite(fisher_vector(x, np.array([0]), np.array([1]), *parameters)).all()


def test_extreme_scales_neither_overflow_nor_vanish_in_float32():
    x, starts, stops, weights, means, variances = problem([200], 3, 2)
    plain = fisher_vector(x, starts, stops, weights, means, variances)
    for scale in (1e-25, 1e25):
        moved = fisher_vector(
            (x * scale).astype(np.float32),
            starts,
            stops,
            weights,
            means * scale,
            variances * scale**2,
        )
        np.testing.assert_allclose(moved, plain, atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.77, 1.0]), st.floats(1e-3, 1e3))
def test_normalisation_ignores_the_length_of_rows(seed, power, factor):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=(2, 4, 6))
    y = power_l2_normalize(x, power=power)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(power_l2_normalize(factor * x, power=power), y, rtol=1e-9)
    # hence the gradient is orthogonal to the row
    d_x = power_l2_normalize_vjp(g, x, power=power, derivative_floor=0)
    assert np.abs((x * d_x).sum(axis=1)).max() < 1e-12


def test_rows_of_zeros_stay_zero():
    x = np.zeros((2, 4), dtype=np.float32)
    assert (power_l2_normalize(x) == 0).all()
    assert (power_l2_normalize(x, blocks=np.array([0, 0, 1, 1])) == 0).all()
    assert (power_l2_normalize_vjp(np.ones_like(x), x) == 0).all()


def test_the_derivative_floor_bounds_the_gradient_of_rounding_noise():
    x = np.array([[1.0, 1e-14]])
    g = np.array([[0.0, 1.0]])
    exact = power_l2_normalize_vjp(g, x, derivative_floor=0)
    bounded = power_l2_normalize_vjp(g, x, derivative_floor=1e-6)
    assert exact[0, 1] > 1e6
    assert bounded[0, 1] == pytest.approx(0.5 * 1e-6**-0.5, rel=1e-6)


@pytest.mark.parametrize(("k", "d", "spread"), [(3, 5, 1), (3, 5, 4), (8, 20, 3), (16, 32, 3)])
def test_float32_keeps_its_digits_where_bags_resemble_the_mixture(k, d, spread):
    # Vectors of norm 0.1 to 0.5, which normalisation blows up. A hundred roundings: sums over
    # 256 descriptors, about means up to 4 deviations off, of which the vectors are differences.
    x, starts, stops, *parameters = problem([5000] * 3, k, d, spread=spread, dtype=np.float32)
    narrow = fisher_vector(x, starts, stops, *parameters)
    wide = fisher_vector(x.astype(np.float64), starts, stops, *parameters)
    np.testing.assert_allclose(
        power_l2_normalize(narrow, power=1),
        power_l2_normalize(wide, power=1),
        atol=100 * np.finfo(np.float32).eps,
    )


@pytest.mark.parametrize("include_weights", [True, False])
def test_the_step_from_sums_to_vectors_has_the_gradient_of_central_differences(include_weights):
    rng = np.random.default_rng(0)
    n_bags, k, d = 3, 4, 2
    counts = np.array([5, 1, 12])
    options = {"include_weights": include_weights}
    arrays = [
        rng.uniform(size=(n_bags, k)), rng.normal(size=(n_bags, k, d)),
        rng.uniform(1, 2, size=(n_bags, k, d)), rng.dirichlet(np.ones(k)),
        rng.normal(size=(k, d)), rng.uniform(0.5, 2, size=(k, d)),
    ]  # fmt: skip

    def forward(arrays):
        return fisher_from_statistics(Sums(*arrays[:3]), counts, *arrays[3:], **options)

    g = rng.normal(size=forward(arrays).shape)
    sums = Sums(*arrays[:3])
    d_sums, *rest = fisher_from_statistics_vjp(g, sums, counts, *arrays[3:], **options)
    for i, gradient in enumerate([*d_sums, *rest]):
        direction = rng.normal(size=arrays[i].shape)
        up, down = (
            [a + h * direction if i == j else a for j, a in enumerate(arrays)]
            for h in (1e-6, -1e-6)
        )
        difference = (g * (forward(up) - forward(down))).sum() / 2e-6
        assert (gradient * direction).sum() == pytest.approx(difference, rel=1e-6, abs=1e-7)


def test_normalised_at_once():
    x, *where = problem([3, 40, 1], 5, 3)
    expected = power_l2_normalize(fisher_vector(x, *where))
    np.testing.assert_allclose(fisher_vector(x, *where, normalize=True), expected, rtol=1e-12)
    out = np.empty_like(expected)
    assert fisher_vector(x, *where, normalize=True, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-12)

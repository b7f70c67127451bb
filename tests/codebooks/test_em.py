import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from skfisher import Bags
from skfisher.bags.sampling import draw_rows
from skfisher.codebooks.em import (
    Mixture,
    StepwiseState,
    em_iterations,
    expectation,
    initial_mixture,
    maximization,
    split_empty,
    stepwise_update,
)
from skfisher.codebooks.moments import Moments, global_moments
from skfisher.parallel.units import Where, row_units


def bags_of(n_bags=30, d=3, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 80, size=n_bags)
    stops = np.cumsum(lengths)
    centers = rng.normal(size=(4, d)) * 4
    x = centers[rng.integers(4, size=stops[-1])] + rng.normal(size=(stops[-1], d)) + offset
    return x, stops - lengths, stops


def units(x, starts, stops, **where):
    return row_units(Bags(x, starts, stops), Where(**where))


def start(x, starts, stops, k=4, seed=0, share=1e-3):
    moments = global_moments(Bags(x, starts, stops))
    floor = moments.floor(share)
    rows, _ = draw_rows(starts, stops, 10_000, seed)
    mixture = initial_mixture(x, rows, k, moments, floor, method="kmeans", seed=seed)
    return mixture, floor


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_those_of_numpy_over_the_bags_alone(offset):
    x, starts, stops = bags_of(offset=offset)
    starts, stops = starts[[4, 2, 9]], stops[[4, 2, 9]]
    inside = np.concatenate([x[a:b] for a, b in zip(starts, stops, strict=True)])
    moments = global_moments(Bags(x, starts, stops))
    np.testing.assert_allclose(moments.mean, inside.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, inside.var(axis=0), rtol=1e-8)


def test_a_constant_dimension_takes_the_floor_of_the_others():
    floor = Moments(np.zeros(3), np.array([2.0, 0.0, 4.0])).floor(0.01)
    np.testing.assert_allclose(floor, [0.02, 0.02, 0.04])
    assert (Moments(np.ones(2), np.zeros(2)).floor(0.01) == 0.01).all()


def test_a_dimension_is_not_constant_for_being_small_beside_others():
    floor = Moments(np.zeros(2), np.array([1e14, 1e-14])).floor(0.01)
    np.testing.assert_allclose(floor, [1e12, 1e-16])


@pytest.mark.parametrize("scale", [1e160, 1e-170])
def test_scales_whose_square_is_no_number_are_refused_by_name(scale):
    x, starts, stops = bags_of()
    x[:, 1] *= scale
    with pytest.raises(ValueError, match="in feature 1: its square is out of the range of float64"):
        global_moments(Bags(x, starts, stops))


@given(st.integers(1, 500), st.integers(0, 1000))
def test_rows_are_drawn_from_the_bags_without_replacement(n_rows, seed):
    _, starts, stops = bags_of()
    starts, stops = starts[[5, 1, 20]], stops[[5, 1, 20]]
    inside = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
    rows, owners = draw_rows(starts, stops, n_rows, seed)
    assert len(rows) == len(set(rows)) == min(n_rows, len(inside))
    assert set(rows) <= set(inside)
    assert ((starts[owners] <= rows) & (rows < stops[owners])).all()


def test_one_iteration_is_that_of_scikit_learn():
    x, starts, stops = bags_of()
    mixture, _ = start(x, starts, stops)
    peer = GaussianMixture(4, covariance_type="diag", reg_covar=0)
    peer.weights_, peer.means_, peer.covariances_ = mixture
    peer.precisions_cholesky_ = 1 / np.sqrt(mixture.variances)
    log_likelihood, log_posteriors = peer._e_step(x)
    peer._m_step(x, log_posteriors)
    sums, frame, ours = expectation(units(x, starts, stops), mixture)
    ours_after = maximization(sums, frame, np.zeros(3), mixture)
    assert ours == pytest.approx(log_likelihood, rel=1e-12)
    np.testing.assert_allclose(ours_after.weights, peer.weights_, rtol=1e-10)
    np.testing.assert_allclose(ours_after.means, peer.means_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours_after.variances, peer.covariances_, rtol=1e-8)


def test_the_log_likelihood_never_drops_with_an_active_floor():
    # the floored variance is the exact maximiser under the constraint
    x, starts, stops = bags_of()
    x[:, 1] = 10 * (x[:, 0] > 0)  # components have no variance of their own there
    mixture, floor = start(x, starts, stops, k=6, share=0.05)
    steps = em_iterations(units(x, starts, stops), mixture, floor, tol=0)
    values = []
    for _ in range(100):
        mixture, value, _ = next(steps)
        values.append(value)
    assert (mixture.variances == floor).any()
    assert np.diff(values).min() > -1e-12


@pytest.mark.parametrize("n_jobs", [2, 3, -1])
def test_threads_do_not_change_a_bit(n_jobs, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 100)
    x, starts, stops = bags_of()
    mixture, _ = start(x, starts, stops)
    one = expectation(units(x, starts, stops), mixture)
    several = expectation(units(x, starts, stops, n_jobs=n_jobs), mixture)
    assert one[2] == several[2]
    for a, b in zip(one[0], several[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_order_and_the_borders_of_bags_do_not_matter():
    x, starts, stops = bags_of()
    mixture, _ = start(x, starts, stops)
    plain, _, value = expectation(units(x, starts, stops), mixture)
    order = np.random.default_rng(0).permutation(len(starts))
    shuffled, _, same = expectation(units(x, starts[order], stops[order]), mixture)
    merged, _, again = expectation(units(x, starts[:1], stops[-1:]), mixture)
    assert value == pytest.approx(same, rel=1e-12) == pytest.approx(again, rel=1e-12)
    for a, b, c in zip(plain, shuffled, merged, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
        np.testing.assert_allclose(a, c, rtol=1e-10)


def test_a_split_keeps_the_moments_of_the_mixture():
    rng = np.random.default_rng(0)
    mixture = Mixture(
        np.array([1e-9, 0.4, 0.6]), rng.normal(size=(3, 2)), rng.uniform(1, 2, (3, 2))
    )
    split, n_split = split_empty(mixture, 10_000, np.full(2, 1e-3))
    assert n_split == 1

    def moments(m):
        return m.weights @ m.means, m.weights @ (m.variances + m.means**2)

    for before, after in zip(moments(mixture), moments(split), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-7)
    assert split.weights.sum() == pytest.approx(1)
    assert (split.weights > 0.1).all()


def test_components_that_no_descriptor_visits_come_back_into_use():
    x, starts, stops = bags_of()
    far = Mixture(np.full(4, 0.25), np.array([[0.0] * 3, [1.0] * 3, [900.0] * 3, [-900.0] * 3]),
                  np.ones((4, 3)))  # fmt: skip
    floor = global_moments(Bags(x, starts, stops)).floor(1e-3)
    steps = em_iterations(units(x, starts, stops), far, floor, tol=0)
    for _ in range(60):
        mixture, value, _ = next(steps)
    assert mixture.weights.min() > 0.05
    good = em_iterations(units(x, starts, stops), start(x, starts, stops)[0], floor, tol=0)
    for _ in range(60):
        _, best, _ = next(good)
    assert value > best - 0.3


def test_fewer_distinct_descriptors_than_components_end_in_finite_parameters():
    x = np.repeat(np.array([[0.0, 1], [2, 3]]), 10, axis=0)
    mixture, floor = start(x, np.array([0]), np.array([20]), k=5)
    steps = em_iterations(units(x, [0], [20]), mixture, floor, tol=1e-4)
    for _ in range(30):
        mixture, value, _ = next(steps)
    assert all(np.isfinite(p).all() for p in mixture)
    assert (mixture.variances >= floor * (1 - 1e-12)).all()
    assert np.isfinite(value)


def test_online_em_comes_close_to_exact_em():
    # Cappé and Moulines (2009): step sizes (i + 2)^-0.6 converge to a stationary point
    x, starts, stops = bags_of(n_bags=300)
    mixture, floor = start(x, starts, stops)
    steps = em_iterations(units(x, starts, stops), mixture, floor, tol=0)
    for _ in range(200):
        _, exact, _ = next(steps)
    moments = global_moments(Bags(x, starts, stops))
    # started badly, not from clusters, so that there is something to learn
    online = Mixture(
        mixture.weights, moments.mean + 3 * np.eye(4, 3), np.tile(moments.variance, (4, 1))
    )
    _, _, before = expectation(units(x, starts, stops), online)
    state = StepwiseState.begin(online, moments)
    rng = np.random.default_rng(0)
    for _ in range(15):
        for batch in np.array_split(rng.permutation(300), 30):
            state, online, _ = stepwise_update(
                state, units(x, starts[batch], stops[batch]), online, 1e-3
            )
    _, _, after = expectation(units(x, starts, stops), online)
    assert before < exact - 0.2
    assert after > exact - 2e-2


def test_online_em_waits_for_enough_descriptors():
    x, starts, stops = bags_of()
    mixture, _ = start(x, starts, stops)
    state = StepwiseState.begin(mixture, global_moments(Bags(x, starts, stops)))
    state, after, _ = stepwise_update(state, units(x[:79], [0], [79]), mixture, 1e-3)
    assert after is mixture  # 20 descriptors a component are 80
    state, after, _ = stepwise_update(state, units(x[79:], [0], [9]), mixture, 1e-3)
    assert (after.means != mixture.means).any()
    assert state.n_seen == 88


def test_sums_of_a_fitted_mixture_give_the_mixture_back():
    x, starts, stops = bags_of(offset=100)
    mixture, floor = start(x, starts, stops)
    moments = global_moments(Bags(x, starts, stops))
    state = StepwiseState.of_mixture(mixture, moments, 1, 1000)
    again = maximization(state.sums, state.frame, floor * 0, mixture)
    for a, b in zip(again, mixture, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def same_bits(results, others):
    for a, b in zip(results, others, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("offset", [0.0, 100.0])  # without and with a frame
def test_results_do_not_depend_on_devices_or_memory(stand_in, monkeypatch, offset):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 100)
    x, starts, stops = bags_of(offset=offset)
    starts, stops = starts[::2], stops[::2]  # not side by side
    mixture, _ = start(x, starts, stops)
    host = (
        global_moments(Bags(x, starts, stops)),
        *expectation(units(x, starts, stops), mixture)[::2],
    )
    found = []
    for device in ("cuda", "cuda:1", "cuda:all", ["cuda:1", "cuda:0"]):
        for n_bytes in (2**40, 4000):
            monkeypatch.setattr("tests.device_array.Memory.n_bytes", n_bytes)
            moments = global_moments(Bags(x, starts, stops), Where(device=device))
            sums, _, log_likelihood = expectation(units(x, starts, stops, device=device), mixture)
            found.append((*moments, *sums, log_likelihood))
    for other in found[1:]:
        same_bits(other, found[0])
    for a, b in zip(found[0], (*host[0], *host[1], host[2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_descriptors_stay_on_their_devices_between_iterations(stand_in, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 100)
    log = []
    monkeypatch.setattr("tests.device_array.Lane.log", log)
    x, starts, stops = bags_of()
    mixture, floor = start(x, starts, stops)
    steps = em_iterations(units(x, starts, stops, device="cuda:all"), mixture, floor, tol=0)
    plain = em_iterations(units(x, starts, stops), mixture, floor, tol=0)
    for _ in range(4):
        (on_device, _, _), (on_host, _, _) = next(steps), next(plain)
        np.testing.assert_allclose(on_device.means, on_host.means, rtol=1e-9, atol=1e-9)
    moved = [n for _, n in log if n != "closed"]
    assert sum(moved) == len(x)

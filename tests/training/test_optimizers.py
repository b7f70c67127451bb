"""Optimisers against steps by hand, a quadratic, and each other."""

import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.arrays.libraries import to_host
from skfisher.training.optimizers import (
    SGD,
    Adam,
    clip_norm,
    constant,
    cosine,
)

OPTIMIZERS = [SGD(momentum=0.0), SGD(), Adam()]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)


def run(optimizer, parameters, gradients_of, n_steps, *, rate, schedule=constant, **options):
    state = optimizer.start(parameters)
    for step in range(n_steps):
        parameters, state = optimizer.step(
            parameters,
            gradients_of(parameters),
            state,
            rate=rate * schedule(step, n_steps),
            **options,
        )
    return parameters, state


def test_momentum_by_hand():
    gradients = iter([{"a": np.array([2.0, -1.0])}, {"a": np.array([1.0, 1.0])}])
    parameters, _ = run(
        SGD(momentum=0.5), {"a": np.array([1.0, 1.0])}, lambda _: next(gradients), 2, rate=0.1
    )
    # momenta (2, -1), then (1 + 1, 1 - 0.5)
    assert_allclose(parameters["a"], [1 - 0.2 - 0.2, 1 + 0.1 - 0.05])


def test_adam_by_hand():
    p, m, q = 3.0, 0.0, 0.0
    parameters = {"a": np.array([p])}
    optimizer = Adam(beta_1=0.8, beta_2=0.9, epsilon=0.01)
    state = optimizer.start(parameters)
    for t, g in enumerate([2.0, -1.0, 0.5], start=1):
        m, q = 0.8 * m + 0.2 * g, 0.9 * q + 0.1 * g**2
        p -= 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(q / (1 - 0.9**t)) + 0.01)
        parameters, state = optimizer.step(parameters, {"a": np.array([g])}, state, rate=0.1)
        assert_allclose(parameters["a"], [p], rtol=1e-12)


def test_the_first_step_of_adam_is_of_the_size_of_the_rate():
    gradients = {"a": np.array([1e-4, -3.0, 1e5, 0.0])}
    parameters, _ = run(Adam(), {"a": np.zeros(4)}, lambda _: gradients, 1, rate=0.01)
    assert_allclose(parameters["a"], [-0.01, 0.01, -0.01, 0], rtol=1e-3)


@every_optimizer
def test_finds_the_minimum_of_a_quadratic(optimizer, xp, rng):
    # 1/2 (p - c)' H (p - c) of two arrays together, curvatures 0.3 to 3
    centre = {"a": xp.asarray(rng.normal(size=3)), "b": xp.asarray(rng.normal(size=(2, 2)))}
    curvature = xp.asarray([0.3, 1.0, 3.0])

    def gradients_of(p):
        return {"a": curvature * (p["a"] - centre["a"]), "b": p["b"] - centre["b"]}

    start = {name: xp.zeros_like(c) for name, c in centre.items()}
    found, _ = run(optimizer, start, gradients_of, 400, rate=0.1, schedule=cosine)
    for name in centre:
        assert_allclose(to_host(found[name]), to_host(centre[name]), atol=1e-3)


@every_optimizer
def test_writes_to_nothing_and_goes_on_from_a_kept_state(optimizer, rng):
    start = {"a": rng.normal(size=3), "b": rng.normal(size=2)}
    gradients_of = lambda p: {"a": 2 * p["a"], "b": p["b"] ** 3}
    kept, state = run(optimizer, start, gradients_of, 5, rate=0.1)
    copies = pickle.loads(pickle.dumps((start, kept, state)))
    ends = []
    for parameters, from_state in [(kept, state), copies[1:]]:
        for _ in range(5):
            gradients = gradients_of(parameters)
            parameters, from_state = optimizer.step(parameters, gradients, from_state, rate=0.1)
        ends.append(parameters)
    whole, _ = run(optimizer, start, gradients_of, 10, rate=0.1)
    for end in ends:
        for name in start:
            assert_array_equal(end[name], whole[name])
    for name in start:
        assert_array_equal(start[name], copies[0][name])
        assert_array_equal(kept[name], copies[1][name])


@every_optimizer
def test_factors_scale_the_rate_by_name(optimizer):
    start = {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}
    gradients = {"a": np.array([1.0, 2.0]), "b": np.array([1.0, 2.0]), "c": np.ones(2)}
    found, _ = run(optimizer, start, lambda _: gradients, 3, rate=0.1, factors={"b": 0.5, "c": 0})
    assert_allclose(1 - found["b"], (1 - found["a"]) / 2)
    assert_array_equal(found["c"], 1)


@every_optimizer
def test_parameters_without_gradient_stay(optimizer):
    start = {"a": np.ones(2), "b": np.ones(2)}
    found, _ = run(optimizer, start, lambda p: {"a": p["a"]}, 2, rate=0.1)
    assert (found["a"] < 1).all()
    assert found["b"] is start["b"]


@every_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dtype_of_gradient", [np.float32, np.float64])
def test_parameters_keep_their_dtype(optimizer, dtype, dtype_of_gradient):
    gradients = {"a": np.ones(2, dtype_of_gradient)}
    found, _ = run(
        optimizer, {"a": np.ones(2, dtype)}, lambda _: gradients, 2, rate=np.float64(0.1)
    )
    assert found["a"].dtype == dtype


def test_schedules():
    assert [constant(step, 4) for step in range(5)] == [1] * 5
    assert_allclose(
        [cosine(step, 4) for step in range(6)],
        [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0, 0],
        atol=1e-15,
    )


def test_clipping_keeps_the_direction(xp):
    gradients = {"a": xp.asarray([3.0, 0.0]), "b": xp.asarray([[0.0], [-4.0]])}
    clipped, norm = clip_norm(gradients, 1.0)
    assert norm == pytest.approx(5)
    assert_allclose(to_host(clipped["a"]), [0.6, 0])
    assert_allclose(to_host(clipped["b"]), [[0], [-0.8]])
    for bound in (5.5, None):
        same, norm = clip_norm(gradients, bound)
        assert norm == pytest.approx(5)
        assert all(same[name] is gradients[name] for name in gradients)


def test_clipping_in_float32_neither_widens_nor_overflows():
    clipped, norm = clip_norm({"a": np.array([3e30, 4e30], np.float32)}, 1.0)
    assert norm == pytest.approx(5e30)
    assert clipped["a"].dtype == np.float32
    assert_allclose(clipped["a"], [0.6, 0.8], rtol=1e-6)


def test_gradients_that_are_not_finite_are_reported_and_left():
    gradients = {"a": np.array([1.0, np.nan]), "b": np.ones(2)}
    same, norm = clip_norm(gradients, 1.0)
    assert math.isnan(norm)
    assert same is gradients


@pytest.mark.filterwarnings("error")
def test_gradients_whose_norm_overflows_are_reported_without_a_warning_of_numpy():
    gradients = {"a": np.array([1e300, 1.0])}
    assert clip_norm(gradients, 1.0) == (gradients, math.inf)

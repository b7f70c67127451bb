"""Feature maps, and the whole chain from descriptors to the loss."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skfisher.ops.feature_map import linear_map, linear_map_vjp, tanh_map, tanh_map_vjp
from skfisher.ops.fisher import fisher_vector, fisher_vector_vjp
from skfisher.ops.losses import log_loss, squared_hinge
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp


def test_many_rows_pass_in_chunks(rng, monkeypatch):
    arguments = rng.normal(size=(10, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    g = rng.normal(size=(10, 3))
    whole = [tanh_map(*arguments), *tanh_map_vjp(g, *arguments)]
    monkeypatch.setattr("skfisher.ops.feature_map.ROWS_PER_CHUNK", 4)
    for part, one in zip([tanh_map(*arguments), *tanh_map_vjp(g, *arguments)], whole, strict=True):
        assert_allclose(part, one, rtol=1e-12)


@pytest.mark.parametrize("vjp", [linear_map_vjp, tanh_map_vjp])
def test_the_gradient_by_the_descriptors_can_be_left_out(vjp, rng):
    x, weight, bias = rng.normal(size=(10, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
    g = rng.normal(size=(10, 3))
    d_x, *rest = vjp(g, x, weight, bias, with_x=False)
    assert d_x is None
    for part, one in zip(rest, vjp(g, x, weight, bias)[1:], strict=True):
        assert_array_equal(part, one)


def test_gradients_of_many_float32_rows_are_added_up_precisely(rng):
    # rows of one sign, for which a running float32 sum drifts
    n = 200_000
    x, g = rng.uniform(1, 2, size=(2, n, 3)).astype(np.float32)
    weight, bias = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    _, d_weight, d_bias = linear_map_vjp(g, x, weight, bias, with_x=False)
    assert_allclose(d_bias, g.sum(axis=0, dtype=np.float64), rtol=1e-6)
    assert_allclose(d_weight, g.astype(np.float64).T @ x, rtol=1e-6)


@pytest.mark.parametrize("loss", [squared_hinge, log_loss])
@pytest.mark.parametrize("feature_map", ["tanh", "linear"])
def test_the_whole_chain_agrees_with_central_differences(loss, feature_map, rng):
    # map -> Fisher vector -> power and L2 -> linear model -> loss
    apply_map, map_vjp = {
        "tanh": (tanh_map, tanh_map_vjp),
        "linear": (linear_map, linear_map_vjp),
    }[feature_map]
    starts, stops = np.array([0, 1, 6, 15]), np.array([1, 6, 15, 21])
    signs = np.where(np.eye(3)[[0, 1, 2, 1]] > 0, 1, -1)
    k, d = 3, 4
    parameters = {
        "x": rng.normal(size=(21, 5)),
        "weight": rng.normal(size=(d, 5)) / 2,
        "bias": rng.normal(size=d) / 4,
        "weights": rng.dirichlet(np.full(k, 5.0)),
        "means": rng.normal(size=(k, d)) / 2,
        "variances": rng.uniform(0.2, 0.6, size=(k, d)),
        "coef": rng.normal(size=(3, k * (2 * d + 1))),
        "intercept": rng.normal(size=3),
    }
    eps = 1e-2  # smooth, so that central differences need no luck with entries near 0

    def chain(x, weight, bias, weights, means, variances, coef, intercept):
        h = apply_map(x, weight, bias)
        f = fisher_vector(h, starts, stops, weights, means, variances)
        z = power_l2_normalize(f, eps=eps)
        losses, d_decision = loss(linear_map(z, coef, intercept), signs)
        return h, f, z, losses.sum(), d_decision

    h, f, z, _, d_decision = chain(**parameters)
    d_z, d_coef, d_intercept = linear_map_vjp(
        d_decision, z, parameters["coef"], parameters["intercept"]
    )
    assert_allclose(d_z, d_decision @ parameters["coef"], rtol=1e-12)
    d_f = power_l2_normalize_vjp(d_z, f, eps=eps)
    mixture = [parameters[name] for name in ("weights", "means", "variances")]
    d_h, *d_mixture = fisher_vector_vjp(d_f, h, starts, stops, *mixture)
    d_map = map_vjp(d_h, *[parameters[name] for name in ("x", "weight", "bias")])
    gradients = dict(zip(parameters, [*d_map, *d_mixture, d_coef, d_intercept], strict=True))
    for name, gradient in gradients.items():
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            direction /= np.linalg.norm(direction)
            step = 1e-6
            above, below = (
                chain(**{**parameters, name: parameters[name] + s * direction})[3]
                for s in (step, -step)
            )
            assert (gradient * direction).sum() == pytest.approx(
                (above - below) / (2 * step), rel=1e-6, abs=1e-7
            )

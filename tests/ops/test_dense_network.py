"""Gradient factors against finite differences of the loss, and PyTorch where it is installed."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skfisher.ops.dense_network import (
    activate,
    activation_slope,
    error_passes,
    forward,
    gradient_factors,
    layer_errors,
    output_error,
    unit_rows,
)

WIDTHS = (5, 6, 4, 3)


def network(rng, *, activation="tanh", widths=WIDTHS, dtype=np.float64):
    weights = [rng.normal(size=shape).astype(dtype) for shape in itertools.pairwise(widths)]
    biases = [0.1 * rng.normal(size=w.shape[1]).astype(dtype) for w in weights]
    return weights, biases, (activation,) * (len(weights) - 1)


def loss(x, weights, biases, activations, output, g, temperature):
    """Return the loss of one sample, written out: tau times the cross-entropy with g."""
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = np.array([x @ weight[:, j] + bias[j] for j in range(len(bias))])
        if k < len(activations):
            x = {
                "relu": lambda y: np.where(y > 0, y, 0),
                "tanh": np.tanh,
                "logistic": lambda y: 1 / (1 + np.exp(-y)),
                "identity": lambda y: y,
            }[activations[k]](x)
    if output == "identity":
        return 0.5 * ((x - g) ** 2).sum()
    y = x / temperature
    if output == "softmax":
        return -temperature * (g * (y - np.log(np.exp(y).sum()))).sum()
    p = 1 / (1 + np.exp(-y))
    return -temperature * (g * np.log(p) + (1 - g) * np.log(1 - p)).sum()


def numerical_gradient(x, weights, biases, activations, layer, *, of, step=1e-6, **settings):
    """Return the gradient of the loss of one sample by one weight matrix or bias vector."""
    moved = [array.copy() for array in (weights if of == "weights" else biases)]
    gradient = np.zeros_like(moved[layer])
    for index in np.ndindex(gradient.shape):
        values = []
        for sign in (1, -1):
            moved[layer][index] += sign * step
            arrays = (moved, biases) if of == "weights" else (weights, moved)
            values.append(loss(x, *arrays, activations, **settings))
            moved[layer][index] -= sign * step
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("output", ["softmax", "logistic", "identity"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_factors_are_the_gradient_of_the_loss(rng, activation, output):
    # MATHS: dE/dW_k = x_{k-1} delta_k', dE/db_k = delta_k, for every layer
    weights, biases, activations = network(rng, activation=activation)
    g = np.array([0.5, 0.2, 0.3])
    x = rng.normal(size=(3, WIDTHS[0]))
    for layer in range(len(weights)):
        a, e = gradient_factors(
            x, weights, biases, activations, layer=layer, output=output, target=g, temperature=1.7
        )
        for i in range(len(x)):
            settings = {"output": output, "g": g, "temperature": 1.7}
            args = (x[i], weights, biases, activations, layer)
            expected = numerical_gradient(*args, of="weights", **settings)
            assert_allclose(np.outer(a[i], e[i]), expected, atol=1e-7)
            assert_allclose(e[i], numerical_gradient(*args, of="biases", **settings), atol=1e-7)


@pytest.mark.parametrize(("output", "g"), [("softmax", 1 / 3), ("logistic", 1 / 2)])
def test_uniform_target_is_the_uniform_distribution(rng, output, g):
    logits = rng.normal(size=(6, 3))
    error = output_error(logits, output=output, target="uniform", temperature=3.0)
    expected = output_error(logits, output=output, target=np.full(3, g), temperature=3.0)
    assert_allclose(error, expected, atol=1e-15)


def test_target_none_is_the_prediction(rng):
    logits = rng.normal(size=(4, 3))
    exp = np.exp(logits / 2)
    assert_allclose(output_error(logits, target="none"), exp / exp.sum(axis=1, keepdims=True))
    assert_allclose(
        output_error(logits, output="logistic", target="none"), 1 / (1 + np.exp(-logits / 2))
    )
    assert output_error(logits, output="identity", target="none") is logits


@pytest.mark.parametrize("output", ["softmax", "logistic"])
def test_infinite_temperature_is_the_limit_of_the_direction(rng, output):
    logits = rng.normal(size=(5, 4))
    limit = output_error(logits, output=output, temperature=np.inf)
    near = output_error(logits, output=output, temperature=1e6)
    assert_allclose(unit_rows(limit), unit_rows(near), rtol=1e-5)


def test_infinite_temperature_means_centred_logits(rng):
    logits = rng.normal(size=(5, 4))
    expected = logits - logits.mean(axis=1, keepdims=True)
    assert_allclose(output_error(logits, temperature=np.inf), expected)
    priors = np.array([0.4, 0.3, 0.2, 0.1])
    assert_allclose(output_error(logits, target=priors, temperature=np.inf), [0.25 - priors] * 5)


@pytest.mark.parametrize("temperature", [1e-2, 1.0, 1e5])
def test_uniform_error_keeps_its_digits_in_float32(rng, temperature):
    # saturated at the low end, all but equal probabilities at the high end
    logits = (10 * rng.normal(size=(20, 7))).astype(np.float32)
    y = logits.astype(np.longdouble) / temperature
    p = np.exp(y - y.max(axis=1, keepdims=True))
    expected = p / p.sum(axis=1, keepdims=True) - np.longdouble(1) / 7
    error = output_error(logits, temperature=temperature)
    assert error.dtype == np.float32
    scale = np.linalg.norm(expected.astype(float), axis=1, keepdims=True)
    assert_allclose(error / scale, (expected / scale).astype(float), atol=5e-6)


def test_equal_logits_have_no_uniform_error():
    assert (output_error(np.full((2, 5), 3.7, dtype=np.float32)) == 0).all()


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_huge_logits_stay_finite(size):
    logits = np.array([[size, -size, 0.0]])
    for output in ("softmax", "logistic"):
        for target in ("uniform", "none"):
            with np.errstate(over="raise", invalid="raise"):
                error = output_error(logits, output=output, target=target)
            assert np.isfinite(error).all()


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_slope_is_the_derivative_of_the_activation(rng, activation):
    y = rng.normal(size=(4, 5))
    numerical = (activate(y + 1e-6, activation) - activate(y - 1e-6, activation)) / 2e-6
    assert_allclose(activation_slope(activate(y, activation), activation), numerical, atol=1e-8)


def test_passes_are_the_rows_of_the_jacobian(rng):
    weights, biases, activations = network(rng)
    x = rng.normal(size=(3, WIDTHS[0]))
    inputs, logits = forward(x, weights, biases, activations)
    slopes = [activation_slope(inputs[k + 1], activations[k]) for k in (0, 1)]
    passes = list(error_passes(slopes, weights[1:], np.eye(3)))
    assert len(passes) == 3
    for p, errors in enumerate(passes):
        step = 1e-6
        for unit in range(WIDTHS[1]):
            moved = [b.copy() for b in biases]
            moved[0][unit] += step
            after = forward(x, weights, moved, activations)[1]
            assert_allclose(errors[:, unit], (after - logits)[:, p] / step, atol=1e-4)


def test_sign_cotangents_are_combinations_of_the_rows(rng):
    weights, biases, activations = network(rng)
    inputs, logits = forward(rng.normal(size=(4, 5)), weights, biases, activations)
    slopes = [activation_slope(inputs[k + 1], activations[k]) for k in (0, 1)]
    signs = np.array([[1.0], [-1.0], [1.0]])
    rows = list(error_passes(slopes, weights[1:], np.eye(3)))
    [combined] = error_passes(slopes, weights[1:], signs)
    assert_allclose(combined, rows[0] - rows[1] + rows[2])
    error = np.broadcast_to(signs[:, 0], logits.shape)
    assert_allclose(combined, layer_errors(error, inputs, weights, activations, 0)[0])


def test_float32_stays_float32_and_inputs_are_untouched(rng):
    weights, biases, activations = network(rng, dtype=np.float32)
    x = rng.normal(size=(4, 5)).astype(np.float32)
    copies = [array.copy() for array in (x, *weights, *biases)]
    for target in ("uniform", "none", np.full(3, 1 / 3)):
        factors = gradient_factors(x, weights, biases, activations, layer=0, target=target)
        assert [f.dtype for f in factors] == [np.float32] * 2
    for array, copy in zip((x, *weights, *biases), copies, strict=True):
        assert (array == copy).all()


@given(exponent=st.integers(-36, 36))
def test_unit_rows_have_unit_length_however_scaled(exponent):
    x = np.random.default_rng(0).normal(size=(3, 4)) * 10.0**exponent
    x[1] = 0
    y = unit_rows(x.astype(np.float32))
    assert y.dtype == np.float32
    assert_allclose(np.linalg.norm(y, axis=1), [1, 0, 1], rtol=1e-6)


def test_factors_equal_those_of_torch_func(rng):
    torch = pytest.importorskip("torch")
    weights, biases, activations = network(rng, activation="relu")
    x = rng.normal(size=(7, WIDTHS[0]))

    def torch_loss(parameters, sample):
        for k, (weight, bias) in enumerate(parameters):
            sample = sample @ weight + bias
            if k < len(parameters) - 1:
                sample = torch.relu(sample)
        return -2 * torch.log_softmax(sample / 2, dim=0).mean()

    parameters = [(torch.tensor(w), torch.tensor(b)) for w, b in zip(weights, biases, strict=True)]
    per_sample = torch.func.vmap(torch.func.grad(torch_loss), in_dims=(None, 0))
    gradients = per_sample(parameters, torch.tensor(x))
    for layer in range(3):
        a, e = gradient_factors(x, weights, biases, activations, layer=layer)
        expected_w, expected_b = (g.numpy() for g in gradients[layer])
        assert_allclose(a[:, :, None] * e[:, None, :], expected_w, atol=1e-14)
        assert_allclose(e, expected_b, atol=1e-14)

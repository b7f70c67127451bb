"""Gradient factors of a dense network: forward, output error, back-propagation.

A dense layer computes ``y = x W + b``, so the gradient of any loss with respect to its
weights is, for one sample, the outer product of what enters the layer (the activations)
and what comes back to it (the error). These functions return the two factors and never
the outer product.

Weights are laid out as in scikit-learn's ``coefs_``, of shape (n_in, n_out). The network of
L layers has L - 1 hidden activations; its outputs ``y_L``, before any softmax, are called
logits.
"""

import numpy as np

from skfisher.arrays.libraries import array_module

__all__ = [
    "ACTIVATIONS",
    "OUTPUTS",
    "activate",
    "activation_slope",
    "backpropagate",
    "error_passes",
    "forward",
    "gradient_factors",
    "layer_errors",
    "output_error",
    "unit_rows",
]

ACTIVATIONS = ("identity", "logistic", "relu", "tanh")
OUTPUTS = ("softmax", "logistic", "identity")


def activate(y, activation):
    """Return the activation of the pre-activations `y`, an array of any shape."""
    xp = array_module(y)
    if activation == "relu":
        return xp.maximum(y, 0)
    if activation == "tanh":
        return xp.tanh(y)
    if activation == "logistic":
        return 0.5 + 0.5 * xp.tanh(0.5 * y)  # does not overflow
    return y


def activation_slope(x, activation):
    """Return the derivative of the activation, from its output ``x = activate(y)``.

    The slope of the rectifier at zero is zero.
    """
    xp = array_module(x)
    if activation == "relu":
        return (x > 0).astype(x.dtype)
    if activation == "tanh":
        return 1 - x * x
    if activation == "logistic":
        return x * (1 - x)
    return xp.ones_like(x)


@np.errstate(over="ignore", invalid="ignore")  # the caller looks at the outputs
def forward(x, weights, biases, activations):
    """Run a dense network and keep what enters every layer.

    Parameters
    ----------
    x : array of shape (n, weights[0].shape[0]), float32 or float64
    weights : sequence of L arrays of shape (n_in, n_out), of the dtype and library of `x`
    biases : sequence of L arrays of shape (n_out,)
    activations : sequence of L - 1 names from `ACTIVATIONS`
        One for each hidden layer.

    Returns
    -------
    inputs : list of L arrays
        ``inputs[k]`` of shape (n, weights[k].shape[0]) enters layer k; ``inputs[0]`` is `x`.
    logits : array of shape (n, P)
        The outputs of the last layer.
    """
    inputs = [x]
    for weight, bias, activation in zip(weights[:-1], biases[:-1], activations, strict=True):
        inputs.append(activate(inputs[-1] @ weight + bias, activation))
    return inputs, inputs[-1] @ weights[-1] + biases[-1]


def output_error(logits, *, output="softmax", target="uniform", temperature=2.0):
    r"""Return the error at the outputs, the gradient of the loss by the logits.

    With the probabilities :math:`p = \mathrm{softmax}(y / \tau)` and a label distribution
    :math:`g` that does not depend on the sample's class,

    .. math:: E = -\tau \sum_j g_j \log p_j, \qquad \partial E / \partial y = p - g.

    The factor :math:`\tau` in front of the loss keeps :math:`1 / \tau` out of the error; it
    cancels wherever rows are normalised.

    Source: Gordo, Gaidon and Perronnin (2015), equations 4 and 10; their equation 10 has the
    opposite sign, which no kernel can see.

    Parameters
    ----------
    logits : array of shape (n, P), float32 or float64
    output : {"softmax", "logistic", "identity"}
        What the network does to its logits. For "logistic", each output is a Bernoulli variable
        of its own and the uniform label is 1/2. For "identity" (regression) the loss is half
        the squared distance to the label, and `temperature` is not used.
    target : "uniform", "none" or array of shape (P,) or (n, P)
        The label distribution; "none" stands for zeros.
    temperature : float
        Positive. Infinity means the limit of the direction: centred logits for the uniform
        label of a softmax, the logits themselves for that of logistic outputs.

    Returns
    -------
    error : array of shape (n, P), of the dtype and library of `logits`
    """
    xp = array_module(logits)
    uniform = isinstance(target, str) and target == "uniform"
    if output == "identity":
        error = logits
    elif output == "softmax":
        error = _softmax_error(logits, temperature, uniform)
    elif uniform:  # sigmoid(y / t) - 1/2, exact for small logits
        error = logits if temperature == np.inf else 0.5 * xp.tanh(logits / (2 * temperature))
    else:
        error = activate(logits / temperature, "logistic")
    if isinstance(target, str):
        return error
    return error - xp.asarray(target, dtype=logits.dtype)


def _softmax_error(logits, temperature, uniform):
    """Return softmax(logits / temperature), less 1 / P if `uniform`, without cancellation."""
    xp = array_module(logits)
    if uniform and temperature == np.inf:
        return logits - logits.mean(axis=1, keepdims=True)
    shifted = (logits - logits.max(axis=1, keepdims=True)) / temperature
    total = xp.exp(shifted).sum(axis=1, keepdims=True)
    if not uniform:
        return xp.exp(shifted) / total
    # p_j - 1/P = (e_j - mean(e)) / sum(e) with e = exp(shifted). Equal logits make every e
    # close to 1; expm1 keeps the digits in which they differ.
    excess = xp.expm1(shifted)
    return (excess - excess.mean(axis=1, keepdims=True)) / total


def backpropagate(error, weights, x, activation):
    r"""Carry an error one layer down.

    .. math:: \delta_k = (W_{k+1} \delta_{k+1}) \odot \mathrm{act}'(y_k)

    Parameters
    ----------
    error : array of shape (n, n_out)
        The error at the outputs of the layer above.
    weights : array of shape (n_in, n_out)
        The weights of the layer above.
    x : array of shape (n, n_in)
        What entered the layer above: the activations ``act(y_k)``.
    activation : str
        The name of ``act``.

    Returns
    -------
    error : array of shape (n, n_in)
        The error at the pre-activations ``y_k``.
    """
    return (error @ weights.T) * activation_slope(x, activation)


def layer_errors(error, inputs, weights, activations, lowest):
    """Back-propagate an output error down to layer `lowest`; return a dict of errors by layer."""
    top = len(weights) - 1
    errors = {top: error}
    for k in range(top, lowest, -1):
        errors[k - 1] = backpropagate(errors[k], weights[k], inputs[k], activations[k - 1])
    return errors


def gradient_factors(
    x,
    weights,
    biases,
    activations,
    *,
    layer=-2,
    output="softmax",
    target="uniform",
    temperature=2.0,
):
    r"""Return the two factors of the per-sample gradients of one layer.

    The gradient of the loss of sample i with respect to ``weights[layer]`` is the outer
    product of ``activations[i]`` and ``errors[i]``, and ``errors[i]`` is the gradient with
    respect to the bias.

    Source: Gordo, Gaidon and Perronnin (2015), equations 9 to 11.

    Parameters
    ----------
    x : array of shape (n, n_features), float32 or float64
    weights, biases, activations : sequences
        The network, as in `forward`.
    layer : int
        Index into `weights`; negative indices count from the last layer.
    output, target, temperature
        As in `output_error`.

    Returns
    -------
    activations : array of shape (n, n_in)
    errors : array of shape (n, n_out)
    """
    inputs, logits = forward(x, weights, biases, activations)
    error = output_error(logits, output=output, target=target, temperature=temperature)
    index = layer % len(weights)
    return inputs[index], layer_errors(error, inputs, weights, activations, index)[index]


def error_passes(slopes, weights, cotangents):
    """Yield the errors of one layer for several fixed cotangents, one after the other.

    A cotangent is a weight on every output, the same for all samples. With those of the
    identity matrix the passes are the rows of the Jacobian of the outputs.

    Parameters
    ----------
    slopes : sequence of arrays of shape (n, width)
        The slopes of the activations that follow the layer, lowest first.
    weights : sequence of arrays of shape (width, width above)
        The weights above the layer, one for each member of `slopes`.
    cotangents : array of shape (P, q)

    Yields
    ------
    errors : array of shape (n, slopes[0].shape[1])
        q times.
    """
    for column in range(cotangents.shape[1]):
        error = (weights[-1] @ cotangents[:, column]) * slopes[-1]
        for slope, weight in zip(slopes[-2::-1], weights[-2::-1], strict=True):
            error = (error @ weight.T) * slope
        yield error


def unit_rows(x):
    """Scale each row to unit Euclidean length, however short or long it is.

    Parameters
    ----------
    x : array of shape (n, d)

    Returns
    -------
    y : array of shape (n, d)
        Rows of zeros stay zero.
    """
    xp = array_module(x)
    largest = abs(x).max(axis=1, keepdims=True)
    y = x / xp.where(largest > 0, largest, 1)  # squares of what is left cannot underflow
    norms = xp.sqrt((y * y).sum(axis=1, keepdims=True))
    y /= xp.where(norms > 0, norms, 1)
    return y

r"""Steps of gradient descent over a dict of named arrays, on NumPy or CuPy.

An optimiser holds its settings only. ``start`` makes the state that ``step`` takes and returns
anew, beside new parameters; nothing is written to. So the parameters and state of any earlier
step can be kept and gone back to, and an interrupt never finds them half way between two::

    state = optimizer.start(parameters)
    for step in range(n_steps):
        gradients, norm = clip_norm(gradients_of(parameters), 1.0)
        rate = learning_rate * cosine(step, n_steps)
        parameters, state = optimizer.step(parameters, gradients, state, rate=rate)

A state is a dict of numbers and dicts of arrays, ready to be pickled.
"""

import math
from dataclasses import dataclass

import numpy as np

from skfisher.arrays.libraries import array_module

__all__ = ["SGD", "Adam", "clip_norm", "constant", "cosine"]


@dataclass(frozen=True)
class SGD:
    r"""Gradient descent with momentum.

    .. math:: m \leftarrow \beta m + \bar p, \qquad p \leftarrow p - \eta m

    Source: Polyak (1964).

    Parameters
    ----------
    momentum : float
        ``beta``, from 0 (none) to below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher.training.optimizers import SGD
    >>> optimizer = SGD(momentum=0.5)
    >>> parameters = {"a": np.array([1.0])}
    >>> state = optimizer.start(parameters)
    >>> for _ in range(2):
    ...     gradients = {"a": parameters["a"]}
    ...     parameters, state = optimizer.step(parameters, gradients, state, rate=0.1)
    >>> parameters
    {'a': array([0.76])}
    """

    momentum: float = 0.9

    def start(self, parameters):
        """Return the state before the first step."""
        return {"momentum": _zeros_like(parameters)}

    def step(self, parameters, gradients, state, *, rate, factors=None):
        """Return parameters and state after one step.

        Parameters
        ----------
        parameters : dict of str to array
        gradients : dict of str to array
            Of some of the parameters or all; the others stay as they are.
        state : dict
            From `start` or the step before.
        rate : float
            ``eta``.
        factors : dict of str to float, optional
            Multiples of the rate for parameters of other scales; 1 for those not named.

        Returns
        -------
        parameters, state : dicts like those given, with new arrays where anything changed
        """
        parameters, momenta = dict(parameters), dict(state["momentum"])
        for name, g, eta in _groups(parameters, gradients, rate, factors):
            momenta[name] = self.momentum * momenta[name] + g
            parameters[name] = parameters[name] - eta * momenta[name]
        return parameters, {"momentum": momenta}


@dataclass(frozen=True)
class Adam:
    r"""Gradient descent with a rate for every entry, from running means of its gradient.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) \bar p, \qquad
              q \leftarrow \beta_2 q + (1 - \beta_2) \bar p^2, \qquad
              p \leftarrow p - \eta \,
              \frac{m / (1 - \beta_1^t)}{\sqrt{q / (1 - \beta_2^t)} + \varepsilon}

    A step is of the size of the rate, whatever the scale of the gradient. Parameters of other
    scales than 1 need their own `factors`.

    Source: Kingma and Ba (2015), algorithm 1.

    Parameters
    ----------
    beta_1, beta_2 : float
        Memory of the mean of the gradient, and of its square.
    epsilon : float
        Keeps the steps of entries without gradient at 0.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def start(self, parameters):
        """Return the state before the first step."""
        zeros = _zeros_like(parameters)
        return {"step": 0, "mean": zeros, "square": zeros}

    def step(self, parameters, gradients, state, *, rate, factors=None):
        """Return parameters and state after one step; see `SGD.step`."""
        parameters, means, squares = dict(parameters), dict(state["mean"]), dict(state["square"])
        t = state["step"] + 1
        # Both corrections as factors of the step and of epsilon: no arrays are divided.
        correction = math.sqrt(1 - self.beta_2**t)
        for name, g, eta in _groups(parameters, gradients, rate, factors):
            xp = array_module(g)
            means[name] = self.beta_1 * means[name] + (1 - self.beta_1) * g
            squares[name] = self.beta_2 * squares[name] + (1 - self.beta_2) * g * g
            size = xp.sqrt(squares[name]) + self.epsilon * correction
            change = (eta * correction / (1 - self.beta_1**t)) * means[name] / size
            parameters[name] = parameters[name] - change
        return parameters, {"step": t, "mean": means, "square": squares}


def clip_norm(gradients, max_norm):
    """Scale all gradients together so that their norm does not exceed a bound.

    Parameters
    ----------
    gradients : dict of str to array
    max_norm : float or None
        None scales nothing.

    Returns
    -------
    gradients : dict of str to array
        Unchanged where the norm is not finite, so that the caller can name the culprit.
    norm : float
        Euclidean norm of all of them together, before scaling.
    """
    with np.errstate(over="ignore"):  # infinity, which the caller names
        norm = math.hypot(
            *(float((g.astype(np.float64) ** 2).sum()) ** 0.5 for g in gradients.values())
        )
    if max_norm is None or not math.isfinite(norm) or norm <= max_norm:
        return gradients, norm
    return {name: g * (max_norm / norm) for name, g in gradients.items()}, norm


def constant(step, n_steps):  # noqa: ARG001, called as cosine is
    """Return 1, the factor of a learning rate that stays."""
    return 1.0


def cosine(step, n_steps):
    r"""Return the factor of a learning rate that falls along half a cosine.

    .. math:: \tfrac{1}{2} (1 + \cos(\pi t / n))

    From 1 at step 0 to 0 at step `n_steps`, which no longer is taken; 0 beyond.

    Source: Loshchilov and Hutter (2017), equation (5), without restarts.
    """
    return (1 + math.cos(math.pi * min(step / n_steps, 1))) / 2


def _zeros_like(parameters):
    return {name: array_module(p).zeros_like(p) for name, p in parameters.items()}


def _groups(parameters, gradients, rate, factors):
    """Yield the name, the gradient and the rate of each parameter that has a gradient."""
    for name, g in gradients.items():
        dtype = parameters[name].dtype
        factor = 1.0 if factors is None else factors.get(name, 1.0)
        yield name, g.astype(dtype, copy=False), float(rate * factor)

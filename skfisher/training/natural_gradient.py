r"""The natural gradient: gradients divided by the Fisher information, or a part of it.

For the parameters of a pooling layer that is its diagonal,

.. math:: \tilde p = \bar p \, / \, (I + \delta \langle I \rangle),

and for a feature map :math:`W x + b`, with the inputs extended by a 1, their second moments,

.. math:: [\tilde W, \tilde b] = [\bar W, \bar b] \,
          \big(G + \epsilon \tfrac{\operatorname{tr} G}{d + 1} I\big)^{-1}, \qquad
          G = \operatorname{E} [x, 1]' [x, 1],

which are followed by a moving average, as descent changes what they are of.

Sources: Amari (1998); for the map, the relative natural gradient of Sun and Nielsen (2017).
"""

from dataclasses import dataclass

import numpy as np

from skfisher.arrays.libraries import to_host

__all__ = ["FeatureMetric", "NaturalGradient", "multiply_metric", "precondition"]


@dataclass(frozen=True)
class NaturalGradient:
    """A link between gradients and optimiser, for layers that know their `information`.

    Parameters
    ----------
    damping : float
        ``delta`` of `precondition`.
    """

    damping: float = 1e-2

    def start(self, parameters):
        """Return None: there is nothing to remember."""

    def apply(self, gradients, state, *, parameters, chain, bags):
        """Return the gradients, those of the pooling layer divided, and the state."""
        information = chain.pooling.information(parameters)
        information = {n: i for n, i in information.items() if n in gradients}
        return precondition(gradients, information, damping=self.damping), state


def precondition(gradients, information, *, damping=1e-2):
    """Divide gradients by a diagonal metric; the equation of this module.

    The mean of I over the array is in the same units, so the damping is a share of it.

    Parameters
    ----------
    gradients : dict of str to array
    information : dict of str to array
        Diagonal of the metric of some of the parameters, not negative, of their shapes.
    damping : float
        ``delta``; bounds the step where the data hardly inform about an entry.

    Returns
    -------
    gradients : dict of str to array
    """
    gradients = dict(gradients)
    for name, metric in information.items():
        g = gradients[name]
        gradients[name] = (g / (metric + damping * metric.mean())).astype(g.dtype, copy=False)
    return gradients


@dataclass(frozen=True)
class FeatureMetric:
    """A link between gradients and optimiser, for the feature map of a chain.

    Parameters
    ----------
    decay : float
        What the moments of the steps before count.
    damping : float
        ``epsilon``.
    interval : int
        Steps between two inversions.
    n_rows : int
        How many descriptors of a batch the moments are taken of, at most.
    """

    decay: float = 0.995
    damping: float = 1e-4
    interval: int = 100
    n_rows: int = 4096

    def start(self, parameters):
        """Return the moments, the inverse and the number of steps, before the first."""
        return None, None, 0

    def apply(self, gradients, state, *, parameters, chain, bags):
        """Return the gradients, those of the map multiplied by the inverse, and the state."""
        if "map_weight" not in gradients:
            return gradients, state
        moments, inverse, n_steps = state
        new = moments_at_map(chain, parameters, bags, self.n_rows)
        moments = new if moments is None else self.decay * moments + (1 - self.decay) * new
        if n_steps % self.interval == 0:
            inverse = np.linalg.inv(damped(moments, self.damping))
        return multiply_metric(gradients, inverse), (moments, inverse, n_steps + 1)


def moments_at_map(chain, parameters, bags, n_rows):
    """Return the second moments of what enters the feature map, extended by a 1."""
    place = next(i for i, layer in enumerate(chain.below) if "features" in layer.groups)
    x = bags.pack().values
    x = x[:: -(-len(x) // n_rows)]
    before = chain.below[:place]
    for layer, q in zip(before, chain.prepare_below(parameters, x.dtype), strict=False):
        x = layer.apply(q, x)
    x = to_host(x).astype(np.float64)
    x = np.column_stack([x, np.ones(len(x))])
    return x.T @ x / len(x)


def damped(moments, damping):
    """Return moments with a share of their mean added to the diagonal."""
    return moments + damping * np.trace(moments) / len(moments) * np.eye(len(moments))


def multiply_metric(gradients, inverse):
    """Return the gradients, those by weight and bias of the map times the inverse of a metric.

    Parameters
    ----------
    gradients : dict of str to array
        With ``map_weight`` (n_out, d) and ``map_bias`` (n_out,).
    inverse : array of shape (d + 1, d + 1)

    Returns
    -------
    gradients : dict of str to array
    """
    both = np.column_stack([gradients["map_weight"], gradients["map_bias"]]) @ inverse
    return gradients | {"map_weight": both[:, :-1], "map_bias": both[:, -1]}

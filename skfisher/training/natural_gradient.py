r"""The natural gradient: gradients divided by the diagonal Fisher information.

.. math:: \tilde p = \bar p \, / \, (I + \delta \langle I \rangle)

Source: Amari (1998).
"""

from dataclasses import dataclass

__all__ = ["NaturalGradient", "precondition"]


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

    def apply(self, gradients, state, *, parameters, pooling):
        """Return the gradients, those of the pooling layer divided, and the state."""
        information = pooling.information(parameters)
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

r"""Losses of predicted numbers, and the gradients they send back to the predictions.

Predictions ``f`` (n, n_targets) meet numbers ``t`` of the same shape. A loss is added up over the
targets of a sample,

.. math:: \ell_i = \sum_j \omega_{ij} \, \phi(f_{ij} - t_{ij}),

and comes with its gradient by ``f``, as the losses of `skfisher.ops.losses` do:

=============================== =====================================
loss                            :math:`\phi(r)`
=============================== =====================================
`squared_error`                 :math:`r^2`
`epsilon_insensitive`           :math:`\max(0, |r| - \varepsilon)`
`squared_epsilon_insensitive`   :math:`\max(0, |r| - \varepsilon)^2`
=============================== =====================================

With ``epsilon = 0`` the second is the absolute error, and the third the squared one.
"""

from skfisher.arrays.libraries import array_module
from skfisher.ops.terms import cast, weighed

__all__ = ["epsilon_insensitive", "squared_epsilon_insensitive", "squared_error"]


def squared_error(decision, targets, *, weights=None):
    r"""Squared distance from the target.

    .. math:: \phi(r) = r^2

    Parameters
    ----------
    decision : array of shape (n, n_targets), float32 or float64
    targets : array of shape (n, n_targets)
    weights : array that broadcasts to (n, n_targets), optional
        Factors ``omega`` of the terms.

    Returns
    -------
    losses : array of shape (n,), of the dtype and library of `decision`
    d_decision : array of shape (n, n_targets)
        The gradient of the sum of the losses by `decision`.
    """
    residual = decision - cast(targets, decision)
    return weighed(residual**2, 2 * residual, weights)


def epsilon_insensitive(decision, targets, epsilon, *, weights=None):
    r"""How far a prediction is outside a tube around the target.

    .. math:: \phi(r) = \max(0, |r| - \varepsilon)

    Source: Drucker et al. (1997), Support vector regression machines.

    Parameters
    ----------
    decision, targets : arrays of shape (n, n_targets)
        As for `squared_error`.
    epsilon : array that broadcasts to (n, n_targets), not negative
        Half the width of the tube.
    weights : array that broadcasts to (n, n_targets), optional
        As for `squared_error`.

    Returns
    -------
    losses, d_decision : arrays of shapes (n,) and (n, n_targets)
        As for `squared_error`. At the wall of the tube the gradient is 0.
    """
    outside, side = _outside(decision, targets, epsilon)
    return weighed(outside, side, weights)


def squared_epsilon_insensitive(decision, targets, epsilon, *, weights=None):
    r"""Squared distance of a prediction from a tube around the target.

    .. math:: \phi(r) = \max(0, |r| - \varepsilon)^2

    Source, parameters and results are those of `epsilon_insensitive`.
    """
    outside, side = _outside(decision, targets, epsilon)
    return weighed(outside**2, 2 * outside * side, weights)


def _outside(decision, targets, epsilon):
    """Return the distance of predictions from the tube, and the side: 1, -1, or 0 inside."""
    xp = array_module(decision)
    residual = decision - cast(targets, decision)
    outside = xp.maximum(abs(residual) - cast(epsilon, decision), 0)
    return outside, xp.sign(residual) * (outside > 0)

r"""Losses of decision values, and the gradients they send back to these.

Decision values ``f`` (n, n_classes) meet one column of signs ``y = +-1`` for each class: one
against the rest, or the labels of a multi-label problem. A loss is added up over the classes of
a sample,

.. math:: \ell_i = \sum_c \omega_{ic} \, \phi(y_{ic} f_{ic}),

and comes with its gradient by ``f``, which takes no more than the loss itself. What arrives at
the encodings behind a linear model ``f = x W' + b`` is that gradient times ``W``
(`linear_map_vjp`), so a loss is also a choice of signal to train features by:

=================== ========================== ===========================================
loss                :math:`\phi(m)`            signal :math:`\bar f`
=================== ========================== ===========================================
`hinge`             :math:`\max(0, 1 - m)`     :math:`-y` inside the margin, else nothing
`squared_hinge`     :math:`\max(0, 1 - m)^2`   in proportion to how far inside the margin
`quadratic`         :math:`(1 - m)^2`          the same, and pulls back what lies beyond
`linear`            :math:`-m`                 :math:`-y`, always
`dual`              :math:`-a m`               :math:`-a y`, the envelope of an optimal SVM
`logistic`          :math:`\log(1 + e^{-m})`   :math:`-y` times the probability of an error
=================== ========================== ===========================================

`log_loss`, the cross-entropy of a softmax, is the one that joins the classes.
"""

from skfisher.arrays.libraries import array_module
from skfisher.ops.terms import cast, weighed

__all__ = [
    "binary_weights",
    "dual",
    "hinge",
    "linear",
    "log_loss",
    "logistic",
    "quadratic",
    "squared_hinge",
]


def hinge(decision, signs, *, weights=None):
    r"""Distance to the right side of the margin.

    .. math:: \phi(m) = \max(0, 1 - m)

    Parameters
    ----------
    decision : array of shape (n, n_classes), float32 or float64
    signs : array of shape (n, n_classes)
        1 where the sample belongs to the class, else -1.
    weights : array that broadcasts to (n, n_classes), optional
        Factors ``omega`` of the terms: of shape (n, 1) for weights of samples; see
        `binary_weights` for weights of classes.

    Returns
    -------
    losses : array of shape (n,), of the dtype and library of `decision`
    d_decision : array of shape (n, n_classes)
        The gradient of the sum of the losses by `decision`.
    """
    shortfall = _shortfall(decision, signs)
    return _weigh(shortfall, -(shortfall > 0).astype(decision.dtype), signs, weights)


def squared_hinge(decision, signs, *, weights=None):
    r"""Squared distance to the right side of the margin.

    .. math:: \phi(m) = \max(0, 1 - m)^2

    Parameters and results are those of `hinge`.
    """
    shortfall = _shortfall(decision, signs)
    return _weigh(shortfall**2, -2 * shortfall, signs, weights)


def quadratic(decision, signs, *, weights=None):
    r"""Squared distance to the margin, from either side.

    .. math:: \phi(m) = (1 - m)^2

    Parameters and results are those of `hinge`.
    """
    distance = 1 - decision * cast(signs, decision)
    return _weigh(distance**2, -2 * distance, signs, weights)


def linear(decision, signs, *, weights=None):
    r"""Minus the margin: a signal that never stops.

    .. math:: \phi(m) = -m

    Source: Wieschollek, Groh and Lensch (2017), section 4. Parameters and results are those of
    `hinge`.
    """
    margins = decision * cast(signs, decision)
    return _weigh(-margins, -array_module(decision).ones_like(decision), signs, weights)


def dual(decision, signs, duals, *, weights=None):
    r"""Minus the margin times the dual variable of the sample.

    .. math:: \phi(m) = -a m

    With ``duals`` optimal for a linear SVM, its gradient by the encodings is the exact gradient
    of the SVM's optimal objective, by the envelope theorem. The scale C is part of the duals,
    and so are the weights of the samples and classes the SVM was fitted with.

    Parameters
    ----------
    decision, signs : arrays of shape (n, n_classes)
        As for `hinge`.
    duals : array of shape (n, n_classes), not negative
    weights : array that broadcasts to (n, n_classes), optional
        As for `hinge`.

    Returns
    -------
    losses, d_decision : arrays of shapes (n,) and (n, n_classes)
        As for `hinge`.
    """
    duals = cast(duals, decision)
    return _weigh(-duals * decision * cast(signs, decision), -duals, signs, weights)


def logistic(decision, signs, *, weights=None):
    r"""Negative log-probability of each label on its own, a logistic regression per class.

    .. math:: \phi(m) = \log(1 + e^{-m})

    Parameters and results are those of `hinge`.
    """
    xp = array_module(decision)
    margins = decision * cast(signs, decision)
    zero = xp.zeros_like(margins)
    losses = xp.logaddexp(zero, -margins)
    # 1 / (1 + e^m), through logarithms so that no exponential overflows
    return _weigh(losses, -xp.exp(-xp.logaddexp(zero, margins)), signs, weights)


def log_loss(decision, signs, *, weights=None):
    r"""Cross-entropy of the softmax of the decision values.

    .. math:: \ell_i = -\sum_{c : y_{ic} = 1} \omega_{ic}
                       \log \frac{e^{f_{ic}}}{\sum_j e^{f_{ij}}}

    Parameters and results are those of `hinge`. There must be two classes or more, each with a
    column; a sample has one sign of 1.
    """
    xp = array_module(decision)
    shifted = decision - decision.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    targets = (xp.asarray(signs) > 0).astype(decision.dtype)
    if weights is not None:
        targets = targets * cast(weights, decision)
    losses = -(targets * log_p).sum(axis=1)
    return losses, xp.exp(log_p) * targets.sum(axis=1, keepdims=True) - targets


def binary_weights(signs, positive, negative=1.0, *, sample_weight=None):
    """Return the factors of the terms of a loss, from weights of classes and samples.

    Parameters
    ----------
    signs : array of shape (n, n_classes)
    positive, negative : float or array of shape (n_classes,)
        Weight of the samples that belong to a class, and of those that do not, in the loss of
        that class. ``positive=class_weight`` and ``negative=1`` is what LIBLINEAR does with
        weights of classes.
    sample_weight : array of shape (n,), optional

    Returns
    -------
    weights : array of shape (n, n_classes), float64, of the library of `signs`
    """
    xp = array_module(signs)
    weights = xp.where(signs > 0, xp.asarray(positive), xp.asarray(negative)).astype("float64")
    if sample_weight is not None:
        weights *= xp.asarray(sample_weight)[:, None]
    return weights


def _shortfall(decision, signs):
    """Return by how much each margin falls short of 1."""
    xp = array_module(decision)
    return xp.maximum(1 - decision * cast(signs, decision), 0)


def _weigh(terms, slopes, signs, weights):
    """Return losses and gradients of terms whose `slopes` are those by the margins."""
    return weighed(terms, slopes * cast(signs, terms), weights)

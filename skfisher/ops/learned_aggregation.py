r"""Learned aggregation: soft assignment by distances in metrics of the words' own.

.. math:: a_t = \operatorname{softmax}_k\Big(-\sum_d p_{kd} (x_{td} - c_{kd})^2\Big)

Centres and metrics are learnt for the labels. The mean over a bag of the assignments is a soft bag
of words, that of the residuals ``a_tk (x_t - c_k)`` a soft VLAD.
"""

__all__ = ["metric_logits", "metric_logits_vjp"]


def metric_logits(centers, metrics):
    r"""Return the coefficients of distances in diagonal metrics, as logits.

    .. math:: -\sum_d p_{kd} (x_d - c_{kd})^2 = \langle -p_k, x^2 \rangle
              + 2 \langle p_k c_k, x \rangle - \sum_d p_{kd} c_{kd}^2

    Source: Katharopoulos, Paschalidou, Diou and Delopoulos (2017), as their abstract tells it.

    Parameters
    ----------
    centers : array of shape (k, d)
    metrics : array of shape (k, d)
        ``p``, above 0.

    Returns
    -------
    linear : array of shape (k, d)
    quadratic : array of shape (k, d)
    constant : array of shape (k,)
    """
    linear = metrics * centers
    return 2 * linear, -metrics, -(linear * centers).sum(axis=1)


def metric_logits_vjp(g, centers, metrics):
    """Return ``d_centers, d_metrics`` for `g`, a triple, at `metric_logits`."""
    g1, g2, g0 = g
    by_product = g1 - centers * g0[:, None]
    return 2 * metrics * by_product, centers * (by_product + g1) - g2

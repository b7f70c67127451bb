r"""VLAD, NetVLAD and the simple NetFV: residuals from centres, summed by assignment.

With ``S0, S1, S2`` the sums over a bag of `assignment_sums`,

.. math::
    V_{1,k} &= \sum_t a_{tk} (x_t - c_k) = S_{1,k} - S_{0,k} c_k, \\
    V_{2,k} &= \sum_t a_{tk} (x_t - c_k)^2 = S_{2,k} - 2 c_k S_{1,k} + c_k^2 S_{0,k}.

Hard assignment to the nearest centre makes ``V1`` VLAD, the softmax of scaled distances NetVLAD;
NetFV adds ``V2``. Encodings hold ``[V1 (K D, component-major), V2 (K D)]``.
"""

from skfisher.arrays.libraries import array_module
from skfisher.ops.soft_assignment import Sums

__all__ = ["distance_logits", "distance_logits_vjp", "vlad", "vlad_vjp"]


def distance_logits(centers, metric):
    r"""Return the coefficients of distances to centres in one metric, as logits.

    .. math:: -\sum_d p_d (x_d - c_{kd})^2 = 2 \langle p c_k, x \rangle - \sum_d p_d c_{kd}^2
              - \sum_d p_d x_d^2

    The last term is the same for all centres, and left out.

    Source: Arandjelović, Gronat, Torii, Pajdla and Sivic (2016), equation (2), where all ``p_d``
    are one number.

    Parameters
    ----------
    centers : array of shape (k, d)
    metric : array of shape (d,)
        ``p``, above 0.

    Returns
    -------
    linear : array of shape (k, d)
    constant : array of shape (k,)
    """
    linear = metric * centers
    return 2 * linear, -(linear * centers).sum(axis=1)


def distance_logits_vjp(g, centers, metric):
    """Return ``d_centers, d_metric`` for `g`, of linear and constant, at `distance_logits`."""
    g1, g0 = g
    by_product = g1 - centers * g0[:, None]
    d_metric = (centers * (by_product + g1)).sum(axis=0)
    return 2 * metric * by_product, d_metric


def vlad(sums, centers, *, moments=1):
    """Turn the sums of `assignment_sums` into VLAD; the equations of this module.

    Source: Jégou, Douze, Schmid and Pérez (2010), section 3; Arandjelović et al. (2016), equation
    (4); ``V2``, Miech, Laptev and Sivic (2017), section 3, without its scale.

    Parameters
    ----------
    sums : Sums
        Of order 1, or 2 for two moments.
    centers : array of shape (k, d)
        In the coordinates of the sums.
    moments : {1, 2}
        Whether ``V1`` alone is wanted.

    Returns
    -------
    encodings : array of shape (n_bags, moments * k * d)
    """
    n_bags, width = len(sums.s0), centers.size
    s0 = sums.s0[:, :, None]
    first = (sums.s1 - s0 * centers).reshape(n_bags, width)
    if moments == 1:
        return first
    second = sums.s2 - centers * (2 * sums.s1 - centers * s0)
    return array_module(first).concatenate([first, second.reshape(n_bags, width)], axis=1)


def vlad_vjp(g, sums, centers, *, moments=1):
    """Return ``d_sums, d_centers`` for `g` of shape (n_bags, n_out) at `vlad`."""
    shape = (len(g), *centers.shape)
    s0 = sums.s0[:, :, None]
    g1 = g[:, : centers.size].reshape(shape)
    if moments == 1:
        return Sums(-(g1 * centers).sum(axis=2), g1, None), -(s0 * g1).sum(axis=0)
    g2 = g[:, centers.size :].reshape(shape)
    slope = g1 - 2 * centers * g2
    d_s0 = (centers * (centers * g2 - g1)).sum(axis=2)
    d_centers = -(s0 * g1 + 2 * g2 * (sums.s1 - s0 * centers)).sum(axis=0)
    return Sums(d_s0, slope, g2), d_centers

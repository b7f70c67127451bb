r"""The Fisher vector of a bag and its vector-Jacobian product.

With ``S0, S1, S2`` the sums of `soft_statistics` over the T descriptors of a bag,

.. math::
    F_{w,k}   &= \frac{S_{0,k} - T w_k}{T \sqrt{w_k}}, \\
    F_{\mu,k} &= \frac{S_{1,k} - \mu_k S_{0,k}}{T \sqrt{w_k} \, \sigma_k}, \\
    F_{v,k}   &= \frac{(S_{2,k} - 2 \mu_k S_{1,k} + \mu_k^2 S_{0,k}) / v_k - S_{0,k}}
                 {T \sqrt{2 w_k}}.

Encodings hold ``[F_w (K), F_mu (K D, component-major), F_v (K D)]``.
"""

import math

import numpy as np

from skfisher.backend import array_module, empty, zeros
from skfisher.ops.gaussian import logit_coefficients, logit_coefficients_vjp, to_frame
from skfisher.ops.statistics import iter_statistics, iter_statistics_vjp

__all__ = [
    "fisher_from_statistics",
    "fisher_from_statistics_vjp",
    "fisher_vector",
    "fisher_vector_vjp",
]

SQRT_2 = math.sqrt(2)


def fisher_vector(x, starts, stops, weights, means, variances, *, include_weights=True):
    r"""Fisher vectors of bags under a diagonal Gaussian mixture.

    The gradient of the mean log-likelihood of a bag by the mixture's parameters, in the
    metric of the diagonal Fisher information; see the equations of this module.

    Source: Sánchez et al. (2013), equations (16)-(18); Wieschollek et al. (2017),
    equations (2)-(4).

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
        Descriptors of all bags.
    starts, stops : int64 arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]``, at least one.
    weights : array of shape (k,)
        Positive; components of weight 0 have zero blocks.
    means : array of shape (k, d)
    variances : array of shape (k, d)
    include_weights : bool
        Whether the K entries ``F_w`` come first.

    Returns
    -------
    encodings : array of shape (n_bags, (2 * d + 1) * k) or (n_bags, 2 * d * k)
        Of the dtype and library of `x`.
    """
    frame, weights, means, variances, dtype = to_frame(x, weights, means, variances)
    coefficients = logit_coefficients(weights, means, variances).astype(dtype)
    n_out = means.size * 2 + (len(weights) if include_weights else 0)
    encodings = empty((len(starts), n_out), like=x)
    counts = stops - starts
    for bags, sums in iter_statistics(x, starts, stops, coefficients, frame=frame):
        encodings[bags] = fisher_from_statistics(
            sums, counts[bags], weights, means, variances, include_weights=include_weights
        )
    return encodings


def fisher_vector_vjp(
    g, x, starts, stops, weights, means, variances, *, include_weights=True, with_x=True
):
    """Return ``d_x, d_weights, d_means, d_variances`` for `g` (n_bags, n_out) at `fisher_vector`.

    Nothing of the size of a Jacobian, and no posteriors beyond a chunk, are ever formed.
    `d_weights` treats the weights as free; send it through `softmax_vjp` or
    `normalized_sigmoid_vjp` to stay on the simplex. With ``with_x=False``, `d_x` is None.

    Source: this project, by the chain rule; agrees with the corrected appendix of
    Wieschollek et al. (2017).
    """
    frame, weights, means, variances, dtype = to_frame(x, weights, means, variances)
    coefficients = logit_coefficients(weights, means, variances).astype(dtype)
    parameters = (weights, means, variances)
    counts = stops - starts
    d_x = zeros(x.shape, like=x) if with_x else None
    d_coefficients = zeros(coefficients.shape, like=x, dtype=np.float64)
    d_parameters = [zeros(p.shape, like=p) for p in parameters]

    def cotangents(bags):
        return _statistics_gradient(g[bags], counts[bags], *parameters, include_weights)

    steps = iter_statistics_vjp(
        cotangents, x, starts, stops, coefficients,
        frame=frame, d_coefficients=d_coefficients, d_x=d_x,
    )  # fmt: skip
    for bags, sums in steps:
        direct = _parameter_gradients(g[bags], sums, counts[bags], *parameters, include_weights)
        for total, part in zip(d_parameters, direct, strict=True):
            total += part
    through_logits = logit_coefficients_vjp(d_coefficients, *parameters)
    d_weights, d_means, d_variances = (
        direct + via for direct, via in zip(d_parameters, through_logits, strict=True)
    )
    return (
        d_x,
        d_weights.astype(x.dtype),
        (d_means / frame.scale).astype(x.dtype),
        (d_variances / frame.scale**2).astype(x.dtype),
    )


def fisher_from_statistics(sums, counts, weights, means, variances, *, include_weights=True):
    """Turn the sums of `soft_statistics` into Fisher vectors; the equations of this module.

    Source: Sánchez et al. (2013), equations (29)-(31).

    Parameters
    ----------
    sums : float64 array of shape (n_bags, k, 2 * d + 1)
    counts : int array of shape (n_bags,)
        Descriptors per bag.
    weights, means, variances : arrays of shape (k,), (k, d), (k, d)
        In the coordinates of the sums.
    include_weights : bool

    Returns
    -------
    encodings : float64 array of shape (n_bags, n_out)
    """
    xp = array_module(sums)
    n_bags, k, d = len(sums), *means.shape
    s1, s2, s0 = sums[:, :, :d], sums[:, :, d:-1], sums[:, :, -1:]
    counts = xp.asarray(counts, dtype=np.float64)[:, None]
    inverse_sqrt = _inverse_sqrt(weights)
    encodings = xp.empty((n_bags, (2 * d + 1) * k))
    f_w, f_means, f_variances = _blocks(encodings, k, d)
    xp.multiply(s0[:, :, 0] - counts * weights, inverse_sqrt, out=f_w)
    # about the means, first S1 - mu S0, then S2 - 2 mu S1 + mu^2 S0 - v S0
    xp.subtract(s1, means * s0, out=f_means)
    xp.add(s1, f_means, out=f_variances)
    f_variances *= means
    xp.subtract(s2, f_variances, out=f_variances)
    f_variances -= variances * s0
    f_means *= inverse_sqrt[:, None] / xp.sqrt(variances)
    f_variances *= inverse_sqrt[:, None] / (SQRT_2 * variances)
    encodings /= counts
    return encodings if include_weights else encodings[:, k:]


def fisher_from_statistics_vjp(
    g, sums, counts, weights, means, variances, *, include_weights=True
):
    """Return ``d_sums, d_weights, d_means, d_variances`` for `g` at `fisher_from_statistics`."""
    parameters = (weights, means, variances)
    d_sums = _statistics_gradient(g, counts, *parameters, include_weights)
    return d_sums, *_parameter_gradients(g, sums, counts, *parameters, include_weights)


def _blocks(encodings, k, d):
    """Split encodings into views of the three blocks, (n, k), (n, k, d) and (n, k, d)."""
    n = len(encodings)
    return (
        encodings[:, :k],
        encodings[:, k : k + k * d].reshape(n, k, d),
        encodings[:, k + k * d :].reshape(n, k, d),
    )


def _inverse_sqrt(weights):
    xp = array_module(weights)
    return xp.where(weights > 0, 1 / xp.sqrt(xp.where(weights > 0, weights, 1)), 0)


def _full_blocks(g, k, d, include_weights):
    """Return the three blocks of gradients in float64, zeros for weights left out."""
    xp = array_module(g)
    g = xp.asarray(g, dtype=np.float64)
    if not include_weights:
        g = xp.concatenate([zeros((len(g), k), like=g), g], axis=1)
    return _blocks(g, k, d)


def _statistics_gradient(g, counts, weights, means, variances, include_weights):
    """Return the gradient ``[A, B, a0]`` at the sums, (n_bags, k, 2 * d + 1)."""
    xp = array_module(means)
    g_w, g_means, g_variances = _full_blocks(g, *means.shape, include_weights)
    c = _inverse_sqrt(weights) / xp.asarray(counts, dtype=np.float64)[:, None]
    slope = c[:, :, None] * g_means / xp.sqrt(variances)
    b = c[:, :, None] * g_variances / (SQRT_2 * variances)
    a = slope - 2 * means * b
    a0 = c * g_w + (b * (means**2 - variances) - slope * means).sum(axis=2)
    return xp.concatenate([a, b, a0[:, :, None]], axis=2)


def _parameter_gradients(g, sums, counts, weights, means, variances, include_weights):
    """Return the gradients by the parameters with the sums held fixed, summed over bags."""
    xp = array_module(means)
    k, d = means.shape
    g_w, g_means, g_variances = _full_blocks(g, k, d, include_weights)
    encodings = fisher_from_statistics(sums, counts, weights, means, variances)
    f_w, f_means, f_variances = _blocks(encodings, k, d)
    inverse_sqrt = _inverse_sqrt(weights)
    # c S0, of shape (n_bags, k, 1)
    share = (inverse_sqrt * sums[:, :, -1] / xp.asarray(counts)[:, None])[:, :, None]
    along_means, along_variances = g_means * f_means, g_variances * f_variances
    d_weights = -(inverse_sqrt**2) * (
        g_w * (f_w / 2 + xp.sqrt(weights)) + (along_means + along_variances).sum(axis=2) / 2
    ).sum(axis=0)
    d_means = -(share * g_means + SQRT_2 * g_variances * f_means).sum(axis=0) / xp.sqrt(variances)
    d_variances = (
        -(along_means / 2 + along_variances + share * g_variances / SQRT_2).sum(axis=0) / variances
    )
    return d_weights, d_means, d_variances

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
from typing import Any, NamedTuple

import numpy as np

from skfisher.arrays.libraries import array_module, empty, float_dtype, is_cupy, to_host, zeros
from skfisher.arrays.remembered import remembering
from skfisher.cuda import statistics as kernels
from skfisher.cuda import vjp as vjp_kernels
from skfisher.native import statistics as native
from skfisher.native import vjp as native_vjp
from skfisher.ops.gaussian import (
    frame_on_host,
    framed_logits,
    logit_coefficients_vjp,
    scale_of,
)
from skfisher.ops.normalization import power_l2_normalize
from skfisher.ops.soft_assignment import (
    Sums,
    iter_statistics,
    iter_statistics_vjp,
    new_gradients,
    soft_statistics,
    soft_statistics_vjp,
)

__all__ = [
    "fisher_from_statistics",
    "fisher_from_statistics_vjp",
    "fisher_sums",
    "fisher_sums_vjp",
    "fisher_vector",
    "fisher_vector_vjp",
]

SQRT_2 = math.sqrt(2)


def fisher_vector(
    x, starts, stops, weights, means, variances,
    *, include_weights=True, normalize=False, out=None,
):  # fmt: skip
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
    normalize : bool
        Whether to return what `power_l2_normalize` makes of the vectors, by its default power:
        on the host each is normalised while it is in cache.
    out : array of the shape of the result, optional
        Written and returned.

    Returns
    -------
    encodings : array of shape (n_bags, (2 * d + 1) * k) or (n_bags, 2 * d * k)
        Of the dtype and library of `x`.
    """
    if kernels.takes(x, weights, means, variances):
        encodings = kernels.fisher_vector(
            x, starts, stops, weights, means, variances, include_weights=include_weights, out=out
        )
        return power_l2_normalize(encodings, out=out) if normalize else encodings
    n_out = means.size * 2 + (len(weights) if include_weights else 0)
    if out is None:
        out = empty((len(starts), n_out), like=x, dtype=float_dtype(x.dtype))
    if native.takes(x):
        _, model = _native_model(x.dtype, weights, means, variances)
        return native.fisher_vectors(
            x, starts, stops, model, out, include_weights=include_weights, normalize=normalize
        )
    frame, _, coefficients, terms = _prepared(x, weights, means, variances)
    counts = stops - starts
    for bags, sums in iter_statistics(x, starts, stops, coefficients, frame=frame):
        _combine(sums, counts[bags], terms, out[bags], include_weights=include_weights)
        if normalize:
            out[bags] = power_l2_normalize(out[bags])
    return out


def fisher_vector_vjp(
    g, x, starts, stops, weights, means, variances,
    *, include_weights=True, with_x=True, with_parameters=True,
):  # fmt: skip
    """Return ``d_x, d_weights, d_means, d_variances`` for `g` (n_bags, n_out) at `fisher_vector`.

    Nothing of the size of a Jacobian, and no posteriors beyond a chunk, are ever formed.
    `d_weights` treats the weights as free; send it through `softmax_vjp` or
    `normalized_sigmoid_vjp` to stay on the simplex. With ``with_x=False`` `d_x` is None, with
    ``with_parameters=False`` the other three are, and less is computed.

    Source: this project, by the chain rule; agrees with the corrected appendix of
    Wieschollek et al. (2017).
    """
    if vjp_kernels.takes(x, starts, stops, weights, means, variances):
        return vjp_kernels.fisher_vector_vjp(
            g, x, starts, stops, weights, means, variances,
            include_weights=include_weights, with_x=with_x, with_parameters=with_parameters,
        )  # fmt: skip
    if native_vjp.takes(x):
        (frame, parameters), model = _native_model(x.dtype, weights, means, variances)
        d_x, d_coefficients, direct = native_vjp.fisher_vectors_vjp(
            g, x, starts, stops, model,
            include_weights=include_weights, with_x=with_x, with_parameters=with_parameters,
        )  # fmt: skip
    else:
        frame, parameters, coefficients = framed_logits(x, weights, means, variances)
        d_x, d_coefficients, direct = _vector_gradients(
            g, x, starts, stops, coefficients, parameters, frame,
            include_weights, with_x, with_parameters,
        )  # fmt: skip
    if not with_parameters:
        return d_x, None, None, None
    through_logits = logit_coefficients_vjp(d_coefficients, *parameters)
    d_weights, d_means, d_variances = (
        a + via for a, via in zip(_finished(direct, *parameters), through_logits, strict=True)
    )
    scale = scale_of(frame)
    gradients = (d_weights, d_means / scale, d_variances / scale**2)
    return d_x, *(gradient.astype(x.dtype) for gradient in gradients)


def _vector_gradients(
    g, x, starts, stops, coefficients, parameters, frame, include_weights, with_x, with_parameters
):
    """Return gradients by descriptors, by coefficients, and what `_direct_gradients` adds up."""
    counts = stops - starts
    d_x = zeros(x.shape, like=x) if with_x else None
    d_coefficients = new_gradients(coefficients) if with_parameters else None
    total, terms = new_gradients(parameters), _terms(*parameters)

    def cotangents(bags):
        return _statistics_gradient(g[bags], counts[bags], terms, include_weights)

    steps = iter_statistics_vjp(
        cotangents, x, starts, stops, coefficients,
        frame=frame, d_coefficients=d_coefficients, d_x=d_x, with_sums=with_parameters,
    )  # fmt: skip
    for bags, sums in steps:
        if with_parameters:
            direct = _direct_gradients(g[bags], sums, counts[bags], terms, include_weights)
            for whole, part in zip(total, direct, strict=True):
                whole += part
    return d_x, d_coefficients, total


def fisher_sums(x, starts, stops, weights, means, variances):
    """Return the sums of bags that `fisher_from_statistics` turns into Fisher vectors.

    Those of the parts of a bag add up to those of the bag.

    Parameters
    ----------
    x, starts, stops, weights, means, variances
        As in `fisher_vector`.

    Returns
    -------
    sums : Sums of float64 arrays
        In the coordinates of the mixture.
    """
    mixture = weights, means, variances
    if kernels.takes(x, *mixture):
        _, _, *coordinates, _ = frame_on_host(x.dtype, *mixture)
        return Sums(*kernels.bag_sums(x, starts, stops, *mixture, coordinates=coordinates))
    frame, _, coefficients = framed_logits(x, *mixture)
    return soft_statistics(x, starts, stops, coefficients, frame=frame)


def fisher_sums_vjp(g, x, starts, stops, weights, means, variances, *, with_x=True):
    """Return ``d_x, d_coefficients`` for the gradients `g`, `Sums`, at `fisher_sums`.

    `d_coefficients` is what `logit_coefficients_vjp` takes, with the mixture in the
    coordinates of the sums: float64, so that those of parts of a batch can be added up.
    With ``with_x=False`` `d_x` is None, and less is computed.
    """
    mixture = weights, means, variances
    if vjp_kernels.takes(x, starts, stops, *mixture):
        _, _, *coordinates, _ = frame_on_host(x.dtype, *mixture)
        d_x, r0, r1, r2 = vjp_kernels.bag_sums_vjp(
            g, x, starts, stops, *mixture, coordinates=coordinates, with_x=with_x
        )
        return d_x, (r1, r2, r0)
    frame, _, coefficients = framed_logits(x, *mixture)
    return soft_statistics_vjp(g, x, starts, stops, coefficients, frame=frame, with_x=with_x)


def fisher_from_statistics(
    sums, counts, weights, means, variances, *, include_weights=True, out=None
):
    """Turn the sums of `soft_statistics` into Fisher vectors; the equations of this module.

    Source: Sánchez et al. (2013), equations (29)-(31).

    Parameters
    ----------
    sums : Sums of float64 arrays
    counts : int array of shape (n_bags,)
        Descriptors per bag.
    weights, means, variances : arrays of shape (k,), (k, d), (k, d)
        In the coordinates of the sums.
    include_weights : bool
    out : array of shape (n_bags, n_out), optional
        Written and returned; by default a new float64 array.

    Returns
    -------
    encodings : array of shape (n_bags, n_out)
    """
    if out is None:
        n_out = 2 * means.size + (len(means) if include_weights else 0)
        out = empty((len(sums.s0), n_out), like=means, dtype=np.float64)
    terms = _terms(weights, means, variances)
    turn = native.fisher_from_sums if native.takes_sums(sums, out) else _combine
    turn(sums, counts, terms, out, include_weights=include_weights)
    return out


class Terms(NamedTuple):
    """What a Fisher vector, times T, is a linear combination of sums with.

    ``F_w = (S0 - T w) i``, ``F_mu = S1 a - S0 b`` and ``F_v = S2 c - S1 e + S0 f``.
    """

    weights: Any  # w, of shape (k,)
    inverse_sqrt: Any  # i
    factors: Any  # a, b, c, e, f, of shape (5, k, d)


def _terms(weights, means, variances):
    xp = array_module(means)
    inverse_sqrt = _inverse_sqrt(weights)
    factors = empty((5, *means.shape), like=means, dtype=np.float64)
    per_mean = xp.divide(inverse_sqrt[:, None], xp.sqrt(variances), out=factors[0])
    xp.multiply(per_mean, means, out=factors[1])
    per_variance = xp.divide(inverse_sqrt[:, None], SQRT_2 * variances, out=factors[2])
    xp.multiply(2 * per_variance, means, out=factors[3])
    xp.multiply(per_variance, means**2 - variances, out=factors[4])
    return Terms(weights, inverse_sqrt, factors)


def _prepared(x, weights, means, variances):
    """Return what `framed_logits` does, and the terms."""
    if is_cupy(x):
        framed = framed_logits(x, weights, means, variances)
        return *framed, _terms(*framed[1])
    return _prepared_on_host(x.dtype, *map(to_host, (weights, means, variances)))


@remembering
def _prepared_on_host(dtype, *mixture):
    framed = framed_logits(np.empty((0, 0), dtype), *mixture)
    return *framed, _terms(*framed[1])


@remembering
def _native_model(dtype, *mixture):
    """Return the frame, the parameters in it, and all that as native kernels read it."""
    frame, parameters, coefficients = framed_logits(np.empty((0, 0), dtype), *mixture)
    weights, inverse_sqrt, factors = _terms(*parameters)
    terms = weights, inverse_sqrt, factors.transpose(1, 0, 2)
    return (frame, parameters), native.Model(coefficients, frame, terms=terms)


def _combine(sums, counts, terms, out, *, include_weights):
    """Write the Fisher vectors that sums stand for to `out`."""
    weights, inverse_sqrt, factors = terms
    xp = array_module(factors)
    _, k, d = factors.shape
    n_bags = len(sums.s0)
    a, b, c, e, f = factors.reshape(5, k * d)
    inverse_counts = 1 / xp.asarray(counts, dtype=np.float64)[:, None]
    if include_weights:
        out[:, :k] = (sums.s0 * inverse_counts - weights) * inverse_sqrt
        out = out[:, k:]
    # Flat arrays, one product with a constant at a time and no new arrays: for short bags this
    # takes as long as the sums themselves.
    s0 = xp.repeat(sums.s0, d, axis=1)
    s1, s2 = (s.reshape(n_bags, k * d) for s in (sums.s1, sums.s2))
    total = s1 * a
    product = s0 * b
    total -= product
    xp.multiply(total, inverse_counts, out=out[:, : k * d])
    xp.multiply(s2, c, out=total)
    total -= xp.multiply(s1, e, out=product)
    total += xp.multiply(s0, f, out=product)
    xp.multiply(total, inverse_counts, out=out[:, k * d :])


def fisher_from_statistics_vjp(g, sums, counts, weights, means, variances, *, include_weights=True):
    """Return ``d_sums, d_weights, d_means, d_variances`` for `g` at `fisher_from_statistics`."""
    parameters = (weights, means, variances)
    terms, g = _terms(*parameters), array_module(g).asarray(g, dtype=np.float64)
    d_sums = _statistics_gradient(g, counts, terms, include_weights)
    direct = _direct_gradients(g, sums, counts, terms, include_weights)
    return d_sums, *_finished(direct, *parameters)


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


def _statistics_gradient(g, counts, terms, include_weights):
    """Return the gradients at the sums: ``a0``, ``A`` and ``B``."""
    _, inverse_sqrt, (a, b, c, e, f) = terms
    xp = array_module(a)
    g_w, g_means, g_variances = _full_blocks(g, *a.shape, include_weights)
    inverse_counts = 1 / xp.asarray(counts, dtype=np.float64)[:, None]
    by_s2 = g_variances * c
    by_s2 *= inverse_counts[:, :, None]
    by_s1 = g_means * a
    by_s1 -= g_variances * e
    by_s1 *= inverse_counts[:, :, None]
    along = xp.einsum("nkd,kd->nk", g_variances, f) - xp.einsum("nkd,kd->nk", g_means, b)
    by_s0 = (g_w * inverse_sqrt + along) * inverse_counts
    return Sums(by_s0, by_s1, by_s2)


def _direct_gradients(g, sums, counts, terms, include_weights):
    """Return the gradients by the parameters with the sums held fixed, summed over bags.

    But for the factors that `_finished` multiplies them with.
    """
    weights, inverse_sqrt, factors = terms
    xp = array_module(factors)
    _, k, d = factors.shape
    g_w, g_means, g_variances = _full_blocks(g, k, d, include_weights)
    encodings = empty((len(sums.s0), (2 * d + 1) * k), like=factors)
    _combine(sums, counts, terms, encodings, include_weights=True)
    f_w, f_means, f_variances = _blocks(encodings, k, d)
    share = inverse_sqrt * sums.s0 / xp.asarray(counts)[:, None]  # c S0
    # einsum makes no array of the products, which takes longer than to compute them
    pairs = (g_means, f_means), (g_variances, f_variances), (g_variances, f_means)
    along_means, along_variances, across = (xp.einsum("nkd,nkd->kd", *pair) for pair in pairs)
    share_means = xp.einsum("nk,nkd->kd", share, g_means)
    share_variances = xp.einsum("nk,nkd->kd", share, g_variances)
    along = (along_means + along_variances).sum(axis=1) / 2
    by_weights = (g_w * (f_w / 2 + xp.sqrt(weights))).sum(axis=0) + along
    by_means = share_means + SQRT_2 * across
    by_variances = along_means / 2 + along_variances + share_variances / SQRT_2
    return by_weights, by_means, by_variances


def _finished(direct, weights, means, variances):
    """Return the gradients that `_direct_gradients` are the sums of."""
    by_weights, by_means, by_variances = direct
    return (
        -(_inverse_sqrt(weights) ** 2) * by_weights,
        -by_means / array_module(means).sqrt(variances),
        -by_variances / variances,
    )

"""Symmetric matrices as vectors that have their inner products."""

import math

import numpy as np

from skfisher.arrays.libraries import asarray, zeros

__all__ = ["side_of", "triangle", "triangle_vjp"]


def triangle(p):
    r"""Return the upper triangles of symmetric matrices, row by row.

    Entries off the diagonal are multiplied by :math:`\sqrt 2`, so that
    :math:`\langle v(P), v(Q) \rangle = \operatorname{tr}(P Q)`.

    Source: Carreira et al. (2012), section 3.1, for the scaling.

    Parameters
    ----------
    p : array of shape (n, d, d)

    Returns
    -------
    vectors : array of shape (n, d (d + 1) / 2)
    """
    places, factors, _ = _layout(p.shape[1])
    flat = p.reshape(len(p), -1)
    return flat.take(asarray(places, like=p), axis=1) * asarray(factors, like=p, dtype=p.dtype)


def triangle_vjp(g, d):
    r"""Return ``d_p`` (n, d, d), symmetric, for `g` arriving at `triangle`.

    .. math:: \bar P_{ii} = g_{ii}, \qquad \bar P_{ij} = \bar P_{ji} = g_{ij} / \sqrt 2
    """
    places, factors, mirrored = _layout(d)
    halved = g / asarray(factors, like=g, dtype=g.dtype)
    d_p = zeros((len(g), d * d), like=g)
    d_p[:, places] = halved
    d_p[:, mirrored] = halved
    return d_p.reshape(-1, d, d)


def side_of(n_entries):
    """Return d for d (d + 1) / 2 entries."""
    return (math.isqrt(8 * n_entries + 1) - 1) // 2


def _layout(d):
    """Return the places of a triangle in a flat matrix, its factors, and the mirrored places."""
    rows, columns = np.triu_indices(d)
    return rows * d + columns, np.where(rows == columns, 1.0, math.sqrt(2)), columns * d + rows

r"""Symmetric matrices scaled to norm 1.

.. math:: \hat Q = Q / \lVert Q \rVert, \qquad
          \bar Q = \big(G - \langle G, \hat Q \rangle N\big) / \lVert Q \rVert

with N the gradient of the norm: :math:`\hat Q` for Frobenius', I for the trace, and
:math:`\pm u u^\top` for the spectral norm, u the eigenvector of the eigenvalue farthest from 0.
"""

from skfisher.arrays.libraries import array_module

__all__ = ["normalize_matrices", "normalize_matrices_vjp"]


def normalize_matrices(q, *, norm):
    """Divide each matrix by its norm.

    Source: Li et al. (2017), section 3.3.

    Parameters
    ----------
    q : array of shape (n, d, d), symmetric
    norm : {"frobenius", "spectral", "trace"}

    Returns
    -------
    normalized : array of shape (n, d, d)
        Matrices of norm 0, or of no positive trace, stay as they are.
    """
    return q / _norms(q, norm)[0]


def normalize_matrices_vjp(g, q, *, norm):
    """Return ``d_q`` for `g` arriving at `normalize_matrices`."""
    norms, slope = _norms(q, norm)
    along = (g * q).sum(axis=(1, 2), keepdims=True) / norms
    return (g - along * slope) / norms


def _norms(q, norm):
    """Return the norms (n, 1, 1), 1 in the place of 0, and their gradients."""
    xp = array_module(q)
    if norm == "frobenius":
        largest = xp.abs(q).max(axis=(1, 2), keepdims=True)
        largest = xp.where(largest > 0, largest, 1)  # squares neither overflow nor vanish
        scaled = q / largest
        norms = xp.sqrt((scaled * scaled).sum(axis=(1, 2), keepdims=True)) * largest
        positive = norms > 0
        return xp.where(positive, norms, 1), q / xp.where(positive, norms, xp.inf)
    if norm == "trace":
        slope = xp.eye(q.shape[1], dtype=q.dtype)
        norms = (q * slope).sum(axis=(1, 2), keepdims=True)
    else:
        finite = xp.isfinite(q).all(axis=(1, 2), keepdims=True)
        values, vectors = xp.linalg.eigh(xp.where(finite, q, 0))
        is_last = (values[:, -1] >= -values[:, 0])[:, None]
        norms = xp.where(is_last, values[:, -1:], -values[:, :1])[:, :, None]
        u = xp.where(is_last, vectors[:, :, -1], vectors[:, :, 0])
        slope = u[:, :, None] * u[:, None, :] * xp.where(is_last, 1, -1)[:, :, None]
    positive = norms > 0
    return xp.where(positive, norms, 1), xp.where(positive, slope, 0)

r"""A Gaussian as one positive semi-definite matrix.

.. math:: M = \begin{pmatrix} P + \mu \mu^\top & \mu \\ \mu^\top & 1 \end{pmatrix}

It is the second moment of descriptors with a 1 appended. Its square root stands for the Gaussian
in a Lie group.
"""

from skfisher.arrays.libraries import empty

__all__ = ["gaussian_embedding", "gaussian_embedding_vjp"]


def gaussian_embedding(means, covariances):
    r"""Return the matrices of Gaussians.

    Source: Wang, Li and Zhang (2017), G2DeNet, equation (4), before the root.

    Parameters
    ----------
    means : array of shape (n, d)
    covariances : array of shape (n, d, d)

    Returns
    -------
    m : array of shape (n, d + 1, d + 1)
    """
    n, d = means.shape
    m = empty((n, d + 1, d + 1), like=covariances)
    m[:, :d, :d] = covariances + means[:, :, None] * means[:, None, :]
    m[:, :d, d] = means
    m[:, d, :d] = means
    m[:, d, d] = 1
    return m


def gaussian_embedding_vjp(g, means):
    """Return ``d_means, d_covariances`` for `g` arriving at `gaussian_embedding`."""
    d = means.shape[1]
    inner = g[:, :d, :d]
    both = inner + inner.transpose(0, 2, 1)
    d_means = (both @ means[:, :, None])[:, :, 0] + g[:, :d, d] + g[:, d, :d]
    return d_means, inner.copy()

r"""Short vectors whose inner products are close to those of outer products.

A sample's gradient :math:`a u^\top` has d D entries. Two maps work on the factors: this one keeps
the coordinates with most energy after a rotation of each factor, that of `skfisher.ops.sketch`
does not look at the data.
"""

import numpy as np

__all__ = ["energetic_pairs", "pair_features", "principal_axes"]


def principal_axes(second_moment, n_axes):
    """Return the eigenvectors of a second-moment matrix with the largest eigenvalues.

    They are the uncentred principal axes of the samples behind it.

    Parameters
    ----------
    second_moment : ndarray of shape (d, d), float64
    n_axes : int

    Returns
    -------
    axes : ndarray of shape (d, n_axes)
        By falling energy. The largest entry of each axis is positive.
    energies : ndarray of shape (n_axes,)
    """
    energies, axes = np.linalg.eigh(second_moment)
    energies, axes = energies[::-1][:n_axes], axes[:, ::-1][:, :n_axes]
    largest = np.take_along_axis(axes, abs(axes).argmax(axis=0)[None], axis=0)
    return axes * np.where(largest < 0, -1, 1), np.maximum(energies, 0)


def energetic_pairs(energies, n_pairs):
    """Choose pairs of axes by the product of their energies.

    The product is the energy of a pair where the two factors are uncorrelated; the measured
    energies of pairs give maps that are hardly better.

    Parameters
    ----------
    energies : list of (ndarray of shape (r,), ndarray of shape (s,))
        The energies of left and right axes, for each part of a kernel, in falling order.
    n_pairs : int
        In all parts together.

    Returns
    -------
    pairs : list of (ndarray, ndarray)
        For each part the left and right index of its pairs.
    chosen : list of ndarray
        The energies of these pairs, in falling order.
    """
    tables = [np.outer(left, right) for left, right in energies]
    flat = np.concatenate([table.ravel() for table in tables])
    part = np.repeat(np.arange(len(tables)), [table.size for table in tables])
    place = np.concatenate([np.arange(table.size) for table in tables])
    best = np.argsort(-flat, kind="stable")[:n_pairs]
    mine = [place[best[part[best] == k]] for k in range(len(tables))]
    pairs = [np.unravel_index(p, table.shape) for p, table in zip(mine, tables, strict=True)]
    return pairs, [table.ravel()[p] for p, table in zip(mine, tables, strict=True)]


def pair_features(activations, errors, left_axes, right_axes, pairs):
    """Return chosen coordinates of rotated outer products.

    Parameters
    ----------
    activations : array of shape (n, d)
    errors : array of shape (n, D)
    left_axes : array of shape (d, r)
    right_axes : array of shape (D, s)
    pairs : (array of shape (m,), array of shape (m,))
        Which left and right axis make each feature.

    Returns
    -------
    features : array of shape (n, m)
    """
    left, right = pairs
    return (activations @ left_axes)[:, left] * (errors @ right_axes)[:, right]

r"""Short vectors whose inner products are close to those of outer products.

A sample's gradient :math:`a u^\top` has d D entries. Both maps work on the factors: one keeps
the coordinates with most energy after a rotation of each factor, the other sketches without
looking at the data.
"""

import numpy as np

from skfisher.arrays.libraries import array_module, zeros

__all__ = ["count_sketch", "energetic_pairs", "pair_features", "principal_axes", "tensor_sketch"]


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


def count_sketch(x, buckets, signs, n_buckets):
    """Add up signed columns by bucket.

    Source: Charikar, Chen and Farach-Colton (2002).

    Parameters
    ----------
    x : array of shape (n, d)
    buckets : ndarray of shape (d,), int, on the host
    signs : ndarray of shape (d,), -1 or 1, on the host
    n_buckets : int

    Returns
    -------
    sketch : array of shape (n, n_buckets), of the dtype and library of `x`
    """
    xp = array_module(x)
    sketch = zeros((len(x), n_buckets), like=x)
    order = np.argsort(buckets, kind="stable")
    starts = np.flatnonzero(np.diff(buckets[order], prepend=-1))
    depth = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    for level in range(depth.max() + 1):  # within a level no two columns share a bucket
        columns = order[depth == level]
        signed = x[:, xp.asarray(columns)] * xp.asarray(signs[columns], dtype=x.dtype)
        sketch[:, xp.asarray(buckets[columns])] += signed
    return sketch


def tensor_sketch(activations, errors, buckets, signs, n_buckets):
    r"""Return sketches of outer products, without forming these.

    The count sketch of :math:`a u^\top` under the sum of two bucket functions is the circular
    convolution of the count sketches of a and u. Inner products are unbiased, their variance
    falls as 1 / n_buckets.

    Source: Pham and Pagh (2013).

    Parameters
    ----------
    activations : array of shape (n, d)
    errors : array of shape (n, D)
    buckets : (ndarray of shape (d,), ndarray of shape (D,))
        Independent and uniform in 0 ... n_buckets - 1.
    signs : (ndarray of shape (d,), ndarray of shape (D,))
        Independent signs.
    n_buckets : int

    Returns
    -------
    sketch : array of shape (n, n_buckets), of the dtype of `activations`
    """
    fft = array_module(activations).fft
    left = fft.rfft(count_sketch(activations, buckets[0], signs[0], n_buckets), axis=1)
    left *= fft.rfft(count_sketch(errors, buckets[1], signs[1], n_buckets), axis=1)
    return fft.irfft(left, n=n_buckets, axis=1).astype(activations.dtype, copy=False)

r"""Centres of visual words: how they are found, or read, and how sharply they are told apart.

Soft assignment to words of centres c is the softmax of :math:`-\alpha |x - c_k|^2`. The scale
:math:`\alpha` follows from how much weight the nearest word is to have, compared with the second
nearest: `ratio` times as much, in the middle,

.. math:: \alpha = \frac{\log(\text{ratio})}{\text{mean}_t \, (d_{t,2}^2 - d_{t,1}^2)}.
"""

import math

import numpy as np
from sklearn.base import clone

from skfisher.arrays.dense import as_numpy
from skfisher.arrays.libraries import detached, is_cupy, to_host
from skfisher.codebooks.given import unfrozen
from skfisher.codebooks.kmeans import cluster
from skfisher.codebooks.moments import global_moments
from skfisher.process_state import configured, one_blas_thread

__all__ = ["first_centers", "given_centers", "mean_gap", "sharpness"]

# Numbers in a block of distances: they stay in cache.
BLOCK = 2**17


def given_centers(codebook):
    """Return the centres that a codebook has, as a float64 array, or None if it is not fitted.

    Parameters
    ----------
    codebook : estimator, array of shape (n_components, n_features), or None

    Raises
    ------
    ValueError
        If the centres are no finite table of numbers.
    """
    if codebook is None:
        return None
    name = "codebook"
    codebook = unfrozen(codebook)
    if hasattr(codebook, "fit"):
        name = "codebook.cluster_centers_"
        codebook = getattr(codebook, "cluster_centers_", None)
        if codebook is None:
            return None
    centers = to_host(codebook) if is_cupy(codebook) else as_numpy(codebook, name)
    if centers.ndim != 2 or 0 in centers.shape or centers.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} has shape {centers.shape} and dtype {centers.dtype}, but centres are a table "
            "of numbers, of shape (n_components, n_features)."
        )
    centers = centers.astype(np.float64)  # a copy, of which nobody else knows
    if not np.isfinite(centers).all():
        where = np.argwhere(~np.isfinite(centers))[0].tolist()
        raise ValueError(f"{name}{where} is {centers[tuple(where)]}, but should be finite.")
    return centers


def first_centers(codebook, bags, n_components, seed):
    """Return the centres of a codebook; they are those of clusters of descriptors, if it has none.

    Parameters
    ----------
    codebook : estimator, array or None
        None for k-means of our own; an estimator that is not fitted is cloned and fitted.
    bags : Bags
        A sample of descriptors, which fits memory.
    n_components : int
    seed : int

    Returns
    -------
    centers : float64 array of shape (n_components, d)
    """
    centers = given_centers(codebook)
    if centers is not None:
        return centers
    if codebook is not None:
        if unfrozen(codebook) is not codebook:
            raise ValueError(
                "codebook is frozen, but not fitted: fit it first, or pass it without "
                "FrozenEstimator."
            )
        return given_centers(_fitted(codebook, bags))
    moments = global_moments(bags)
    scale = math.sqrt(moments.variance.sum()) or 1.0  # one for all dimensions: it keeps distances
    sample = (to_host(bags.pack().values).astype(np.float64) - moments.mean) / scale
    _, centers = one_blas_thread(cluster)(sample, n_components, "kmeans", seed)
    return moments.mean + scale * centers


@configured(array_api_dispatch=False)
@one_blas_thread
def _fitted(codebook, bags):
    """Fit a clone of an estimator, which may write to what it is given."""
    values = detached(to_host(bags.pack().values), bags.values)
    fitted = clone(codebook).fit(values)
    if not hasattr(fitted, "cluster_centers_"):
        raise TypeError(
            f"codebook is a {type(codebook).__name__}, which finds no cluster_centers_: pass a "
            "KMeans, a MiniBatchKMeans or an array of centres."
        )
    return fitted


@one_blas_thread
def mean_gap(values, centers):
    """Return by how much the second nearest centre is farther from descriptors than the nearest.

    Parameters
    ----------
    values : array of shape (n, d)
    centers : float64 array of shape (k, d)

    Returns
    -------
    gap : float
        Mean difference of squared distances; 0 for one centre, or where all are equal.
    """
    k = len(centers)
    if k == 1:
        return 0.0
    values, middle = to_host(values), centers.mean(axis=0)
    about = centers - middle
    constant = np.einsum("kd,kd->k", about, about)
    total, n_rows = 0.0, max(1, BLOCK // k)
    for first in range(0, len(values), n_rows):
        x = values[first : first + n_rows].astype(np.float64) - middle
        scores = x @ (-2 * about.T)
        scores += constant
        nearest = np.partition(scores, 1, axis=1)
        total += float((nearest[:, 1] - nearest[:, 0]).sum())
    return total / len(values)


def sharpness(gap, centers, ratio):
    """Return the scale of soft assignment, the equation of this module, for a mean gap.

    Where nothing tells the centres apart, any scale will do; it is one of their own units.
    """
    if gap <= 0:
        gap = float(centers.var(axis=0).sum()) or 1.0
    return math.log(ratio) / gap

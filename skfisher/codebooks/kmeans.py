r"""k-means that no rounding decides: equal data give equal clusters on every machine.

The last bit of a distance depends on the kernels of linear algebra. It must not matter, and among
descriptors of whole numbers, which are often as far from one centre as from another, it would
matter all the time: so a descriptor belongs to the first of the centres that are equally near, to
ten digits, and draws are made in proportion to distances rounded to whole units, whose sums are
exact.
"""

import math

import numpy as np

__all__ = ["cluster"]

MAX_ITER = 30
# Smallest movement of all centres together that Lloyd's iterations go on for, as a share of the
# variance of the descriptors in one dimension.
TOL = 1e-4
# Numbers in a block of distances: they stay in cache.
BLOCK = 2**17


def cluster(x, n_clusters, method, seed):
    """Assign descriptors to clusters.

    Source: Arthur and Vassilvitskii (2007), with the greedy choice of their section 5; Lloyd
    (1982).

    Parameters
    ----------
    x : float64 array of shape (n, d)
        Best about their mean, which keeps the digits of distances.
    n_clusters : int
    method : {"kmeans", "k-means++"}
        Lloyd's iterations from a k-means++ start, or the start alone.
    seed : int

    Returns
    -------
    labels : int array of shape (n,)
        Some clusters are empty where fewer descriptors than `n_clusters` are distinct.
    centers : float64 array of shape (n_clusters, d)
        To the nearest of which the labels assign; an empty cluster has a descriptor as its centre.
    """
    centers = x[_plus_plus(x, n_clusters, np.random.default_rng(seed))]
    labels = _nearest(x, centers)
    if method == "k-means++":
        return labels, centers
    columns = np.ascontiguousarray(x.T)
    least = TOL * float(x.var(axis=0).mean())
    for _ in range(MAX_ITER):
        moved = _means(columns, labels, centers)
        shift = float(((moved - centers) ** 2).sum())
        before, centers = labels, moved
        labels = _nearest(x, centers)
        if shift <= least or (labels == before).all():
            break
    return labels, centers


def _plus_plus(x, n_clusters, rng):
    """Return the descriptors to start from, drawn by their distance from those drawn before."""
    n, squares = len(x), np.einsum("nd,nd->n", x, x)
    chosen = [int(rng.integers(n))]
    closest = _distances(x, squares, chosen)[:, 0]
    n_trials = 2 + int(math.log(n_clusters))
    for _ in range(n_clusters - 1):
        total = float(closest.sum())
        unit = 2.0 ** (math.floor(math.log2(total / n)) - 32) if total > 0 else 1.0
        borders = np.cumsum(np.rint(closest / unit))
        draws = rng.random(n_trials) * borders[-1]
        trials = np.minimum(np.searchsorted(borders, draws, side="right"), n - 1)
        distances = np.minimum(_distances(x, squares, trials), closest[:, None])
        best = int(np.rint(distances / unit).sum(axis=0).argmin())
        chosen.append(int(trials[best]))
        closest = distances[:, best]
    return chosen


def _distances(x, squares, rows):
    """Return the squared distances of all descriptors from some of them, (n, len(rows))."""
    distances = x @ (-2 * x[rows].T)
    distances += squares[:, None]
    distances += squares[rows]
    distances[rows, np.arange(len(rows))] = 0
    return np.maximum(distances, 0, out=distances)


def _nearest(x, centers):
    """Return the first of the centres that are nearest to each descriptor."""
    labels = np.empty(len(x), dtype=np.intp)
    weights, constant = -2 * centers.T, np.einsum("kd,kd->k", centers, centers)
    # Each centre is a little farther off than the one before: more than products round.
    constant += 1e-12 * np.median(constant) * np.arange(len(centers))
    n_rows = max(1, BLOCK // len(centers))
    for first in range(0, len(x), n_rows):
        rows = slice(first, first + n_rows)
        scores = x[rows] @ weights
        scores += constant  # the squared distance, less that of the descriptor from the origin
        labels[rows] = scores.argmin(axis=1)
    return labels


def _means(columns, labels, centers):
    """Return the means of clusters; an empty one keeps its centre."""
    k = len(centers)
    counts = np.bincount(labels, minlength=k)
    sums = [np.bincount(labels, weights=column, minlength=k) for column in columns]
    means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    return np.where(counts[:, None] > 0, means, centers)

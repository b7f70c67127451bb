r"""Words that move with every batch of bags: mini-batch k-means on given batches.

With :math:`S_0` and the VLAD :math:`V = \sum_t (x_t - c_k)` of all descriptors of a batch, assigned
to the nearest centre, and :math:`N` how many descriptors a centre has had,

.. math:: N_k \leftarrow N_k + S_{0,k}, \qquad c_k \leftarrow c_k + V_k / N_k.

Source: Sculley (2010), algorithm 1, a batch at a time.
"""

import functools

import numpy as np

from skfisher.layers.vlad import VLADPooling
from skfisher.ops.gaussian import scale_of
from skfisher.parallel.units import sum_units

__all__ = ["kmeans_step"]

HARD = VLADPooling(assignment="hard")


def kmeans_step(units, centers, counts):
    """Take one step with the descriptors of a batch.

    Parameters
    ----------
    units : Units
        Those of `row_units` of the batch.
    centers : float64 array of shape (k, d)
    counts : float64 array of shape (k,)
        Descriptors that each has had.

    Returns
    -------
    centers, counts : float64 arrays
        A centre that gets no descriptor stays.
    """
    q = HARD.prepare({"centers": centers}, units.values.dtype)
    s0, s1 = sum_units(
        functools.partial(_sums, q=q), units, scratch=HARD.scratch({"centers": centers})
    )
    counts = counts + s0
    moves = (s1 - s0[:, None] * q.centers) / np.maximum(counts, 1)[:, None]
    return centers + scale_of(q.frame) * moves, counts


def _sums(x, starts, stops, q):
    """Return how many descriptors each word has, and the sums of these, in the frame."""
    return [sums.sum(axis=0) for sums in HARD.sums(q, x, starts, stops)]

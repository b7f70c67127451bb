r"""Descriptors assigned to words, hard or soft, and summed over bags: bags of words and VLAD.

With the logits :math:`l_t = M y_t + m` of a descriptor,

.. math:: a_t = \operatorname{softmax}(l_t) \quad \text{or} \quad
          a_{tk} = \big[k = \arg\max_j l_{tj}\big], \qquad
          S_0 = \sum_t a_t, \quad S_1 = \sum_t a_t y_t'.

``M = c`` and ``m = -|c|^2 / 2`` assign to the nearest of the centres ``c``; of a bag of T
descriptors, ``S_0 / T`` is the bag of words and ``S_1 - S_0 c`` the VLAD.
"""

import numpy as np

from skfisher.arrays.libraries import array_module, zeros
from skfisher.native import statistics as kernels
from skfisher.ops.gaussian import apply_frame, softmax_rows

__all__ = ["assignment_sums"]

# Descriptors of a bag whose sums are of the dtype computed in.
TILE_ROWS = 256


def assignment_sums(x, starts, stops, linear, constant, *, hard=True, with_moments=True):
    """Return the sums over each bag of assignments, and of descriptors by them.

    Source: Jégou, Douze, Schmid and Pérez (2010), section 3; soft, Arandjelović et al. (2016),
    equation (1).

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
        Descriptors of all bags.
    starts, stops : int64 arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]`` of `x`, at least one.
    linear : array of shape (k, d)
    constant : array of shape (k,)
        ``M`` and ``m`` of the logits; their dtype is the one computed in.
    hard : bool
        Whether a descriptor belongs to the word of the largest logit alone, the first of equals.
    with_moments : bool
        Whether ``S_1`` is wanted.

    Returns
    -------
    s0 : float64 array of shape (n_bags, k)
    s1 : float64 array of shape (n_bags, k, d), or None
    """
    k, d = linear.shape
    s0 = zeros((len(starts), k), like=x, dtype=np.float64)
    s1 = zeros((len(starts), k, d), like=x, dtype=np.float64) if with_moments else None
    if kernels.takes(x):
        kernels.assignment_sums(x, starts, stops, linear, constant, (s0, s1), hard=hard)
        return s0, s1
    for bag, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        for first in range(start, stop, TILE_ROWS):
            y = apply_frame(x[first : min(first + TILE_ROWS, stop)], None, linear.dtype)
            assigned = _assign(y @ linear.T + constant, hard)
            s0[bag] += assigned.sum(axis=0)
            if with_moments:
                s1[bag] += assigned.T @ y
    return s0, s1


def _assign(logits, hard):
    if not hard:
        return softmax_rows(logits)[0]
    xp = array_module(logits)
    return (logits.argmax(axis=1)[:, None] == xp.arange(logits.shape[1])).astype(logits.dtype)

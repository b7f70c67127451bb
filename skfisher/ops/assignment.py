r"""Descriptors assigned to words, hard or soft, and summed over bags: bags of words and VLAD.

With the logits :math:`l_t = M_1 y_t + M_2 y_t^2 + m_0` of a descriptor,

.. math:: a_t = \operatorname{softmax}(l_t) \quad \text{or} \quad
          a_{tk} = \big[k = \arg\max_j l_{tj}\big], \qquad
          S_0 = \sum_t a_t, \quad S_1 = \sum_t a_t y_t', \quad S_2 = \sum_t a_t (y_t^2)'.

Soft, these are the statistics of `soft_assignment`; here it may be said which of them are wanted,
:math:`M_2` may be missing, as where all words measure distances alike, and a descriptor may belong
to one word alone.
"""

import numpy as np

from skfisher.arrays.libraries import array_module, empty, zeros
from skfisher.native import statistics as kernels
from skfisher.ops.soft_assignment import (
    Sums,
    iter_statistics,
    iter_statistics_vjp,
    new_gradients,
    soft_statistics_vjp,
)

__all__ = ["assignment_sums", "assignment_sums_vjp"]


def assignment_sums(x, starts, stops, coefficients, *, frame=None, hard=False, order=1):
    """Return the sums over each bag of assignments, and of descriptors by them.

    Source: Jégou, Douze, Schmid and Pérez (2010), section 3; soft, Arandjelović et al. (2016),
    equation (1).

    Parameters
    ----------
    x : array of shape (n, d)
        Descriptors of all bags.
    starts, stops : int64 arrays of shape (n_bags,), on the host
        Bag ``i`` holds the rows ``starts[i]:stops[i]`` of `x`, at least one.
    coefficients : (linear, quadratic, constant), arrays of shape (k, d), (k, d), (k,)
        ``M_1``, ``M_2`` or None, and ``m_0`` of the logits; their dtype is the one computed in.
    frame : Frame, optional
        ``y = (x - frame.shift) / frame.scale``; by default ``y = x``.
    hard : bool
        Whether a descriptor belongs to the word of the largest logit alone, the first of equals.
    order : {0, 1, 2}
        Of the last of the sums that are wanted.

    Returns
    -------
    sums : Sums of float64 arrays
        None in the place of those that are not wanted.
    """
    n_bags, (k, d) = len(starts), coefficients[0].shape
    shapes = [(n_bags, k), (n_bags, k, d), (n_bags, k, d)][: order + 1]
    sums = [empty(shape, like=x, dtype=np.float64) for shape in shapes]
    sums = Sums(*sums, *[None] * (2 - order))
    if kernels.takes(x):
        kernels.assignment_sums(x, starts, stops, coefficients, sums, frame=frame, hard=hard)
        return sums
    steps = iter_statistics(x, starts, stops, _complete(coefficients), frame=frame, hard=hard)
    for bags, group in steps:
        for whole, part in zip(sums[: order + 1], group, strict=False):
            whole[bags] = part
    return sums


def assignment_sums_vjp(g, x, starts, stops, coefficients, *, frame=None, hard=False, with_x=True):
    """Return ``d_x, d_coefficients`` for the gradients `g`, `Sums`, at `assignment_sums`.

    Those by the coefficients are in float64, to be added up, and None where one is None. A hard
    assignment is held constant: they are zeros then. With ``with_x=False`` `d_x` is None, and less
    is computed.
    """
    whole = _complete(coefficients)
    g = Sums(g.s0, *(_zeros_of_moments(g, whole) if s is None else s for s in (g.s1, g.s2)))
    if not hard:
        d_x, d_whole = soft_statistics_vjp(g, x, starts, stops, whole, frame=frame, with_x=with_x)
    else:
        d_x = zeros(x.shape, like=x) if with_x else None
        d_whole = new_gradients(whole)
        steps = iter_statistics_vjp(
            g.of, x, starts, stops, whole,
            frame=frame, d_coefficients=None, d_x=d_x, with_sums=False, hard=True,
        )  # fmt: skip
        for _ in steps if with_x else ():
            pass
    d_linear, d_quadratic, d_constant = d_whole
    return d_x, (d_linear, None if coefficients[1] is None else d_quadratic, d_constant)


def _complete(coefficients):
    linear, quadratic, constant = coefficients
    if quadratic is None:
        quadratic = array_module(linear).zeros_like(linear)
    return linear, quadratic, constant


def _zeros_of_moments(g, coefficients):
    return zeros((len(g.s0), *coefficients[0].shape), like=g.s0)

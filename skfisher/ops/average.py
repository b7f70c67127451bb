r"""Mean and standard deviation of the descriptors of a bag, read off its sums.

With ``S1, S2`` the sums of ``y = x - o`` and of its square over the T descriptors of a bag, for an
origin ``o`` near them,

.. math:: m = o + S_1 / T, \qquad \sigma = \sqrt{S_2 / T - (S_1 / T)^2}.
"""

import numpy as np

from skfisher.arrays.libraries import array_module

__all__ = ["mean_and_deviation", "mean_and_deviation_vjp"]

# Of the mean square: smaller variances are what its rounding leaves.
NOISE = 64 * np.finfo(np.float64).eps


def mean_and_deviation(s1, s2, counts, origin):
    """Return the means of bags, and their standard deviations beside them; see this module.

    Parameters
    ----------
    s1, s2 : float64 arrays of shape (n_bags, d)
        `s2` may be None where deviations are not wanted.
    counts : int array of shape (n_bags,)
    origin : array of shape (d,)

    Returns
    -------
    encodings : array of shape (n_bags, 2 * d), or (n_bags, d) without deviations
        The deviations are with respect to T, not T - 1: those of one descriptor are 0.
    """
    offset, deviation = _about_origin(s1, s2, counts)
    mean = origin + offset
    return mean if s2 is None else array_module(s1).concatenate([mean, deviation], axis=1)


def mean_and_deviation_vjp(g, s1, s2, counts):
    """Return ``d_s1, d_s2`` for `g` at `mean_and_deviation`; deviations of 0 have no gradient."""
    xp = array_module(s1)
    shares = 1 / xp.asarray(counts, dtype=np.float64)[:, None]
    if s2 is None:
        return g * shares, None
    offset, deviation = _about_origin(s1, s2, counts)
    d = s1.shape[1]
    d_variance = xp.where(deviation > 0, g[:, d:] / (2 * xp.where(deviation > 0, deviation, 1)), 0)
    return (g[:, :d] - 2 * offset * d_variance) * shares, d_variance * shares


def _about_origin(s1, s2, counts):
    xp = array_module(s1)
    counts = xp.asarray(counts, dtype=np.float64)[:, None]
    offset = s1 / counts
    if s2 is None:
        return offset, None
    square = s2 / counts
    variance = square - offset**2
    return offset, xp.sqrt(xp.where(variance <= NOISE * square, 0, variance))  # NaN stays NaN

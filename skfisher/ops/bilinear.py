r"""Energies of bags along directions: bilinear scores of low rank, without second moments.

.. math:: e_j = \sum_t \langle u_j, x_t \rangle^2

A symmetric matrix :math:`C = \sum_j c_j u_j u_j^\top` scores the second moments of a bag by
:math:`\operatorname{tr}(C \sum_t x_t x_t^\top) = \langle c, e \rangle`: with signs for c, that is
:math:`\lVert X U_1 \rVert_F^2 - \lVert X U_2 \rVert_F^2`.
"""

import numpy as np

from skfisher.arrays.libraries import zeros

__all__ = ["energy_sums", "energy_sums_vjp"]

# Rows whose squares are added up in the dtype computed in.
TILE_ROWS = 256


def energy_sums(x, starts, stops, directions):
    """Add up the squares of the projections of the rows of each bag.

    Source: Kong and Fowlkes (2017), section 3.1.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    starts, stops : int64 arrays of shape (n_bags,), on the host
    directions : array of shape (r, d)

    Returns
    -------
    energies : float64 array of shape (n_bags, r)
    """
    energies = zeros((len(starts), len(directions)), like=x, dtype=np.float64)
    for bag, first, stop in _tiles(starts, stops):
        y = x[first:stop] @ directions.T
        energies[bag] += (y * y).sum(axis=0)
    return energies


def energy_sums_vjp(g, x, starts, stops, directions, *, with_x=True):
    r"""Return ``d_x, d_directions`` for `g` of shape (n_bags, r) arriving at `energy_sums`.

    .. math:: \bar x_t = 2 \sum_j g_j \langle u_j, x_t \rangle u_j, \qquad
              \bar u_j = 2 \sum_t g_j \langle u_j, x_t \rangle x_t

    Those by the directions are in float64. With ``with_x=False`` `d_x` is None.
    """
    g = g.astype(directions.dtype, copy=False)
    d_x = zeros(x.shape, like=x) if with_x else None
    d_directions = zeros(directions.shape, like=x, dtype=np.float64)
    for bag, first, stop in _tiles(starts, stops):
        d_y = x[first:stop] @ directions.T
        d_y *= 2 * g[bag]
        d_directions += d_y.T @ x[first:stop]
        if with_x:
            d_x[first:stop] += d_y @ directions
    return d_x, d_directions


def _tiles(starts, stops):
    """Yield the number of a bag and the borders of some of its rows."""
    for bag, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        for first in range(start, stop, TILE_ROWS):
            yield bag, first, min(first + TILE_ROWS, stop)

r"""Square roots of matrices by products alone: the coupled iteration of Newton and Schulz.

.. math:: A = P / c, \quad Y_0 = A, \; Z_0 = I, \quad
          M = \tfrac{1}{2} (3 I - Z Y), \; Y \leftarrow Y M, \; Z \leftarrow M Z, \quad
          Q = \sqrt{c} \, Y_N

After few steps it is no square root: eigenvalues far below c stay smaller than their roots. A
matrix that has no full rank lets it diverge after some twenty.
"""

from skfisher.arrays.libraries import array_module, empty

__all__ = ["newton_schulz", "newton_schulz_vjp"]

# Numbers in the matrices that are worked on together: they stay in cache.
BLOCK_NUMBERS = 2**14


def newton_schulz(p, *, n_iter, scaling="trace"):
    r"""Return the `n_iter`-th iterate towards the square root of matrices.

    Source: Li et al. (2018), Towards faster training of global covariance pooling networks by
    iterative matrix square root normalization, equations (3) to (6).

    Parameters
    ----------
    p : array of shape (n, d, d), float32 or float64
        Symmetric and positive semi-definite.
    n_iter : int
        At least 1; it takes 3 n_iter - 3 products.
    scaling : {"trace", "frobenius"}
        What a matrix is divided by beforehand.

    Returns
    -------
    q : array of shape (n, d, d), of the dtype of `p`
        0 where `p` is.
    """
    q = empty(p.shape, like=p)
    for some in _blocks(p):
        a, c = _scaled(p[some], scaling)
        y, _ = _iterate(a, n_iter)
        q[some] = array_module(p).sqrt(c) * y
    return q


def newton_schulz_vjp(g, p, *, n_iter, scaling="trace"):
    r"""Return ``d_p`` (n, d, d), symmetric, for `g` arriving at `newton_schulz`.

    With :math:`W = Z Y` of a step, and G symmetric, from the last step to the first

    .. math::
        \bar Y &\leftarrow \tfrac{1}{2} (3 \bar Y - \bar Y W - W \bar Y - Z \bar Z Z), \\
        \bar Z &\leftarrow \tfrac{1}{2} (3 \bar Z - \bar Z W - W \bar Z - Y \bar Y Y),

    as Y and Z are polynomials of one symmetric matrix.
    """
    xp = array_module(p)
    d_p = empty(p.shape, like=p)
    for some in _blocks(p):
        a, c = _scaled(p[some], scaling)
        y, steps = _iterate(a, n_iter)
        of_block = g[some] + g[some].transpose(0, 2, 1)
        root = xp.sqrt(c)
        d_a = _iterate_vjp(of_block * (root / 2), steps)
        # through c: in front of the result, and under a
        by_c = (of_block * y).sum(axis=(1, 2), keepdims=True) / (4 * root)
        by_c = by_c - (d_a * a).sum(axis=(1, 2), keepdims=True) / c
        direction = xp.eye(p.shape[1], dtype=p.dtype) if scaling == "trace" else a
        d_p[some] = xp.where(_is_zero(p[some]), 0, d_a / c + by_c * direction)
    return d_p


def _iterate(a, n_iter):
    """Return ``Y_N``, and of each step Y, Z (None for the identity) and their product."""
    y, z, w = a, None, a
    steps = []
    for step in range(n_iter):
        if step:
            w = z @ y
        steps.append((y, z, w))
        m = -0.5 * w
        _diagonal(m)[...] += 1.5
        y, z = y @ m, m if z is None else (m @ z if step < n_iter - 1 else None)
    return y, steps


def _iterate_vjp(g, steps):
    """Return the gradient at ``Y_0`` for `g`, symmetric, at ``Y_N``."""
    d_y, d_z = g, None
    for y, z, w in steps[::-1]:
        is_first = z is None
        d_y_before, d_z_before = d_y, d_z
        d_y = _without_product(d_y_before, w)
        if d_z_before is not None:
            d_y -= (d_z_before if is_first else z @ d_z_before @ z) / 2
        if is_first:
            break
        d_z = y @ d_y_before @ y
        d_z *= -0.5
        if d_z_before is not None:
            d_z += _without_product(d_z_before, w)
    return d_y


def _without_product(d, w):
    """Return ``(3 d - d w - w d) / 2`` for symmetric `d` and `w`."""
    product = d @ w
    return 1.5 * d - (product + product.transpose(0, 2, 1)) / 2


def _scaled(p, scaling):
    """Return matrices divided by a number, and the numbers (n, 1, 1), 1 where there is none."""
    xp = array_module(p)
    c = _diagonal(p).sum(axis=1) if scaling == "trace" else xp.sqrt((p * p).sum(axis=(1, 2)))
    zero = _is_zero(p)
    c = xp.where(zero, 1, c.reshape(-1, 1, 1)).astype(p.dtype, copy=False)
    return xp.where(zero, 0, p / c), c


def _is_zero(p):
    return _diagonal(p).sum(axis=1).reshape(-1, 1, 1) <= 0


def _diagonal(p):
    """Return a view of the diagonals (n, d)."""
    n, d, _ = p.shape
    return p.reshape(n, d * d)[:, :: d + 1]


def _blocks(p):
    step = max(1, BLOCK_NUMBERS // max(1, p.shape[1] ** 2))
    return [slice(first, first + step) for first in range(0, len(p), step)]

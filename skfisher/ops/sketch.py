r"""Sketches of polynomials: short vectors whose inner products are close to powers of others.

A count sketch adds up signed entries by bucket. The count sketch of :math:`x^{\otimes p}`, under
the sum of p bucket functions and the product of p signs, is the circular convolution of those of
:math:`x`:

.. math:: \psi(x) = \mathcal F^{-1}\Big(\prod_{j=1}^p \mathcal F(S_j x)\Big), \qquad
          E\,\langle \psi(x), \psi(y) \rangle = \langle x, y \rangle^p.

What is summed over a bag is linear in :math:`\sum_t x_t^{\otimes p}`. For p = 2 that is a matrix,
of which a sketch takes :math:`D^2` additions, however many rows the bag has.
"""

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, is_cupy, row_indices, zeros
from skfisher.ops.covariance import second_order_sums, second_order_sums_vjp

__all__ = [
    "count_sketch",
    "count_sketch_vjp",
    "sketch_sums",
    "sketch_sums_vjp",
    "tensor_sketch",
]

# From so many columns on, a row at a time is faster on the host.
WIDE = 1024
# Numbers of the sketches of rows, and of matrices, that are worked on together.
BLOCK_NUMBERS = 2**20


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
    if not is_cupy(x) and len(buckets) >= WIDE:
        signs = signs.astype(x.dtype)
        for row, into in zip(x, sketch, strict=True):
            into[...] = np.bincount(buckets, weights=row * signs, minlength=n_buckets)
        return sketch
    order = np.argsort(buckets, kind="stable")
    starts = np.flatnonzero(np.diff(buckets[order], prepend=-1))
    depth = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    for level in range(depth.max() + 1):  # within a level no two columns share a bucket
        columns = order[depth == level]
        signed = x[:, xp.asarray(columns)] * xp.asarray(signs[columns], dtype=x.dtype)
        sketch[:, xp.asarray(buckets[columns])] += signed
    return sketch


def count_sketch_vjp(g, buckets, signs):
    """Return ``d_x`` for `g` of shape (n, n_buckets) arriving at `count_sketch`."""
    return g[:, asarray(buckets, like=g)] * asarray(signs, like=g, dtype=g.dtype)


def tensor_sketch(factors, buckets, signs, n_buckets):
    r"""Return sketches of outer products, without forming these.

    Inner products are unbiased, their variance falls as 1 / n_buckets.

    Source: Pham and Pagh (2013).

    Parameters
    ----------
    factors : sequence of arrays of shape (n, d_j)
        Row t of the result is the sketch of the outer product of the rows t.
    buckets : sequence of ndarrays of shape (d_j,)
        Independent and uniform in 0 ... n_buckets - 1.
    signs : sequence of ndarrays of shape (d_j,)
        Independent signs.
    n_buckets : int

    Returns
    -------
    sketch : array of shape (n, n_buckets), of the dtype of the first factor
    """
    product = _product(_spectra(factors, buckets, signs, n_buckets))
    fft = array_module(product).fft
    return fft.irfft(product, n=n_buckets, axis=1).astype(factors[0].dtype, copy=False)


def _spectra(factors, buckets, signs, n_buckets):
    for x, h, s in zip(factors, buckets, signs, strict=True):
        yield array_module(x).fft.rfft(count_sketch(x, h, s, n_buckets), axis=1)


def sketch_sums(x, starts, stops, buckets, signs, n_buckets):
    r"""Add up the sketches of the p-th power of the rows of each bag.

    Source: Gao, Beijbom, Zhang and Darrell (2016), section 3.2; Cui et al. (2017), section 3.2.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    starts, stops : int64 arrays of shape (n_bags,), on the host
    buckets : ndarray of shape (p, d), int, on the host
    signs : ndarray of shape (p, d), -1 or 1, on the host
    n_buckets : int

    Returns
    -------
    sums : float64 array of shape (n_bags, n_buckets)
    """
    sums = zeros((len(starts), n_buckets), like=x, dtype=np.float64)
    by_matrix = _by_matrix(stops - starts, buckets, n_buckets)
    pairs = _pairs(buckets, signs, n_buckets) if by_matrix.any() else None
    for bags in _some(np.flatnonzero(by_matrix), x.shape[1] ** 2):
        _, s2 = second_order_sums(x, starts[bags], stops[bags], np.zeros(x.shape[1], x.dtype))
        sums[bags] = count_sketch(s2.reshape(len(bags), -1), *pairs, n_buckets)
    others = np.flatnonzero(~by_matrix)
    if len(others):
        spectra = zeros((len(starts), n_buckets // 2 + 1), like=x, dtype=np.complex128)
        for pieces, rows in _blocks_of_rows(x, starts, stops, others, n_buckets):
            product = _product(_spectra([rows] * len(buckets), buckets, signs, n_buckets))
            for bag, (a, b), _ in pieces:
                spectra[bag] += product[a:b].sum(axis=0, dtype=np.complex128)
        sums[others] = array_module(x).fft.irfft(spectra[others], n=n_buckets, axis=1)
    return sums


def sketch_sums_vjp(g, x, starts, stops, buckets, signs, n_buckets):
    r"""Return ``d_x`` for `g` of shape (n_bags, n_buckets) arriving at `sketch_sums`.

    .. math:: \bar x_t = \sum_j S_j^\top \mathcal F^{-1}\Big(\mathcal F(g)
              \prod_{i \ne j} \overline{\mathcal F(S_i x_t)}\Big)
    """
    fft = array_module(x).fft
    d_x = zeros(x.shape, like=x)
    d = x.shape[1]
    by_matrix = _by_matrix(stops - starts, buckets, n_buckets)
    pairs = _pairs(buckets, signs, n_buckets) if by_matrix.any() else None
    for bags in _some(np.flatnonzero(by_matrix), d * d):
        g2 = count_sketch_vjp(g[bags], *pairs).reshape(-1, d, d)
        g1 = zeros((len(bags), d), like=g)
        shift = np.zeros(d, x.dtype)
        d_x += second_order_sums_vjp(g1, g2, x, starts[bags], stops[bags], shift)
    others = np.flatnonzero(~by_matrix)
    for pieces, rows in _blocks_of_rows(x, starts, stops, others, n_buckets):
        spectra = list(_spectra([rows] * len(buckets), buckets, signs, n_buckets))
        owners = np.concatenate([np.full(b - a, bag) for bag, (a, b), _ in pieces])
        arriving = fft.rfft(g.astype(x.dtype, copy=False), axis=1)[asarray(owners, like=x)]
        d_rows = zeros(rows.shape, like=x)
        for j in range(len(buckets)):
            rest = _product(spectra[:j] + spectra[j + 1 :])
            back = fft.irfft(arriving * rest.conj(), n=n_buckets, axis=1)
            d_rows += count_sketch_vjp(back.astype(x.dtype, copy=False), buckets[j], signs[j])
        for _, (a, b), start in pieces:
            d_x[start : start + b - a] += d_rows[a:b]
    return d_x


def _product(spectra):
    product = None
    for spectrum in spectra:
        product = spectrum if product is None else product * spectrum
    return product


def _by_matrix(lengths, buckets, n_buckets):
    """Tell of which bags the sum of outer products is sketched: it depends on each alone.

    In more dimensions than rows the matrix may have more entries than it takes to transform the
    rows, some three operations a bucket and row.
    """
    degree, d = buckets.shape
    return (degree == 2) & ((lengths > d) | (d * d < 3 * lengths * n_buckets))


def _pairs(buckets, signs, n_buckets):
    """Return the bucket and the sign of each entry of a matrix."""
    pairs = np.add.outer(*buckets) % n_buckets, np.multiply.outer(*signs)
    return [of_entry.ravel() for of_entry in pairs]


def _some(bags, numbers):
    """Yield some bags at a time, each with so many numbers."""
    step = max(1, BLOCK_NUMBERS // numbers)
    for first in range(0, len(bags), step):
        yield bags[first : first + step]


def _blocks_of_rows(x, starts, stops, bags, n_buckets):
    """Yield some rows of bags at a time, and which they are.

    Yields
    ------
    pieces : list of (bag, (a, b), start)
        Rows a to b of the block are those of a bag from `start` on.
    rows : array of shape (n, d)
    """
    most = max(1, BLOCK_NUMBERS // n_buckets)
    pieces, n = [], 0
    for bag in bags.tolist():
        start, stop = int(starts[bag]), int(stops[bag])
        for first in range(start, stop, most):
            length = min(most, stop - first)
            if n + length > most:
                yield pieces, _gathered(x, pieces)
                pieces, n = [], 0
            pieces.append((bag, (n, n + length), first))
            n += length
    if pieces:
        yield pieces, _gathered(x, pieces)


def _gathered(x, pieces):
    firsts = np.array([start for _, _, start in pieces])
    lengths = np.array([b - a for _, (a, b), _ in pieces])
    return x[asarray(row_indices(firsts, firsts + lengths), like=x)]

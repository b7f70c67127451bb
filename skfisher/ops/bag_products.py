"""Bags of any lengths on a device: one product for all of them.

There, a product for each bag would spend its time on launching. So bags are cut into pieces of
one length, the last of a bag filled up, which a single batched product takes.
"""

from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import asarray

__all__ = ["Pieces"]


class Pieces(NamedTuple):
    """The bags of a chunk in pieces of their mean length: at most twice as many rows.

    Arrays on the host.
    """

    n_bags: int
    owners: np.ndarray  # (n_pieces,) the bag of each, counted within the chunk
    rows: np.ndarray  # (n_pieces, length) rows within the chunk; any where there is none left
    inside: np.ndarray  # (n_pieces, length) whether there is one

    @classmethod
    def of(cls, lengths):
        """Cut bags that lie one after the other."""
        length = -(-int(lengths.sum()) // len(lengths))
        counts = -(-lengths // length)
        owners = np.repeat(np.arange(len(lengths)), counts)
        positions = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        within = length * positions[:, None] + np.arange(length)
        last = lengths[owners, None] - 1
        firsts = np.cumsum(lengths) - lengths
        rows = firsts[owners, None] + np.minimum(within, last)
        return cls(len(lengths), owners, rows, within <= last)

    def sums(self, assigned, *others):
        """Return the sums over each bag of `assigned` (k, n), times 1 and arrays like `y`."""
        y = others[0]
        rows, inside = (asarray(p, like=y) for p in (self.rows, self.inside))
        left = (assigned[:, rows] * inside).transpose(1, 0, 2)
        # adds up the pieces of each bag
        membership = self.owners == np.arange(self.n_bags)[:, None]
        membership = asarray(membership, like=y, dtype=y.dtype)
        parts = (left.sum(axis=2), *(left @ other[rows] for other in others))
        return [
            (membership @ part.reshape(len(part), -1)).reshape(-1, *part.shape[1:])
            for part in parts
        ]

    def cotangent(self, c, y, y2, out):
        """Write ``q = A y + B y^2 + a0`` into `out` (k, n); A, B, a0 of each bag are in `c`."""
        rows, owners = (asarray(p, like=y) for p in (self.rows, self.owners))
        q = c.s1[owners] @ y[rows].transpose(0, 2, 1)
        q += c.s2[owners] @ y2[rows].transpose(0, 2, 1)
        q += c.s0[owners][:, :, None]
        out[...] = q.transpose(1, 0, 2).reshape(len(out), -1)[:, self._filled(y)]

    def multiply(self, left, weights, out):
        """Write ``left.T @ weights`` into `out` (n, d), with weights (n_bags, k, d) of each bag."""
        rows, owners = (asarray(p, like=out) for p in (self.rows, self.owners))
        product = left[:, rows].transpose(1, 2, 0) @ weights[owners]
        out[...] = product.reshape(-1, out.shape[1])[self._filled(out)]

    def _filled(self, like):
        return asarray(np.flatnonzero(self.inside), like=like)

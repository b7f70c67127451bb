"""Products of bags on the host: a tile of rows at a time, whatever lies beside it.

How BLAS rounds a product depends on the shapes of the matrices and on the place of a row in them.
A tile holds up to `TILE_ROWS` descriptors of one bag, counted from where the bag or a part of it
starts, and is a product of its own: what is computed of a bag has the same bits in any company.
Sums over so few rows also keep the digits of float32; those of tiles are added up in float64.
"""

from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import is_cupy

__all__ = ["Tiles", "tiles_of"]

TILE_ROWS = 256


class Run(NamedTuple):
    """Neighbouring tiles of one length: one batched product, which calls BLAS for each."""

    tiles: slice
    rows: slice
    n_tiles: int
    length: int


class Tiles:
    """The tiles of bags that lie one after the other.

    Parameters
    ----------
    lengths : int array of shape (n_bags,)
    """

    def __init__(self, lengths):
        n_bags, length = len(lengths), int(lengths[0])
        one = n_bags == 1
        self._whole = length <= TILE_ROWS and (one or bool((lengths <= TILE_ROWS).all()))
        if self._whole and (one or bool((lengths == length).all())):
            self._borders = range(n_bags + 1)
            self._firsts = [0] if one else np.arange(0, n_bags * length, length)
            self._runs = [Run(slice(0, n_bags), slice(0, n_bags * length), n_bags, length)]
            return
        n_whole, rest = np.divmod(lengths, TILE_ROWS)
        stops = np.cumsum(n_whole + (rest > 0))
        self._borders = [0, *stops.tolist()]  # of the tiles of each bag
        rows = np.full(stops[-1], TILE_ROWS)
        rows[stops[rest > 0] - 1] = rest[rest > 0]
        self._firsts = np.cumsum(rows) - rows
        opens = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        closes = np.append(opens[1:], len(rows))
        columns = (opens, closes, self._firsts[opens], rows[opens])
        self._runs = [
            Run(slice(a, b), slice(first, first + (b - a) * length), b - a, length)
            for a, b, first, length in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def multiply(self, left, right, out):
        """Write ``left @ right.T``, of `left` (k, d) and rows `right` (n, d), into `out` (k, n)."""
        for _, rows, n_tiles, length in self._runs:
            if length == 1:  # a vector again: put where the entries of each lie side by side
                out[:, rows] = np.matmul(left, right[rows, :, None])[:, :, 0].T
            elif n_tiles == 1:
                np.matmul(left, right[rows].T, out=out[:, rows])
            else:
                y = right[rows].reshape(n_tiles, length, -1)
                np.matmul(left, y.transpose(0, 2, 1), out=_columns(out[:, rows], length))
        return out

    def sums(self, left, right):
        """Return ``left @ right`` of each bag, of `left` (k, n) and rows `right` (n, d).

        Returns
        -------
        sums : float64 array of shape (n_bags, k, d)
        """
        k, d = len(left), right.shape[1]
        if d == 1:  # a product with a vector, for which BLAS looks at addresses and distances
            return self.row_sums(left * right.T)[:, :, None]
        products = np.empty((self._borders[-1], k, d), dtype=right.dtype)
        for tiles, rows, n_tiles, length in self._runs:
            if n_tiles == 1:
                np.matmul(left[:, rows], right[rows], out=products[tiles.start])
            else:
                y = right[rows].reshape(n_tiles, length, -1)
                np.matmul(_columns(left[:, rows], length), y, out=products[tiles])
        return self._add_up(products)

    def row_sums(self, left):
        """Return the sums over the columns of each bag of `left` (k, n), (n_bags, k) in float64."""
        return self._add_up(np.add.reduceat(left, self._firsts, axis=1).T)

    def _add_up(self, parts):
        """Add up what belongs to the tiles of each bag, in their order."""
        if self._whole:
            return parts.astype(np.float64)
        total = np.empty((len(self._borders) - 1, *parts.shape[1:]))
        for bag in range(len(total)):
            first, last = self._borders[bag : bag + 2]
            if last == first + 1:
                total[bag] = parts[first]
            else:
                np.add.reduce(parts[first:last], axis=0, dtype=np.float64, out=total[bag])
        return total


def _columns(array, length):
    """Return views (n_tiles, k, length) of the columns of an array (k, n_tiles * length)."""
    return array.reshape(len(array), -1, length).transpose(1, 0, 2)


def tiles_of(lengths, like):
    """Return the tiles of bags on the host, None on a device, where products are large."""
    return None if is_cupy(like) else Tiles(lengths)

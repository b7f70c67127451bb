"""Products of bags on the host: a tile of rows at a time, whatever lies beside it.

How BLAS rounds a product depends on the shapes of the matrices and on the place of a row in them.
A tile holds up to `TILE_ROWS` descriptors of one bag, counted from where the bag or a part of it
starts, and is a product of its own: what is computed of a bag has the same bits in any company.
Sums over so few rows also keep the digits of float32; those of tiles are added up in float64.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Tiles"]

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
        self._runs = []
        self._borders = [0]  # of the tiles of each bag
        row, longest = 0, 0
        for length in lengths.tolist():
            whole, rest = divmod(length, TILE_ROWS)
            longest = max(longest, whole + (rest > 0))
            tile = self._borders[-1]
            self._borders.append(tile + whole + (rest > 0))
            for n_tiles, rows in ((whole, TILE_ROWS), (rest > 0, rest)):
                if n_tiles:
                    self._append(slice(tile, tile + n_tiles), row, rows)
                    tile, row = tile + n_tiles, row + n_tiles * rows
        self._whole = longest == 1  # a tile for each bag

    def _append(self, tiles, row, length):
        rows = slice(row, row + (tiles.stop - tiles.start) * length)
        if self._runs and self._runs[-1].length == length:
            last = self._runs.pop()
            tiles, rows = (
                slice(a.start, b.stop) for a, b in ((last.tiles, tiles), (last.rows, rows))
            )
        self._runs.append(Run(tiles, rows, tiles.stop - tiles.start, length))

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
        firsts = [
            row for _, rows, _, length in self._runs for row in range(rows.start, rows.stop, length)
        ]
        return self._add_up(np.add.reduceat(left, firsts, axis=1).T)

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

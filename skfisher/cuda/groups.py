"""How a batch is cut to fit the memory, and which rows a part of it reads."""

import numpy as np

from skfisher.arrays.libraries import asarray, row_indices
from skfisher.cuda.layout import partial_size, row_width, vector_aligned

__all__ = ["CHUNKS_IN_BLOCK", "block_ranges", "cut", "scratch_numbers", "window"]

# As in finish.cu: chunks whose sums are added to each other before they meet those of others.
CHUNKS_IN_BLOCK = 32


def cut(costs, most):
    """Cut items, in order, into runs that cost `most` together, or are one item.

    Yields
    ------
    first, last : int
        The items ``first`` to ``last - 1``.
    """
    ends = np.cumsum(costs)
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, last
        first = last


def scratch_numbers(chunks, k, d, *, copied=False):
    """Return how many float32 numbers the posteriors and sums of each chunk take.

    Its descriptors too, if they are `copied`.
    """
    starts, stops = chunks[:, 1].astype(np.int64), chunks[:, 2].astype(np.int64)
    in_order = bool((starts[1:] >= stops[:-1]).all())
    # out of order, what lies together in the list does not in memory, and is copied
    copied = copied or not in_order or _are_scattered(starts, stops)
    return (stops - starts) * (row_width(k) + (d if copied else 0)) + partial_size(k, d)


def _are_scattered(starts, stops):
    """Tell whether most rows from the first to the last of some runs are in none."""
    return int(stops.max()) - int(starts.min()) > 2 * int((stops - starts).sum())


def block_ranges(ranges):
    """Cut the chunks of bags into blocks of `CHUNKS_IN_BLOCK`; the last of a bag is shorter.

    Parameters
    ----------
    ranges : int32 array of shape (n_bags + 1,)
        Bag ``i`` is made up of the chunks ``ranges[i]:ranges[i + 1]``.

    Returns
    -------
    blocks : int32 array of shape (n_blocks + 1,)
        Block ``i`` is made up of the chunks ``blocks[i]:blocks[i + 1]``.
    block_ranges : int32 array of shape (n_bags + 1,)
        The blocks of each bag.
    """
    counts = -(-np.diff(ranges) // CHUNKS_IN_BLOCK)
    bag_blocks = np.concatenate([[0], np.cumsum(counts)])
    bags = np.repeat(np.arange(len(counts)), counts)
    firsts = ranges[bags] + CHUNKS_IN_BLOCK * (np.arange(len(bags)) - bag_blocks[bags])
    return np.append(firsts, ranges[-1]).astype(np.int32), bag_blocks.astype(np.int32)


def window(x, chunks):
    """Return the rows that chunks lie in, as kernels read them, and the chunks within.

    A view of `x` where that will do: rows in between belong to no bag and cost a little. A
    copy of the rows of scattered chunks.
    """
    starts, stops = chunks[:, 1].astype(np.int64), chunks[:, 2].astype(np.int64)
    if not _are_scattered(starts, stops):
        low, high = int(starts.min()), int(stops.max())
        offsets = np.array([0, low, low], dtype=np.int32)
        return vector_aligned(x[low:high]), chunks - offsets
    ends = np.cumsum(stops - starts)
    moved = np.stack([chunks[:, 0], ends - (stops - starts), ends], axis=1)
    return x[asarray(row_indices(starts, stops), like=x)], moved.astype(np.int32)

"""Descriptors drawn at random: some of all, or some of each bag."""

import numpy as np
from sklearn.utils import check_random_state

from skfisher.arrays.libraries import device_of
from skfisher.bags.bags import Bags

__all__ = ["draw_descriptors", "draw_from_each", "draw_rows"]


def draw_rows(starts, stops, n_rows, seed):
    """Draw rows of the descriptors of bags without replacement, in ascending bag order.

    Returns
    -------
    rows : int64 array of shape (min(n_rows, n),)
        Indices into the stacked descriptors.
    owners : int64 array of the same shape
        The bag each is from.
    """
    lengths = stops - starts
    ends = np.cumsum(lengths)
    n = int(ends[-1])
    if n_rows >= n:
        positions = np.arange(n)
    else:
        positions = np.sort(np.random.default_rng(seed).choice(n, n_rows, replace=False))
    owners = np.searchsorted(ends, positions, side="right")
    return positions + (stops - ends)[owners], owners


def draw_descriptors(bags, max_descriptors, random_state):
    """Draw descriptors of all bags together, without replacement.

    Returns
    -------
    sample : Bags
        Bags of one descriptor, in the order of `bags`, without a copy; or `bags` itself, if it
        holds no more than `max_descriptors` or that is None.
    owners : ndarray of int
        For each bag of `sample` the bag it is from.
    """
    if max_descriptors is None or max_descriptors >= bags.n_descriptors:
        return bags, np.arange(len(bags))
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    rows, owners = draw_rows(bags.starts, bags.stops, max_descriptors, seed)
    return Bags._of(bags.values, rows, rows + 1), owners


def draw_from_each(bags, most, rng):
    """Return the bags with at most so many descriptors each, drawn at random, in order."""
    lengths = bags.lengths
    if most is None or lengths.max() <= most:
        return bags
    rows = [
        np.arange(start, start + length)
        if length <= most
        else start + np.sort(rng.choice(length, most, replace=False))
        for start, length in zip(bags.starts.tolist(), lengths.tolist(), strict=True)
    ]
    with device_of(bags.values):
        values = bags.values[np.concatenate(rows)]
    return Bags.from_lengths(values, np.minimum(lengths, most))

"""Cutting work into groups that fit a memory: arithmetic on lengths, which knows no device.

A *unit* is what is never cut. Units are computed in groups of consecutive ones; where memory
does not suffice after all, groups get smaller.
"""

import itertools
from collections import deque

import numpy as np

__all__ = ["next_group", "run_in_groups", "share_units"]


def share_units(lengths, n_shares):
    """Cut units into consecutive ranges of nearly equal numbers of rows.

    Parameters
    ----------
    lengths : int array of shape (n_units,)
        Rows of each unit.
    n_shares : int

    Returns
    -------
    ranges : list of slice
        None is empty, so there are fewer than `n_shares` if there are fewer units.
    """
    n_units = len(lengths)
    n_shares = min(n_shares, n_units)
    ends = np.cumsum(lengths)
    borders = [0]
    for i in range(1, n_shares):
        # the border nearest to the fair one that leaves a unit to every range
        fair = ends[-1] * i / n_shares
        border = int(np.abs(ends - fair).argmin()) + 1
        borders.append(min(max(border, borders[-1] + 1), n_units - n_shares + i))
    borders.append(n_units)
    return [slice(a, b) for a, b in itertools.pairwise(borders) if a < b]


def next_group(n_bytes, first, budget):
    """Return the slice of units from `first` on that take at most `budget` bytes, or one unit."""
    ends = np.cumsum(n_bytes[first:])
    return slice(first, first + max(1, int(np.searchsorted(ends, budget, side="right"))))


def run_in_groups(start, n_bytes, budget, *, n_ahead, out_of_memory, recover):
    """Compute units in groups, which get smaller where memory does not suffice.

    Parameters
    ----------
    start : callable
        ``start(units)`` begins to work on a slice of units and returns a callable that
        waits for the results and returns them.
    n_bytes : array of shape (n_units,)
        Memory that each unit is expected to take.
    budget : float
        Memory of a group to begin with, in bytes.
    n_ahead : int
        How many groups may be under way.
    out_of_memory : exception class
        What `start` raises if memory does not suffice.
    recover : callable
        Called after such an error, with nothing under way. Frees what it can, and returns
        the bytes that are free then.

    Yields
    ------
    units : slice
    results : what the callable returned
        In the order of the units.

    Raises
    ------
    MemoryError
        If memory does not suffice for a single unit.
    """
    waiting = deque()
    first = 0
    while waiting or first < len(n_bytes):
        failed = False
        if first < len(n_bytes) and len(waiting) < n_ahead:
            units = next_group(n_bytes, first, budget)
            try:
                waiting.append((units, start(units)))
                first = units.stop
                continue
            except out_of_memory:
                failed = True  # seen to below: in here the error still holds arrays
        if waiting:  # what is under way takes memory too
            units, finish = waiting.popleft()
            yield units, finish()
            del finish  # and so would its results
        elif failed:
            free, wanted = recover(), float(n_bytes[units].sum())
            if units.stop - units.start == 1:
                raise MemoryError(
                    f"The GPU's memory does not suffice: about {wanted / 2**20:.0f} MiB are "
                    f"needed at a time, {free / 2**20:.0f} MiB are free. Free what other arrays "
                    "and programs hold, or set device='cpu'."
                )
            budget = wanted / 2

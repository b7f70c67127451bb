"""What a test knows of an operation, and the bags that it is tried on."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STARTS = np.array([0, 1, 8, 12, 16, 20])
STOPS = np.array([1, 8, 12, 16, 20, 33])


class Op(NamedTuple):
    """An operation, its VJP, arguments for both, and a loop that computes the same."""

    name: str
    forward: Callable
    vjp: Callable | None
    arguments: Callable  # rng -> tuple of float64 arrays, those with gradients
    reference: Callable
    per_bag: bool = False  # rows of the result belong to bags, and x comes first
    wide: bool = False  # the result is float64

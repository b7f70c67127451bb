"""Which bags make a batch.

A sampler is three pure functions over a state: ``start`` makes it at the beginning of an
epoch, ``draw`` takes a batch from it, ``observe`` is told the losses of the bags in the batch.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["Drawn", "Sampler", "Shuffle"]


class Drawn(NamedTuple):
    """The bags of a batch."""

    index: np.ndarray  # (batch_size,), ascending
    weights: np.ndarray | None  # factors of their losses, which undo unequal chances
    state: Any


class Sampler(Protocol):
    """How batches are drawn."""

    def start(self, rng: np.random.Generator, n_bags: int) -> Any:
        """Return the state before the first batch of an epoch."""

    def draw(self, state: Any, rng: np.random.Generator, batch_size: int) -> Drawn:
        """Draw a batch."""

    def observe(self, state: Any, index: np.ndarray, losses: np.ndarray) -> Any:
        """Return the state after the losses of bags were computed."""


@dataclass(frozen=True)
class Shuffle:
    """Every bag once an epoch, in random order."""

    def start(self, rng, n_bags):
        """Return the bags to come."""
        return rng.permutation(n_bags)

    def draw(self, state, rng, batch_size):
        """Take the next bags."""
        return Drawn(np.sort(state[:batch_size]), None, state[batch_size:])

    def observe(self, state, index, losses):
        """Return the state: losses make no difference."""
        return state

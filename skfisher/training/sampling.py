"""Which bags make a batch.

A sampler is a few pure functions. ``begin`` looks at the bags once, and returns what is to be
remembered from epoch to epoch; ``start`` makes of it the state of an epoch, from which ``draw``
takes a batch, and which ``observe`` tells the losses of the bags in it; ``end`` returns the memory
again, and what `history_` is to keep of the epoch.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["Drawn", "Sampler", "Shuffle"]


class Drawn(NamedTuple):
    """The bags of a batch."""

    numbers: np.ndarray  # of the bags, (batch_size,), ascending; one may come twice
    weights: np.ndarray | None  # factors of their losses, which undo unequal chances
    state: Any


class Sampler(Protocol):
    """How batches are drawn."""

    def begin(self, chain: Any, parameters: dict, bags: Any) -> Any:
        """Return the memory before the first epoch."""

    def start(self, memory: Any, rng: np.random.Generator, n_bags: int) -> Any:
        """Return the state before the first batch of an epoch."""

    def draw(self, state: Any, rng: np.random.Generator, batch_size: int) -> Drawn:
        """Draw a batch."""

    def observe(self, state: Any, index: np.ndarray, losses: np.ndarray) -> Any:
        """Return the state after the losses of a batch, in the order of its index, are known."""

    def end(self, state: Any) -> tuple[Any, dict]:
        """Return the memory after an epoch, and numbers by name for `history_`."""


@dataclass(frozen=True)
class Shuffle:
    """Every bag once an epoch, in random order."""

    def begin(self, chain, parameters, bags):
        """Return None: there is nothing to remember."""

    def start(self, memory, rng, n_bags):
        """Return the bags to come."""
        return rng.permutation(n_bags)

    def draw(self, state, rng, batch_size):
        """Take the next bags."""
        return Drawn(np.sort(state[:batch_size]), None, state[batch_size:])

    def observe(self, state, index, losses):
        """Return the state: losses make no difference."""
        return state

    def end(self, state):
        """Return no memory, and no numbers."""
        return None, {}

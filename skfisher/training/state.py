"""Where training stands between epochs: what an interrupt leaves, and going on needs."""

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["TrainingState"]


@dataclass(frozen=True)
class TrainingState:
    """Training between two epochs.

    Parameters
    ----------
    seed : int
        Of the batches.
    course : dict
        The parameters that descent cannot change on its way.
    models : list of Model
        After the last epoch: one, or one for each column of decisions.
    n_epochs : int
        Epochs done.
    n_waited : int
        Epochs since the validation loss was lowest.
    best : list of dict, optional
        Parameters of the epoch where it was.
    best_iter : int
    best_loss : float
    n_seen : int, optional
        Bags seen so far, where they come part by part.
    descended : bool
        Whether the last classifier is all that is left to do.
    """

    seed: int
    course: dict
    models: list
    n_epochs: int = 0
    n_waited: int = 0
    best: list | None = None
    best_iter: int = 0
    best_loss: float = np.inf
    n_seen: int | None = None
    descended: bool = False

    @property
    def in_parts(self):
        """Whether the bags come part by part, so that no epoch is the last one."""
        return self.n_seen is not None

    @property
    def under_way(self):
        """Whether an interrupt has left epochs to do."""
        return not (self.in_parts or self.descended)

    def advanced(self, models, n_iter, validation_loss):
        """Return the state after an epoch, number `n_iter` of all."""
        state = replace(self, models=models, n_epochs=self.n_epochs + 1)
        if validation_loss < self.best_loss:
            best = [model.parameters for model in models]
            return replace(
                state, best=best, best_iter=n_iter, best_loss=validation_loss, n_waited=0
            )
        return replace(state, n_waited=self.n_waited + 1)

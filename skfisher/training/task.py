"""What the linear model on top of a chain is for: the one thing training knows of `y`.

There are two tasks, in `skfisher.training.classification` and `skfisher.training.regression`. A
task is settings and what was found in `y`; its methods are functions of encodings, decision values
and targets, which are `y` in the form that losses take, one column for each decision value.
"""

from typing import Any, Protocol

import numpy as np

__all__ = ["Task"]


class Task(Protocol):
    """A kind of targets, and the losses and linear models that go with it."""

    @property
    def group(self) -> str:
        """The name of the linear model, among groups of parameters to be trained."""

    @property
    def alternates(self) -> bool:
        """Whether the linear model is fitted anew every epoch, not descended on."""

    def read(self, y: Any, n_bags: int, *, name: str = "y") -> tuple["Task", np.ndarray]:
        """Return the task as `y` shows it to be, and `y` as numbers of shape (n_bags, n_columns).

        What is known of the task already, `y` must agree with; `name` is that of `y` in messages.
        """

    def begin(self, y: np.ndarray, sample_weight: np.ndarray | None) -> "Task":
        """Return the task of a new model, with all that is taken from the first `y`, as read."""

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Return `y`, as read, in the form that losses take."""

    def weights(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the weights of the terms of a loss, of the shape of the targets."""

    def strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Return what every part of the bags must have in the same shares, if there is any."""

    def losses(
        self, decision: Any, problem: Any, duals: np.ndarray | None = None
    ) -> tuple[Any, Any]:
        """Return the loss of each bag, and the gradient of their sum by the decision values."""

    def mean_loss(self, decision: Any, problem: Any) -> float:
        """Return a measure of success to compare epochs by."""

    def fit(self, encodings: np.ndarray, problem: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (n_columns, n_features) and intercepts of the best linear model."""

    def fit_anew(
        self, encodings: np.ndarray, problem: Any, duals: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the linear model of an epoch, from the duals of the last one, and its duals."""

    def fitted_loss(self, decision: np.ndarray, problem: Any) -> float:
        """Return the mean of the loss that `fit` makes small."""

    def score(self, decision: np.ndarray, targets: np.ndarray) -> float:
        """Return how good decision values are: 1 is perfect, NaN that it cannot be told."""

    def to_attributes(
        self, coef: np.ndarray, intercept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a linear model in the units of `y`."""

    def from_attributes(
        self, coef: np.ndarray, intercept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a linear model in the units of the targets."""

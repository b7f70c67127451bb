"""Numbers as the task of a linear model: a column for each, standardised."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import r2_score

from skfisher.contract.numbers import read_numbers
from skfisher.ops import regression_losses
from skfisher.svm.regression import fit_support_vector_regressions
from skfisher.svm.ridge import fit_ridge

__all__ = ["Regression"]


@dataclass(frozen=True)
class Regression:
    """Bags that have numbers; the methods are those of `skfisher.training.task.Task`.

    Targets have mean 0 and standard deviation 1 over the bags of the first `y`, so that a rate or
    a penalty means the same whatever the unit of `y`.

    Parameters
    ----------
    loss : str
        What descent and all fits minimise, a name of `skfisher.ops.regression_losses`.
    C : float
        Inverse strength of regularisation of linear models that are fitted.
    epsilon : float
        Half the width of the tube of errors that do not count, in units of `y`.
    is_column : bool or None
        Whether `y` has one dimension; None before any was read.
    mean, scale : arrays of shape (n_targets,), optional
    """

    loss: str = "squared_error"
    C: float = 1.0
    epsilon: float = 0.0
    is_column: bool | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    group = "regressor"
    alternates = False  # every loss is bounded below, and its gradient reaches the linear model

    def read(self, y, n_bags, *, name="y"):  # noqa: D102 - of the protocol, as all below
        y = read_numbers(y, n_bags, name=name)
        known = self.is_column is not None
        if known and (y.ndim, y[0].size) != (1 if self.is_column else 2, len(self.mean)):
            wanted = "(n_bags,)" if self.is_column else f"(n_bags, {len(self.mean)})"
            raise ValueError(
                f"{name} has shape {y.shape}, but the model was fitted to numbers of shape "
                f"{wanted}."
            )
        return replace(self, is_column=y.ndim == 1), y.reshape(n_bags, -1)

    def begin(self, y, sample_weight):
        """Return the task with mean and scale of the columns, 1 for those that are constant.

        Raises
        ------
        ValueError
            If all columns are constant.
        """
        if (y == y[0]).all():
            found = y[0, 0] if self.is_column else y[0].tolist()
            raise ValueError(
                f"y is {found} for every bag, so there is nothing to learn: a regressor needs at "
                "least two different numbers."
            )
        peak = abs(y).max(axis=0)
        peak[peak == 0] = 1  # and squares of tiny numbers are not 0
        mean = peak * np.average(y / peak, axis=0, weights=sample_weight)
        spread = np.average(((y - mean) / peak) ** 2, axis=0, weights=sample_weight)
        varies = (y != y[0]).any(axis=0) & (spread > 0)
        return replace(
            self,
            mean=np.where(varies, mean, y[0]),
            scale=np.where(varies, peak * np.sqrt(spread), 1.0),
        )

    def targets(self, y):  # noqa: D102
        return (y - self.mean) / self.scale

    def numbers(self, decision):
        """Return the numbers that decision values of shape (n_bags, n_targets) stand for."""
        y = self.mean + self.scale * decision
        return y[:, 0] if self.is_column else y

    def weights(self, targets):  # noqa: D102
        return None

    def strata(self, targets):  # noqa: D102
        return None

    def losses(self, decision, problem, duals=None):  # noqa: D102
        loss = getattr(regression_losses, self.loss)
        return loss(decision, problem.targets, *self._tube, weights=problem.weights)

    @property
    def _tube(self):
        """What the loss needs beside targets: the epsilon of each column, in their units."""
        return () if self.loss == "squared_error" else (self.epsilon / self.scale,)

    def mean_loss(self, decision, problem):  # noqa: D102
        terms, _ = self.losses(decision, problem)
        return float(terms.mean())

    fitted_loss = mean_loss

    def fit(self, encodings, problem):  # noqa: D102
        if self.loss == "squared_error":
            return fit_ridge(encodings, problem.targets, problem.weights, C=self.C)
        return fit_support_vector_regressions(
            encodings, problem.targets, problem.weights,
            C=self.C, epsilon=self.epsilon / self.scale, loss=self.loss,
        )  # fmt: skip

    def fit_anew(self, encodings, problem, duals):  # noqa: D102
        return *self.fit(encodings, problem), None

    def score(self, decision, targets):
        """Return the coefficient of determination, the mean over columns."""
        if len(targets) < 2 or not np.isfinite(decision).all():
            return np.nan
        return float(r2_score(targets, decision))

    def to_attributes(self, coef, intercept):  # noqa: D102
        return coef * self.scale[:, None], self.mean + self.scale * intercept

    def from_attributes(self, coef, intercept):  # noqa: D102
        return coef / self.scale[:, None], (intercept - self.mean) / self.scale

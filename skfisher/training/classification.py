"""Classes as the task of a linear model: a column of signs and a decision value for each."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score

from skfisher.contract.labels import Targets, read_targets
from skfisher.ops import losses
from skfisher.svm.columns import fit_columns
from skfisher.svm.logistic import fit_logistic
from skfisher.svm.solver import fit_linear_svms

__all__ = ["Classification"]


@dataclass(frozen=True)
class Classification:
    """Bags that belong to classes; the methods are those of `skfisher.training.task.Task`.

    Parameters
    ----------
    loss : str
        What descent minimises, a name of `skfisher.ops.losses` or "dual".
    C : float
        Inverse strength of regularisation of linear models that are fitted.
    seed : int
        Of these.
    separate : bool
        Whether each column has a chain of its own.
    class_weight : None, "balanced" or dict
    n_jobs : int or None
    kind : {"binary", "multiclass", "multilabel"} or None
        None before any labels were read.
    classes : array, optional
    """

    loss: str = "squared_hinge"
    C: float = 1.0
    seed: int = 0
    separate: bool = False
    class_weight: str | dict | None = None
    n_jobs: int | None = None
    kind: str | None = None
    classes: np.ndarray | None = None

    group = "classifier"

    @property
    def alternates(self):  # noqa: D102 - of the protocol, as all below
        return self.loss in ("linear", "dual")

    def read(self, y, n_bags, *, name="y"):  # noqa: D102
        found = read_targets(y, n_bags, classes=self.classes, kind=self.kind, name=name)
        return replace(self, kind=found.kind, classes=found.classes), found.signs

    def begin(self, y, sample_weight):  # noqa: D102
        return self

    def targets(self, y):  # noqa: D102
        return y

    def weights(self, targets):  # noqa: D102
        return Targets(self.kind, self.classes, targets).weights(self.class_weight)

    def labels(self, decision):
        """Return the labels that decision values of shape (n_bags, n_columns) stand for."""
        return Targets(self.kind, self.classes, decision).labels(decision)

    def strata(self, targets):  # noqa: D102
        return None if self.kind == "multilabel" else self.labels(targets)

    def losses(self, decision, problem, duals=None):  # noqa: D102
        if self.loss == "dual":
            return losses.dual(decision, problem.targets, duals)  # the weights are in the duals
        name = self.loss
        if name == "log_loss" and (self.kind == "multilabel" or decision.shape[1] == 1):
            name = "logistic"
        return getattr(losses, name)(decision, problem.targets, weights=problem.weights)

    def mean_loss(self, decision, problem):
        """Return the mean loss, for comparison between epochs.

        Signals that are no measure of success, such as minus the margin, are measured by the
        squared hinge.
        """
        if self.alternates:
            terms, _ = losses.squared_hinge(decision, problem.targets, weights=problem.weights)
        else:
            terms, _ = self.losses(decision, problem)
        return float(terms.mean())

    def fit(self, encodings, problem):  # noqa: D102
        if self.loss == "log_loss":
            return fit_logistic(
                encodings, problem.targets, problem.weights,
                joint=self._is_joint, C=self.C, n_jobs=self.n_jobs,
            )  # fmt: skip
        return fit_columns(
            encodings, problem.targets, problem.weights,
            C=self.C, loss=self._hinge, seed=self.seed,
        )  # fmt: skip

    def fit_anew(self, encodings, problem, duals):
        """Return coefficients, intercepts and duals of an SVM.

        The duals of the epoch before stay feasible when the encodings move, and are where
        the ascent starts.
        """
        solution = fit_linear_svms(
            encodings,
            problem.targets,
            self.C if problem.weights is None else self.C * problem.weights,
            loss=self._hinge,
            duals=duals,
            tol=1e-3,
            max_iter=100,
            seed=self.seed,
        )
        coef, intercept = solution.coef.astype(np.float64), solution.intercept.astype(np.float64)
        return coef, intercept, solution.duals

    def fitted_loss(self, decision, problem):  # noqa: D102
        name = self._hinge
        if self.loss == "log_loss":
            name = "log_loss" if self._is_joint else "logistic"
        terms, _ = getattr(losses, name)(decision, problem.targets, weights=problem.weights)
        return float(terms.mean())

    @property
    def _is_joint(self):
        """Whether one softmax joins all classes."""
        return self.kind == "multiclass" and not self.separate

    @property
    def _hinge(self):
        """The loss of support vector machines that are fitted."""
        return "hinge" if self.loss == "hinge" else "squared_hinge"

    def score(self, decision, targets):
        """Return the accuracy, or for label indicators the mean average precision."""
        if self.kind == "multilabel":
            columns = zip((targets > 0).T, decision.T, strict=True)
            # a label that no bag has cannot be found
            scores = [average_precision_score(*column) for column in columns if column[0].any()]
            return float(np.mean(scores)) if scores else np.nan
        return float(accuracy_score(self.labels(targets), self.labels(decision)))

    def to_attributes(self, coef, intercept):  # noqa: D102
        return coef, intercept

    def from_attributes(self, coef, intercept):  # noqa: D102
        return coef, intercept

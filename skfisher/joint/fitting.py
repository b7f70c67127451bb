"""Joint training from bags and `y` to a model: a frozen start, descent, a last linear model."""

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skfisher.contract.estimator import BagEstimator
from skfisher.joint.continuing import check_continues, course_of
from skfisher.joint.descent import JointDescent
from skfisher.joint.input import read_all, read_input
from skfisher.joint.settings import trained_groups
from skfisher.joint.start import resampled
from skfisher.layers.encode import encode_bags
from skfisher.training.verdict import decide, fault_of, judge
from skfisher.warning import warn_caller

__all__ = ["JointEstimator"]


class JointEstimator(JointDescent, BagEstimator):
    """Base class of linear models that are trained together with their encodings.

    A mixin left of it makes them classifiers, or regressors.
    """

    _takes_shards = True

    def _fit(self, X, y, sample_weight, X_val, y_val):
        """Fit the frozen model, train it, and fit the last linear model."""
        again = self.warm_start and hasattr(self, "coef_")
        if not again:
            self._forget_encoder()
        task = self._task() if again else self._new_task()
        given = read_all(self, X, y, sample_weight, X_val, y_val, task, first=not again)
        progress = self._init_callback_context(max_subtasks=self.max_iter)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        index = resampled(given.sample_weight)
        first_map = None if again else self._fit_whitening(given.problem.bags[index])
        chain, problem, validation = self._prepared(given.problem, given.validation)
        if not again:
            self._freeze(chain, problem, first_map, given.task, index)
        if self.max_iter:
            part = problem
            if given.held_back:
                index, rest = self._split(problem)
                part, validation = problem.take(index), problem.take(rest)
                given = given.of(index)
            self._descend(chain, part, validation, progress, given)
            self._refit(chain, problem)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)
        return self

    def _fit_part(self, X, y, sample_weight, new_task):
        """Pass once over a part of the bags; a model that is not fitted gets that task."""
        first = not hasattr(self, "coef_")
        if first:
            self._forget_encoder()
        task = new_task if first else self._task()
        problem, task, factors = read_input(self, X, y, sample_weight, task, first=first)
        if not first:
            state, train = self._training, trained_groups(self.train, self._pooling(), task)
            in_parts = state is not None and state.in_parts
            check_continues(self, course_of(self, train) if in_parts else None)
        index = resampled(factors)
        first_map = self._fit_whitening(problem.bags[index]) if first else None
        chain, problem = self._prepared(problem)
        if first:
            self._freeze(chain, problem, first_map, task, index)
        self._pass_once(chain, problem)
        return self

    def _refit(self, chain, problem):
        """Fit the last linear model, to the encodings as they are now."""
        coef, intercept, decision = [], [], []
        columns = self._columns(problem.targets.shape[1])
        for parameters, c in zip(self._parameters(), columns, strict=True):
            encodings = encode_bags(chain, parameters, problem.bags)
            parts = self._fit_head(encodings, problem.columns(c))
            coef.append(parts[0])
            intercept.append(parts[1])
            decision.append(encodings @ parts[0].T + parts[1])
        seeds = self._seeds | {"descent": self._training.seed + 1}
        parts = np.concatenate(coef), np.concatenate(intercept)
        coef, intercept = self._task().to_attributes(*parts)
        self._assign(coef_=coef, intercept_=intercept, _training=None, _seeds=seeds)
        self._warn_if_worse(chain, problem, np.hstack(decision))

    def _warn_if_worse(self, chain, problem, decision):
        """Warn of training that has ended far below its start on the very bags it had."""
        frozen = self.baseline_._parameters()
        before, after = (
            judge(self._task(), problem, d, self._health(chain, models))
            for models, d in (
                (frozen, decide(chain, frozen, problem.bags)),
                (self._parameters(), decision),
            )
        )
        fault = fault_of(before, after)
        if fault is None:
            return
        warn_caller(
            f"Training has made the model worse: on the bags it was fitted to, {fault}. Lower "
            "learning_rate; history_ tells the epoch where it began.",
            ConvergenceWarning,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

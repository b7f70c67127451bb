"""Joint training from bags and labels to a model: a frozen start, descent, a last classifier."""

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning

from skfisher._compat import _fit_context
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.labels import accuracy
from skfisher.contract.tensors_in_out import reads_input
from skfisher.joint.continuing import check_continues, course_of
from skfisher.joint.descent import JointDescent
from skfisher.joint.input import read_all, read_input, read_known_classes
from skfisher.joint.settings import trained_groups
from skfisher.joint.start import resampled
from skfisher.layers.encode import encode_bags
from skfisher.process_state import one_blas_thread
from skfisher.training.verdict import decide, fault_of, judge
from skfisher.warning import warn_caller

__all__ = ["JointEstimator"]


class JointEstimator(JointDescent, ClassifierMixin, BagEstimator):
    """Base class of classifiers that are trained together with their encodings."""

    _takes_shards = True
    score = reads_input(accuracy)  # labels may be on a GPU, as in `fit`

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    @one_blas_thread
    def fit(self, X, y, *, sample_weight=None, X_val=None, y_val=None):
        """Fit the frozen model, train it, and fit the last classifier.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
            Every epoch reads all descriptors of :class:`ShardedBags`, batch by batch.
        y : array-like of shape (n_bags,), or label indicators of shape (n_bags, n_labels)
        sample_weight : array-like of shape (n_bags,), default=None
            How often each bag counts, in descent and in every classifier. Whitening and the first
            mixture, which are fitted without labels, are fitted to bags repeated in proportion.
        X_val : bags, default=None
            Bags to validate with after every epoch, such as speakers or places that `X` does
            not have, in place of a random part of `X`. The steps of a pipeline before this one
            transform them only if it has ``transform_input=["X_val"]``, see the user guide.
        y_val : array-like, default=None
            Their labels.

        Returns
        -------
        self : object
            After an interrupt, it holds the last finished epoch.
        """
        again = self.warm_start and hasattr(self, "coef_")
        if not again:
            self._forget_encoder()
        given = read_all(self, X, y, sample_weight, X_val, y_val, first=not again)
        progress = self._init_callback_context(max_subtasks=self.max_iter)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        index = resampled(given.sample_weight)
        first_map = None if again else self._fit_whitening(given.problem.bags[index])
        chain, problem, validation = self._prepared(given.problem, given.validation)
        if not again:
            self._freeze(chain, problem, first_map, given.targets, index)
        if self.max_iter:
            part = problem
            if given.held_back:
                index, rest = self._split(given.targets)
                part, validation = problem.take(index), problem.take(rest)
                given = given.of(index)
            self._descend(chain, part, validation, progress, given)
            self._refit(chain, problem)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)
        return self

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    @one_blas_thread
    def partial_fit(self, X, y, classes=None, *, sample_weight=None):
        """Pass once over a part of the bags.

        The first call fits the frozen model to its bags, so it should have many. The rate is
        constant and the last classifier is not fitted: `coef_` is the result of descent.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : array-like of shape (n_bags,), or label indicators of shape (n_bags, n_labels)
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will pass; needed in the first call.
        sample_weight : array-like of shape (n_bags,), default=None
            As for `fit`.

        Returns
        -------
        self : object
        """
        first = not hasattr(self, "coef_")
        if first:
            self._forget_encoder()
        classes = read_known_classes(self, classes, first=first)
        problem, targets, factors = read_input(
            self, X, y, sample_weight, first=first, classes=classes
        )
        if not first:
            state, train = self._training, trained_groups(self.train, self._pooling())
            in_parts = state is not None and state.in_parts
            check_continues(self, course_of(self, train) if in_parts else None)
        index = resampled(factors)
        first_map = self._fit_whitening(problem.bags[index]) if first else None
        chain, problem = self._prepared(problem)
        if first:
            self._freeze(chain, problem, first_map, targets, index)
        self._pass_once(chain, problem)
        return self

    def _refit(self, chain, problem):
        """Fit the last classifier, to the encodings as they are now."""
        coef, intercept, decision = [], [], []
        columns = self._columns(problem.signs.shape[1])
        for parameters, c in zip(self._parameters(), columns, strict=True):
            encodings = encode_bags(chain, parameters, problem.bags)
            parts = self._fit_head(encodings, problem.columns(c))
            coef.append(parts[0])
            intercept.append(parts[1])
            decision.append(encodings @ parts[0].T + parts[1])
        seeds = self._seeds | {"descent": self._training.seed + 1}
        self._assign(
            coef_=np.concatenate(coef), intercept_=np.concatenate(intercept),
            _training=None, _seeds=seeds,
        )  # fmt: skip
        self._warn_if_worse(chain, problem, np.hstack(decision))

    def _warn_if_worse(self, chain, problem, decision):
        """Warn of training that has ended far below its start on the very bags it had."""
        frozen = self.baseline_._parameters()
        targets = self._targets(problem)
        loss = self._head_loss
        if loss == "log_loss" and (self._kind != "multiclass" or len(frozen) > 1):
            loss = "logistic"
        before, after = (
            judge(targets, problem.weights, d, loss=loss, health=self._health(chain, models))
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
        tags.classifier_tags.multi_label = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

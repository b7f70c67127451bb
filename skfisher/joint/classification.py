"""The part of joint estimators that is about classes: `y`, decisions and labels."""

from dataclasses import replace

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if

from skfisher._compat import StrOptions, _fit_context
from skfisher.arrays.libraries import asarray, float_dtype
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.labels import accuracy, read_classes
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.process_state import one_blas_thread
from skfisher.training.classification import Classification

__all__ = ["CLASSIFICATION_CONSTRAINTS", "JointClassifierMixin"]

CLASSIFICATION_CONSTRAINTS = {
    "loss": [
        StrOptions({"squared_hinge", "hinge", "quadratic", "log_loss", "linear", "dual"}),
    ],
    "multi_class": [StrOptions({"shared", "ovr"})],
    "class_weight": [StrOptions({"balanced"}), dict, None],
}


def _has_probabilities(model):
    if model.loss != "log_loss":
        raise AttributeError(
            f"Probabilities need loss='log_loss', not {model.loss!r}: wrap the estimator in "
            "sklearn.calibration.CalibratedClassifierCV, or set that loss."
        )
    return True


class JointClassifierMixin(ClassifierMixin):
    """Fits joint models to labels, and predicts these."""

    score = reads_input(accuracy)  # labels may be on a GPU, as in `fit`

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=False)
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
        return self._fit(X, y, sample_weight, X_val, y_val)

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=False)
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
        new_task = self._new_task(self._read_classes(classes))
        return self._fit_part(X, y, sample_weight, new_task)

    def _read_classes(self, classes):
        """Return the classes that all parts of the bags will have, or None to keep those known."""
        first = not hasattr(self, "coef_")
        if classes is None:
            if first:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            return None
        classes = read_classes(classes)
        if not first and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"classes={classes.tolist()} are not those of the first call to partial_fit, "
                f"{self.classes_.tolist()}."
            )
        return classes

    def _new_task(self, classes=None):
        return Classification(
            self.loss, self.C, class_weight=self.class_weight, n_jobs=self.n_jobs, classes=classes
        )

    def _task(self):
        separate = self._form["multi_class"] == "ovr"
        task = replace(self._new_task(self.classes_), kind=self._kind)
        return replace(task, seed=self._seeds["svm"], separate=separate)

    def _keep_task(self, task):
        self._kind, self.classes_ = task.kind, task.classes

    def _decision(self, X):
        bags, decision = super()._decision(X)
        return bags, decision.astype(float_dtype(bags.dtype))

    @mirrors_input
    def decision_function(self, X):
        """Return the decision values of the linear classifier.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        decision : ndarray of shape (n_bags, n_classes), or (n_bags,) for two classes
            Positive for the class; with two classes, for the second.
        """
        bags, decision = self._decision(X)
        return asarray(decision[:, 0] if self._kind == "binary" else decision, like=bags.values)

    @reads_input
    def predict(self, X):
        """Return the class of each bag, or label indicators if `y` was of that kind.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        y : ndarray of shape (n_bags,) or (n_bags, n_labels)
        """
        _, decision = self._decision(X)
        return self._task().labels(decision)

    @available_if(_has_probabilities)
    @mirrors_input
    def predict_proba(self, X):
        """Return the probability of each class, with ``loss="log_loss"``.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        probabilities : ndarray of shape (n_bags, n_classes)
            Rows sum to 1; for label indicators, each entry is the probability of its label. With
            ``multi_class="ovr"``, those of separate models, scaled to sum to 1.
        """
        bags, decision = self._decision(X)
        return asarray(self._probabilities(decision), like=bags.values)

    def _probabilities(self, decision):
        if self._kind == "multiclass" and self._form["multi_class"] == "shared":
            powers = np.exp(decision - decision.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        chances = np.exp(-np.logaddexp(0, -decision))
        if self._kind == "binary":
            return np.hstack([np.exp(-np.logaddexp(0, decision)), chances])
        if self._kind == "multiclass":
            total = chances.sum(axis=1, keepdims=True)
            even = np.full_like(chances, 1 / chances.shape[1])
            return np.divide(chances, total, out=even, where=total > 0)
        return chances

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

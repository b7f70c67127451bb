"""The part of joint estimators that is about numbers: `y` and predictions."""

import functools
from numbers import Real

from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.arrays.libraries import asarray
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.numbers import read_numbers
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.process_state import one_blas_thread
from skfisher.training.regression import Regression

__all__ = ["REGRESSION_CONSTRAINTS", "JointRegressorMixin"]

REGRESSION_CONSTRAINTS = {
    "loss": [StrOptions({"squared_error", "epsilon_insensitive", "squared_epsilon_insensitive"})],
    "epsilon": [Interval(Real, 0, None, closed="left")],
}


class JointRegressorMixin(RegressorMixin):
    """Fits joint models to numbers, and predicts these."""

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    @one_blas_thread
    def fit(self, X, y, *, sample_weight=None, X_val=None, y_val=None):
        """Fit the frozen model, train it, and fit the last linear model.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
            Every epoch reads all descriptors of :class:`ShardedBags`, batch by batch.
        y : array-like of shape (n_bags,) or (n_bags, n_targets)
            Numbers to predict.
        sample_weight : array-like of shape (n_bags,), default=None
            How often each bag counts: in mean and scale of `y`, in descent and in every linear
            model. Whitening and the first codebook, which are fitted without `y`, are fitted to
            bags repeated in proportion.
        X_val : bags, default=None
            Bags to validate with after every epoch, such as speakers or places that `X` does
            not have, in place of a random part of `X`. The steps of a pipeline before this one
            transform them only if it has ``transform_input=["X_val"]``, see the user guide.
        y_val : array-like, default=None
            Their numbers.

        Returns
        -------
        self : object
            After an interrupt, it holds the last finished epoch.

        Raises
        ------
        ValueError
            If a number is missing, not finite or no number, or if `y` is constant.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    @one_blas_thread
    def partial_fit(self, X, y, *, sample_weight=None):
        """Pass once over a part of the bags.

        The first call fits the frozen model to its bags, and takes mean and scale of `y` from
        them, so it should have many. The rate is constant and the last linear model is not fitted:
        `coef_` is the result of descent.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : array-like of shape (n_bags,) or (n_bags, n_targets)
        sample_weight : array-like of shape (n_bags,), default=None
            As for `fit`.

        Returns
        -------
        self : object
        """
        return self._fit_part(X, y, sample_weight, self._new_task())

    def _new_task(self):
        return Regression(self.loss, self.C, self.epsilon)

    def _task(self):
        return Regression(
            self.loss, self.C, self.epsilon, self._is_column, self.target_mean_, self.target_scale_
        )

    def _keep_task(self, task):
        self._is_column, self.target_mean_, self.target_scale_ = (
            task.is_column, task.mean, task.scale,
        )  # fmt: skip

    @mirrors_input
    def predict(self, X):
        """Return the numbers of each bag.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        y : float64 ndarray of shape (n_bags,) or (n_bags, n_targets), as `y` was in `fit`
        """
        bags, decision = self._decision(X)
        return asarray(self._task().numbers(decision), like=bags.values)

    @reads_input
    @functools.wraps(RegressorMixin.score)
    def score(self, X, y, sample_weight=None):  # noqa: D102 - that of scikit-learn
        bags, decision = self._decision(X)
        y = read_numbers(y, len(bags))
        return r2_score(y, self._task().numbers(decision), sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

"""Linear support vector machine for dense encodings, all classes trained at once."""

import math
from numbers import Integral, Real

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, StrOptions, _fit_context, check_sample_weight
from skfisher.arrays.libraries import asarray, is_cupy, to_host
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.labels import Targets, accuracy, factors_of, read_targets
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_table
from skfisher.ops.feature_map import linear_map
from skfisher.ops.losses import binary_weights
from skfisher.process_state import one_blas_thread
from skfisher.svm.solver import Solver
from skfisher.warning import warn_caller

__all__ = ["LinearSDCA"]


class LinearSDCA(ClassifierMixin, BagEstimator):
    r"""Linear support vector machine for encodings with many features.

    One classifier for each class against the rest, or one for two classes, minimises

    .. math:: \tfrac{1}{2} \lVert \theta \rVert^2
              + C \sum_i \max(0, 1 - y_i \theta^\top x_i)^2,

    the problem that :class:`sklearn.svm.LinearSVC` solves, with the intercept as the weight of a
    constant feature. It is solved by dual coordinate ascent [1]_ [2]_ for all classes at once; if
    there are fewer samples than features, it needs only the products of samples, so the number of
    features hardly matters. With few samples or features, some hundred, an interior point method
    [3]_ is used instead. Otherwise, the ascent hands over to the interior point method if, after
    passes that cost half as much, it has not converged and is not about to.

    Parameters
    ----------
    C : float, default=1.0
        Cost of errors, above 0; small values regularise strongly.
    loss : {"squared_hinge", "hinge"}, default="squared_hinge"
        The squared hinge, or the hinge :math:`\max(0, 1 - m)` itself, which takes several times
        as long.
    tol : float, default=1e-4
        Stop when the duality gap of every class, a bound on how much its objective may still fall,
        is below this share of the objective. 0 makes all `max_iter` passes.
    max_iter : int, default=1000
        Maximum number of passes over the samples. The interior point method needs ten to fifty.
    fit_intercept : bool, default=True
        Whether to fit an intercept.
    intercept_scaling : float, default=1.0
        Value of the constant feature, above 0. Its weight is regularised like all others; the
        larger the value, the less so.
    class_weight : dict or "balanced", default=None
        Factors of C for the samples of a class. "balanced" weights classes inversely to how often
        they occur, by the weights of their samples. As in LIBLINEAR, where there are more than two
        classes the factor concerns the classifier of that class alone. For label indicators, it is
        the factor of the samples that have a label, in the classifier of that label; "balanced"
        also weights those that do not have it.
    warm_start : bool, default=False
        Start from the `duals_` of the last fit, which must have had as many samples, in the same
        order. The interior point method only checks whether they are already good enough.
    random_state : int, RandomState instance or None, default=None
        Seed of the order in which the ascent visits samples.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of the classes; of label indicators, the numbers of the columns.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Weights of the features, float32 if `X` was.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Constants of the decision function.
    duals_ : ndarray of shape (n_samples, n_classes) or (n_samples, 1)
        The dual variables, 0 for samples beyond the margin.
    dual_gap_ : float
        The largest gap of any class, as a share of its objective, up to rounding.
    n_iter_ : int
        Passes over the samples.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if `X` has names that are all strings.

    See Also
    --------
    sklearn.svm.LinearSVC : The same model by LIBLINEAR, for sparse data.
    JointFisherSVC : Trains features and mixture together with a linear support vector machine.

    Notes
    -----
    The estimator is made for encodings of unit length, as `PowerL2Normalizer` returns them.
    Features of very different scales, offsets and large `C` do no harm where samples or features
    are few; where both are many, they may take very many passes.

    References
    ----------
    .. [1] C.-J. Hsieh, K.-W. Chang, C.-J. Lin, S. S. Keerthi and S. Sundararajan (2008), "A dual
       coordinate descent method for large-scale linear SVM", ICML.
    .. [2] S. Shalev-Shwartz and T. Zhang (2013), "Stochastic dual coordinate ascent methods for
       regularized loss minimization", Journal of Machine Learning Research 14.
    .. [3] M. C. Ferris and T. S. Munson (2003), "Interior-point methods for massive support
       vector machines", SIAM Journal on Optimization 13.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skfisher import LinearSDCA, PowerL2Normalizer
    >>> X, y = load_digits(return_X_y=True)
    >>> X = PowerL2Normalizer().fit_transform(X)
    >>> model = LinearSDCA(random_state=0).fit(X[:900], y[:900])
    >>> model.score(X[900:], y[900:]) > 0.9
    True
    """

    _parameter_constraints: dict = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "loss": [StrOptions({"squared_hinge", "hinge"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "fit_intercept": ["boolean"],
        "intercept_scaling": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        C=1.0,
        *,
        loss="squared_hinge",
        tol=1e-4,
        max_iter=1000,
        fit_intercept=True,
        intercept_scaling=1.0,
        class_weight=None,
        warm_start=False,
        random_state=None,
    ):
        self.C = C
        self.loss = loss
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.random_state = random_state

    @all_or_nothing(unless="coef_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y, sample_weight=None):
        """Fit the classifiers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The encodings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            The classes, or label indicators.
        sample_weight : array-like of shape (n_samples,), default=None
            Factor of C for each sample, not negative.

        Returns
        -------
        self : LinearSDCA

        Raises
        ------
        ValueError
            If there is one class only, if weights are negative or for unknown classes, if
            `warm_start` meets another number of samples or classes, or if squares of features or
            the sum of costs overflow float64.
        """
        # passes are sequential: they run on the host, wherever the encodings are
        X = check_table(self, to_host(X) if is_cupy(X) else X, reset=True)
        targets = read_targets(y, len(X))
        costs = self.C * self._weights(targets, X, sample_weight)
        _check_sizes(X, costs)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        solver = Solver(
            X,
            targets.signs,
            costs,
            loss=self.loss,
            intercept_scaling=self.intercept_scaling if self.fit_intercept else 0.0,
            duals=self._first_duals(targets.signs.shape),
            tol=self.tol,
            seed=seed,
        )
        progress = self._init_callback_context(max_subtasks=self.max_iter)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        n_iter = 0

        def state():
            coef, intercept = solver.model()
            return {
                "coef_": coef, "intercept_": intercept, "duals_": solver.duals,
                "dual_gap_": solver.gap, "n_iter_": n_iter,
                "classes_": targets.classes, "_kind": targets.kind,
            }  # fmt: skip

        try:
            while n_iter < self.max_iter and not solver.done:
                step = progress.subcontext(task_name="pass")
                step.call_on_fit_task_begin(estimator=self)
                solver.advance()
                n_iter += 1
                if step.call_on_fit_task_end(estimator=self, reconstruction_attributes=state):
                    break
        finally:
            vars(self).update(state())
        if not self.dual_gap_ <= self.tol:
            cause = "raise max_iter or tol, or lower C"
            if solver.stuck:
                cause = "rounding leads no further. Rescale the features, raise tol, or lower C"
            warn_caller(
                f"LinearSDCA stopped after {self.n_iter_} passes with a duality gap of "
                f"{self.dual_gap_:.1e}, above tol={self.tol:g}: {cause}.",
                ConvergenceWarning,
            )
        progress.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)
        return self

    @one_blas_thread
    def _weights(self, targets, X, sample_weight):
        """Return the factors of C, of shape (n, n_columns)."""
        signs, classes = targets.signs, targets.classes
        each = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if self.class_weight == "balanced":
            own = np.maximum(each @ (signs > 0), np.finfo(np.float64).tiny)
            rest = np.maximum(each @ (signs < 0), np.finfo(np.float64).tiny)
            n_classes = len(classes) if targets.kind == "multiclass" else 2
            positive, negative = each.sum() / (n_classes * own), each.sum() / (n_classes * rest)
        else:
            positive = factors_of(self.class_weight or {}, classes)
            negative = 1.0
            if targets.kind == "binary":
                negative, positive = positive
        if targets.kind == "multiclass":
            negative = 1.0
        return binary_weights(signs, positive, negative, sample_weight=each)

    def _first_duals(self, shape):
        if not (self.warm_start and hasattr(self, "duals_")):
            return None
        if self.duals_.shape != shape:
            raise ValueError(
                f"warm_start needs as many samples and classes as the last fit: y has signs of "
                f"shape {shape}, but duals_ is of shape {self.duals_.shape}. Clone the estimator, "
                f"or set warm_start=False."
            )
        return self.duals_

    @mirrors_input
    def decision_function(self, X):
        """Return the values of the linear functions of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The encodings.

        Returns
        -------
        decision : array of shape (n_samples, n_classes), or (n_samples,) for two classes
            Positive for samples of the class; for two classes, of ``classes_[1]``.
        """
        decision = self._decision(X)
        return decision[:, 0] if self._kind == "binary" else decision

    @reads_input
    def predict(self, X):
        """Return the class of the largest decision value, or the indicators of positive ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The encodings.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Classes, or label indicators if these were fitted.
        """
        decision = to_host(self._decision(X))
        return Targets(self._kind, self.classes_, None).labels(decision)

    @one_blas_thread
    def _decision(self, X):
        check_is_fitted(self)
        X = check_table(self, X, reset=False)
        coef, intercept = (asarray(p, like=X, dtype=X.dtype) for p in (self.coef_, self.intercept_))
        return linear_map(X, coef, intercept)

    score = reads_input(accuracy)  # labels may be on a GPU, as in `fit`

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = False
        tags.classifier_tags.multi_label = True
        return tags


def _check_sizes(X, costs):
    """Refuse features whose squares, and costs whose sum, are not finite."""
    largest = math.sqrt(np.finfo(np.float64).max / X.shape[1]) / 1e4
    if max(float(X.max()), -float(X.min())) > largest:
        sample, feature = (int(i) for i in np.argwhere(abs(X) > largest)[0])
        raise ValueError(
            f"X[{sample}] has {X[sample, feature]:.0e} in feature {feature}: its square is out "
            "of the range of float64. Rescale the features."
        )
    with np.errstate(over="ignore"):
        total = costs.sum(axis=0)
    if not np.isfinite(total).all():
        raise ValueError(
            "C times the weights of all samples overflows float64: lower C, or the weights."
        )

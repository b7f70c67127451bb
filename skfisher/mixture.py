"""The diagonal Gaussian mixture of descriptors, and how estimators fit it."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.backend import (
    array_module,
    empty,
    float_dtype,
    is_cupy,
    parse_device,
    rows_on,
    to_host,
)
from skfisher.bags import Bags
from skfisher.em import (
    Mixture,
    Moments,
    StepwiseState,
    draw_rows,
    em_iterations,
    global_moments,
    initial_mixture,
    stepwise_update,
)
from skfisher.estimator import BagEstimator
from skfisher.ops.chunks import iter_row_chunks
from skfisher.ops.gaussian import log_joint, softmax_rows
from skfisher.parallel import map_in_order
from skfisher.validation import check_bags

__all__ = ["DiagonalGaussianMixture", "MixtureFitter", "is_fitted_mixture", "mixture_of"]

# Descriptors clustered to start EM: more do not move the clusters, only the time.
INIT_DESCRIPTORS = 20_000
INIT_DESCRIPTORS_PER_COMPONENT = 256


class MixtureFitter:
    """Fits ``weights_, means_, variances_`` of an estimator with the mixture's parameters."""

    _mixture_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++"})],
        "variance_floor": [Interval(Real, 0, 1, closed="neither")],
        "max_descriptors": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_jobs": [Integral, None],
        "device": [str, None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    def _mixture(self):
        return Mixture(self.weights_, self.means_, self.variances_)

    def _keep_mixture(self, mixture):
        # One assignment: an interrupt never leaves parameters of two iterations.
        self.__dict__.update(
            weights_=mixture.weights, means_=mixture.means, variances_=mixture.variances
        )

    def _fit_mixture(self, bags, X, y):
        rng = check_random_state(self.random_state)
        seeds = rng.randint(np.iinfo(np.int32).max, size=3)
        progress = self._init_callback_context(max_subtasks=self.max_iter)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        bags = self._subsample(bags, seeds[0])
        mixture, moments, floor = self._start(bags, seeds[1])
        self._keep_mixture(mixture)
        self._online = None
        self._n_seen = bags.n_descriptors
        self._global_mean, self._global_variance = moments
        self.converged_, self.n_iter_ = False, 0
        self.lower_bound_, self.lower_bounds_ = -np.inf, []
        if self.batch_size is None:
            steps = em_iterations(
                bags.values, bags.starts, bags.stops, mixture, floor,
                tol=self.tol, n_jobs=self.n_jobs, device=self.device,
            )  # fmt: skip
        else:
            steps = self._epochs(bags, mixture, moments, seeds[2])
        for _ in range(self.max_iter):
            step = progress.subcontext(task_name="em-iteration")
            step.call_on_fit_task_begin(estimator=self)
            mixture, self.lower_bound_, self.converged_ = next(steps)
            self._keep_mixture(mixture)
            self.n_iter_ += 1
            self.lower_bounds_.append(self.lower_bound_)
            if self.verbose:
                print(
                    f"{type(self).__name__}: iteration {self.n_iter_} of at most {self.max_iter}, "
                    f"mean log-likelihood {self.lower_bound_:.6f}"
                )
            stop = step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict)
            if stop or self.converged_:
                break
        else:
            warnings.warn(
                f"EM did not gain less than tol={self.tol} within max_iter={self.max_iter} "
                "iterations: raise max_iter or tol, lower n_components, or give more data.",
                ConvergenceWarning,
                stacklevel=3,
            )
        progress.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)

    def _subsample(self, bags, seed):
        if self.max_descriptors is None or bags.n_descriptors <= self.max_descriptors:
            return bags
        rows = draw_rows(bags.starts, bags.stops, self.max_descriptors, seed)
        return Bags.from_lengths(bags.values[rows], [len(rows)])

    def _start(self, bags, seed):
        """Return the first mixture, the global moments and the variance floor."""
        where = bags.values, bags.starts, bags.stops
        moments = global_moments(*where, n_jobs=self.n_jobs, device=self.device)
        floor = moments.floor(self.variance_floor)
        if self.warm_start and getattr(self, "means_", np.empty(0)).shape == (
            self.n_components,
            bags.n_features,
        ):
            return self._mixture(), moments, floor
        n_rows = max(INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT * self.n_components)
        rows = draw_rows(bags.starts, bags.stops, n_rows, seed)
        mixture = initial_mixture(
            bags.values, rows, self.n_components, moments, floor,
            method=self.init_params, seed=int(seed),
        )  # fmt: skip
        return mixture, moments, floor

    def _epochs(self, bags, mixture, moments, seed):
        """Yield what `em_iterations` does, from online EM over shuffled batches of bags."""
        rng = np.random.default_rng(seed)
        state = StepwiseState.begin(mixture, moments)
        before = -np.inf
        while True:
            order = rng.permutation(len(bags))
            total = 0.0
            for first in range(0, len(bags), self.batch_size):
                batch = bags[np.sort(order[first : first + self.batch_size])]
                state, mixture, log_likelihood = stepwise_update(
                    state, batch.values, batch.starts, batch.stops, mixture,
                    self.variance_floor, n_jobs=self.n_jobs, device=self.device,
                )  # fmt: skip
                total += log_likelihood * batch.n_descriptors
            total /= bags.n_descriptors
            self._online = state._asdict()
            yield mixture, total, abs(total - before) < self.tol
            before = total

    def _partial_fit_mixture(self, bags):
        if not hasattr(self, "means_"):
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            mixture, moments, _ = self._start(bags, seed)
            state = StepwiseState.begin(mixture, moments)
            self.converged_, self.n_iter_, self.lower_bounds_ = False, 0, []
        else:
            mixture = self._mixture()
            if self._online is not None:
                state = StepwiseState(**self._online)
            else:  # fitted exactly before: as if on that many batches of this size
                moments = Moments(self._global_mean, self._global_variance)
                n_steps = max(1, self._n_seen // bags.n_descriptors)
                state = StepwiseState.of_mixture(mixture, moments, n_steps, self._n_seen)
        state, mixture, self.lower_bound_ = stepwise_update(
            state, bags.values, bags.starts, bags.stops, mixture,
            self.variance_floor, n_jobs=self.n_jobs, device=self.device,
        )  # fmt: skip
        self._online = state._asdict()
        self._keep_mixture(mixture)
        self.n_iter_ += 1
        self.lower_bounds_.append(self.lower_bound_)


class DiagonalGaussianMixture(MixtureFitter, BagEstimator):
    r"""Gaussian mixture with diagonal covariances, fitted to the descriptors of bags.

    .. math:: p(x) = \sum_k w_k \prod_d \mathcal N(x_d; \mu_{kd}, v_{kd})

    Descriptors are independent here: bags matter only in how they are given. The fit is
    exact EM over all descriptors, chunk by chunk, in memory that does not grow with
    their number, from a k-means start. Scikit-learn's
    :class:`~sklearn.mixture.GaussianMixture` fits the same model (`to_sklearn`,
    `from_sklearn`), for one array that fits memory.

    Parameters
    ----------
    n_components : int, default=64
        Number of Gaussians, K.
    max_iter : int, default=100
        Iterations of EM at most; epochs, with `batch_size`.
    tol : float, default=1e-4
        EM stops when the mean log-likelihood per descriptor, in nats, gains less.
    init_params : {"kmeans", "k-means++"}, default="kmeans"
        Start from clusters by Lloyd's algorithm, or from their k-means++ seeds alone, on
        at most ``max(20000, 256 * n_components)`` descriptors.
    variance_floor : float, default=1e-3
        Smallest variance of a component, as a share of the global variance of its
        dimension.
    max_descriptors : int, default=None
        Fit on a random subset of that many descriptors; by default on all.
    batch_size : int, default=None
        Fit by online EM over random batches of that many bags; by default by exact EM.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str, default=None
        "cpu", "cuda", "cuda:<index>" or "auto"; by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Of the start, the subset and the batches.
    warm_start : bool, default=False
        Start from the previous fit, where its shape is the same.
    verbose : int, default=0
        Print a line an iteration.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    variances_ : ndarray of shape (n_components, n_features)
        Parameters, float64 whatever the descriptors.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Mean log-likelihood per descriptor, in nats, at the start of the last iteration.
    lower_bounds_ : list of float
        The same for every iteration.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    FisherVectorEncoder : Encodes bags by the gradient of such a mixture.
    sklearn.mixture.GaussianMixture : Other covariances.

    Notes
    -----
    A component left with next to no descriptors is replaced by half of the one with the
    largest share of the entropy, as Vedaldi and Fulkerson (2010) do, at most ten times.

    References
    ----------
    .. [1] Cappé and Moulines (2009), On-line expectation-maximization algorithm for
       latent data models.
    .. [2] Sánchez, Perronnin, Mensink and Verbeek (2013), Image classification with the
       Fisher vector, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import DiagonalGaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(loc=3 * (i % 2), size=(50, 2)) for i in range(20)]
    >>> mixture = DiagonalGaussianMixture(n_components=2, random_state=0).fit(bags)
    >>> np.sort(mixture.means_[:, 0]).round()
    array([0., 3.])
    """

    _parameter_constraints: dict = {**MixtureFitter._mixture_constraints}

    def __init__(
        self,
        n_components=64,
        *,
        max_iter=100,
        tol=1e-4,
        init_params="kmeans",
        variance_floor=1e-3,
        max_descriptors=None,
        batch_size=None,
        n_jobs=None,
        device=None,
        random_state=None,
        warm_start=False,
        verbose=0,
    ):
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.init_params = init_params
        self.variance_floor = variance_floor
        self.max_descriptors = max_descriptors
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Fit the mixture to the descriptors of all bags by EM.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : DiagonalGaussianMixture
            After an interrupt it holds the last finished iteration.
        """
        bags = self._check_descriptors(X, reset=True)
        self._fit_mixture(bags, X, y)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Take one step of online EM with a batch of bags.

        The first batch chooses the start and needs `n_components` descriptors; the
        parameters move once 20 descriptors a component were seen.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : DiagonalGaussianMixture
        """
        bags = self._check_descriptors(X, reset=not hasattr(self, "means_"))
        self._partial_fit_mixture(bags)
        return self

    def _check_descriptors(self, X, *, reset):
        parse_device(self.device)
        bags = check_bags(self, X, reset=reset, min_descriptors=self.n_components if reset else 1)
        # Rows of a 2-D array and descriptors of bags are the same thing to a mixture.
        self._fit_on_bags = False
        return bags

    def score_samples(self, X):
        """Return the log density of every descriptor.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        log_density : array of shape (n_descriptors_of_all_bags,)
            In nats, bag after bag.
        """
        return self._rows(X)[1]

    def predict_proba(self, X):
        """Return the posterior probabilities of the components for every descriptor.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        posteriors : array of shape (n_descriptors_of_all_bags, n_components)
            Bag after bag.
        """
        return self._rows(X)[0]

    def predict(self, X):
        """Return the most probable component of every descriptor, bag after bag.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        components : int array of shape (n_descriptors_of_all_bags,)
        """
        return self.predict_proba(X).argmax(axis=1)

    def _rows(self, X):
        """Return posteriors and log densities of all descriptors."""
        check_is_fitted(self)
        bags = self._check_descriptors(X, reset=False)
        n_rows = max(1024, 2**21 // max(len(self.weights_), bags.n_features))
        runs = iter_row_chunks(bags.starts, bags.stops, n_rows)
        tasks = [(bags.values, *run, self._mixture(), self.device) for run in runs]
        first, posteriors, densities = 0, None, None
        for p, density in map_in_order(_assign, tasks, n_jobs=self.n_jobs):
            if posteriors is None:
                posteriors = empty((bags.n_descriptors, p.shape[1]), like=p)
                densities = empty(bags.n_descriptors, like=p)
            posteriors[first : first + len(p)] = p
            densities[first : first + len(p)] = density
            first += len(p)
        return posteriors, densities

    def score(self, X, y=None):
        """Return the mean log density per descriptor, in nats.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        log_likelihood : float
        """
        return float(self.score_samples(X).mean(dtype=np.float64))

    def bic(self, X):
        """Return the Bayesian information criterion on `X`; lower is better."""
        densities = self.score_samples(X)
        log_likelihood = float(densities.sum(dtype=np.float64))
        return self._n_parameters() * np.log(len(densities)) - 2 * log_likelihood

    def aic(self, X):
        """Return the Akaike information criterion on `X`; lower is better."""
        log_likelihood = float(self.score_samples(X).sum(dtype=np.float64))
        return 2 * self._n_parameters() - 2 * log_likelihood

    def _n_parameters(self):
        return self.weights_.size - 1 + self.means_.size + self.variances_.size

    def sample(self, n_samples=1):
        """Draw descriptors from the mixture.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        descriptors : ndarray of shape (n_samples, n_features)
        components : ndarray of shape (n_samples,)
            What each was drawn from.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples={n_samples} should be at least 1.")
        rng = check_random_state(self.random_state)
        components = rng.choice(len(self.weights_), size=n_samples, p=self.weights_)
        noise = rng.standard_normal((n_samples, self.means_.shape[1]))
        return self.means_[components] + np.sqrt(self.variances_[components]) * noise, components

    @classmethod
    def from_sklearn(cls, mixture):
        """Return a fitted mixture with the parameters of a scikit-learn one.

        Parameters
        ----------
        mixture : sklearn.mixture.GaussianMixture
            Fitted, with ``covariance_type="diag"``.

        Returns
        -------
        mixture : DiagonalGaussianMixture
        """
        parameters = mixture_of(mixture)
        n_components, n_features = parameters.means.shape
        result = cls(
            n_components,
            max_iter=mixture.max_iter,
            tol=mixture.tol,
            random_state=mixture.random_state,
        )
        result._keep_mixture(parameters)
        result.n_features_in_ = n_features
        result._fit_on_bags = False
        result.converged_, result.n_iter_ = mixture.converged_, mixture.n_iter_
        result.lower_bound_ = float(mixture.lower_bound_)
        result.lower_bounds_ = [result.lower_bound_]
        # what partial_fit goes on from: the mixture's own moments
        mean = parameters.weights @ parameters.means
        second = parameters.weights @ (parameters.variances + parameters.means**2)
        result._global_mean, result._global_variance = mean, second - mean**2
        result._online, result._n_seen = None, 0
        return result

    def to_sklearn(self):
        """Return a fitted :class:`sklearn.mixture.GaussianMixture` of the same parameters."""
        check_is_fitted(self)
        result = GaussianMixture(
            len(self.weights_),
            covariance_type="diag",
            tol=self.tol,
            max_iter=self.max_iter,
            random_state=self.random_state,
        )
        result.weights_, result.means_ = self.weights_.copy(), self.means_.copy()
        result.covariances_ = self.variances_.copy()
        result.precisions_ = 1 / self.variances_
        result.precisions_cholesky_ = np.sqrt(result.precisions_)
        result.converged_, result.n_iter_ = self.converged_, self.n_iter_
        result.lower_bound_, result.lower_bounds_ = self.lower_bound_, list(self.lower_bounds_)
        result.n_features_in_ = self.n_features_in_
        return result


def _assign(values, starts, stops, mixture, device):
    x, starts, stops = rows_on(device, values, starts, stops)
    x = array_module(x).concatenate(
        [x[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
    )
    dtype = float_dtype(x.dtype)
    p, largest, log_sum = softmax_rows(log_joint(x.astype(dtype, copy=False), *mixture))
    return (p, largest + log_sum) if is_cupy(values) else (to_host(p), to_host(largest + log_sum))


def is_fitted_mixture(estimator):
    """Tell whether a diagonal mixture, ours or scikit-learn's, is fitted.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If its covariances are not diagonal.
    """
    if not isinstance(estimator, DiagonalGaussianMixture | GaussianMixture):
        raise TypeError(
            f"mixture is a {type(estimator).__name__}: pass a DiagonalGaussianMixture or a "
            "sklearn.mixture.GaussianMixture(covariance_type='diag')."
        )
    if isinstance(estimator, GaussianMixture) and estimator.covariance_type != "diag":
        raise ValueError(
            f"mixture has covariance_type={estimator.covariance_type!r}: Fisher vectors need "
            "diagonal covariances, GaussianMixture(covariance_type='diag')."
        )
    return hasattr(estimator, "means_")


def mixture_of(estimator):
    """Return the parameters of a fitted diagonal mixture, ours or scikit-learn's.

    Raises
    ------
    TypeError, ValueError
        If it is no diagonal mixture.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """
    if not is_fitted_mixture(estimator):
        check_is_fitted(estimator)
    if isinstance(estimator, GaussianMixture):
        parameters = estimator.weights_, estimator.means_, estimator.covariances_
    else:
        parameters = estimator._mixture()
    return Mixture(*(np.array(p, dtype=np.float64) for p in parameters))

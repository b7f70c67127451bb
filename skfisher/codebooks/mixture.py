"""The diagonal Gaussian mixture of descriptors."""

import functools
from numbers import Integral

import numpy as np
from sklearn.base import DensityMixin
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import array_module, float_dtype
from skfisher.codebooks.criteria import InformationCriteria
from skfisher.codebooks.fitting import MixtureFitter, course_of_fit, too_far
from skfisher.codebooks.given import mixture_of
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.extremes import place_of
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_bags
from skfisher.ops.gaussian import log_joint, softmax_rows
from skfisher.parallel.units import map_rows, row_units

__all__ = ["DiagonalGaussianMixture"]


class DiagonalGaussianMixture(InformationCriteria, MixtureFitter, DensityMixin, BagEstimator):
    r"""Gaussian mixture with diagonal covariances, fitted to the descriptors of bags.

    .. math:: p(x) = \sum_k w_k \prod_d \mathcal N(x_d; \mu_{kd}, v_{kd})

    Descriptors are treated as independent: it does not matter which bag a descriptor is in. The fit
    is exact EM over all descriptors, from a k-means start. It reads them chunk by chunk, in memory
    that does not grow with their number. Scikit-learn's :class:`~sklearn.mixture.GaussianMixture`
    fits the same model to one array in memory (see `to_sklearn` and `from_sklearn`).

    Parameters
    ----------
    n_components : int, default=64
        Number of Gaussians, K.
    max_iter : int, default=100
        Maximum number of EM iterations, or of epochs with `batch_size`.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood per descriptor, in nats, gains less than this.
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
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of the start, the subset and the batches.
    warm_start : bool, default=False
        Start from the previous fit, if its mixture has the same shape.
    verbose : int, default=0
        Print a line per iteration.

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
    sklearn.mixture.GaussianMixture : Also fits other covariances.

    Notes
    -----
    A component left with next to no descriptors is replaced by half of the one with the largest
    share of the entropy, as in Vedaldi and Fulkerson (2010), at most ten times.

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
    >>> bags = [rng.normal(loc=1 + 3 * (i % 2), size=(50, 2)) for i in range(20)]
    >>> mixture = DiagonalGaussianMixture(n_components=2, random_state=0).fit(bags)
    >>> np.sort(mixture.means_[:, 0]).round()
    array([1., 4.])
    """

    _takes_shards = True
    _parameter_constraints: dict = {**MixtureFitter._mixture_constraints}

    def __init__(
        self,
        n_components=64,
        *,
        max_iter=100,
        tol=1e-3,
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

    @all_or_nothing(unless="means_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
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
            After an interrupt, it holds the last finished iteration.
        """
        bags = self._check_descriptors(X, reset=True)
        self._fit_mixture(bags, X, y)
        return self

    @all_or_nothing(unless="means_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def partial_fit(self, X, y=None):
        """Take one step of online EM with a batch of bags.

        The first batch determines the start and needs at least `n_components` descriptors. The
        parameters move once 20 descriptors per component have been seen.

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

    def _check_descriptors(self, X, *, reset, copy=True):
        parse_device(self.device)
        least = self.n_components if reset else 1
        bags = check_bags(self, X, reset=reset, min_descriptors=least, copy=copy)
        # Rows of a 2-D array and descriptors of bags are the same thing to a mixture.
        self._fit_on_bags = False
        return bags

    @mirrors_input
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
        return self._rows(X, "density")

    @mirrors_input
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
        return self._rows(X, "posteriors")

    @mirrors_input
    def predict(self, X):
        """Return the most probable component of every descriptor, bag after bag.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        components : int array of shape (n_descriptors_of_all_bags,)
        """
        return self._rows(X, "component")

    @mirrors_input
    def fit_predict(self, X, y=None):
        """Fit the mixture, then return the most probable component of every descriptor.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        components : int array of shape (n_descriptors_of_all_bags,)
        """
        return self.fit(X, y).predict(X)

    def _rows(self, X, what):
        """Return "posteriors", "density" or "component" of all descriptors."""
        check_is_fitted(self)
        bags = self._check_descriptors(X, reset=False, copy=False)
        mixture = self._mixture(bags)
        k, d = mixture.means.shape
        result = map_rows(
            functools.partial(_assign, mixture=mixture, what=what),
            row_units(bags, self._where()),
            tile=max(1024, 2**21 // max(k, d)),
            scratch=(8 * (4 * k + 3 * d), 0),
        )
        wrong = ~array_module(result).isfinite(result if result.ndim == 1 else result[:, 0])
        if what == "component":
            wrong = result < 0
        if wrong.any():
            sample, _ = place_of(int(wrong.argmax()), bags)
            raise ValueError(too_far(mixture, bags, sample))
        return result

    @reads_input
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

    def sample(self, n_samples=1):
        """Draw descriptors from the mixture.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        descriptors : ndarray of shape (n_samples, n_features)
        components : ndarray of shape (n_samples,)
            The component that each descriptor was drawn from.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples} should be an integer of at least 1.")
        rng = check_random_state(self.random_state)
        weights, means, variances = self._mixture()
        components = rng.choice(len(weights), size=n_samples, p=weights)
        noise = rng.standard_normal((n_samples, means.shape[1]))
        return means[components] + np.sqrt(variances[components]) * noise, components

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
        result._adopt_mixture(parameters, mixture)
        result.n_features_in_ = n_features
        result._fit_on_bags = False
        return result

    def to_sklearn(self):
        """Return a scikit-learn mixture of the same parameters.

        Returns
        -------
        mixture : sklearn.mixture.GaussianMixture
            Fitted, with ``covariance_type="diag"``.
        """
        check_is_fitted(self)
        weights, means, variances = self._mixture()
        result = GaussianMixture(
            len(weights),
            covariance_type="diag",
            tol=self.tol,
            max_iter=self.max_iter,
            random_state=self.random_state,
        )
        result.weights_, result.means_ = weights.copy(), means.copy()
        result.covariances_ = variances.copy()
        result.precisions_ = 1 / variances
        result.precisions_cholesky_ = np.sqrt(result.precisions_)
        vars(result).update(course_of_fit(self), n_features_in_=means.shape[1])
        return result


@np.errstate(over="ignore", invalid="ignore")  # the caller looks
def _assign(x, mixture, what):
    """Return what is asked of some rows: NaN, or -1, where their density is not finite."""
    logits = log_joint(x.astype(float_dtype(x.dtype), copy=False), *mixture)
    if what == "component":
        xp = array_module(x)
        return xp.where(xp.isfinite(logits.max(axis=1)), logits.argmax(axis=1), -1)
    posteriors, largest, log_sum = softmax_rows(logits)
    return posteriors if what == "posteriors" else largest + log_sum

"""Encoders: from bags of descriptors to vectors of fixed length."""

import numpy as np
from sklearn.base import TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import HasMethods, _fit_context
from skfisher.arrays.libraries import (
    array_module,
    detached,
    empty,
    float_dtype,
    parse_device,
    to_host,
)
from skfisher.bags.bags import Bags
from skfisher.bags.feature_names import names_in
from skfisher.codebooks.fitting import MixtureFitter, too_far
from skfisher.codebooks.mixture import DiagonalGaussianMixture, is_fitted_mixture, mixture_of
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_bags
from skfisher.layers.chain import Chain
from skfisher.layers.encode import encode_bags
from skfisher.layers.fisher import FisherPooling
from skfisher.process_state import configured

__all__ = ["FisherVectorEncoder"]


def _trains_its_own_mixture(encoder):
    if encoder.mixture is not None:
        raise AttributeError("partial_fit trains the encoder's own mixture: set mixture=None.")
    return True


@configured(array_api_dispatch=False)
def _fit_mixture(mixture, bags):
    """Fit a clone of a mixture, which may write to what it is given unless it is our own."""
    if type(mixture) is not DiagonalGaussianMixture:
        values = detached(to_host(bags.pack().values), bags.values)
        ours = isinstance(mixture, DiagonalGaussianMixture)
        bags = Bags.from_lengths(values, bags.lengths) if ours else values
    return clone(mixture).fit(bags)


class FisherVectorEncoder(MixtureFitter, TransformerMixin, BagEstimator):
    r"""Encode each bag by the gradient of its likelihood under a Gaussian mixture.

    A mixture of K diagonal Gaussians is fitted to the descriptors of all bags. A bag
    of T descriptors :math:`x_t` with posteriors :math:`\gamma_{tk}` becomes

    .. math::
        F_{w,k} &= \frac{1}{T \sqrt{w_k}} \sum_t (\gamma_{tk} - w_k), \\
        F_{\mu,k} &= \frac{1}{T \sqrt{w_k}} \sum_t \gamma_{tk}
                     \frac{x_t - \mu_k}{\sigma_k}, \\
        F_{v,k} &= \frac{1}{T \sqrt{2 w_k}} \sum_t \gamma_{tk}
                   \left(\frac{(x_t - \mu_k)^2}{v_k} - 1\right),

    :math:`(2 D + 1) K` numbers, whatever T: the Fisher vector [1]_, [2]_. Follow it by
    :class:`PowerL2Normalizer` and a linear classifier.

    Parameters
    ----------
    n_components : int, default=64
        Number of Gaussians, K. With few bags take few: some hundred descriptors a
        component at least.
    include_weights : bool, default=True
        Whether the K numbers :math:`F_w` come first.
    mixture : estimator, default=None
        A :class:`DiagonalGaussianMixture`, or a
        :class:`sklearn.mixture.GaussianMixture` with ``covariance_type="diag"``. Fitted,
        it is used as it is; not fitted, a clone is fitted to the descriptors. As
        cloning (by pipelines and searches) makes a fitted one unfitted, wrap it in
        :class:`sklearn.frozen.FrozenEstimator` there. With it, `n_components` and the
        parameters of EM below are not used.
    max_iter : int, default=100
        Iterations of EM at most; epochs, with `batch_size`.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood per descriptor, in nats, gains less.
    init_params : {"kmeans", "k-means++"}, default="kmeans"
        Start of EM.
    variance_floor : float, default=1e-3
        Smallest variance of a component, as a share of the global variance of its
        dimension.
    max_descriptors : int, default=None
        Fit the mixture on a random subset of that many descriptors; by default on all.
    batch_size : int, default=None
        Fit by online EM over random batches of that many bags; by default by exact EM.
    n_jobs : int, default=None
        Number of threads, in `fit` and `transform`; None for 1, -1 for all cores. It
        does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Of the start of EM, the subset and the batches.
    warm_start : bool, default=False
        Start EM from the previous fit, where its shape is the same.
    verbose : int, default=0
        Print a line an iteration of EM.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    variances_ : ndarray of shape (n_components, n_features)
        Parameters of the mixture, float64.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Of EM, as in :class:`DiagonalGaussianMixture`.
    lower_bounds_ : list of float
        The same for every iteration; absent where the mixture was given.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    PowerL2Normalizer : Normalises the encodings.
    DescriptorTransformer : PCA and the like on every descriptor, before encoding.
    DiagonalGaussianMixture : The mixture alone.

    Notes
    -----
    Encodings of float32 descriptors are float32: products are taken in float32, sums over
    descriptors end in float64. Where components lie so far apart, in their own deviations,
    that float32 would cost digits, products are taken in float64.

    References
    ----------
    .. [1] Perronnin and Dance (2007), Fisher kernels on visual vocabularies for image
       categorization.
    .. [2] Sánchez, Perronnin, Mensink and Verbeek (2013), Image classification with the
       Fisher vector: theory and practice, equations (16)-(18).

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import FisherVectorEncoder
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(size=(rng.integers(20, 40), 3)) for _ in range(10)]
    >>> encoder = FisherVectorEncoder(n_components=2, random_state=0).fit(bags)
    >>> encoder.transform(bags).shape
    (10, 14)
    >>> encoder.get_feature_names_out()[:4]
    array(['weight_k0', 'weight_k1', 'mean_k0_d0', 'mean_k0_d1'], dtype=object)
    """

    _parameter_constraints: dict = {
        **MixtureFitter._mixture_constraints,
        "include_weights": ["boolean"],
        "mixture": [HasMethods(["fit"]), None],
    }

    def __init__(
        self,
        n_components=64,
        *,
        include_weights=True,
        mixture=None,
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
        self.include_weights = include_weights
        self.mixture = mixture
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
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Fit the mixture to the descriptors of all bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : FisherVectorEncoder
            After an interrupt it holds the last finished iteration of EM.
        """
        parse_device(self.device)
        if self.mixture is not None:
            self._take_mixture(X)
        else:
            bags = check_bags(self, X, reset=True, min_descriptors=self.n_components)
            self._fit_mixture(bags, X, y)
        return self

    def _take_mixture(self, X):
        """Use the mixture given; fit a clone of it if it is not fitted."""
        mixture = self.mixture
        frozen = isinstance(mixture, FrozenEstimator)
        if frozen:
            mixture = mixture.estimator
        fitted = is_fitted_mixture(mixture)
        if frozen:
            check_is_fitted(mixture)
        ours = isinstance(mixture, DiagonalGaussianMixture)
        least = 1 if fitted or ours else mixture.n_components  # ours says so itself
        bags = check_bags(self, X, reset=True, min_descriptors=least)
        if not fitted:
            mixture = _fit_mixture(mixture, bags)
        parameters = mixture_of(mixture)
        width = parameters.means.shape[1]
        if bags.n_features != width:
            raise ValueError(
                f"X[0] has {bags.n_features} features per descriptor, but mixture was fitted "
                f"on {width}: pass descriptors of that width, or another mixture."
            )
        self._adopt_mixture(parameters, mixture)

    @available_if(_trains_its_own_mixture)
    @all_or_nothing(unless="means_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
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
        self : FisherVectorEncoder
        """
        parse_device(self.device)
        first = not hasattr(self, "means_")
        bags = check_bags(self, X, reset=first, min_descriptors=self.n_components if first else 1)
        self._partial_fit_mixture(bags)
        return self

    @mirrors_input
    def transform(self, X):
        """Encode bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        encodings : array of shape (n_bags, n_features_out)
            Fisher vectors ``[F_w, F_mu, F_v]``, component after component in each block;
            float32 for descriptors of up to 32 bits (integers: 16), else float64.
        """
        check_is_fitted(self)
        parse_device(self.device)
        bags = check_bags(self, X, reset=False, copy=False)
        chain = Chain((), self.pooling(), where=self._where())
        parameters = {"mixture": self._mixture(bags)}
        shape = len(bags), chain.n_out(parameters)
        out = empty(shape, like=bags.values, dtype=float_dtype(bags.dtype))
        encodings = encode_bags(chain, parameters, bags, out=out)
        return self._check_finite(encodings, bags)

    def _check_finite(self, encodings, bags):
        xp = array_module(encodings)
        with np.errstate(over="ignore", invalid="ignore"):
            total = encodings.sum()  # finite only if all are
        if not xp.isfinite(total):
            finite = xp.isfinite(encodings).all(axis=1)
            if not finite.all():
                raise ValueError(too_far(self._mixture(), bags, int(finite.argmin())))
        return encodings

    @property
    def _n_features_out(self):
        k, d = self.means_.shape
        return 2 * k * d + (k if self.include_weights else 0)

    def get_feature_names_out(self, input_features=None):
        """Name the columns of encodings by block, component and dimension.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the dimensions of a descriptor; by default those seen in `fit`,
            or ``d0, d1, ...``. The name of the one column that holds the bags, which a
            ``ColumnTransformer`` passes, is taken for no name of a dimension.

        Returns
        -------
        names : ndarray of str objects
            ``weight_k0``, ..., ``mean_k0_d0``, ``mean_k0_d1``, ..., ``variance_k0_d0``, ...
        """
        check_is_fitted(self)
        k = len(self.means_)
        dimensions = names_in(self, input_features, prefix="d")
        names = [f"weight_k{i}" for i in range(k)] if self.include_weights else []
        for block in ("mean", "variance"):
            names += [f"{block}_k{i}_{name}" for i in range(k) for name in dimensions]
        return np.asarray(names, dtype=object)

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : FisherPooling
            Of the mixture that the parameters ask for; a fitted `mixture` is where training
            starts.
        """
        return FisherPooling(
            n_components=self.n_components,
            mixture=self.mixture,
            max_iter=self.max_iter,
            variance_floor=self.variance_floor,
            include_weights=self.include_weights,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

"""Fisher vectors: bags encoded by the gradient of their likelihood under a mixture."""

import copy

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import HasMethods, _fit_context
from skfisher.arrays.libraries import detached, parse_device, to_host
from skfisher.bags.bags import Bags
from skfisher.codebooks.fitting import MixtureFitter, too_far
from skfisher.codebooks.mixture import DiagonalGaussianMixture, is_fitted_mixture, mixture_of
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import CodebookEncoder
from skfisher.layers.fisher import FisherPooling
from skfisher.process_state import configured

__all__ = ["FisherVectorEncoder"]

# What an encoder of its own mixture says of it; all else is as in `DiagonalGaussianMixture`.
OF_MIXTURE = ("n_components", "max_iter", "variance_floor", "max_descriptors", "n_jobs", "device")
OF_MIXTURE += ("random_state",)


def _trains_its_own_mixture(encoder):
    if encoder.mixture is not None:
        raise AttributeError("partial_fit trains the encoder's own mixture: set mixture=None.")
    return True


def _of_mixture(name):
    """Return a property that reads an attribute of `mixture_`, absent until there is one."""

    def of_mixture(encoder):
        return getattr(vars(encoder).get("mixture_"), name)

    return property(of_mixture, doc=f"The attribute `{name}` of `mixture_`.")


@configured(array_api_dispatch=False)
def _fitted(mixture, bags):
    """Fit a clone of a mixture, which may write to what it is given unless it is our own."""
    if type(mixture) is not DiagonalGaussianMixture:
        values = detached(to_host(bags.pack().values), bags.values)
        ours = isinstance(mixture, DiagonalGaussianMixture)
        bags = Bags.from_lengths(values, bags.lengths) if ours else values
    return clone(mixture).fit(bags)


class FisherVectorEncoder(CodebookEncoder):
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
    normalize : {"power-l2"}, default=None
        "power-l2" does what :class:`PowerL2Normalizer` does by default, to the same bits and
        without a second array: a linear classifier can follow at once. By default Fisher vectors
        stay as they are.
    mixture : estimator, default=None
        A :class:`DiagonalGaussianMixture`, with any parameters, or a
        :class:`sklearn.mixture.GaussianMixture` with ``covariance_type="diag"``. Fitted,
        it is used as it is; not fitted, a clone is fitted to the descriptors. As
        cloning (by pipelines and searches) makes a fitted one unfitted, wrap it in
        :class:`sklearn.frozen.FrozenEstimator` there. With it, `n_components`, `max_iter`,
        `variance_floor` and `max_descriptors` are not used.
    max_iter : int, default=2
        Iterations of EM at most, from a k-means start. Few make the best encodings: see the
        :ref:`guide <choosing_em>`.
    variance_floor : float, default=0.3
        Smallest variance of a component, as a share of the global variance of its
        dimension.
    max_descriptors : int, default=None
        Fit the mixture on a random subset of that many descriptors; by default on all.
    n_jobs : int, default=None
        Number of threads, in `fit` and `transform`; None for 1, -1 for all cores. It
        does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Of the start of EM and the subset.

    Attributes
    ----------
    mixture_ : DiagonalGaussianMixture
        The mixture of the encodings, a copy of the one that was given.
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    variances_ : ndarray of shape (n_components, n_features)
        Its parameters, float64.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
    lower_bounds_ : list of float
        What it tells of EM.
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
        **{name: MixtureFitter._mixture_constraints[name] for name in OF_MIXTURE},
        **CodebookEncoder._encoder_constraints,
        "include_weights": ["boolean"],
        "mixture": [HasMethods(["fit"]), None],
    }

    def __init__(
        self,
        n_components=64,
        *,
        include_weights=True,
        normalize=None,
        mixture=None,
        max_iter=2,
        variance_floor=0.3,
        max_descriptors=None,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.include_weights = include_weights
        self.normalize = normalize
        self.mixture = mixture
        self.max_iter = max_iter
        self.variance_floor = variance_floor
        self.max_descriptors = max_descriptors
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    @all_or_nothing(unless="mixture_")
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
        given = self.mixture.estimator if self._is_frozen else self.mixture
        if given is None:
            bags = check_bags(self, X, reset=True, min_descriptors=self.n_components)
            self._own_mixture()._fit_mixture(bags, X, y, encoder=self)
        elif is_fitted_mixture(given):
            self._adopt(given, check_bags(self, X, reset=True))
        else:
            if self._is_frozen:
                check_is_fitted(given)
            ours = isinstance(given, DiagonalGaussianMixture)  # says itself what is too few
            bags = check_bags(
                self, X, reset=True, min_descriptors=1 if ours else given.n_components
            )
            self._adopt(_fitted(given, bags), bags)
        return self

    @property
    def _is_frozen(self):
        return isinstance(self.mixture, FrozenEstimator)

    def _own_mixture(self):
        return DiagonalGaussianMixture(**{name: getattr(self, name) for name in OF_MIXTURE})

    def _adopt(self, mixture, bags):
        """Hold a copy of a fitted mixture, ours or scikit-learn's."""
        parameters = mixture_of(mixture)
        width = parameters.means.shape[1]
        if bags.n_features != width:
            raise ValueError(
                f"X[0] has {bags.n_features} features per descriptor, but mixture was fitted "
                f"on {width}: pass descriptors of that width, or another mixture."
            )
        held = self._own_mixture().set_params(n_components=len(parameters.weights))
        held._adopt_mixture(parameters, mixture)
        self._hold(held)

    def _hold(self, mixture):
        """Make a mixture, fitted to the descriptors of this encoder, that of the encodings."""
        mixture.n_features_in_, mixture._fit_on_bags = self.n_features_in_, False
        if hasattr(self, "feature_names_in_"):
            mixture.feature_names_in_ = self.feature_names_in_
        self.mixture_ = mixture

    @available_if(_trains_its_own_mixture)
    @all_or_nothing(unless="mixture_")
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
        first = not hasattr(self, "mixture_")
        bags = check_bags(self, X, reset=first, min_descriptors=self.n_components if first else 1)
        mixture = self._own_mixture()
        if not first:  # a copy, whose attributes are replaced one by one and never changed
            parameters = mixture.get_params()
            mixture = copy.copy(self.mixture_).set_params(**parameters)
        mixture._partial_fit_mixture(bags)
        self._hold(mixture)
        return self

    weights_, means_, variances_ = map(_of_mixture, ("weights_", "means_", "variances_"))
    converged_, n_iter_ = map(_of_mixture, ("converged_", "n_iter_"))
    lower_bound_, lower_bounds_ = map(_of_mixture, ("lower_bound_", "lower_bounds_"))

    def _parameters(self, bags):
        return {"mixture": self.mixture_._mixture(bags)}

    def _why_not_finite(self, bags, i):
        return too_far(self.mixture_._mixture(), bags, i)

    @property
    def _n_features_out(self):
        k, d = self.means_.shape
        return 2 * k * d + (k if self.include_weights else 0)

    def _names(self, dimensions):
        k = len(self.means_)
        names = [f"weight_k{i}" for i in range(k)] if self.include_weights else []
        for block in ("mean", "variance"):
            names += [f"{block}_k{i}_{name}" for i in range(k) for name in dimensions]
        return names

    def blocks(self):
        """Label the columns of encodings by component, for ``PowerL2Normalizer(blocks=...)``.

        Returns
        -------
        labels : ndarray of int of shape (n_features_out,)
            All weights are one block; then come the means of each component, a block each, and
            the variances of each.
        """
        check_is_fitted(self)
        k, d = self.means_.shape
        labels = np.repeat(np.arange(2 * k), d)
        return np.concatenate([np.zeros(k, int), labels + 1]) if self.include_weights else labels

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

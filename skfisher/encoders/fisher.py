"""Fisher vectors: bags encoded by the gradient of their likelihood under a mixture."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skfisher.encoders.mixture import MixtureEncoder
from skfisher.layers.fisher import FisherPooling

__all__ = ["FisherVectorEncoder"]


class FisherVectorEncoder(MixtureEncoder):
    r"""Encode each bag by the gradient of its likelihood under a Gaussian mixture.

    A mixture of K diagonal Gaussians is fitted to the descriptors of all bags. A bag
    of T descriptors :math:`x_t` with posteriors :math:`\gamma_{tk}` becomes

    .. math::
        F_{w,k} &= \frac{1}{T \sqrt{w_k}} \sum_t (\gamma_{tk} - w_k), \\
        F_{\mu,k} &= \frac{1}{T \sqrt{w_k}} \sum_t \gamma_{tk}
                     \frac{x_t - \mu_k}{\sigma_k}, \\
        F_{v,k} &= \frac{1}{T \sqrt{2 w_k}} \sum_t \gamma_{tk}
                   \left(\frac{(x_t - \mu_k)^2}{v_k} - 1\right),

    :math:`(2 D + 1) K` numbers, whatever T is: the Fisher vector [1]_, [2]_. Normalise it with
    :class:`PowerL2Normalizer` before a linear classifier.

    Parameters
    ----------
    n_components : int, default=64
        Number of Gaussians, K. Take few if there are few bags: a component needs at least some
        hundred descriptors.
    include_weights : bool, default=True
        Whether to include the K numbers :math:`F_w`, which come first.
    normalize : {"power-l2"}, default=None
        "power-l2" gives the same bits as :class:`PowerL2Normalizer` with its default parameters,
        but needs no second array; a linear classifier can follow at once. By default, Fisher
        vectors are not normalised.
    mixture : estimator, default=None
        A :class:`DiagonalGaussianMixture`, with any parameters, or a
        :class:`sklearn.mixture.GaussianMixture` with ``covariance_type="diag"``. If it is fitted,
        it is used as it is; otherwise a clone is fitted to the descriptors. Pipelines and searches
        clone their steps, and a clone is not fitted: wrap a fitted mixture in
        :class:`sklearn.frozen.FrozenEstimator` there. With a mixture, `n_components`, `max_iter`,
        `variance_floor` and `max_descriptors` are not used.
    max_iter : int, default=2
        Maximum number of EM iterations, from a k-means start. A few make the best encodings: see
        the :ref:`guide <choosing_em>`.
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
        Seed of the start of EM and of the subset.

    Attributes
    ----------
    mixture_ : DiagonalGaussianMixture
        The mixture that encodes bags; a copy, if one was given.
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    variances_ : ndarray of shape (n_components, n_features)
        Parameters of the mixture, float64.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
    lower_bounds_ : list of float
        The course of EM, as in :class:`DiagonalGaussianMixture`.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    PowerL2Normalizer : Normalises the encodings.
    DescriptorTransformer : Applies PCA and the like to every descriptor, before encoding.
    DiagonalGaussianMixture : The mixture alone.

    Notes
    -----
    Encodings of float32 descriptors are float32: products are taken in float32, and sums over
    descriptors end in float64. If components lie so far apart, relative to their standard
    deviations, that float32 would lose digits, products are taken in float64.

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
        **MixtureEncoder._encoder_constraints,
        "include_weights": ["boolean"],
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

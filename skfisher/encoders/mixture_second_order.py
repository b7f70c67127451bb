"""Second-order pooling under a mixture: bags encoded by a Gaussian for each component."""

from numbers import Real

from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, StrOptions
from skfisher.encoders.mixture import MixtureEncoder
from skfisher.layers.mixture_second_order import MixtureMatrixPooling, names_of

__all__ = ["MixtureSecondOrderPooling"]


class MixtureSecondOrderPooling(MixtureEncoder):
    r"""Encode each bag by a Gaussian for each component of a mixture.

    A mixture of K diagonal Gaussians is fitted to the descriptors of all bags. A bag of T
    descriptors, :math:`y_t` after standardisation per dimension, with posteriors
    :math:`\gamma_{tk}`, becomes the upper triangles of

    .. math::
        M_k^\alpha, \qquad M_k = \frac{1}{T} \sum_t \gamma_{tk}
            \begin{pmatrix} y_t y_t^\top & y_t \\ y_t^\top & 1 \end{pmatrix},

    with entries off the diagonal multiplied by :math:`\sqrt 2`. These are K (D + 1) (D + 2) / 2
    numbers, whatever T is. With one component, they are the Gaussian embedding [1]_ of the bag. A
    Fisher vector describes each component by means and variances; this encoder adds their
    covariances.

    Parameters
    ----------
    n_components : int, default=4
        Number of Gaussians, K. A few are enough: encodings grow with :math:`K D^2 / 2`.
    power : float, default=0.5
        Exponent of the matrices, :math:`\alpha`.
    normalize : {"l2", "intra", "power-l2"}, default="l2"
        "l2" scales encodings to unit length; "intra" first scales the part of each component.
        "power-l2" first takes signed square roots of the entries, which after the matrix power has
        only cost accuracy where it was tried. None does not normalise.
    mixture : estimator, default=None
        A mixture, fitted or not, as for :class:`FisherVectorEncoder`. It replaces `n_components`,
        `max_iter`, `variance_floor` and `max_descriptors`.
    max_iter : int, default=2
        Maximum number of EM iterations, from a k-means start.
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
        The mixture that encodes bags; a copy, if one was given. Descriptors are standardised by its
        mean and standard deviation.
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
    FisherVectorEncoder : Uses means and variances only, and is shorter.
    JointClassifier : Trains the mixture for the labels.

    References
    ----------
    .. [1] Wang, Li and Zhang (2017), G2DeNet: global Gaussian distribution embedding network.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import MixtureSecondOrderPooling
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(size=(rng.integers(20, 40), 3)) for _ in range(10)]
    >>> encoder = MixtureSecondOrderPooling(n_components=2, random_state=0).fit(bags)
    >>> encoder.transform(bags).shape
    (10, 20)
    >>> encoder.get_feature_names_out()[:4]
    array(['second_k0_d0_d0', 'second_k0_d0_d1', 'second_k0_d0_d2',
           'mean_k0_d0'], dtype=object)
    """

    _parameter_constraints: dict = {
        **MixtureEncoder._encoder_constraints,
        "power": [Interval(Real, 0, None, closed="neither")],
        "normalize": [StrOptions({"l2", "intra", "power-l2"}), None],
    }

    def __init__(
        self,
        n_components=4,
        *,
        power=0.5,
        normalize="l2",
        mixture=None,
        max_iter=2,
        variance_floor=0.3,
        max_descriptors=None,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.power = power
        self.normalize = normalize
        self.mixture = mixture
        self.max_iter = max_iter
        self.variance_floor = variance_floor
        self.max_descriptors = max_descriptors
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    def _check_length(self, n_features):
        self.pooling().check_length(n_features)

    @property
    def _n_features_out(self):
        return self.pooling().n_out({"mixture": self.mixture_._mixture()})

    def _names(self, dimensions):
        return names_of(len(self.means_), dimensions)

    def blocks(self):
        """Label the columns of encodings by component, for ``PowerL2Normalizer(blocks=...)``.

        Returns
        -------
        labels : ndarray of int of shape (n_features_out,)
        """
        check_is_fitted(self)
        return self.pooling().blocks({"mixture": self.mixture_._mixture()})

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : MixtureMatrixPooling
            Of the mixture that the parameters ask for; a fitted `mixture` is where training
            starts.
        """
        return MixtureMatrixPooling(
            n_components=self.n_components,
            mixture=self.mixture,
            max_iter=self.max_iter,
            variance_floor=self.variance_floor,
            power=self.power,
            normalize=self.normalize,
        )

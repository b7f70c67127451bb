"""Second-order pooling: bags encoded by their covariances, or as Gaussians."""

from numbers import Integral, Real

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.codebooks.moments import SecondMoments, second_moments
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import BagEncoder
from skfisher.layers.second_order import MatrixPooling
from skfisher.parallel.units import Where

__all__ = ["SecondOrderPooling"]

OF_LAYER = ("statistic", "function", "power", "n_iter", "prescale", "ridge", "standardize", "norm")
OF_LAYER += ("n_components",)
LITERATURE = {"standardize": False, "norm": None}


class SecondOrderPooling(BagEncoder):
    r"""Encode each bag by a function of its second-order statistics.

    With mean :math:`\mu` and covariance P of the standardised descriptors of a bag, the matrix M
    is by default the Gaussian embedding

    .. math::
        M = \begin{pmatrix} P + \mu \mu^\top & \mu \\ \mu^\top & 1 \end{pmatrix}, \qquad
        Q = M^{1/2}, \qquad Q / \lVert Q \rVert_F,

    whose upper triangle, with entries off the diagonal multiplied by :math:`\sqrt 2`, is the
    encoding [1]_. It has (D + 1)(D + 2) / 2 numbers, whatever the length of the bag. Subtract the
    mean of the encodings (``StandardScaler(with_std=False)``) before a linear classifier.

    Parameters
    ----------
    statistic : {"gaussian", "covariance", "second_moment"}, default="gaussian"
        The matrix M: the one above, :math:`P`, or :math:`P + \mu \mu^\top`.
    function : {"power", "log", "newton_schulz", "identity"}, default="power"
        Function of M: its `power`, its logarithm, `n_iter` Newton-Schulz steps towards its root, or
        M itself.
    power : float, default=0.5
        Exponent of "power".
    n_iter : int, default=5
        Steps of "newton_schulz". Five steps do not reach the root: eigenvalues that are small
        beside the trace end far below their roots.
    prescale : {"trace", "frobenius"}, default="trace"
        The norm that "newton_schulz" divides M by beforehand.
    ridge : float, default=None
        Added to the eigenvalues of M, as a share of the mean variance of the descriptors in `fit`.
        None is 1e-3 for the logarithm, which needs a ridge, and 0 otherwise.
    standardize : bool, default=True
        Whether to centre descriptors and scale them to variance 1 in each dimension. The Gaussian
        embedding depends on the unit of the descriptors, as its last entry is 1.
    norm : {"l2", "frobenius", "spectral", "trace"}, default="l2"
        Norm by which the matrix, and so its triangle, is divided. "l2" is the length of the
        triangle, which equals the "frobenius" norm of the matrix. None does not divide.
    n_components : int, default=None
        Project descriptors to this many dimensions. `fit` projects to their principal axes;
        :class:`JointClassifier` trains the projection, as its group "projection".
    normalize : {"power-l2"}, default=None
        "power-l2" finally takes signed square roots of all entries, and scales to length 1.
    n_jobs : int, default=None
        Number of threads in `fit` and `transform`; None for 1, -1 for all cores. It does not
        change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
    scale_ : ndarray of shape (n_features,)
        Mean and standard deviation of the descriptors, the latter 1 in a constant dimension;
        0 and 1 without `standardize`.
    ridge_ : ndarray of shape ()
        Ridge added to the eigenvalues.
    projection_ : ndarray of shape (n_components, n_features)
        The projection, if `n_components` is set.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    FisherVectorEncoder : Encodes by the gradient of a mixture's likelihood.
    JointClassifier : Trains map and projection together with a classifier.

    Notes
    -----
    For float32 descriptors, products are taken in float32 about the mean of up to 256 descriptors,
    and added up in float64. Eigenvalues below the rounding of these products are set to 0, as bags
    with fewer descriptors than dimensions need. A bag of one descriptor is a Gaussian with
    covariance 0.

    References
    ----------
    .. [1] Wang, Li and Zhang (2017), G2DeNet: global Gaussian distribution embedding network and
       its application to visual recognition.
    .. [2] Li, Xie, Wang and Zuo (2017), Is second-order information helpful for large-scale
       visual recognition?

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import SecondOrderPooling
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(size=(rng.integers(1, 40), 3)) for _ in range(10)]
    >>> encoder = SecondOrderPooling().fit(bags)
    >>> encoder.transform(bags).shape
    (10, 10)
    >>> encoder.get_feature_names_out()[[0, 1, 3, 9]]
    array(['second_d0_d0', 'second_d0_d1', 'mean_d0', 'bias'], dtype=object)
    >>> SecondOrderPooling.isqrt_cov().fit_transform(bags).shape
    (10, 6)
    """

    _parameter_constraints: dict = {
        **BagEncoder._encoder_constraints,
        "statistic": [StrOptions({"gaussian", "covariance", "second_moment"})],
        "function": [StrOptions({"power", "log", "newton_schulz", "identity"})],
        "power": [Interval(Real, 0, None, closed="neither")],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "prescale": [StrOptions({"trace", "frobenius"})],
        "ridge": [Interval(Real, 0, None, closed="left"), None],
        "standardize": ["boolean"],
        "norm": [StrOptions({"l2", "frobenius", "spectral", "trace"}), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        statistic="gaussian",
        *,
        function="power",
        power=0.5,
        n_iter=5,
        prescale="trace",
        ridge=None,
        standardize=True,
        norm="l2",
        n_components=None,
        normalize=None,
        n_jobs=None,
        device=None,
    ):
        self.statistic = statistic
        self.function = function
        self.power = power
        self.n_iter = n_iter
        self.prescale = prescale
        self.ridge = ridge
        self.standardize = standardize
        self.norm = norm
        self.n_components = n_components
        self.normalize = normalize
        self.n_jobs = n_jobs
        self.device = device

    @classmethod
    def o2p(cls, **parameters):
        """Return O2P: the logarithm of second moments.

        Source: Carreira, Caseiro, Batista and Sminchisescu (2012), Semantic segmentation with
        second-order pooling.

        Parameters
        ----------
        **parameters
            Parameters that replace or extend those of the paper.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        return cls("second_moment", **{**LITERATURE, "function": "log", **parameters})

    @classmethod
    def bcnn(cls, **parameters):
        """Return bilinear pooling: second moments, signed roots of entries, length 1.

        Source: Lin, RoyChowdhury and Maji (2015), Bilinear CNN models for fine-grained visual
        recognition.

        Parameters
        ----------
        **parameters
            Parameters that replace or extend those of the paper.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        settings = {**LITERATURE, "function": "identity", "normalize": "power-l2"}
        return cls("second_moment", **{**settings, **parameters})

    @classmethod
    def improved_bcnn(cls, **parameters):
        """Return improved bilinear pooling: the root of second moments, then that of entries.

        Its gradient solves a Lyapunov equation; here it is computed from the eigenvalues of the
        matrix.

        Source: Lin and Maji (2017), Improved bilinear pooling with CNNs.

        Parameters
        ----------
        **parameters
            Parameters that replace or extend those of the paper.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        return cls("second_moment", **{**LITERATURE, "normalize": "power-l2", **parameters})

    @classmethod
    def mpn_cov(cls, **parameters):
        """Return MPN-COV: the root of covariances.

        ``norm="spectral"`` is what the paper calls M-l2, ``norm="frobenius"`` M-Fro.

        Source: Li, Xie, Wang and Zuo (2017), Is second-order information helpful for large-scale
        visual recognition?

        Parameters
        ----------
        **parameters
            Parameters that replace or extend those of the paper.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        return cls("covariance", **{**LITERATURE, **parameters})

    @classmethod
    def isqrt_cov(cls, **parameters):
        """Return iSQRT-COV: five Newton-Schulz steps towards the root of covariances.

        Source: Li, Xie, Wang and Gao (2018), Towards faster training of global covariance pooling
        networks by iterative matrix square root normalization.

        Parameters
        ----------
        **parameters
            Parameters that replace or extend those of the paper.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        return cls("covariance", **{**LITERATURE, "function": "newton_schulz", **parameters})

    @classmethod
    def g2denet(cls, **parameters):
        """Return G2DeNet: the root of Gaussian embeddings.

        Source: Wang, Li and Zhang (2017), G2DeNet.

        Parameters
        ----------
        **parameters
            Parameters that replace or extend those of the paper.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        return cls("gaussian", **{**LITERATURE, **parameters})

    @all_or_nothing(unless="mean_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Find mean and scale of the descriptors of all bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : SecondOrderPooling
        """
        return self._fit_moments(X, None)

    @all_or_nothing(unless="mean_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def partial_fit(self, X, y=None):
        """Update mean and scale with the descriptors of more bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : SecondOrderPooling
        """
        return self._fit_moments(X, getattr(self, "_moments", None))

    def _fit_moments(self, X, before):
        parse_device(self.device)
        bags = check_bags(self, X, reset=before is None)
        layer = self.pooling()
        layer.check(bags.n_features)
        moments = second_moments(
            bags, Where(self.n_jobs, self.device),
            products=self.n_components is not None,
            before=None if before is None else SecondMoments(**before),
        )  # fmt: skip
        shown = layer.attributes(layer.start_from(moments))
        vars(self).pop("projection_", None)
        vars(self).update(_moments=moments._asdict(), **shown)
        return self

    def _parameters(self, bags):
        return self.pooling().parameters(vars(self))

    def _why_not_finite(self, bags, i):
        return (
            f"X[{i}] has descriptors so far from each other that the squares of their distances "
            f"overflow {bags.dtype}. Is one a fill value? Drop it, or pass float64."
        )

    @property
    def _n_features_out(self):
        layer = self.pooling()
        return layer.n_out(layer.parameters(vars(self)))

    def _names(self, dimensions):
        if hasattr(self, "projection_"):
            dimensions = [f"p{j}" for j in range(len(self.projection_))]
        return self.pooling().names_of(list(dimensions))

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : MatrixPooling
        """
        settings = {name: getattr(self, name) for name in OF_LAYER}
        return MatrixPooling(**settings, normalize=None if self.normalize else "l2")

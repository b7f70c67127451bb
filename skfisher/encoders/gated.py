"""Gated second-order pooling: several projections, of which each bag uses some once trained."""

from numbers import Integral, Real

from sklearn.utils import check_random_state

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.codebooks.moments import second_moments
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import CodebookEncoder
from skfisher.layers.gate import GatedPooling
from skfisher.layers.second_order import MatrixPooling
from skfisher.parallel.units import Where

__all__ = ["GatedSecondOrderPooling"]


class GatedSecondOrderPooling(CodebookEncoder):
    r"""Encode each bag by a mixture of projected second-order statistics, GM-SOP.

    It is meant to be trained, by ``JointClassifier(GatedSecondOrderPooling())``. It has N
    projections :math:`W_i`, and a gate that weights K of them for each bag,

    .. math::
        y = \sum_i \omega_i \, v\big(f(W_i M W_i^\top)\big), \qquad
        \omega = \operatorname{softmax} \text{ over the } K \text{ largest entries of }
        G \mu + \varepsilon \operatorname{softplus}(V \mu),

    where :math:`\mu` is the mean of a bag of standardised descriptors, M its second-order
    statistic, f a matrix function and v the upper triangle. In training, :math:`\varepsilon` is a
    standard normal random number for each bag, and
    :math:`a \, (\operatorname{std} / \operatorname{mean})^2` of the weights in a batch is added to
    the loss, so that no projection falls out of use [1]_. Without training, the encoder returns the
    mean over its initial projections, which lie near the principal axes.

    Parameters
    ----------
    n_projections : int, default=4
        Number of projections, N.
    n_components : int, default=None
        Width of a projected descriptor; by default, the width of the descriptors. Smaller
        projections are worth training: at full width, a second-order statistic has next to nothing
        to learn.
    n_active : int, default=2
        Number of projections that a bag uses, K.
    balance : float, default=0.01
        Weight of the balance loss, :math:`a`.
    statistic : {"gaussian", "covariance", "second_moment"}, default="gaussian"
        As for :class:`SecondOrderPooling`.
    function : {"newton_schulz", "power"}, default="newton_schulz"
        Function of each matrix: `n_iter` Newton-Schulz steps towards its square root, or a power.
    power : float, default=0.5
        For ``function="power"``.
    n_iter : int, default=5
        For ``function="newton_schulz"``.
    normalize : {"l2", "power-l2"}, default="l2"
        "l2" scales encodings to unit length; "power-l2" first raises their entries to the power
        0.5. None does not normalise.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of all projections but the first.

    Attributes
    ----------
    mean_, scale_ : ndarrays of shape (n_features,)
        Mean and scale that standardise descriptors.
    ridge_ : ndarray of shape ()
        Added to the eigenvalues of each matrix: 0.
    projections_ : ndarray of shape (n_projections, n_components, n_features)
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    SecondOrderPooling : One projection, or none.
    JointClassifier : Trains projections and gate, its `projections_`, `gate_` and `spread_`.

    Notes
    -----
    As in the authors' code, the noise is one number per bag, and the standard deviation is that of
    a sample. The gate starts from random weights; theirs starts from equal weights, with ties
    broken at random.

    References
    ----------
    .. [1] Wang, Gao, Xie, Zuo and Li (2018), Global gated mixture of second-order pooling for
       improving deep convolutional neural networks.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import GatedSecondOrderPooling, JointClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> bags = [rng.normal(size=(20, 4)) @ np.diag([1, 1, 1, 1 + c]) for c in y]
    >>> encoder = GatedSecondOrderPooling(3, n_components=2, random_state=0)
    >>> encoder.fit_transform(bags).shape
    (40, 6)
    >>> model = JointClassifier(encoder, max_iter=10, random_state=0).fit(bags, y)
    >>> model.projections_.shape, model.gate_.shape
    ((3, 2, 4), (3, 4))
    """

    _parameter_constraints: dict = {
        **CodebookEncoder._encoder_constraints,
        "n_projections": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_active": [Interval(Integral, 1, None, closed="left")],
        "balance": [Interval(Real, 0, None, closed="left")],
        "statistic": [StrOptions({"gaussian", "covariance", "second_moment"})],
        "function": [StrOptions({"newton_schulz", "power"})],
        "power": [Interval(Real, 0, None, closed="neither")],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "normalize": [StrOptions({"l2", "power-l2"}), None],
    }

    def __init__(
        self,
        n_projections=4,
        *,
        n_components=None,
        n_active=2,
        balance=0.01,
        statistic="gaussian",
        function="newton_schulz",
        power=0.5,
        n_iter=5,
        normalize="l2",
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_projections = n_projections
        self.n_components = n_components
        self.n_active = n_active
        self.balance = balance
        self.statistic = statistic
        self.function = function
        self.power = power
        self.n_iter = n_iter
        self.normalize = normalize
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    @all_or_nothing(unless="projections_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Find mean, scale and principal axes of the descriptors of all bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : GatedSecondOrderPooling
        """
        parse_device(self.device)
        bags = check_bags(self, X, reset=True)
        layer = self.pooling()
        layer.check(bags.n_features)
        moments = second_moments(bags, Where(self.n_jobs, self.device), products=True)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        vars(self).update(layer.attributes(layer.start_from(moments, seed)))
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
        if self.projections_.shape[1] < len(dimensions):
            dimensions = [f"p{j}" for j in range(self.projections_.shape[1])]
        return self.pooling().matrix.names_of(list(dimensions))

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : GatedPooling
        """
        matrix = MatrixPooling(
            statistic=self.statistic, function=self.function, power=self.power,
            n_iter=self.n_iter, n_components=self.n_components, norm=None,
        )  # fmt: skip
        return GatedPooling(self.n_projections, self.n_active, self.balance, matrix, self.normalize)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "projections_")

"""The regressor that trains any encoder that pools by sums together with a linear model."""

from skfisher.joint.any_encoder import ENCODER_CONSTRAINTS, TrainsAnyEncoder
from skfisher.joint.fitting import JointEstimator
from skfisher.joint.regression import REGRESSION_CONSTRAINTS, JointRegressorMixin
from skfisher.joint.settings import CONSTRAINTS

__all__ = ["JointRegressor"]


class JointRegressor(TrainsAnyEncoder, JointRegressorMixin, JointEstimator):
    r"""An encoder and a linear regression, with features and encoder trained for the targets.

    Each descriptor is whitened, clipped and mapped, :math:`h = \tanh(W z + b)`; the encoder turns
    bags of mapped descriptors into vectors. These are normalised by power and length, or as the
    encoder's `normalize` says if that is "l2" or "intra", and centred. Training starts from the
    frozen model, kept as `baseline_`: the encoder as fitted without `y`, and a linear regression.
    Gradient descent then trains everything at once, and a regression with the same C is fitted to
    the learnt encodings.

    Targets are standardised: every column of `y` gets mean 0 and standard deviation 1, over the
    bags that `fit` is given, by their weights; `partial_fit` and `warm_start` keep what the first
    bags gave. So rates and penalties do not depend on the unit of `y`. `epsilon`, `coef_`,
    `intercept_` and predictions are in that unit, losses of `history_` are not.

    Parameters
    ----------
    encoder : estimator
        An encoder whose `pooling` returns a pooling layer, such as :class:`FisherVectorEncoder`. It
        is copied, and gets mapped descriptors; its `device` and `n_jobs` are those given here.
        Training starts from a mixture or codebook that was fitted to mapped descriptors before;
        pipelines and searches clone it, so wrap it in :class:`sklearn.frozen.FrozenEstimator`
        there.
    feature_map : {"tanh", "linear", "identity"}, default="tanh"
        Map of the whitened descriptors. "identity" leaves them as they are.
    map_init : {"identity", "xavier", "random"}, default="identity"
        First weights of the map. "xavier" draws them at random and applies their inverse
        beforehand, so that training starts at the same features; "random" does not apply the
        inverse.
    map_scale : float, default=0.25
        Standard deviation of the whitened descriptors. With "tanh" they are clipped at 1,
        which is 4 deviations by default.
    n_features_out : int, default=None
        Width of the mapped descriptors; by default that of the descriptors. A smaller one
        starts at their first principal components.
    whiten : bool, default=True
        Give every principal component the same variance; if not, scale all by one number.
        Descriptors that are white already keep their axes.
    power : float, default=0.5
        Exponent of the power normalisation, where there is one.
    power_eps : float, default=1e-4
        Entries below this size are not raised to the power but scaled, so that the gradient
        stays finite; None for the exact power.
    center : bool, default=True
        Subtract the mean of the first encodings, and divide by the mean length of what is left.
        Most of a vector of unit length is the mean of all vectors, of no use to a linear model.
    train : sequence of str, default=None
        Groups that descent trains: "features", "regressor" and those of the encoder, "mixture"
        for Fisher vectors. By default all of them.
    loss : str, default="squared_error"
        The loss of descent and of the first linear model and the last: "squared_error", for which
        these are ridge regressions, or "epsilon_insensitive" or "squared_epsilon_insensitive", for
        which they are support vector regressions like scikit-learn's ``LinearSVR``.
    epsilon : float, default=0
        Errors up to this size do not count with the "epsilon_insensitive" losses, in the unit of
        `y`, as in ``LinearSVR``. With 0 they are the absolute error and the squared one.
    solver : {"adam", "sgd", "natural", "structured_natural", "line_search"}, default="adam"
        As for :class:`JointFisherSVC`. "structured_natural" is "natural" with a metric for the map,
        too. Both need an encoder that knows its Fisher information; "line_search" needs one that
        can be projected back to its constraints.
    sampling : {"uniform", "loss"} or sampler, default="uniform"
        "uniform" takes every bag once per epoch; "loss" draws bags in proportion to losses that a
        small model predicts. Pass a :class:`LossSampling` to change its settings.
    learning_rate : float or dict, default=1e-2
        A rate, or a dict with one for each group that `train` may name, 1e-2 for those that are not
        named; 0 leaves a group untrained. With "line_search", the first step to try.
    schedule : {"cosine", "constant"}, default="cosine"
        "cosine" lowers the rate to 0 over the epochs.
    clip_norm : float, default=1.0
        Upper bound on the norm of the gradient; None for no bound.
    batch_size : int, default=32
        Number of bags in a step.
    max_iter : int, default=20
        Number of epochs. With 0, the model stays frozen.
    max_descriptors : int, default=None
        Take a random subset of this many descriptors of every bag in each step.
    C : float, default=1.0
        Inverse strength of regularisation of the first linear regression and the last, on
        standardised targets. ``alpha`` of scikit-learn's ``Ridge`` is 1/(2 C).
    alpha : float, default=None
        Penalty of descent; by default 1/(2 N), whatever `C`.
    early_stopping : bool, default=False
        Stop when the loss on bags held back has not fallen for `n_iter_no_change` epochs, and
        go back to the epoch where it was lowest.
    validation_fraction : float, default=0.2
        Share of the bags held back.
    n_iter_no_change : int, default=10
        Epochs to wait.
    warm_start : bool, default=False
        Continue the previous fit: with the remaining epochs after an interrupt, else with
        `max_iter` more.
    verbose : int, default=0
        Print a line per epoch.
    n_jobs : int, default=None
        Number of threads; it does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of the encoder's start, the map and the batches.

    Attributes
    ----------
    coef_ : ndarray of shape (n_targets, n_encoding)
    intercept_ : ndarray of shape (n_targets,)
        The last linear regression, in the unit of `y`; n_targets is 1 where `y` has one dimension.
    network_coef_, network_intercept_ : ndarrays
        The linear regression that descent arrived at.
    target_mean_, target_scale_ : ndarrays of shape (n_targets,)
        What standardises `y`.
    map_weight_ : ndarray of shape (n_mapped, n_whitened)
    map_bias_ : ndarray of shape (n_mapped,)
        The map; None where it is the identity.
    center_ : ndarray of shape (n_features,)
    axes_ : ndarray of shape (n_features, n_whitened)
        The whitening, ``(x - center_) @ axes_``.
    weights_, means_, variances_ : ndarrays
        For Fisher vectors, the mixture of mapped descriptors; for other encoders, their own learnt
        attributes.
    baseline_ : JointRegressor
        The frozen model.
    history_ : dict of lists
        As for :class:`JointClassifier`, with R^2 as "validation_score".
    n_iter_ : int
        Epochs trained.
    best_iter_ : int
        The epoch whose parameters were kept; 0 for the frozen model.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    JointClassifier : The same for classes.
    FisherVectorEncoder : An encoder to train.

    Examples
    --------
    >>> from skfisher import FisherVectorEncoder, JointRegressor
    >>> from skfisher.datasets import load_digits_patches
    >>> digits = load_digits_patches(patch_size=3)
    >>> X, y = digits.data[:300], digits.images[:300].mean(axis=(1, 2))  # how much ink
    >>> encoder = FisherVectorEncoder(2, max_iter=2)
    >>> model = JointRegressor(encoder, max_iter=10, random_state=0).fit(X, y)
    >>> model.score(X, y) > model.baseline_.score(X, y)
    True
    """

    _parameter_constraints: dict = {
        **CONSTRAINTS,
        **ENCODER_CONSTRAINTS,
        **REGRESSION_CONSTRAINTS,
    }

    def __init__(
        self,
        encoder,
        *,
        feature_map="tanh",
        map_init="identity",
        map_scale=0.25,
        n_features_out=None,
        whiten=True,
        power=0.5,
        power_eps=1e-4,
        center=True,
        train=None,
        loss="squared_error",
        epsilon=0.0,
        solver="adam",
        sampling="uniform",
        learning_rate=1e-2,
        schedule="cosine",
        clip_norm=1.0,
        batch_size=32,
        max_iter=20,
        max_descriptors=None,
        C=1.0,
        alpha=None,
        early_stopping=False,
        validation_fraction=0.2,
        n_iter_no_change=10,
        warm_start=False,
        verbose=0,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.encoder = encoder
        self.feature_map = feature_map
        self.map_init = map_init
        self.map_scale = map_scale
        self.n_features_out = n_features_out
        self.whiten = whiten
        self.power = power
        self.power_eps = power_eps
        self.center = center
        self.train = train
        self.loss = loss
        self.epsilon = epsilon
        self.solver = solver
        self.sampling = sampling
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_descriptors = max_descriptors
        self.C = C
        self.alpha = alpha
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

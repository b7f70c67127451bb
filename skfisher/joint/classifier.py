"""The classifier that trains any encoder that pools by sums together with a linear model."""

from skfisher.joint.any_encoder import ENCODER_CONSTRAINTS, TrainsAnyEncoder
from skfisher.joint.classification import CLASSIFICATION_CONSTRAINTS, JointClassifierMixin
from skfisher.joint.fitting import JointEstimator
from skfisher.joint.settings import CONSTRAINTS

__all__ = ["JointClassifier"]


class JointClassifier(TrainsAnyEncoder, JointClassifierMixin, JointEstimator):
    r"""An encoder and a linear classifier, with features and encoder trained for the labels.

    Each descriptor is whitened, clipped and mapped, :math:`h = \tanh(W z + b)`; the encoder turns
    bags of mapped descriptors into vectors. These are normalised by power and length, or as the
    encoder's `normalize` says if that is "l2" or "intra", and centred. Training starts from the
    frozen model, kept as `baseline_`: the encoder as fitted without labels, and a linear
    classifier. Gradient descent then trains everything at once, and a classifier with the same C is
    fitted to the learnt encodings.

    :class:`JointFisherSVC` does the same for Fisher vectors, with the parameters of their mixture
    in one place.

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
        Most of a vector of unit length is the mean of all vectors, of no use to a classifier.
    train : sequence of str, default=None
        Groups that descent trains: "features", "classifier" and those of the encoder, "mixture"
        for Fisher vectors. By default all of them.
    loss : str, default="squared_hinge"
        The loss that descent minimises: "squared_hinge", "hinge", "quadratic", "log_loss", or one
        of the signals "linear" and "dual", as for :class:`JointFisherSVC`. The first classifier and
        the last are linear SVMs, or for "log_loss" a logistic regression.
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
        Inverse strength of regularisation of the first classifier and the last.
    alpha : float, default=None
        Penalty of descent; by default 1/(2 N), whatever `C`.
    multi_class : {"shared", "ovr"}, default="shared"
        One map and encoder for all classes, or one for each class against the rest.
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
    class_weight : dict or "balanced", default=None
        Weights of classes. "balanced" gives the two sides of every decision equal weight.
    verbose : int, default=0
        Print a line per epoch.
    n_jobs : int, default=None
        Number of threads; it does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of the encoder's start, the map, the batches and the classifiers.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_encoding), or (1, n_encoding) for two classes
    intercept_ : ndarray of shape (n_classes,) or (1,)
        The last classifier.
    network_coef_, network_intercept_ : ndarrays
        The classifier that descent arrived at.
    classes_ : ndarray of shape (n_classes,)
    map_weight_ : ndarray of shape (n_mapped, n_whitened)
    map_bias_ : ndarray of shape (n_mapped,)
        The map; None where it is the identity.
    center_ : ndarray of shape (n_features,)
    axes_ : ndarray of shape (n_features, n_whitened)
        The whitening, ``(x - center_) @ axes_``.
    weights_, means_, variances_ : ndarrays
        For Fisher vectors, the mixture of mapped descriptors; for other encoders, their own learnt
        attributes.
    baseline_ : JointClassifier
        The frozen model.
    history_ : dict of lists
        As for :class:`JointFisherSVC`; with ``sampling="loss"``, also "effective_sample_size" and
        "loss_correlation", the correlation of predicted and true losses.
    n_iter_ : int
        Epochs trained.
    best_iter_ : int
        The epoch whose parameters were kept; 0 for the frozen model.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    JointFisherSVC : Fisher vectors, and two published systems as presets.
    JointRegressor : The same for numbers.
    JointTrainingDisplay : Losses, scores and the lightest component over the epochs.

    Examples
    --------
    >>> from skfisher import FisherVectorEncoder, JointClassifier
    >>> from skfisher.datasets import load_digits_patches
    >>> digits = load_digits_patches(patch_size=3)
    >>> X, y = digits.data[:300], digits.target[:300]
    >>> encoder = FisherVectorEncoder(2, max_iter=2)
    >>> model = JointClassifier(encoder, max_iter=10, random_state=0).fit(X, y)
    >>> model.score(X, y) > model.baseline_.score(X, y)
    True
    """

    _parameter_constraints: dict = {
        **CONSTRAINTS,
        **ENCODER_CONSTRAINTS,
        **CLASSIFICATION_CONSTRAINTS,
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
        loss="squared_hinge",
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
        multi_class="shared",
        early_stopping=False,
        validation_fraction=0.2,
        n_iter_no_change=10,
        warm_start=False,
        class_weight=None,
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
        self.multi_class = multi_class
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.class_weight = class_weight
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

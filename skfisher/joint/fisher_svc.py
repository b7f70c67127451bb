"""The classifier whose features, mixture and linear SVM are trained together."""

from numbers import Integral, Real

from skfisher._compat import HasMethods, Interval, StrOptions
from skfisher.joint.classification import CLASSIFICATION_CONSTRAINTS, JointClassifierMixin
from skfisher.joint.fitting import JointEstimator
from skfisher.joint.settings import CONSTRAINTS
from skfisher.layers.fisher import FisherPooling

__all__ = ["JointFisherSVC"]

# From clusters by k-means. More of them raise the likelihood, leave some components light and
# narrow, and encode worse: benchmarks/results has the figures.
EM_ITERATIONS = 2


class JointFisherSVC(JointClassifierMixin, JointEstimator):
    r"""Fisher vectors and a linear SVM, with features and mixture trained for the labels.

    Each descriptor is whitened, clipped and mapped, :math:`h = \tanh(W z + b)`; bags of
    mapped descriptors become Fisher vectors under a mixture of K diagonal Gaussians, with power
    and L2 normalisation, and linear decision values :math:`f`. Training minimises

    .. math:: \frac{1}{N} \sum_i \sum_c \max(0, 1 - y_{ic} f_{ic})^2
              + \alpha \lVert \theta \rVert^2

    over the map, the mixture and the classifier :math:`\theta` at once [1]_, in three phases:

    1. the frozen model: a map that changes nothing, a mixture by EM, and an SVM on the
       encodings. It is kept as `baseline_`;
    2. gradient descent on everything from there;
    3. an SVM with the same C on the learnt encodings.

    Parameters
    ----------
    n_components : int, default=16
        Number of Gaussians, K. Training gains most when they are few.
    feature_map : {"tanh", "linear", "identity"}, default="tanh"
        Map of the whitened descriptors. "identity" leaves them as they are.
    map_init : {"identity", "xavier", "random"}, default="identity"
        First weights of the map. "xavier" draws them at random and applies their inverse
        beforehand, so that training starts at the same features, as in [1]_; "random" does
        not apply the inverse.
    map_scale : float, default=0.25
        Standard deviation of the whitened descriptors. With "tanh" they are clipped at 1,
        which is 4 deviations by default.
    n_features_out : int, default=None
        Width of the mapped descriptors; by default that of the descriptors. A smaller one
        starts at their first principal components.
    whiten : bool, default=True
        Give every principal component the same variance; if not, scale all by one number.
        Descriptors that are white already keep their axes.
    train : sequence of {"features", "mixture", "classifier"}, default=all of them
        What is trained in the second phase.
    loss : str, default="squared_hinge"
        The loss that descent minimises: "squared_hinge", "hinge", "log_loss" or "quadratic",
        :math:`(1 - y f)^2`, which also pulls back what is beyond the margin. Or a signal to send
        back instead of a gradient: "linear" is minus the label, as in [1]_; "dual" is minus the
        label times its dual variable, for which the SVM is fitted anew every epoch. Every SVM has
        the hinge loss for "hinge" and the squared hinge loss for all others; with "log_loss", a
        logistic regression takes its place and provides `predict_proba`.
    solver : {"adam", "sgd", "natural", "line_search"}, default="adam"
        "sgd" has momentum 0.9; "natural" divides the mixture's gradients by its Fisher information;
        "line_search" trains the mixture alone, by projected gradient steps on all bags, and fits
        the SVM anew before each, as in [2]_: `schedule`, `clip_norm`, `max_descriptors` and
        `weight_map` have no meaning for it and must keep their defaults.
    learning_rate : float or dict, default=1e-2
        A rate, or a dict with one for each of "features", "mixture" and "classifier", 1e-2 for
        those that are not named; 0 leaves a part untrained. With "line_search", the first step to
        try.
    schedule : {"cosine", "constant"}, default="cosine"
        "cosine" lowers the rate to 0 over the epochs.
    clip_norm : float, default=1.0
        Upper bound on the norm of the gradient; None for no bound.
    batch_size : int, default=32
        Number of bags in a step.
    max_iter : int, default=20
        Number of epochs. Few bags need more: 40 for 500, 15 for 2000. With 0, the model stays
        frozen.
    max_descriptors : int, default=None
        Take a random subset of this many descriptors of every bag in each step.
    C : float, default=1.0
        Inverse strength of regularisation of the SVM, in the first phase and the last.
    alpha : float, default=None
        Penalty of the second phase; by default 1/(2 N), whatever `C`.
    multi_class : {"shared", "ovr"}, default="shared"
        One map and mixture for all classes, or one for each class against the rest [1]_.
    weight_map : {"softmax", "sigmoid"}, default="softmax"
        Function that keeps the mixture's weights positive; "sigmoid" is that of [1]_.
    variance_floor : float, default=1e-2
        Smallest variance in EM, as a share of the global variance of its dimension. In training,
        the floor is a tenth of it.
    mixture : estimator, default=None
        A :class:`DiagonalGaussianMixture` or diagonal :class:`~sklearn.mixture.GaussianMixture`. If
        it is not fitted, a clone is fitted to the mapped descriptors; if it is fitted, training
        starts from it; :class:`sklearn.frozen.FrozenEstimator` keeps it fitted in pipelines and
        searches. `n_components` is then not used. By default, the mixture is fitted by k-means and
        two iterations of EM: a mixture that EM has fitted to convergence gives worse encodings,
        before training and after.
    power : float, default=0.5
        Exponent of the power normalisation.
    power_eps : float, default=1e-4
        Entries below this size are not raised to the power but scaled, so that the gradient
        stays finite; None for the exact power.
    include_weights : bool, default=True
        Whether the gradients with respect to the mixture's weights are part of the encodings.
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
        Weights of classes in losses and SVMs. "balanced" gives the two sides of every
        decision equal weight.
    verbose : int, default=0
        Print a line per epoch.
    n_jobs : int, default=None
        Number of threads; it does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of the mixture's start, the map, the batches and the SVM.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_encoding), or (1, n_encoding) for two classes
    intercept_ : ndarray of shape (n_classes,) or (1,)
        The SVM of the last phase.
    network_coef_, network_intercept_ : ndarrays
        The classifier before the last phase.
    classes_ : ndarray of shape (n_classes,)
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_mapped)
    variances_ : ndarray of shape (n_components, n_mapped)
        The mixture of mapped descriptors. With ``multi_class="ovr"`` these and the map have
        one more axis, of classes, in front.
    map_weight_ : ndarray of shape (n_mapped, n_whitened)
    map_bias_ : ndarray of shape (n_mapped,)
        The map; None where it is the identity.
    center_ : ndarray of shape (n_features,)
    axes_ : ndarray of shape (n_features, n_whitened)
        The whitening, ``(x - center_) @ axes_``.
    baseline_ : JointFisherSVC
        The frozen model of the first phase.
    history_ : dict of lists
        For every epoch: loss, gradient_norm, smallest_weight (times K), smallest_variance
        (over the global variance), seconds, and with validation also validation_loss and
        validation_score, accuracy or for label indicators mean average precision. These are NaN
        in epochs without validation bags, and the score where no bag has any label.
    n_iter_ : int
        Epochs trained.
    best_iter_ : int
        The epoch whose parameters were kept; 0 for the frozen model.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    FisherVectorEncoder : The encoder alone, its mixture fitted without labels.
    JointTrainingDisplay : Losses, scores and the lightest component over the epochs.

    Notes
    -----
    Decision values of several classes are one against the rest. ``y`` may also hold label
    indicators of shape (n_bags, n_labels), for tasks with several labels per bag.

    After an interrupt, the model is that of the last finished epoch, and usable; with `warm_start`,
    the next `fit` on the same bags continues as if nothing had happened.

    Whitened descriptors, including those of `X_val`, are kept for all epochs if they take less than
    a quarter of scikit-learn's ``working_memory`` (256 MiB by default). Otherwise they are computed
    anew for every batch, so bags on a memory map may be larger than memory.

    A smallest weight in `history_` below about 0.01 is a sign that the mixture is collapsing.

    References
    ----------
    .. [1] Wieschollek, Groh and Lensch (2017), Backpropagation training for Fisher vectors
       within neural networks.
    .. [2] Sydorov, Sakurada and Lampert (2014), Deep Fisher kernels: end to end learning of
       the Fisher kernel GMM parameters.

    Examples
    --------
    >>> from skfisher import JointFisherSVC
    >>> from skfisher.datasets import load_digits_patches
    >>> digits = load_digits_patches(patch_size=3)
    >>> train, test = slice(400), slice(400, 1000)
    >>> X, y = digits.data, digits.target
    >>> model = JointFisherSVC(n_components=2, max_iter=30, random_state=0)
    >>> model = model.fit(X[train], y[train])
    >>> frozen, joint = (m.score(X[test], y[test]) for m in (model.baseline_, model))
    >>> joint > frozen
    True
    """

    _parameter_constraints: dict = {
        **CONSTRAINTS,
        **CLASSIFICATION_CONSTRAINTS,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "weight_map": [StrOptions({"softmax", "sigmoid"})],
        "variance_floor": [Interval(Real, 0, 1, closed="neither")],
        "mixture": [HasMethods(["fit"]), None],
        "include_weights": ["boolean"],
    }

    def __init__(
        self,
        n_components=16,
        *,
        feature_map="tanh",
        map_init="identity",
        map_scale=0.25,
        n_features_out=None,
        whiten=True,
        train=("features", "mixture", "classifier"),
        loss="squared_hinge",
        solver="adam",
        learning_rate=1e-2,
        schedule="cosine",
        clip_norm=1.0,
        batch_size=32,
        max_iter=20,
        max_descriptors=None,
        C=1.0,
        alpha=None,
        multi_class="shared",
        weight_map="softmax",
        variance_floor=1e-2,
        mixture=None,
        power=0.5,
        power_eps=1e-4,
        include_weights=True,
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
        self.n_components = n_components
        self.feature_map = feature_map
        self.map_init = map_init
        self.map_scale = map_scale
        self.n_features_out = n_features_out
        self.whiten = whiten
        self.train = train
        self.loss = loss
        self.solver = solver
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_descriptors = max_descriptors
        self.C = C
        self.alpha = alpha
        self.multi_class = multi_class
        self.weight_map = weight_map
        self.variance_floor = variance_floor
        self.mixture = mixture
        self.power = power
        self.power_eps = power_eps
        self.include_weights = include_weights
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.class_weight = class_weight
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    @classmethod
    def wieschollek(cls, n_components=32, **parameters):
        """Return the estimator set up as Wieschollek, Groh and Lensch (2017) describe theirs.

        It has a map and a mixture for each class, plain gradient steps of 1e-4 along minus the
        label times the classifier, batches of 24 bags and 10,000 descriptors, and an SVM fitted
        anew every epoch. The inverse of the random first map is large, and so are its gradients,
        and the classes have fewer positive bags than negative ones. If a warning says that the
        model ended below its start, ``map_init="identity"`` starts at the same features without
        that inverse, and ``class_weight="balanced"`` evens out the signal.

        Parameters
        ----------
        n_components : int, default=32
        **parameters
            Other parameters, which replace those of the paper.

        Returns
        -------
        estimator : JointFisherSVC
            Not fitted.
        """
        paper = {
            "map_init": "xavier", "loss": "linear", "solver": "sgd", "learning_rate": 1e-4,
            "schedule": "constant", "clip_norm": None, "batch_size": 24, "max_iter": 200,
            "max_descriptors": 10_000, "multi_class": "ovr", "weight_map": "sigmoid",
            "power_eps": None,
        }  # fmt: skip
        return cls(n_components, **{**paper, **parameters})

    @classmethod
    def sydorov(cls, n_components=32, **parameters):
        """Return the estimator set up as Sydorov, Sakurada and Lampert (2014) train theirs.

        The mixture alone is trained: an SVM is fitted to all bags, then the mixture takes one
        projected gradient step on the squared hinge loss of all bags, by line search.

        Parameters
        ----------
        n_components : int, default=32
        **parameters
            Other parameters, which replace those of the paper.

        Returns
        -------
        estimator : JointFisherSVC
            Not fitted.
        """
        paper = {
            "feature_map": "identity", "train": ("mixture",), "solver": "line_search",
            "learning_rate": 1.0, "power_eps": None,
        }  # fmt: skip
        return cls(n_components, **{**paper, **parameters})

    def _pooling(self):
        form = getattr(self, "_form", {"include_weights": self.include_weights})
        searches = self.solver == "line_search"
        return FisherPooling(
            n_components=self.n_components,
            mixture=self.mixture,
            max_iter=EM_ITERATIONS,
            variance_floor=self.variance_floor,
            include_weights=form["include_weights"],
            weight_map="softmax" if searches else self.weight_map,
        )

    def _pooling_form(self, attributes=None):
        k = self.n_components
        if self.mixture is not None:  # which has its own number
            means = attributes["means_"] if attributes else getattr(self, "means_", None)
            k = None if means is None else means.shape[-2]
        return {"include_weights": self.include_weights, "n_components": k}

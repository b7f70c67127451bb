"""The parameters of joint training: what they may be, and the recipe they make."""

import inspect
import math
from numbers import Integral, Real

import numpy as np

from skfisher._compat import HasMethods, Interval, StrOptions
from skfisher.arrays.libraries import parse_device
from skfisher.codebooks.mixture import is_fitted_mixture, mixture_of
from skfisher.training.epochs import GROUPS, Recipe
from skfisher.warning import warn_caller

__all__ = [
    "CONSTRAINTS",
    "check_continues",
    "check_settings",
    "check_split",
    "course_of",
    "form_of",
    "in_parts",
    "recipe_of",
    "under_way",
]

# What each parameter of the estimator may be, whatever the others are.
CONSTRAINTS = {
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "feature_map": [StrOptions({"tanh", "linear", "identity"})],
    "map_init": [StrOptions({"identity", "xavier", "random"})],
    "map_scale": [Interval(Real, 0, None, closed="neither")],
    "n_features_out": [Interval(Integral, 1, None, closed="left"), None],
    "whiten": ["boolean"],
    "train": [str, list, tuple, set],
    "loss": [
        StrOptions({"squared_hinge", "hinge", "quadratic", "log_loss", "linear", "dual"}),
    ],
    "solver": [StrOptions({"adam", "sgd", "natural", "line_search"})],
    "learning_rate": [Interval(Real, 0, None, closed="left"), dict],
    "schedule": [StrOptions({"cosine", "constant"})],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "max_descriptors": [Interval(Integral, 1, None, closed="left"), None],
    "C": [Interval(Real, 0, None, closed="neither")],
    "alpha": [Interval(Real, 0, None, closed="left"), None],
    "multi_class": [StrOptions({"shared", "ovr"})],
    "weights": [StrOptions({"softmax", "sigmoid"})],
    "variance_floor": [Interval(Real, 0, 1, closed="neither")],
    "mixture": [HasMethods(["fit"]), None],
    "power": [Interval(Real, 0, None, closed="neither")],
    "power_eps": [Interval(Real, 0, None, closed="neither"), None],
    "include_weights": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
    "class_weight": [StrOptions({"balanced"}), dict, None],
    "verbose": ["verbose"],
    "n_jobs": [Integral, None],
    "device": [str, list, tuple, None],
    "random_state": ["random_state"],
}


def trained_groups(train):
    """Return the groups that the parameter `train` names, in a fixed order."""
    named = {train} if isinstance(train, str) else set(train)
    return tuple(group for group in GROUPS if group in named)


def recipe_of(estimator, n_bags, seed, *, n_seen=None):
    """Return the recipe that the parameters of an estimator ask for.

    Parameters
    ----------
    estimator : JointFisherSVC
    n_bags : int
        To train on.
    seed : int
        Of the batches.
    n_seen : int, optional
        How many bags there were in all, if they come in parts: there is no last epoch
        then, and the rate stays.
    """
    rates = estimator.learning_rate
    if not isinstance(rates, dict):
        rates = dict.fromkeys(GROUPS, rates)
    partial = n_seen is not None
    default = inspect.signature(type(estimator)).parameters["batch_size"].default
    if estimator.batch_size > n_bags and estimator.batch_size != default and not partial:
        warn_caller(
            f"batch_size={estimator.batch_size} is larger than n_samples={n_bags} and is clipped "
            "to it.",
        )
    alpha = estimator.alpha
    return Recipe(
        train=trained_groups(estimator.train),
        loss=estimator.loss,
        solver=estimator.solver,
        learning_rate={group: rates.get(group, 1e-2) for group in GROUPS},
        schedule="constant" if partial else estimator.schedule,
        clip_norm=estimator.clip_norm,
        batch_size=min(estimator.batch_size, n_bags),
        max_iter=max(estimator.max_iter, 1),
        max_descriptors=estimator.max_descriptors,
        alpha=1 / (2 * (n_seen if partial else n_bags)) if alpha is None else alpha,
        C=estimator.C,
        seed=seed,
        svm_seed=estimator._seeds["svm"],
        single_label=estimator._kind != "multilabel",
    )


def check_settings(estimator, n_features):
    """Check what single constraints cannot tell.

    Parameters
    ----------
    estimator : JointFisherSVC
    n_features : int
        Width of the descriptors to fit.

    Raises
    ------
    ValueError
        If parameters contradict each other, the descriptors or the device.
    """
    parse_device(estimator.device)
    _check_train(estimator)
    _check_line_search(estimator)
    _check_learning_rate(estimator.learning_rate)
    n_out = estimator.n_features_out
    if n_out is not None and n_out > n_features:
        raise ValueError(
            f"n_features_out={n_out} is more than the {n_features} features of a descriptor: "
            f"a map can only reduce them, so take {n_features} or fewer."
        )
    maps = estimator.feature_map != "identity"
    if maps and estimator.map_init == "xavier" and n_out not in (None, n_features):
        raise ValueError(
            f"map_init='xavier' needs a square map, but n_features_out={n_out} and descriptors "
            f"have {n_features} features: take map_init='identity'."
        )
    _check_mixture(estimator.mixture, n_features if n_out is None else n_out)


def check_split(targets, fraction):
    """Check that a share of the bags, the same of every class, can be held back.

    Parameters
    ----------
    targets : Targets
    fraction : float

    Raises
    ------
    ValueError
        If a class has too few bags for both parts.
    """
    n_bags = len(targets.signs)
    n_test = math.ceil(fraction * n_bags)
    found = f"early_stopping holds bags back: validation_fraction={fraction} of {n_bags} bags is "
    remedy = "pass X_val and y_val, or set early_stopping=False."
    n_least, least = 1, "a bag"
    if targets.kind != "multilabel":
        classes, counts = np.unique(targets.labels(targets.signs), return_counts=True)
        n_least, least = len(classes), f"{len(classes)} bags, one of each class"
        if counts.min() < 2:
            raise ValueError(
                f"{found}{n_test}, but the class {classes.tolist()[counts.argmin()]!r} has 1 bag "
                f"only, which cannot be in both parts: give it more, {remedy}"
            )
    if min(n_test, n_bags - n_test) < n_least:
        raise ValueError(
            f"{found}{n_test}, which leaves {n_bags - n_test} to train on, but both parts need "
            f"{least}: change validation_fraction, {remedy}"
        )


def form_of(estimator):
    """Return the parameters that a fitted model cannot leave: they say what its numbers mean."""
    names = ("feature_map", "map_scale", "whiten", "multi_class")
    names += ("power", "power_eps", "include_weights")
    return {name: getattr(estimator, name) for name in names}


def course_of(estimator, **more):
    """Return the parameters that descent cannot change on its way, and `more` of that kind."""
    train = trained_groups(estimator.train)
    return {"solver": estimator.solver, "train": train, "weights": estimator.weights, **more}


def under_way(training):
    """Return whether an interrupt has left epochs to do."""
    return bool(training) and not (training["finished"] or training.get("descended"))


def in_parts(training):
    """Return whether training has seen its bags part by part."""
    return "n_seen" in (training or {})


def check_continues(estimator, course=None):
    """Check that training can go on from what was fitted.

    Parameters
    ----------
    estimator : JointFisherSVC
        Fitted.
    course : dict, optional
        What `course_of` says now, where descent goes on that was under way.

    Raises
    ------
    ValueError
        If a parameter has changed that the model or the descent depends on.
    """
    n_out = estimator.n_features_out
    now = form_of(estimator) | {
        "n_components": estimator.n_components,
        "n_features_out": estimator.n_features_in_ if n_out is None else n_out,
    }
    n_components, n_out = estimator.means_.shape[-2:]
    found = estimator._form | {"n_components": n_components, "n_features_out": n_out}
    if estimator.mixture is not None:
        now["n_components"] = n_components
    if course is not None:
        now |= course
        found |= estimator._training["course"]
    for name, value in found.items():
        if now[name] != value:
            raise ValueError(
                f"Training goes on from a fit with {name}={value!r}, but now it is "
                f"{now[name]!r}: go back to that, or call fit with warm_start=False."
            )


def _check_train(estimator):
    named = [estimator.train] if isinstance(estimator.train, str) else list(estimator.train)
    unknown = [name for name in named if name not in GROUPS]
    if unknown:
        raise ValueError(
            f"train names {unknown[0]!r}: it may name {', '.join(repr(g) for g in GROUPS)}."
        )
    groups = trained_groups(named)
    if estimator.feature_map == "identity":
        groups = tuple(group for group in groups if group != "features")
    if not groups:
        raise ValueError(
            f"train={estimator.train!r} with feature_map={estimator.feature_map!r} names nothing "
            "to train: name 'mixture' or 'classifier', or set max_iter=0 for the frozen model."
        )


def _check_line_search(estimator):
    if estimator.solver != "line_search":
        return
    groups = trained_groups(estimator.train)
    if estimator.feature_map == "identity":
        groups = tuple(group for group in groups if group != "features")
    if groups != ("mixture",):
        raise ValueError(
            f"solver='line_search' trains the mixture alone, but train={estimator.train!r}: set "
            "train=('mixture',), or take another solver."
        )
    if estimator.loss in ("linear", "dual"):
        raise ValueError(
            f"solver='line_search' needs a loss that is bounded below, not {estimator.loss!r}: "
            "take 'squared_hinge'."
        )
    defaults = inspect.signature(type(estimator)).parameters
    for name in ("schedule", "clip_norm", "max_descriptors", "weights"):
        value, default = getattr(estimator, name), defaults[name].default
        if value != default:
            raise ValueError(
                f"solver='line_search' has no use for {name}={value!r}: leave it at {default!r}, "
                "or take another solver."
            )


def _check_learning_rate(learning_rate):
    if not isinstance(learning_rate, dict):
        rates = {"learning_rate": learning_rate}
    else:
        unknown = [name for name in learning_rate if name not in GROUPS]
        if unknown:
            raise ValueError(
                f"learning_rate names {unknown[0]!r}: it may name "
                f"{', '.join(repr(g) for g in GROUPS)}."
            )
        rates = {f"learning_rate[{name!r}]": rate for name, rate in learning_rate.items()}
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= rate < math.inf:
            raise ValueError(f"{name}={rate!r} must be a finite number, and not negative.")


def _check_mixture(mixture, n_mapped):
    if mixture is None or not is_fitted_mixture(mixture):
        return
    width = mixture_of(mixture).means.shape[1]
    if width != n_mapped:
        raise ValueError(
            f"mixture was fitted on {width} features, but the mapped descriptors have {n_mapped}: "
            "pass a mixture of that width, or one that is not fitted."
        )

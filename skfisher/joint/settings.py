"""The parameters of joint training: what they may be, and the recipe they make."""

import inspect
import math
from numbers import Integral, Real

import numpy as np

from skfisher._compat import Interval, StrOptions
from skfisher.arrays.devices import parse_device
from skfisher.layers.layer import n_positions_of
from skfisher.training.recipe import SAMPLERS, SOLVERS, Recipe
from skfisher.warning import warn_caller

__all__ = ["CONSTRAINTS", "check_settings", "check_split", "recipe_of", "trained_groups"]

# What each parameter may be, whatever the others are; those of the encoder and of the task are
# their own.
CONSTRAINTS = {
    "feature_map": [StrOptions({"tanh", "linear", "identity"})],
    "map_init": [StrOptions({"identity", "xavier", "random"})],
    "map_scale": [Interval(Real, 0, None, closed="neither")],
    "n_features_out": [Interval(Integral, 1, None, closed="left"), None],
    "whiten": ["boolean"],
    "train": [str, list, tuple, set, None],
    "solver": [StrOptions(set(SOLVERS))],
    "learning_rate": [Interval(Real, 0, None, closed="left"), dict],
    "schedule": [StrOptions({"cosine", "constant"})],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "max_descriptors": [Interval(Integral, 1, None, closed="left"), None],
    "C": [Interval(Real, 0, None, closed="neither")],
    "alpha": [Interval(Real, 0, None, closed="left"), None],
    "power": [Interval(Real, 0, None, closed="neither")],
    "power_eps": [Interval(Real, 0, None, closed="neither"), None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
    "verbose": ["verbose"],
    "n_jobs": [Integral, None],
    "device": [str, list, tuple, None],
    "random_state": ["random_state"],
}
DEFAULT_RATE = 1e-2
# Of no use to the line search, which must find them as they are by default.
UNUSED_BY_LINE_SEARCH = ("schedule", "clip_norm", "max_descriptors", "weight_map", "sampling")


def groups_of(pooling, task):
    """Return the groups that may be trained with a pooling layer, in a fixed order."""
    return ("features", *pooling.groups, task.group)


def sampler_of(sampling):
    """Return the sampler that the parameter `sampling` names, or is."""
    if isinstance(sampling, type):
        raise TypeError(f"sampling is the class {sampling.__name__}: write {sampling.__name__}().")
    return SAMPLERS[sampling] if isinstance(sampling, str) else sampling


def trained_groups(train, pooling, task):
    """Return the groups that the parameter `train` names, in a fixed order; None means all."""
    if train is None:
        return groups_of(pooling, task)
    named = {train} if isinstance(train, str) else set(train)
    return tuple(group for group in groups_of(pooling, task) if group in named)


def recipe_of(estimator, task, pooling, n_bags, seed, *, total_weight=None, n_seen=None):
    """Return the recipe that the parameters of an estimator ask for.

    Parameters
    ----------
    estimator : JointEstimator
    task : Task
    pooling : PoolingLayer
    n_bags : int
        To train on.
    seed : int
        Of the batches.
    total_weight : float, optional
        Sum of the weights of bags; by default each has weight 1.
    n_seen : int, optional
        How many bags there were in all, if they come in parts: there is no last epoch
        then, and the rate stays.
    """
    rates = estimator.learning_rate
    if not isinstance(rates, dict):
        rates = dict.fromkeys(groups_of(pooling, task), rates)
    partial = n_seen is not None
    default = inspect.signature(type(estimator)).parameters["batch_size"].default
    if estimator.batch_size > n_bags and estimator.batch_size != default and not partial:
        warn_caller(
            f"batch_size={estimator.batch_size} is larger than n_samples={n_bags} and is clipped "
            "to it.",
        )
    total = n_bags if total_weight is None else total_weight
    alpha = estimator.alpha
    return Recipe(
        train=trained_groups(estimator.train, pooling, task),
        task=task,
        solver=estimator.solver,
        sampler=sampler_of(getattr(estimator, "sampling", "uniform")),
        learning_rate={group: rates.get(group, DEFAULT_RATE) for group in groups_of(pooling, task)},
        schedule="constant" if partial else estimator.schedule,
        clip_norm=estimator.clip_norm,
        batch_size=min(estimator.batch_size, n_bags),
        max_iter=max(estimator.max_iter, 1),
        max_descriptors=estimator.max_descriptors,
        alpha=1 / (2 * (n_seen if partial else total)) if alpha is None else alpha,
        weight_scale=n_bags / total,
        seed=seed,
    )


def check_settings(estimator, task, pooling, n_features):
    """Check what single constraints cannot tell: parameters that are not valid together.

    Parameters
    ----------
    estimator : JointEstimator
    task : Task
    pooling : PoolingLayer
    n_features : int
        Width of the descriptors to fit.

    Raises
    ------
    ValueError
        If parameters contradict each other, the descriptors or the device.
    """
    parse_device(estimator.device)
    n_positions = n_positions_of(pooling)
    if n_features <= n_positions:
        raise ValueError(
            f"X[0] has {n_features} features per descriptor, but the encoder takes the last "
            f"{n_positions} for its position, and there must be others."
        )
    n_features -= n_positions
    given = {name: getattr(estimator, name) for name in CONSTRAINTS}
    possible = groups_of(pooling, task)
    named = possible if given["train"] is None else given["train"]
    named = [named] if isinstance(named, str) else list(named)
    groups = trained_groups(named, pooling, task)
    if given["feature_map"] == "identity":
        groups = tuple(group for group in groups if group != "features")
    known = ", ".join(repr(group) for group in possible)
    rates = given["learning_rate"]
    rates = rates if isinstance(rates, dict) else {"learning_rate": rates}
    unknown = [name for name in named if name not in possible]
    unknown_rates = [name for name in rates if name not in (*possible, "learning_rate")]
    missing = [name for name in SOLVERS[given["solver"]].needs if not hasattr(pooling, name)]
    of_pooling = tuple(pooling.groups)
    searches, n_out = given["solver"] == "line_search", given["n_features_out"]
    squares = given["feature_map"] != "identity" and given["map_init"] == "xavier"
    # what is wrong, if the first of a row is true
    table = [
        (unknown, f"train names {_first(unknown)}: it may name {known}."),
        (
            not groups,
            f"train={given['train']!r} with feature_map={given['feature_map']!r} names nothing "
            f"to train: name {' or '.join(map(repr, (*of_pooling, task.group)))}, or set "
            "max_iter=0 for the frozen model.",
        ),
        (
            missing,
            f"solver={given['solver']!r} needs {' and '.join(missing)}, which "
            f"{type(pooling).__name__} does not have: take another solver.",
        ),
        (
            searches and groups != of_pooling,
            f"solver='line_search' trains the {' and the '.join(of_pooling)} alone, but "
            f"train={given['train']!r}: set train={of_pooling!r}, or take another solver.",
        ),
        (
            searches and task.alternates,
            "solver='line_search' needs a loss that is bounded below, not "
            f"{estimator.loss!r}: take 'squared_hinge'.",
        ),
        *(
            (
                searches and value != default,
                f"solver='line_search' has no use for {name}={value!r}: leave it at "
                f"{default!r}, or take another solver.",
            )
            for name, value, default in _unused(estimator)
        ),
        (
            given["max_descriptors"] is not None and getattr(pooling, "whole", False),
            f"max_descriptors={given['max_descriptors']} takes descriptors at random, but "
            f"{type(pooling).__name__} looks at their order: leave it None.",
        ),
        (unknown_rates, f"learning_rate names {_first(unknown_rates)}: it may name {known}."),
        *(
            (
                isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= rate < math.inf,
                f"{_name_of_rate(name)}={rate!r} must be a finite number, and not negative.",
            )
            for name, rate in rates.items()
        ),
        (
            n_out is not None and n_out > n_features,
            f"n_features_out={n_out} is more than the {n_features} features of a descriptor: "
            f"a map can only reduce them, so take {n_features} or fewer.",
        ),
        (
            squares and n_out not in (None, n_features),
            f"map_init='xavier' needs a square map, but n_features_out={n_out} and descriptors "
            f"have {n_features} features: take map_init='identity'.",
        ),
    ]
    for wrong, message in table:
        if wrong:
            raise ValueError(message)
    pooling.check(n_features if n_out is None else n_out)


def _first(names):
    return repr(names[0]) if names else ""


def _name_of_rate(name):
    return name if name == "learning_rate" else f"learning_rate[{name!r}]"


def _unused(estimator):
    """Yield what the line search ignores: name, value and default."""
    defaults = inspect.signature(type(estimator)).parameters
    for name in UNUSED_BY_LINE_SEARCH:
        if name in defaults:
            yield name, getattr(estimator, name), defaults[name].default


def check_split(strata, n_bags, fraction):
    """Check that a share of the bags, the same of every class, can be held back.

    Parameters
    ----------
    strata : array of shape (n_bags,), or None
        Classes of the bags, if they have one each.
    n_bags : int
    fraction : float

    Raises
    ------
    ValueError
        If there are too few bags, or too few of a class, for both parts.
    """
    n_test = math.ceil(fraction * n_bags)
    found = f"early_stopping holds bags back: validation_fraction={fraction} of {n_bags} bags is "
    remedy = "pass X_val and y_val, or set early_stopping=False."
    n_least, least = 1, "a bag"
    if strata is not None:
        classes, counts = np.unique(strata, return_counts=True)
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

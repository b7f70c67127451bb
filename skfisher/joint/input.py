"""What joint training is given: read and checked before any work is done."""

from typing import NamedTuple

import numpy as np

from skfisher.codebooks.mixture import is_fitted_mixture
from skfisher.contract.labels import Targets, read_classes, read_targets
from skfisher.contract.validation import check_bags
from skfisher.joint.settings import (
    check_continues,
    check_settings,
    check_split,
    course_of,
    under_way,
)
from skfisher.training.epochs import Problem

__all__ = ["Given", "read_all", "read_input", "read_known_classes"]


class Given(NamedTuple):
    """What a fit has to work on."""

    problem: Problem
    targets: Targets
    validation: Problem | None  # bags of their own to validate with
    held_back: bool  # whether a part of the bags validates instead
    course: dict  # what an interrupted descent must be resumed with


def read_all(estimator, X, y, X_val, y_val, *, first):
    """Read everything that a fit is given, and check that training may begin or go on.

    Parameters
    ----------
    estimator : JointFisherSVC
    X : Bags, list of arrays of shape (n_descriptors, n_features), or array
    y : array-like of shape (n_bags,), or label indicators of shape (n_bags, n_labels)
    X_val, y_val : bags and labels to validate with, or None
    first : bool
        Whether a new model is fitted; if not, everything must suit the one there is.

    Returns
    -------
    given : Given
    """
    problem, targets = read_input(estimator, X, y, first=first)
    validation = read_validation(estimator, X_val, y_val, targets)
    held_back = estimator.early_stopping and validation is None
    if held_back and estimator.max_iter:
        check_split(targets, estimator.validation_fraction)
    source = None if validation is None else "X_val"
    course = course_of(
        estimator,
        early_stopping=estimator.early_stopping,
        validation="a part of X" if held_back else source,
        n_bags=len(problem.bags),
    )
    if not first:
        check_continues(estimator, course if under_way(estimator._training) else None)
    return Given(problem, targets, validation, held_back, course)


def read_input(estimator, X, y, *, first, classes=None):
    """Read bags and labels, and check the parameters by them.

    Parameters
    ----------
    estimator, X, y, first
        As for `read_all`.
    classes : array, optional
        All classes of a new model; by default those in `y`.

    Returns
    -------
    problem : Problem
    targets : Targets
    """
    mixture = estimator.mixture
    given = mixture is not None and is_fitted_mixture(mixture)
    n_components = 1 if given or not first else estimator.n_components
    bags = check_bags(estimator, X, reset=first, min_descriptors=n_components)
    known = classes if first else estimator.classes_
    kind = None if first else estimator._kind
    targets = read_targets(y, len(bags), classes=known, kind=kind)
    check_settings(estimator, bags.n_features)
    return Problem(bags, targets.signs, targets.weights(estimator.class_weight)), targets


def read_validation(estimator, X_val, y_val, targets):
    """Return the bags to validate with as a problem, or None if there are none."""
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val belong together: pass both, or none of them.")
    if X_val is None:
        return None
    bags = check_bags(estimator, X_val, reset=False, name="X_val")
    found = read_targets(y_val, len(bags), classes=targets.classes, kind=targets.kind, name="y_val")
    return Problem(bags, found.signs, None)


def read_known_classes(estimator, classes, *, first):
    """Return the classes that all parts of the bags will have, or None to keep those there are.

    Parameters
    ----------
    estimator : JointFisherSVC
    classes : array-like of shape (n_classes,), or None
    first : bool
        Whether this is the first part.
    """
    if classes is None:
        if first:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return None
    classes = read_classes(classes)
    if not first and not np.array_equal(classes, estimator.classes_):
        raise ValueError(
            f"classes={classes.tolist()} are not those of the first call to partial_fit, "
            f"{estimator.classes_.tolist()}."
        )
    return classes

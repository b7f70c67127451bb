"""What joint training is given: read and checked before any work is done."""

from contextlib import contextmanager

from skfisher.joint_settings import check_settings
from skfisher.joint_training import Problem
from skfisher.mixture import is_fitted_mixture
from skfisher.targets import read_targets
from skfisher.validation import check_bags

__all__ = ["kept_if_refused", "read_input", "read_validation"]


def read_input(estimator, X, y, *, first, classes=None):
    """Read bags and labels, and check the parameters by them.

    Parameters
    ----------
    estimator : JointFisherSVC
    X : Bags, list of arrays of shape (n_descriptors, n_features), or array
    y : array-like of shape (n_bags,), or label indicators of shape (n_bags, n_labels)
    first : bool
        Whether a new model is fitted; if not, `X` and `y` must suit the one there is.
    classes : array, optional
        All classes of a new model; by default those in `y`.

    Returns
    -------
    bags : Bags
    targets : Targets
    weights : array of the shape of the signs, or None
    """
    mixture = estimator.mixture
    given = mixture is not None and is_fitted_mixture(mixture)
    n_components = 1 if given or not first else estimator.n_components
    bags = check_bags(estimator, X, reset=first, min_descriptors=n_components)
    known = classes if first else estimator.classes_
    kind = None if first else estimator._kind
    targets = read_targets(y, len(bags), classes=known, kind=kind)
    check_settings(estimator, bags.n_features)
    return bags, targets, targets.weights(estimator.class_weight)


def read_validation(estimator, X_val, y_val, targets):
    """Return the bags to validate with as a problem, or None if there are none.

    Parameters
    ----------
    estimator : JointFisherSVC
    X_val, y_val : bags and labels, or None
    targets : Targets
        Of the bags to train on.
    """
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val belong together: pass both, or none of them.")
    if X_val is None:
        return None
    bags = check_bags(estimator, X_val, reset=False)
    found = read_targets(y_val, len(bags), classes=targets.classes, kind=targets.kind, name="y_val")
    return Problem(bags, found.signs, None)


@contextmanager
def kept_if_refused(estimator):
    """Give an estimator back the attributes it had, such as the width of `X`, after an error."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise

"""What joint training is given: read and checked before any work is done."""

from typing import NamedTuple

import numpy as np

from skfisher._compat import check_sample_weight
from skfisher.arrays.dense import as_dense
from skfisher.bags.sharded_values import without_borders
from skfisher.contract.validation import check_bags
from skfisher.joint.continuing import check_continues, course_of
from skfisher.joint.settings import check_settings, check_split, trained_groups
from skfisher.training.objective import Problem
from skfisher.training.task import Task

__all__ = ["Given", "read_all", "read_bags", "read_input"]


class Given(NamedTuple):
    """What a fit has to work on."""

    problem: Problem
    task: Task
    validation: Problem | None  # bags of their own to validate with
    held_back: bool  # whether a part of the bags validates instead
    sample_weight: np.ndarray | None  # of the bags of the problem
    course: dict  # what an interrupted descent must be resumed with

    def of(self, index):
        """Return what of it is about some of the bags."""
        weights = self.sample_weight
        return self._replace(sample_weight=None if weights is None else weights[index])

    @property
    def total_weight(self):
        """Sum of the weights of the bags; None where each has weight 1."""
        return None if self.sample_weight is None else float(self.sample_weight.sum())


def read_all(estimator, X, y, sample_weight, X_val, y_val, task, *, first):
    """Read everything that a fit is given, and check that training may begin or go on.

    Parameters
    ----------
    estimator : JointEstimator
    X : Bags, list of arrays of shape (n_descriptors, n_features), or array
    y : array-like of shape (n_bags,) or (n_bags, n_columns)
    sample_weight : array-like of shape (n_bags,), or None
    X_val, y_val : bags to validate with and their `y`, or None
    task : Task
        What is known of it before.
    first : bool
        Whether a new model is fitted; if not, everything must suit the one there is.

    Returns
    -------
    given : Given
    """
    problem, task, factors = read_input(estimator, X, y, sample_weight, task, first=first)
    validation = read_validation(estimator, X_val, y_val, task)
    held_back = estimator.early_stopping and validation is None
    if held_back and estimator.max_iter:
        strata = task.strata(problem.targets)
        check_split(strata, len(problem.bags), estimator.validation_fraction)
    source = None if validation is None else "X_val"
    course = course_of(
        estimator,
        trained_groups(estimator.train, estimator._pooling(), task),
        early_stopping=estimator.early_stopping,
        validation="a part of X" if held_back else source,
        n_bags=len(problem.bags),
    )
    if not first:
        state = estimator._training
        check_continues(estimator, course if state is not None and state.under_way else None)
    return Given(problem, task, validation, held_back, factors, course)


def read_bags(estimator, X, *, reset, min_descriptors=1, name="X"):
    """Read bags as `check_bags` does; shards are worked on as the bags of one array.

    So a model has the bits that it has for one array: descent would make more of other digits.

    Parameters
    ----------
    estimator, X, reset, min_descriptors, name
        As for `check_bags`.

    Returns
    -------
    bags : Bags

    Raises
    ------
    TypeError
        If the workers of a cluster are to work on them.
    """
    bags = check_bags(estimator, X, reset=reset, min_descriptors=min_descriptors, name=name)
    if getattr(bags.values, "workers", None) is not None:
        who = type(estimator).__name__
        raise TypeError(
            f"{who} is not trained by the workers of a cluster: call its own fit, which reads "
            f"shards batch by batch, with {name} or with some of its bags, and encode or predict "
            "by skfisher.dask.transform."
        )
    return without_borders(bags)


def read_input(estimator, X, y, sample_weight, task, *, first):
    """Read bags, targets and weights, and check the parameters by them.

    Parameters
    ----------
    estimator, X, y, sample_weight, task, first
        As for `read_all`.

    Returns
    -------
    problem : Problem
    task : Task
        With what `y` tells of it.
    sample_weight : array of shape (n_bags,) or None
        Bags of weight 0 are left out of it, and of the problem.
    """
    pooling = estimator._pooling()
    n_least = pooling.n_least_rows if first else 1
    bags = read_bags(estimator, X, reset=first, min_descriptors=n_least)
    task, y = task.read(y, len(bags))
    check_settings(estimator, task, pooling, bags.n_features)
    factors = None
    if sample_weight is not None:
        factors = read_sample_weight(sample_weight, len(bags))
        kept = np.flatnonzero(factors)
        bags, y, factors = bags[kept], y[kept], factors[kept]
    if first:
        task = task.begin(y, factors)
    targets = task.targets(y)
    problem = Problem(bags, targets, task.weights(targets))
    problem = problem if factors is None else problem.weighted(factors)
    return problem, task, factors


def read_sample_weight(sample_weight, n_bags):
    """Return the weights of bags.

    Parameters
    ----------
    sample_weight : array-like of shape (n_bags,)
    n_bags : int

    Returns
    -------
    weights : float64 array of shape (n_bags,)

    Raises
    ------
    ValueError
        If there is not one finite number for each bag, not negative, or if all are 0.
    """
    weights = check_sample_weight(
        as_dense(sample_weight, "sample_weight"), np.empty(n_bags), ensure_non_negative=True
    )
    if not weights.any():
        raise ValueError("sample_weight is 0 for every bag: nothing is left to learn from.")
    return weights


def read_validation(estimator, X_val, y_val, task):
    """Return the bags to validate with as a problem, or None if there are none."""
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val belong together: pass both, or none of them.")
    if X_val is None:
        return None
    bags = read_bags(estimator, X_val, reset=False, name="X_val")
    _, y = task.read(y_val, len(bags), name="y_val")
    return Problem(bags, task.targets(y), None)

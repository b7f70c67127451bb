"""Labels of bags as signs: one column for each class, 1 where a bag belongs to it, else -1."""

import functools
import math
from collections.abc import Iterator, Mapping, Set
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from skfisher.arrays.dense import as_numpy, describe
from skfisher.ops.losses import binary_weights

__all__ = [
    "Targets",
    "accuracy",
    "as_target_array",
    "factors_of",
    "read_classes",
    "read_labels",
    "read_targets",
]


class Targets(NamedTuple):
    """Labels that were read: what they are, and a column of signs for each decision value."""

    kind: str  # "binary", "multiclass" or "multilabel"
    classes: np.ndarray
    signs: np.ndarray  # (n_bags, n_columns): one column for two classes

    def weights(self, class_weight):
        """Return the weights of the terms of a loss, of the shape of the signs, or None.

        Parameters
        ----------
        class_weight : None, "balanced" or dict
            A dict gives the weight of the bags of each class, whatever the column; with label
            indicators, of the bags that have the label in its column.

        Raises
        ------
        ValueError
            If the dict names a class that is none, or holds what is no weight.
        """
        if class_weight is None:
            return None
        n = len(self.signs)
        if class_weight == "balanced":
            n_positive = (self.signs > 0).sum(axis=0)
            return binary_weights(
                self.signs,
                n / (2 * np.maximum(n_positive, 1)),
                n / (2 * np.maximum(n - n_positive, 1)),
            )
        each = factors_of(class_weight, self.classes)
        if self.kind == "multilabel":
            return binary_weights(self.signs, each)
        own = each[np.searchsorted(self.classes, self.labels(self.signs))]
        return np.tile(own[:, None], self.signs.shape[1])

    def labels(self, decision):
        """Return the labels that decision values (n, n_columns) stand for."""
        if self.kind == "multilabel":
            return (decision > 0).astype(np.int64)
        if self.kind == "binary":
            return self.classes[(decision[:, 0] > 0).astype(np.intp)]
        return self.classes[decision.argmax(axis=1)]


def factors_of(class_weight, classes):
    """Return the factor of every class, 1 for those that are not named.

    Parameters
    ----------
    class_weight : dict
    classes : array of shape (n_classes,)

    Returns
    -------
    factors : float64 array of shape (n_classes,)

    Raises
    ------
    ValueError
        If the dict names a class that is none, if a factor is no finite number or negative, or
        if all are 0.
    """
    classes = classes.tolist()
    unknown = [label for label in class_weight if label not in classes]
    if unknown:
        raise ValueError(
            f"class_weight names {unknown}, but the classes in y are {classes}: "
            "give weights for these only."
        )
    for label, factor in class_weight.items():
        if not isinstance(factor, Real) or not 0 <= factor < math.inf:
            raise ValueError(
                f"class_weight[{label!r}]={factor!r} must be a finite number, and not negative."
            )
    factors = np.array([class_weight.get(label, 1.0) for label in classes], dtype=np.float64)
    if not factors.any():
        raise ValueError(
            "class_weight is 0 for every class, which leaves nothing to learn from: give one at "
            "least a weight above 0."
        )
    return factors


def read_classes(classes):
    """Return all classes there will be, sorted.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)

    Raises
    ------
    ValueError
        If these are no classes, or fewer than two.
    """
    if np.ndim(classes) != 1:
        found = "a single value" if np.ndim(classes) == 0 else f"of shape {np.shape(classes)}"
        raise ValueError(f"classes is {found}: pass a list of all classes.")
    for i, label in enumerate(classes):
        if missing := _missing(label):
            raise ValueError(f"classes[{i}] is {missing}, which cannot be a class: leave it out.")
    classes = np.unique(read_labels(classes, "classes"))
    if len(classes) < 2:
        found = f"holds one class only, {classes.tolist()[0]!r}" if len(classes) else "is empty"
        raise ValueError(f"classes {found}: a classifier needs at least two classes.")
    return classes


def as_target_array(y, name, what):
    """Return anything that has an order as an array; messages call it a list of `what`."""
    if isinstance(y, Iterator | Mapping | Set):
        remedy = f" Write list({name})." if isinstance(y, Iterator) else ""
        raise TypeError(f"{name} is {describe(y)}, but a list of {what} is needed.{remedy}")
    return y.toarray() if issparse(y) else as_numpy(y, name)


def read_labels(y, name="y"):
    """Return labels as an array of numbers or of strings.

    Parameters
    ----------
    y : array-like or sparse matrix
        pandas' own dtypes, categories among them, are read as scikit-learn reads them.
    name : str, default="y"
        What messages call it.

    Raises
    ------
    TypeError
        If `y` has no order, or its dtype is one that another package added.
    ValueError
        If labels are missing or masked, or objects of other types than strings.
    """
    y = as_target_array(y, name, "labels")
    if y.dtype.kind == "V" or y.dtype.isbuiltin == 2:
        raise TypeError(
            f"Unknown label type: {name} has dtype {y.dtype}. Write {name}.astype(int), if that is "
            "what it holds."
        )
    if y.dtype.kind == "T":
        y = np.array(y.tolist(), dtype=str)  # scikit-learn knows no other strings
    suspects = np.isnan(y) if y.dtype.kind == "f" else np.full(y.shape, y.dtype.kind == "O")
    for place in map(tuple, np.argwhere(suspects)):
        if missing := _missing(y[place]):
            raise ValueError(
                f"{name}[{place[0]}] is {missing}: every bag needs a label. Drop bags without one."
            )
    types = {type(label) for label in y.ravel()} if y.dtype.kind == "O" else {str}
    if any(not issubclass(kind, str) for kind in types):
        names = " and ".join(sorted(kind.__name__ for kind in types))
        whole = all(issubclass(kind, Integral | np.bool_) for kind in types)
        number = all(issubclass(kind, Real | np.bool_) for kind in types)
        dtype = "int" if whole else "float" if number else "str"
        raise ValueError(
            f"Unknown label type: {name} has dtype object and holds {names}. Write "
            f"{name}.astype({dtype})."
        )
    return y


@functools.wraps(ClassifierMixin.score)
def accuracy(self, X, y, sample_weight=None):  # noqa: D103 - that of scikit-learn
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    return ClassifierMixin.score(self, X, read_labels(y), sample_weight)


def read_targets(y, n_bags, *, classes=None, kind=None, name="y"):
    """Read the labels of bags.

    Parameters
    ----------
    y : array-like of shape (n_bags,), or label indicators of shape (n_bags, n_labels)
    n_bags : int
    classes : array, optional
        All classes there are, sorted; by default those in `y`.
    kind : str, optional
        What the labels were the first time; others are refused.
    name : str
        Of `y` in messages.

    Returns
    -------
    targets : Targets

    Raises
    ------
    ValueError
        If there is not one label for each bag, if labels are missing, continuous or not among
        the classes, or if there is only one class.
    """
    if y is None:
        raise ValueError(f"requires y to be passed, but the target {name} is None")
    y = read_labels(y, name)
    if y.ndim == 0 or len(y) != n_bags:
        found = "a single value" if y.ndim == 0 else f"{len(y)} labels"
        bags = f"{name.replace('y', 'X', 1)} has {n_bags} bags"  # X_val, of y_val
        raise ValueError(f"{name} has {found}, but {bags}: give one label per bag.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.argwhere(~np.isfinite(y))[0][0])
        raise ValueError(f"{name}[{row}] is infinity: labels must be finite.")
    if _hold_indicators(y, name):
        return _read_indicators(y, classes, kind, name)
    y = column_or_1d(y, warn=True)
    if kind == "multilabel":
        raise ValueError(f"{name} holds single labels, but before it held label indicators.")
    found = np.unique(y)
    if classes is None:
        classes = found
    unknown = ~np.isin(found, classes)
    if unknown.any():
        raise ValueError(
            f"{name} holds the class {found[unknown].tolist()[0]!r}, which is not among the "
            f"classes {np.asarray(classes).tolist()}."
        )
    if len(classes) < 2:
        raise ValueError(
            f"{name} holds one class only, {np.asarray(classes).tolist()[0]!r}: a classifier needs "
            "at least two classes."
        )
    if len(classes) == 2:
        return Targets("binary", classes, np.where(y == classes[1], 1.0, -1.0)[:, None])
    signs = np.where(y[:, None] == classes, 1.0, -1.0)
    return Targets("multiclass", classes, signs)


def _hold_indicators(y, name):
    """Tell label indicators from single labels, and refuse what is neither."""
    if y.ndim == 1 and y.dtype.kind in "biu" and 2 * len(np.unique(y)) <= len(y):
        return False  # nor has scikit-learn any warning of these, at more cost than a small fit
    found = type_of_target(y)
    if found not in ("binary", "multiclass", "multilabel-indicator"):
        check_classification_targets(y)  # which names what it is
    if found == "multiclass-multioutput":
        raise ValueError(
            f"{name} has several columns that are not all 0 or 1: give one label per bag, or "
            "label indicators."
        )
    return found == "multilabel-indicator"


def _missing(label):
    """Return the name of what stands for no label: None, NaN, pandas' NA; of labels, nothing."""
    equal = label is not None and label == label
    # NaN does not equal itself, and whether NA does is not known.
    if (isinstance(equal, bool | np.bool_) and equal) or np.ndim(label):
        return ""
    return "NaN" if isinstance(label, Real) else repr(label)


def _read_indicators(y, classes, kind, name):
    if kind not in (None, "multilabel"):
        raise ValueError(f"{name} holds label indicators, but before it held single labels.")
    if classes is None:
        classes = np.arange(y.shape[1])
    if y.shape[1] != len(classes):
        raise ValueError(
            f"{name} has {y.shape[1]} columns, but there are {len(classes)} labels: "
            "give one column per label."
        )
    return Targets("multilabel", classes, np.where(y > 0, 1.0, -1.0))

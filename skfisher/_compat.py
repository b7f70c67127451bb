"""What differs between versions of scikit-learn and threadpoolctl, and what is private in them.

The one user of their private names. Callbacks exist from scikit-learn 1.9
on; below it the stand-ins here accept the same calls and do nothing.
"""

import copy
import sys
from contextlib import nullcontext

import numpy as np
import sklearn
from sklearn.base import _fit_context
from sklearn.utils._array_api import get_namespace
from sklearn.utils._param_validation import (
    HasMethods,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._set_output import _get_output_config, _wrap_data_with_container
from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _get_feature_names

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:
    CallbackSupportMixin = None

__all__ = [
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "NullCallbackContext",
    "NullCallbackSupportMixin",
    "StrOptions",
    "_fit_context",
    "check_feature_names_in",
    "check_sample_weight",
    "copy_without_callbacks",
    "get_feature_names",
    "get_namespace",
    "keep_index",
    "set_threads",
    "validate_parameter_constraints",
    "wants_data_frame",
    "wrap_output",
]


class Interval(_Interval):
    """Numbers between two bounds, of which True and False are none, though Python counts them."""

    def is_satisfied_by(self, val):
        return not isinstance(val, bool) and super().is_satisfied_by(val)


def set_threads(library, n_threads):
    """Set the threads of a library, a controller of threadpoolctl, whatever thread asks.

    From version 3.8 on, threadpoolctl itself heeds one thread of the process alone.
    """
    getattr(library, "_real_set_num_threads", library.set_num_threads)(n_threads)


def get_feature_names(x):
    """Return the names of the columns of a data frame; None if they are no strings.

    Old versions of scikit-learn read those of polars by a protocol that polars 2 lacks.
    """
    names, columns = _get_feature_names(x), getattr(x, "columns", None)
    if names is None and isinstance(columns, list) and {type(name) for name in columns} == {str}:
        names = np.asarray(columns, dtype=object)
    return names


def wrap_output(output, X, estimator):
    """Return what `transform` made of `X` in the container that ``set_output`` asks for."""
    return _wrap_data_with_container("transform", output, X, estimator)


def wants_data_frame(estimator):
    """Tell whether ``set_output`` asks the estimator for a data frame."""
    return _get_output_config("transform", estimator)["dense"] != "default"


def keep_index(output, X, estimator):
    """Return an array made of a series `X` with its index, if ``set_output`` asks for pandas.

    Old versions of scikit-learn, which then name the columns, keep the index of a frame alone.
    """
    pandas = sys.modules.get("pandas")
    container = _get_output_config("transform", estimator)["dense"]
    if container != "pandas" or pandas is None or not isinstance(X, pandas.Series):
        return output
    return pandas.DataFrame(output, index=X.index, copy=False)


class NullCallbackContext:
    """Stand-in for ``sklearn.callback.CallbackContext``: no callbacks, no effect."""

    def subcontext(self, task_name="", task_id=None, max_subtasks=0, sequential_subtasks=True):
        """Return a context for a part of the work."""
        return self

    def call_on_fit_task_begin(
        self, *, estimator, X=None, y=None, metadata=None, reconstruction_attributes=None
    ):
        """Return the context."""
        return self

    def call_on_fit_task_end(
        self, *, estimator, X=None, y=None, metadata=None, reconstruction_attributes=None
    ):
        """Return False: never ask to stop."""
        return False

    def propagate_callback_context(self, sub_estimator):
        """Return a context manager without effect."""
        return nullcontext()


class NullCallbackSupportMixin:
    """Stand-in for ``sklearn.callback.CallbackSupportMixin`` below scikit-learn 1.9."""

    def set_callbacks(self, *callbacks):
        """Refuse callbacks, which need scikit-learn 1.9 or newer.

        Parameters
        ----------
        *callbacks : callback instances

        Returns
        -------
        self : estimator instance
            If there are none.

        Raises
        ------
        RuntimeError
            If there are any.
        """
        if callbacks:
            raise RuntimeError(
                "Callbacks need scikit-learn >= 1.9, and this is scikit-learn "
                f"{sklearn.__version__}: upgrade it, or fit without callbacks."
            )
        return self

    def _init_callback_context(
        self, task_name="fit", task_id=0, max_subtasks=0, sequential_subtasks=True
    ):
        return NullCallbackContext()


if CallbackSupportMixin is None:
    CallbackSupportMixin = NullCallbackSupportMixin


def copy_without_callbacks(estimator):
    """Return a shallow copy of an estimator, without the callbacks of a fit under way."""
    duplicate = copy.copy(estimator)
    for name in [n for n in vars(duplicate) if n.startswith(("_callback", "_skl_callback"))]:
        delattr(duplicate, name)
    if "_sklearn_output_config" in vars(duplicate):  # which set_output writes to
        duplicate._sklearn_output_config = dict(duplicate._sklearn_output_config)
    return duplicate

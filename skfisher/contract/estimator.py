"""The base class of every estimator in the package."""

import functools
import warnings

from sklearn.base import BaseEstimator

from skfisher._compat import CallbackSupportMixin
from skfisher.process_state import restoring
from skfisher.version import __version__

__all__ = ["BagEstimator", "Interruption", "all_or_nothing"]


class Interruption(Exception):
    """What stops a fit from outside, as an interrupt does, through no fault of the input."""


def all_or_nothing(method=None, *, unless=None):
    """Let a method that fits leave an estimator as it was, where it does not come to its end.

    Parameters
    ----------
    method : callable
        It puts new objects in the place of fitted attributes, and changes none of them.
    unless : str, optional
        An attribute that the method sets in one step with everything else that it has to, such
        as once an iteration. If it did, an interrupt, or an `Interruption`, leaves what there is;
        an error never does.
    """
    if method is None:
        return functools.partial(all_or_nothing, unless=unless)

    restoring_method = restoring(method)

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        before = dict(vars(self))
        try:
            return restoring_method(self, *args, **kwargs)
        except BaseException as error:
            is_interrupt = isinstance(error, Interruption) or not isinstance(error, Exception)
            has_moved = unless is not None and vars(self).get(unless) is not before.get(unless)
            if not (is_interrupt and has_moved):
                self.__dict__ = before
            raise

    return call


class BagEstimator(CallbackSupportMixin, BaseEstimator):
    """Base class of estimators that take bags of descriptors.

    To scikit-learn's :class:`~sklearn.base.BaseEstimator` it adds callbacks during
    `fit` (from scikit-learn 1.9 on), the version of skfisher in saved models, and the
    tags of bags. Mixins go left
    of it; `fit` and `partial_fit` are decorated with ``_fit_context``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self):
        return {**super().__getstate__(), "_skfisher_version": __version__}

    def __setstate__(self, state):
        state = dict(state)
        saved = state.pop("_skfisher_version", "unknown")
        if saved.split(".")[:2] != __version__.split(".")[:2]:
            warnings.warn(
                f"This {type(self).__name__} was saved by skfisher {saved} and is loaded by "
                f"{__version__}: it may fail or give other results. Fit it again, or install "
                f"the version that saved it.",
                UserWarning,
                stacklevel=2,
            )
        super().__setstate__(state)

"""Old names of parameters, attributes and functions: they work for a while and warn."""

import functools

from skfisher.warning import warn_caller

__all__ = ["RenamedAttribute", "renamed_function", "renamed_parameter"]


def renamed_parameter(estimator, old, new, removed_in):
    """Return the value of a parameter that had another name.

    The old one is the last in the signature, with the default "deprecated"; `fit` calls this.

    Parameters
    ----------
    estimator : estimator
    old, new : str
        Names of the parameter.
    removed_in : str
        The version that no longer has the old name.

    Returns
    -------
    value : object
        That of the old name where it was set, else that of the new one.

    Warns
    -----
    FutureWarning
        If the old name was set.
    """
    value = getattr(estimator, old)
    if isinstance(value, str) and value == "deprecated":
        return getattr(estimator, new)
    _warn(f"The parameter {old!r} of {type(estimator).__name__}", repr(new), removed_in)
    return value


class RenamedAttribute:
    """An attribute under its old name: ``old_ = RenamedAttribute("new_", removed_in="1.2")``."""

    def __init__(self, new, *, removed_in):
        self.new, self.removed_in = new, removed_in

    def __set_name__(self, owner, name):
        self.old = name

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = getattr(instance, self.new)  # before a fit there is neither
        what = f"The attribute {self.old!r} of {type(instance).__name__}"
        _warn(what, repr(self.new), self.removed_in)
        return value


def renamed_function(function, old, *, removed_in):
    """Return a function under its old name, which warns and calls it."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        _warn(f"{old}()", f"{function.__name__}()", removed_in)
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = old
    return call


def _warn(what, new, removed_in):
    message = f"{what} is deprecated and goes in skfisher {removed_in}: write {new} instead."
    warn_caller(message, FutureWarning)

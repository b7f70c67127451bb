"""What goes in comes out: arrays of the kind, and on the device, of the samples."""

import functools
import inspect
import sys

import numpy as np

from skfisher._compat import keep_index, wants_data_frame
from skfisher.arrays.dense import check_unmasked, listed
from skfisher.arrays.libraries import device_of, is_cupy, to_host
from skfisher.arrays.tensors import as_array, as_tensor, is_tensor
from skfisher.bags.bags import Bags
from skfisher.process_state import restoring

__all__ = ["mirrors_input", "reads_input"]

# Arguments that are samples, as X is; all others are labels.
SAMPLES = {"X", "Y", "X_val"}
# What messages ask for a list of, where an estimator does not say what its samples are.
BAGS = "2-D arrays, one per bag"


def reads_input(method, *, mirror=False):
    """Let a method of samples `X` take tensors, and work on the device of `X`.

    Tensors of PyTorch enter as the arrays that share their memory, and labels on a GPU come
    to the host. The GPU that `X` is on, if it is, is the current device meanwhile.

    Parameters
    ----------
    method : callable
    mirror : bool
        Whether arrays and `Bags` leave as tensors if `X` is made of tensors.
    """
    names = list(inspect.signature(method).parameters)[2:]
    is_frame_made = method.__name__ in ("transform", "fit_transform")  # by scikit-learn, of arrays

    @restoring
    @functools.wraps(method)
    def call(self, X, *args, **kwargs):
        given, X = X, listed(X, of=getattr(self, "_samples", BAGS))
        of_tensors = mirror and _is_of_tensors(X)
        X = _read("X", X)
        args = [
            *(_read_beside(X, *named) for named in zip(names, args, strict=False)),
            *args[len(names) :],  # too many, as the method will say
        ]
        kwargs = {name: _read_beside(X, name, value) for name, value in kwargs.items()}
        with device_of(_values_of(X)):
            result = method(self, X, *args, **kwargs)
        is_array = is_cupy(result) or isinstance(result, np.ndarray)
        if is_frame_made and is_array and wants_data_frame(self):
            return keep_index(to_host(result), given, self)
        return _mirrored(result) if of_tensors else result

    return call


mirrors_input = functools.partial(reads_input, mirror=True)


def _is_of_tensors(x):
    if "torch" not in sys.modules:
        return False
    if isinstance(x, Bags):
        return x.of_tensors
    return is_tensor(x) or (isinstance(x, list | tuple) and any(map(is_tensor, x)))


def _read(name, x):
    """Return an argument with arrays in the place of tensors."""
    if _is_of_tensors(x) and not isinstance(x, Bags):
        if is_tensor(x):
            x = as_array(x, name)
        else:
            x = [as_array(y, f"{name}[{i}]") if is_tensor(y) else y for i, y in enumerate(x)]
    if name in SAMPLES:
        return x
    check_unmasked(x, name)
    return to_host(x) if is_cupy(x) else x


def _values_of(samples):
    """Return an array that is on the device of samples."""
    if isinstance(samples, Bags):
        return samples.values
    return samples[0] if isinstance(samples, list | tuple) and len(samples) else samples


def _read_beside(X, name, value):
    """Return an argument as `_read` does; samples must be where `X` is."""
    value = _read(name, listed(value, name) if name in SAMPLES else value)
    if name in SAMPLES and value is not None:
        found, wanted = map(_place, (value, X))
        if found != wanted:
            raise TypeError(f"{name} is on {found}, but X is on {wanted}: keep both on one device.")
    return value


def _place(samples):
    values = _values_of(samples)
    return str(values.device) if is_cupy(values) else "the CPU"


def _mirrored(result):
    if isinstance(result, Bags):
        return result._as_tensors()
    is_array = is_cupy(result) or (isinstance(result, np.ndarray) and result.dtype.kind in "biuf")
    return as_tensor(result) if is_array else result

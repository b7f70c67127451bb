"""Launches the kernels of dual coordinate ascent: a pass over all samples, and the objectives."""

import ctypes

import numpy as np

from skfisher.native.library import Ascent, address, call, instruction_set

__all__ = ["Problem", "takes"]

# Weights are read from the cache for each sample; where they do not stay there, products of
# matrices, which read them once for many samples, take less time.
CACHED_BYTES = 2**20


def takes(x, n_classes):
    """Tell whether the kernels serve: float32 or float64 on the host, and weights of few bytes."""
    return (
        isinstance(x, np.ndarray)
        and x.dtype in (np.float32, np.float64)
        and x.dtype.itemsize * x.shape[1] * n_classes <= CACHED_BYTES
        and instruction_set() is not None
    )


class Problem:
    """What a pass reads and updates, as the kernels read it.

    Parameters
    ----------
    x : contiguous array of shape (n, d)
    theta, intercept : arrays of shape (n_classes, d), of the dtype of `x`, and (n_classes,)
        ``b.T @ x`` and ``bias * b.sum(axis=0)``, which follow `b`.
    b : float64 array of shape (n, n_classes)
        The dual variables with the signs of their samples.
    diagonal : float64 array of shape (n,)
        Products of samples with themselves, `bias` included.
    bias : float
    squared : bool
        Whether losses are squared hinges.
    signs, costs, ridge, rate, lower, upper : float64 arrays of shape (n, n_classes)
    """

    def __init__(self, x, theta, intercept, b, diagonal, *, bias, squared, **each):
        self._dtype, (n, d), k = x.dtype, x.shape, b.shape[1]
        arrays = {name: np.ascontiguousarray(array) for name, array in each.items()}
        arrays |= {"x": x, "theta": theta, "intercept": intercept, "b": b, "diagonal": diagonal}
        self._alive = arrays
        places = {name: address(array) for name, array in arrays.items()}
        self._struct = Ascent(n=n, d=d, k=k, bias=bias, squared=squared, **places)

    def visit(self, order):
        """Maximise along all variables of samples, in an order of int64 numbers."""
        call("ascent_pass", self._dtype, ctypes.byref(self._struct), order, len(order))

    def sweep(self, order, n_sweeps):
        """Maximise along those variables that are at no bound, so many times."""
        pointer = ctypes.byref(self._struct)
        call("ascent_sweeps", self._dtype, pointer, order, len(order), n_sweeps)

    def objectives(self):
        """Compute the weights anew and return the objectives P and D of each class."""
        primal, dual = np.empty((2, self._struct.k))
        call("ascent_objectives", self._dtype, ctypes.byref(self._struct), primal, dual)
        return primal, dual

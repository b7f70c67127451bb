"""Launches the kernels of the forward pass: sums of bags and of all descriptors, Fisher vectors."""

import ctypes

import numpy as np

from skfisher.native.library import KINDS, Fisher, Problem, address, call, takes

__all__ = ["assignment_sums", "bag_statistics", "fisher_vectors", "takes", "total_statistics"]


class Prepared:
    """A problem as the kernels read it, and the arrays that it points into."""

    def __init__(self, x, starts, stops, coefficients, frame, *, order=2, hard=False):
        linear, quadratic, constant = coefficients
        self.dtype = linear.dtype
        self.k, self.d = linear.shape
        self._arrays = [x]
        self.struct = Problem(
            x=address(x), kind=KINDS.index(x.dtype),
            row_stride=x.strides[0], column_stride=x.strides[1],
            starts=self._keep(starts, np.int64), stops=self._keep(stops, np.int64),
            n_bags=len(starts), n_rows=int((stops - starts).sum()),
            k=self.k, d=self.d, order=order, hard=hard,
            linear=self._keep(linear), quadratic=self._keep(quadratic),
            constant=self._keep(constant),
            shift=None if frame is None else self._keep(frame.shift),
            inverse_scale=None if frame is None else self._keep(1 / frame.scale),
        )  # fmt: skip

    def _keep(self, array, dtype=None):
        """Return the address of a contiguous copy that lives as long as this object."""
        if array is None:
            return None
        array = np.ascontiguousarray(array, dtype=self.dtype if dtype is None else dtype)
        self._arrays.append(array)
        return address(array)

    @property
    def pointer(self):
        return ctypes.byref(self.struct)


class FisherTerms:
    """What Fisher vectors are linear combinations of sums with, as the kernels read it."""

    def __init__(self, terms, *, include_weights, normalize=False):
        weights, inverse_sqrt, of_means, of_variances = terms
        self._arrays = (
            np.ascontiguousarray(weights),
            np.ascontiguousarray(inverse_sqrt),
            np.stack([*of_means, *of_variances], axis=1),
        )
        self.struct = Fisher(
            *map(address, self._arrays), include_weights=include_weights, normalize=normalize
        )

    @property
    def pointer(self):
        return ctypes.byref(self.struct)


def bag_statistics(x, starts, stops, coefficients, out, *, frame=None):
    """Write the sums of each bag into `out`, contiguous float64 arrays S0, S1 and S2."""
    problem = Prepared(x, starts, stops, coefficients, frame)
    call("bag_statistics", problem.dtype, problem.pointer, *out, None)


def assignment_sums(x, starts, stops, coefficients, out, *, frame=None, hard):
    """Write the sums of each bag into `out`, S0 and whichever of S1 and S2 is not None."""
    order = sum(s is not None for s in out) - 1
    problem = Prepared(x, starts, stops, coefficients, frame, order=order, hard=hard)
    call("bag_statistics", problem.dtype, problem.pointer, *out, None)


def total_statistics(x, starts, stops, coefficients, out, *, frame=None):
    """Write the sums of all descriptors into `out`, as for one bag; return their likelihood."""
    problem = Prepared(x, starts, stops, coefficients, frame)
    log_likelihood = np.empty(1)
    call("total_statistics", problem.dtype, problem.pointer, *out, log_likelihood)
    return float(log_likelihood[0])


def fisher_vectors(
    x, starts, stops, coefficients, terms, out, *, frame=None, include_weights, normalize
):
    """Write Fisher vectors into `out` and return it; arguments as in `skfisher.ops.fisher`.

    Parameters
    ----------
    terms : weights (k,), then inverse_sqrt (k,) and the factors of the sums, two tuples of (k, d)
    normalize : bool
        Whether to take the signed square root and scale to unit length at once.
    """
    problem = Prepared(x, starts, stops, coefficients, frame)
    direct = out.dtype == np.float32 and out.strides[1:] == (4,)
    result = out if direct else np.empty(out.shape, np.float32)
    fisher = FisherTerms(terms, include_weights=include_weights, normalize=normalize)
    fisher.struct.out, fisher.struct.stride = address(result), result.strides[0] // 4
    nowhere = [None] * 3
    call("bag_statistics", problem.dtype, problem.pointer, *nowhere, fisher.pointer)
    if not direct:
        out[...] = result
    return out

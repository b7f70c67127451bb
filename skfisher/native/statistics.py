"""Launches the kernels of the forward pass: sums of bags and of all descriptors, Fisher vectors."""

import ctypes

import numpy as np

from skfisher.arrays.stacked import Scattered
from skfisher.native.library import KINDS, Fisher, Problem, address, call, takes

__all__ = [
    "Model",
    "Prepared",
    "assignment_sums",
    "bag_statistics",
    "fisher_from_sums",
    "fisher_vectors",
    "takes",
    "takes_sums",
    "total_statistics",
]


class Model:
    """What all bags are assigned by, as the kernels read it: structs, and what they point into.

    Parameters
    ----------
    coefficients : linear, quadratic, constant
    frame : Frame, optional
    order, hard
        As in `struct problem` of kernels.c.
    terms : weights (k,), inverse_sqrt (k,) and the factors of the sums (k, 5, d), optional
        Of Fisher vectors.
    """

    def __init__(self, coefficients, frame=None, *, order=2, hard=False, terms=None):
        linear, quadratic, constant = coefficients
        self.dtype = linear.dtype
        self.k, self.d = linear.shape
        self._arrays = []
        self.problem = Problem(
            k=self.k, d=self.d, order=order, hard=hard,
            linear=self._keep(linear), quadratic=self._keep(quadratic),
            constant=self._keep(constant),
            shift=None if frame is None else self._keep(frame.shift),
            inverse_scale=None if frame is None else self._keep(1 / frame.scale),
        )  # fmt: skip
        if terms is not None:
            self.fisher = Fisher(*(self._keep(array, np.float64) for array in terms))

    def _keep(self, array, dtype=None):
        """Return the address of a contiguous copy that lives as long as this object."""
        if array is None:
            return None
        array = np.ascontiguousarray(array, dtype=self.dtype if dtype is None else dtype)
        self._arrays.append(array)
        return address(array)


class Prepared:
    """Bags and a model as the kernels read them, with the arrays that they point into."""

    def __init__(self, x, starts, stops, model):
        self.dtype, self.k, self.d = model.dtype, model.k, model.d
        starts, stops = (np.ascontiguousarray(a, dtype=np.int64) for a in (starts, stops))
        if isinstance(x, Scattered):
            rows = x.addresses(starts)
        else:
            rows = address(x) + starts * x.strides[0]
        rows = rows.astype(np.uintp)
        self._alive = x, rows, starts, stops, model
        self.struct = problem = Problem.from_buffer_copy(model.problem)
        problem.rows, problem.kind = address(rows), KINDS.index(x.dtype)
        problem.row_stride, problem.column_stride = x.strides
        problem.starts, problem.stops = address(starts), address(stops)
        problem.n_bags, problem.n_rows = len(starts), int((stops - starts).sum())

    @property
    def pointer(self):
        """What functions of the library are given."""
        return ctypes.byref(self.struct)


def bag_statistics(x, starts, stops, coefficients, out, *, frame=None):
    """Write the sums of each bag into `out`, contiguous float64 arrays S0, S1 and S2."""
    problem = Prepared(x, starts, stops, Model(coefficients, frame))
    call("bag_statistics", problem.dtype, problem.pointer, *out, None)


def assignment_sums(x, starts, stops, coefficients, out, *, frame=None, hard):
    """Write the sums of each bag into `out`, S0 and whichever of S1 and S2 is not None."""
    order = sum(s is not None for s in out) - 1
    problem = Prepared(x, starts, stops, Model(coefficients, frame, order=order, hard=hard))
    call("bag_statistics", problem.dtype, problem.pointer, *out, None)


def total_statistics(x, starts, stops, coefficients, out, *, frame=None):
    """Write the sums of all descriptors into `out`, as for one bag; return their likelihood."""
    problem = Prepared(x, starts, stops, Model(coefficients, frame))
    log_likelihood = np.empty(1)
    call("total_statistics", problem.dtype, problem.pointer, *out, log_likelihood)
    return float(log_likelihood[0])


def fisher_from_sums(sums, counts, terms, out, *, include_weights):
    """Write the Fisher vectors of bags into `out`, whose rows are contiguous and float32.

    Parameters
    ----------
    sums : contiguous float64 arrays of shape (n_bags, k), (n_bags, k, d), (n_bags, k, d)
    counts : int array of shape (n_bags,)
    terms : weights (k,), inverse_sqrt (k,) and the factors of the sums (5, k, d)
    """
    weights, inverse_sqrt, factors = terms
    factors = np.ascontiguousarray(factors.transpose(1, 0, 2))
    k, _, d = factors.shape
    fisher = Fisher(
        address(weights), address(inverse_sqrt), address(factors), include_weights, False,
        address(out), out.strides[0] // 4,
    )  # fmt: skip
    counts = np.ascontiguousarray(counts, dtype=np.int64)
    call("fisher_from_sums", np.float32, len(out), k, d, *sums, counts, ctypes.byref(fisher))


def takes_sums(sums, out):
    """Tell whether the kernels turn sums into these Fisher vectors."""
    return (
        takes(out)
        and out.dtype == np.float32
        and out.strides[1:] == (4,)
        and all(
            isinstance(s, np.ndarray) and s.dtype == np.float64 and s.flags.c_contiguous
            for s in sums
        )
    )


def fisher_vectors(x, starts, stops, model, out, *, include_weights, normalize):
    """Write Fisher vectors into `out` and return it; arguments as in `skfisher.ops.fisher`.

    Parameters
    ----------
    model : Model
        With the terms of Fisher vectors.
    normalize : bool
        Whether to take the signed square root and scale to unit length at once.
    """
    problem = Prepared(x, starts, stops, model)
    direct = out.dtype == np.float32 and out.strides[1:] == (4,)
    result = out if direct else np.empty(out.shape, np.float32)
    fisher = Fisher.from_buffer_copy(model.fisher)
    fisher.include_weights, fisher.normalize = include_weights, normalize
    fisher.out, fisher.stride = address(result), result.strides[0] // 4
    call("bag_statistics", problem.dtype, problem.pointer, None, None, None, ctypes.byref(fisher))
    if not direct:
        out[...] = result
    return out

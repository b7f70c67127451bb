"""Launches the kernels of the backward pass: from sums or Fisher vectors to what they come from."""

import ctypes

import numpy as np

from skfisher.native import statistics
from skfisher.native.library import Fisher, Gradient, address, call
from skfisher.native.statistics import Model, Prepared

__all__ = ["fisher_vectors_vjp", "statistics_vjp", "takes"]


def takes(x):
    """Tell whether the kernels serve descriptors: those that get gradients of their own dtype."""
    return statistics.takes(x) and x.dtype == np.float32


def statistics_vjp(g, x, starts, stops, coefficients, *, frame=None, with_x=True):
    """Return ``d_x, d_coefficients``; arguments as of `soft_statistics_vjp` in `ops/`."""
    problem = Prepared(x, starts, stops, Model(coefficients, frame))
    arrays = [np.ascontiguousarray(part, dtype=problem.dtype) for part in g]
    d_x = np.zeros(x.shape, np.float32) if with_x else None
    d_coefficients = _empty_coefficients(problem)
    c0, c1, c2 = map(address, arrays)
    gradient = Gradient(c0=c0, c1=c1, c2=c2, d_x=address(d_x), **_addresses(d_coefficients))
    call("statistics_vjp", problem.dtype, problem.pointer, ctypes.byref(gradient))
    return d_x, tuple(d_coefficients.values())


def fisher_vectors_vjp(
    g, x, starts, stops, model, *, include_weights, with_x=True, with_parameters=True
):
    """Return gradients for those arriving at `fisher_vectors`, whose arguments these are.

    Returns
    -------
    d_x : float32 array of the shape of `x`, or None
    d_coefficients : by linear, quadratic and constant, or None
    direct : three arrays, or None
        By weights, means and variances with the sums held fixed, but for the factors that
        `skfisher.ops.fisher` multiplies them with.
    """
    problem = Prepared(x, starts, stops, model)
    g = np.ascontiguousarray(g, dtype=np.float32)
    fisher = Fisher.from_buffer_copy(model.fisher)
    fisher.include_weights = include_weights
    d_x = np.zeros(x.shape, np.float32) if with_x else None
    d_coefficients = _empty_coefficients(problem) if with_parameters else {}
    direct = {}
    if with_parameters:
        k, d = problem.k, problem.d
        shapes = {"d_weights": k, "d_means": (k, d), "d_variances": (k, d)}
        direct = {name: np.zeros(shape) for name, shape in shapes.items()}
    gradient = Gradient(
        fisher=ctypes.pointer(fisher), g=address(g), stride=g.shape[1], d_x=address(d_x),
        **_addresses(d_coefficients), **_addresses(direct),
    )  # fmt: skip
    call("statistics_vjp", problem.dtype, problem.pointer, ctypes.byref(gradient))
    if not with_parameters:
        return d_x, None, None
    return d_x, tuple(d_coefficients.values()), tuple(direct.values())


def _empty_coefficients(problem):
    k, d = problem.k, problem.d
    shapes = {"d_linear": (k, d), "d_quadratic": (k, d), "d_constant": (k,)}
    return {name: np.empty(shape) for name, shape in shapes.items()}


def _addresses(arrays):
    return {name: address(array) for name, array in arrays.items()}

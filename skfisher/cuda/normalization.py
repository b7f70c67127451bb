"""Launches the kernels of power and L2 normalisation; see `skfisher.ops.normalization`."""

import numpy as np

from skfisher.arrays.libraries import array_module, empty
from skfisher.cuda import configurations, module

__all__ = ["power_l2_normalize", "power_l2_normalize_vjp", "takes"]

LONGEST_ROW = 2**30  # columns are counted in int32
_EXACT = -1.0  # in the place of eps^2


def takes(x):
    """Tell whether the kernels serve these rows."""
    return module.fused(x) and x.ndim == 2 and x.size > 0 and x.shape[1] < LONGEST_ROW


def power_l2_normalize(x, *, power, eps):
    """Do what `skfisher.ops.normalization.power_l2_normalize` does, without blocks."""
    x = array_module(x).ascontiguousarray(x)
    y = empty(x.shape, like=x)
    configurations.POWER_L2_NORMALIZE.launch((len(x),), x, *_numbers(x, power, eps), y)
    return y


def power_l2_normalize_vjp(g, x, *, power, eps, derivative_floor):
    """Do what `skfisher.ops.normalization.power_l2_normalize_vjp` does, without blocks."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    g = xp.ascontiguousarray(g, dtype=np.float32)
    d_x = empty(x.shape, like=x)
    configurations.POWER_L2_NORMALIZE_VJP.launch(
        (len(x),), g, x, *_numbers(x, power, eps), np.float32(derivative_floor), d_x
    )
    return d_x


def _numbers(x, power, eps):
    squared_eps = _EXACT if eps is None else float(eps) ** 2
    return np.int32(x.shape[1]), np.float32(power), np.float32(squared_eps)

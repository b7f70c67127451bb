"""Launches the kernels of power and L2 normalisation: rows read once from memory, written once."""

import numpy as np

from skfisher.native.library import call, instruction_set

__all__ = ["power_l2_normalize", "power_l2_normalize_vjp", "takes"]


def takes(x, *, power, blocks, eps):
    """Tell whether the kernels serve: float32 on the host, the exact square root, whole rows."""
    return (
        isinstance(x, np.ndarray)
        and x.dtype == np.float32
        and power == 0.5
        and blocks is None
        and eps is None
        and instruction_set() is not None
    )


def power_l2_normalize(x, out):
    """Write the normalised rows to `out`, contiguous; as in `skfisher.ops.normalization`."""
    x = np.ascontiguousarray(x)
    call("power_l2", x.dtype, x, out, *x.shape)


def power_l2_normalize_vjp(g, x, *, derivative_floor):
    """Return ``d_x`` for the gradient `g` at `power_l2_normalize`."""
    g, x = (np.ascontiguousarray(a, dtype=np.float32) for a in (g, x))
    d_x = np.empty_like(x)
    call("power_l2_vjp", x.dtype, g, x, d_x, *x.shape, float(derivative_floor))
    return d_x

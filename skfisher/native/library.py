"""Loads the native kernels, where they were built, and says which instruction set serves.

The library is plain C, called by ctypes, which lets other threads run meanwhile. It may be absent:
then, and wherever else the kernels do not serve, the array code does.
"""

import ctypes
import functools
import os
from ctypes import POINTER, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import numpy as np

from skfisher.arrays.stacked import Scattered

__all__ = [
    "Ascent",
    "Fisher",
    "Gradient",
    "Problem",
    "call",
    "describe",
    "instruction_set",
    "takes",
]

# In the order that the library numbers them: each holds the ones before it.
INSTRUCTION_SETS = ["baseline", "avx2", "avx512"]
# As `skfisher_interface` returns it: a library built from other sources is not called.
INTERFACE = 5
# Descriptors that become float32 as they are read, in the order of `enum kind` of kernels.c.
KINDS = [np.dtype(t) for t in ("f4", "i1", "u1", "i2", "u2", "?")]
FOLDER = Path(__file__).parent


class Problem(ctypes.Structure):
    """``struct problem`` of kernels.c."""

    _fields_ = [
        ("rows", c_void_p), ("kind", c_int64), ("row_stride", c_int64), ("column_stride", c_int64),
        ("starts", c_void_p), ("stops", c_void_p), ("n_bags", c_int64), ("n_rows", c_int64),
        ("k", c_int64), ("d", c_int64), ("order", c_int64), ("hard", c_int64),
        ("linear", c_void_p), ("quadratic", c_void_p), ("constant", c_void_p),
        ("shift", c_void_p), ("inverse_scale", c_void_p),
    ]  # fmt: skip


class Fisher(ctypes.Structure):
    """``struct fisher`` of kernels.c."""

    _fields_ = [
        ("weights", c_void_p), ("inverse_sqrt", c_void_p), ("terms", c_void_p),
        ("include_weights", c_int64), ("normalize", c_int64), ("out", c_void_p),
        ("stride", c_int64),
    ]  # fmt: skip


class Gradient(ctypes.Structure):
    """``struct gradient`` of kernels.c."""

    _fields_ = [
        *[(name, c_void_p) for name in ("c0", "c1", "c2")],
        ("fisher", POINTER(Fisher)), ("g", c_void_p), ("stride", c_int64), ("d_x", c_void_p),
        *[(name, c_void_p) for name in ("d_linear", "d_quadratic", "d_constant")],
        *[(name, c_void_p) for name in ("d_weights", "d_means", "d_variances")],
    ]  # fmt: skip


class Ascent(ctypes.Structure):
    """``struct ascent`` of kernels.c."""

    _fields_ = [
        ("x", c_void_p), *[(name, c_int64) for name in ("n", "d", "k", "squared")],
        ("bias", c_double), ("diagonal", c_void_p),
        *[(name, c_void_p) for name in ("signs", "costs", "ridge", "rate", "lower", "upper")],
        *[(name, c_void_p) for name in ("b", "theta", "intercept")],
    ]  # fmt: skip


FUNCTIONS = {
    "skfisher_bag_statistics": [POINTER(Problem), *[c_void_p] * 3, POINTER(Fisher)],
    "skfisher_total_statistics": [POINTER(Problem), *[c_void_p] * 4],
    "skfisher_statistics_vjp": [POINTER(Problem), POINTER(Gradient)],
    "skfisher_fisher_from_sums": [*[c_int64] * 3, *[c_void_p] * 4, POINTER(Fisher)],
    "skfisher_power_l2": [c_void_p, c_void_p, c_int64, c_int64],
    "skfisher_power_l2_vjp": [*[c_void_p] * 3, c_int64, c_int64, c_double],
    "skfisher_ascent_pass": [POINTER(Ascent), c_void_p, c_int64],
    "skfisher_ascent_sweeps": [POINTER(Ascent), c_void_p, c_int64, c_int64],
    "skfisher_ascent_objectives": [POINTER(Ascent), c_void_p, c_void_p],
}


@functools.cache
def _load():
    """Return the library and the number of the machine's best instruction set, or None and why."""
    file = FOLDER / "kernels.native.so"
    if not file.exists():
        return None, "not built: no C compiler was found, or it failed, when skfisher was installed"
    try:
        library = ctypes.CDLL(str(file))
        if library.skfisher_interface() != INTERFACE:
            return None, f"{file} was built from other sources: install skfisher again"
        for name, arguments in FUNCTIONS.items():
            getattr(library, name).argtypes = [c_int, c_int, *arguments]
        return library, library.skfisher_best()
    except (OSError, AttributeError) as error:  # of another platform; a function is missing
        return None, f"{file} does not load: {error}"


def instruction_set():
    """Return the name of the instruction set that serves, or None where the array code does.

    The environment variable ``SKFISHER_NATIVE`` is read each time: 0 switches the kernels off,
    the name of an instruction set chooses it, where the machine has it.
    """
    library, best = _load()
    wanted = os.environ.get("SKFISHER_NATIVE", "")
    if library is None or wanted == "0":
        return None
    if wanted in INSTRUCTION_SETS:
        best = min(best, INSTRUCTION_SETS.index(wanted))
    return INSTRUCTION_SETS[best]


def describe():
    """Return a line on which code serves, and why where it is not the best."""
    library, best = _load()
    if library is None:
        return f"NumPy serves; the native kernels are {best}"
    name, wanted = instruction_set(), os.environ.get("SKFISHER_NATIVE", "")
    if name is None:
        return "NumPy serves: SKFISHER_NATIVE=0"
    if wanted not in ("", name):
        return f"native kernels, {name}: there is no SKFISHER_NATIVE={wanted} here"
    return f"native kernels, {name}"


def takes(x):
    """Tell whether the kernels serve descriptors: numbers that they read, on the host."""
    on_host = isinstance(x, (np.ndarray, Scattered))
    return on_host and x.dtype in KINDS and instruction_set() is not None


def call(name, dtype, *arguments):
    """Call a function of the library for numbers of a dtype; arrays are given as themselves."""
    library, _ = _load()
    wide = int(dtype == np.float64)
    chosen = INSTRUCTION_SETS.index(instruction_set())
    arguments = [address(a) if isinstance(a, np.ndarray) else a for a in arguments]
    if getattr(library, f"skfisher_{name}")(chosen, wide, *arguments):
        raise MemoryError("There is no memory for the workspace of the native kernels.")


def address(array):
    """Return where an array begins; None stays None."""
    return None if array is None else array.__array_interface__["data"][0]

"""Kernels on the CPU: the seam that lets launchers run the CUDA sources without a GPU."""

import sys

import numpy as np
import pytest

from skfisher.cuda import module, normalization, vjp  # noqa: F401  (and all they launch with)

from .cuda_on_cpu import COMPILER, HostModule


class HostKernels:
    """What `skfisher.cuda.module` offers, for NumPy arrays: each kernel compiled when asked for."""

    def __init__(self):
        self._modules = {}
        self.schedule = 0
        self.launched = []  # name expressions, in order

    def kernel(self, expression, shared_bytes=0):
        if expression not in self._modules:
            compiled = HostModule(module.source(), name_expressions=(expression,))
            self._modules[expression] = compiled
        function = self._modules[expression].get_function(expression)
        function.max_dynamic_shared_size_bytes = max(48 * 1024, shared_bytes)

        def launch(*args, **kwargs):
            self._modules[expression].set_schedule(self.schedule)
            self.launched.append(expression)
            function(*args, **kwargs)

        return launch


def need_a_compiler():
    """Skip the test that asks where kernels cannot be compiled for the CPU."""
    if sys.platform != "linux":
        pytest.skip("CUDA kernels run on the CPU under Linux only")
    if COMPILER is None:
        pytest.skip("no g++ on the path: install it to run CUDA kernels on the CPU")


def full_of_nan(shape, *, like, dtype=None):
    """Do what `skfisher.arrays.libraries.empty` does, but leave no number there."""
    return np.full(shape, np.nan, dtype=like.dtype if dtype is None else dtype)


@pytest.fixture(scope="session")
def _host_kernels():
    need_a_compiler()
    return HostKernels()


@pytest.fixture
def kernels_on_cpu(_host_kernels, monkeypatch):
    """Let the launchers take NumPy arrays and run the kernels on the CPU.

    ``kernels_on_cpu.schedule = 0 | 1 | 2`` orders the threads of a block, and
    ``kernels_on_cpu.launched`` tells which kernels ran. What they are to fill is NaN
    beforehand: all of it must be written.
    """
    _host_kernels.schedule = 0
    _host_kernels.launched.clear()
    monkeypatch.delenv("SKFISHER_FUSED", raising=False)
    monkeypatch.setattr(module, "kernel", _host_kernels.kernel)
    monkeypatch.setattr(module, "on_device", lambda x: True)
    for name, launchers in list(sys.modules.items()):
        if name.startswith("skfisher.cuda.") and hasattr(launchers, "empty"):
            monkeypatch.setattr(launchers, "empty", full_of_nan)
    return _host_kernels

"""Kernels on the CPU: the seam that lets launchers run the CUDA sources without a GPU."""

import sys

import pytest

from skfisher.cuda import module

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


@pytest.fixture(scope="session")
def _host_kernels():
    need_a_compiler()
    return HostKernels()


@pytest.fixture
def kernels_on_cpu(_host_kernels, monkeypatch):
    """Let the launchers take NumPy arrays and run the kernels on the CPU.

    ``kernels_on_cpu.schedule = 0 | 1 | 2`` orders the threads of a block; the kernels
    ``kernels_on_cpu.launched`` tells whether a launcher was reached at all.
    """
    _host_kernels.schedule = 0
    _host_kernels.launched.clear()
    monkeypatch.delenv("SKFISHER_FUSED", raising=False)
    monkeypatch.setattr(module, "kernel", _host_kernels.kernel)
    monkeypatch.setattr(module, "on_device", lambda x: True)
    return _host_kernels

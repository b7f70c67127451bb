"""Every kernel of the launchers' tables compiles for every architecture, without spilling."""

import pytest

from skfisher.cuda.configurations import all_configurations
from skfisher.cuda.module import source

from .compile_kernels import ARCHITECTURES, Nvrtc, find_nvrtc


@pytest.fixture(scope="module")
def nvrtc():
    path = find_nvrtc()
    if path is None:
        pytest.skip("no libnvrtc: pip install nvidia-cuda-nvrtc")
    return Nvrtc(path)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_kernel_spills(nvrtc, arch):
    expressions = [configuration.expression for configuration in all_configurations()]
    _, usages = nvrtc.compile(source(), expressions, arch)
    report = "\n".join(map(str, usages))
    assert all(u.stack == u.spill_stores == u.spill_loads == 0 for u in usages), report
    assert all(0 < u.registers <= 255 for u in usages), report

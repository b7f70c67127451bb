"""Modules of PyTorch on a GPU: what they compute on the CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from skfisher.torch import PowerL2  # noqa: E402

from .test_layers import BAGS, MODULES, OFFSETS  # noqa: E402

pytestmark = pytest.mark.gpu
X = torch.from_numpy(np.concatenate(BAGS))


@pytest.fixture(autouse=True)
def device(cupy):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    torch.manual_seed(0)
    return "cuda"


def passed(module, device, dtype):
    """Return encodings and gradients of bags on a device, as they come."""
    module = module.to(device, dtype)
    module.zero_grad()
    x = X.to(device, dtype).requires_grad_()
    found = module(x, offsets=OFFSETS)
    weights = torch.linspace(-1, 1, found.numel(), device=device, dtype=dtype)
    (found * weights.reshape(found.shape)).sum().backward()
    return found.detach(), x.grad, *(p.grad for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_modules_compute_there_what_they_do_here(device, make, dtype):
    module = make()
    expected, found = (passed(module, where, dtype) for where in ("cpu", device))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == "cuda"
        assert a.dtype == dtype
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=tolerance * scale)


def test_normalisation_stays_there(device):
    x = torch.randn(5, 12, device=device, requires_grad=True)
    found = PowerL2()(x)
    found.square().cumsum(1).sum().backward()
    assert found.device.type == x.grad.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), PowerL2()(x.detach().cpu()), rtol=0, atol=1e-6)


def test_a_stream_of_pytorch_is_kept_to(device):
    module = MODULES["FisherVector"]().to(device, torch.float32)
    x = X.to(device, torch.float32)
    expected = module(x, offsets=OFFSETS)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        found = module(x * 1, offsets=OFFSETS)
    stream.synchronize()
    torch.testing.assert_close(found, expected.detach())

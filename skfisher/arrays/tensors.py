"""PyTorch tensors and arrays that share their memory, without importing PyTorch."""

import sys

from skfisher.arrays.devices import cuda_usable
from skfisher.arrays.libraries import from_dlpack

__all__ = ["as_array", "as_tensor", "is_tensor"]


def is_tensor(x):
    """Tell whether `x` is a PyTorch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def as_array(tensor, name="X"):
    """Return the NumPy array, or on a GPU the CuPy array, of the memory of a tensor.

    Parameters
    ----------
    tensor : torch.Tensor
    name : str
        What messages call it.

    Raises
    ------
    TypeError
        If no such array exists: for sparse tensors, dtypes of PyTorch's own, and devices
        that are neither the CPU nor a CUDA device.
    ValueError
        If the tensor is on a GPU that CuPy cannot use.
    """
    torch, device = sys.modules["torch"], tensor.device
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} is sparse: descriptors must be dense, write {name}.to_dense().")
    if tensor.dtype == torch.bfloat16:
        raise TypeError(f"{name} has dtype bfloat16: write {name}.float().")
    # gradients do not pass through estimators
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if device.type == "cpu":
        return tensor.numpy()
    if device.type != "cuda":
        raise TypeError(f"{name} is on {device}: move it to the CPU or to a CUDA device.")
    n_devices, reason = cuda_usable()
    if n_devices == 0:
        raise ValueError(f"{name} is on {device}, which needs CuPy and a visible GPU; {reason}")
    return from_dlpack(tensor)


def as_tensor(array):
    """Return the tensor of the memory of a NumPy or CuPy array; the array if PyTorch is gone."""
    torch = sys.modules.get("torch")
    return array if torch is None else torch.from_dlpack(array)

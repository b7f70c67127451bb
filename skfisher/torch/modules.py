"""PyTorch modules read as dense layers, without importing PyTorch before there is one."""

import sys

import numpy as np

__all__ = ["is_torch_module", "read_dense_layers"]

_TORCH_ACTIVATIONS = {"ReLU": "relu", "Tanh": "tanh", "Sigmoid": "logistic", "Identity": "identity"}
_TORCH_OUTPUTS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "logistic"}
_TORCH_SKIPPED = {"Dropout", "AlphaDropout", "Flatten", "Identity"}


def is_torch_module(x):
    """Tell whether `x` is a PyTorch module, without importing PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.nn.Module)


def read_dense_layers(module, layers=None):
    """Return the dense layers of a module; see `DenseHead.from_torch`.

    Parameters
    ----------
    module : torch.nn.Module
    layers : sequence of str, default=None

    Returns
    -------
    weights : list of arrays of shape (n_in, n_out)
    biases : list of arrays of shape (n_out,)
    activations : list of str or None
        None with `layers`, which do not tell.
    output : {"softmax", "logistic"}
    """
    if not is_torch_module(module):
        raise TypeError(f"from_torch reads a torch.nn.Module, got {type(module).__name__}.")
    if layers is None:
        linears, activations, output = _read_sequential(module)
    else:
        linears, activations, output = _named_linears(module, layers), None, "softmax"
    if len({id(linear.weight) for linear in linears}) < len(linears):
        raise ValueError(
            "A weight matrix is used by more than one layer: its gradient is a sum of outer "
            "products, not one."
        )
    biases = [
        np.zeros(linear.out_features, dtype=np.float32)
        if linear.bias is None
        else _torch_array(linear.bias)
        for linear in linears
    ]
    return [_torch_array(linear.weight).T for linear in linears], biases, activations, output


def _torch_array(parameter):
    tensor = parameter.detach().cpu()
    return (tensor if tensor.element_size() > 4 else tensor.float()).numpy()


def _read_sequential(module):
    """Return the Linear layers, the activations between them and the output of a Sequential."""
    import torch

    linears, activations, after = [], [], []
    for path, part in _flatten(module, torch):
        kind = type(part).__name__
        if isinstance(part, torch.nn.Linear):
            if linears:
                activations.append(_one_activation(after, path))
            linears, after = [*linears, part], []
        elif linears and (kind in _TORCH_ACTIVATIONS or kind in _TORCH_OUTPUTS):
            after = [*after, kind]
        elif kind not in _TORCH_SKIPPED:
            raise TypeError(
                f"Module {path!r} is a {kind}, which a dense head cannot hold: it takes Linear, "
                f"{', '.join(_TORCH_ACTIVATIONS)}, Dropout and Flatten. Compute what enters the "
                "head with the other modules, or name the Linear layers with `layers`."
            )
    if not linears:
        raise ValueError("The module has no torch.nn.Linear.")
    closing = [kind for kind in after if kind != "Identity"]
    if closing and (len(closing) > 1 or closing[0] not in _TORCH_OUTPUTS):
        raise TypeError(
            f"The head ends in {closing}; outputs may be closed by "
            f"{', '.join(_TORCH_OUTPUTS)} alone."
        )
    return linears, activations, _TORCH_OUTPUTS[closing[0]] if closing else "softmax"


def _flatten(module, torch, path=""):
    if isinstance(module, torch.nn.Sequential):
        # named_children would leave out a module that stands at a second place
        for place, part in enumerate(module):
            yield from _flatten(part, torch, f"{path}.{place}" if path else str(place))
    else:
        yield path, module


def _one_activation(kinds, path):
    kinds = [kind for kind in kinds if kind != "Identity"] or ["Identity"]
    if len(kinds) > 1 or kinds[0] not in _TORCH_ACTIVATIONS:
        raise TypeError(f"Between the Linear before module {path!r} and itself stand {kinds}.")
    return _TORCH_ACTIVATIONS[kinds[0]]


def _named_linears(module, layers):
    import torch

    found = {
        name: part for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)
    }
    for name in layers:
        if name not in found:
            raise ValueError(
                f"The module has no torch.nn.Linear named {name!r}; it has {sorted(found)}."
            )
    return [found[name] for name in layers]

"""The bridge to PyTorch: pooling layers as modules, and modules read as dense layers.

PyTorch is imported when a module of it is asked for, not before.
"""

import importlib

__all__ = ["VLAD", "CompactBilinear", "FisherVector", "PowerL2", "SecondOrderPooling"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'skfisher.torch' has no attribute {name!r}.")
    try:
        file = "normalization" if name == "PowerL2" else "layers"
        module = importlib.import_module(f"skfisher.torch.{file}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            f"skfisher.torch.{name} needs PyTorch, which is not installed: install skfisher[torch]."
        ) from error
    return getattr(module, name)


def __dir__():
    return __all__

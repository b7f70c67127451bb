"""What the modules of pooling layers share: parameters, input, start, and how encoders come in."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfisher.bags.bags import Bags
from skfisher.torch.operator import pooled
from skfisher.torch.passes import Operation
from skfisher.torch.rows import as_rows

__all__ = ["Pooling"]

# Rows of a normal distribution, for each entry of a codebook, that it is fitted to at first.
FIRST_ROWS = 16


class Pooling(nn.Module):
    """Base class of modules that pool the descriptors of bags.

    Parameters are those of a pooling layer, free of constraints; what is trained of them is
    `torch.nn.Parameter`, the rest are buffers. A subclass says which estimator it is the module of,
    by `_estimator`, and by ``_read(encoder)`` the layer and the parameters of a fitted one.
    """

    def __init__(self, layer, n_features, *, n_entries=1, device=None, dtype=None):
        super().__init__()
        layer.check(n_features)
        n_rows = max(layer.n_least_rows, FIRST_ROWS * n_entries)
        rows = torch.randn(n_rows, n_features, dtype=torch.float64).numpy()
        seed = int(torch.randint(2**31 - 1, ()))
        self._build(layer, layer.start(Bags.from_lengths(rows, [n_rows]), seed), n_features)
        self.to(device, dtype or torch.get_default_dtype())

    def _build(self, layer, p, n_features):
        trained = tuple(name for names in layer.groups.values() for name in names)
        constants = tuple(name for name in p if name not in trained)
        for name in trained:
            self.register_parameter(name, nn.Parameter(torch.tensor(p[name])))
        for name in constants:
            self.register_buffer(name, torch.tensor(p[name]))
        self._operation = Operation(layer, trained, constants, n_features)
        self._name = self._operation.register(self._values())

    def __setstate__(self, state):
        super().__setstate__(state)
        self._name = self._operation.register(self._values())

    @classmethod
    def from_estimator(cls, encoder, *, device=None, dtype=None):
        """Return the module of a fitted encoder.

        Parameters
        ----------
        encoder : estimator
            A fitted encoder of the class that the module corresponds to. Its `normalize` is not
            part of the module: put `PowerL2` after it.
        device, dtype
            Device and dtype of the parameters.

        Returns
        -------
        module : Pooling

        Raises
        ------
        TypeError
            If the encoder is of another class.
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        """
        if not isinstance(encoder, cls._estimator):
            raise TypeError(
                f"{cls.__name__}.from_estimator reads a {cls._estimator.__name__}, got "
                f"{type(encoder).__name__}."
            )
        check_is_fitted(encoder)
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module._build(*cls._read(encoder), encoder.n_features_in_)
        return module.to(device, dtype or torch.get_default_dtype())

    def _values(self):
        names = (*self._operation.trained, *self._operation.constants)
        return [getattr(self, name) for name in names]

    def _parameters_now(self):
        return self._operation.parameters(self._values())

    def _load(self, p):
        with torch.no_grad():
            for name, value in p.items():
                getattr(self, name).copy_(torch.as_tensor(np.asarray(value)))

    def forward(self, x, *, lengths=None, mask=None, offsets=None):
        """Encode bags of descriptors.

        Parameters
        ----------
        x : torch.Tensor
            Descriptors, float32 or float64: padded bags of shape (B, T, D), with `lengths` or
            `mask` unless all have T; packed ones of shape (N, D), with `offsets`; a jagged nested
            tensor; or feature maps of shape (B, D, H, W), whose places are the descriptors.
        lengths : int tensor of shape (B,), optional
        mask : bool tensor of shape (B, T), optional
        offsets : int tensor of shape (B + 1,), optional
            Bag ``i`` holds the rows ``offsets[i]:offsets[i + 1]``.

        Returns
        -------
        encodings : torch.Tensor of shape (B, n_features_out)
            Of the dtype and on the device of `x`; under autocast, float32.
        """
        rows, starts, stops = as_rows(x, lengths=lengths, mask=mask, offsets=offsets)
        if rows.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(
            rows.device.type
        ):
            rows = rows.float()
        return pooled(rows, starts, stops, self._values(), self._name)

    def start(self, batches, *, of=None, seed=0):
        """Fit the codebook to descriptors, without labels, to replace the random one.

        Parameters
        ----------
        batches : iterable
            Batches that `forward` takes, or tuples or lists that begin with one, such as a
            ``DataLoader``.
        of : callable, optional
            Function applied to each batch, such as the network before this module.
        seed : int
            Seed of the sample of descriptors, and of the fit.

        Returns
        -------
        self : Pooling
        """
        layer, rng = self._operation.layer, np.random.default_rng(seed)
        rows, keys = np.empty((0, self._operation.n_features)), np.empty(0)
        with torch.no_grad():
            for batch in batches:
                x = batch[0] if isinstance(batch, tuple | list) else batch
                x, starts, stops = as_rows(x if of is None else of(x))
                new = np.concatenate(
                    [x[a:b].cpu().double().numpy() for a, b in zip(starts, stops, strict=True)]
                )
                rows, keys = np.concatenate([rows, new]), np.append(keys, rng.random(len(new)))
                kept = np.sort(np.argsort(keys, kind="stable")[: layer.n_start_rows])
                rows, keys = rows[kept], keys[kept]
        if len(rows) < layer.n_least_rows:
            raise ValueError(
                f"batches have {len(rows)} descriptors, but the start needs {layer.n_least_rows}: "
                "pass more batches."
            )
        self._load(layer.start(Bags.from_lengths(rows, [len(rows)]), seed))
        return self

    @property
    def n_features_out(self):
        """Width of the encodings."""
        return self._operation.layer.n_out(self._parameters_now())

    def extra_repr(self):
        """Return the widths."""
        return f"{self._operation.n_features} -> {self.n_features_out}"

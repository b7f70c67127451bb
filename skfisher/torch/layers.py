"""Modules of PyTorch that pool descriptors into encodings, with gradients computed here."""

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import nn

from skfisher.bags.bags import Bags
from skfisher.codebooks.em import Mixture
from skfisher.codebooks.mixture import DiagonalGaussianMixture
from skfisher.encoders.fisher import FisherVectorEncoder
from skfisher.layers.fisher import FisherPooling
from skfisher.torch.operator import Operation, normalize, pooled
from skfisher.torch.rows import as_rows

__all__ = ["FisherVector", "PowerL2"]

# Rows of a normal distribution, for each entry of a codebook, that it is fitted to at first.
FIRST_ROWS = 16


class Pooling(nn.Module):
    """Base class of modules that pool the descriptors of bags.

    Parameters are those of a pooling layer, free of constraints; what is trained of them is
    `torch.nn.Parameter`, the rest are buffers.
    """

    def __init__(self, layer, n_features, *, n_entries=1, device=None, dtype=None):
        super().__init__()
        layer.check(n_features)
        n_rows = max(layer.n_least_rows, FIRST_ROWS * n_entries)
        rows = torch.randn(n_rows, n_features, dtype=torch.float64).numpy()
        p = layer.start(Bags.from_lengths(rows, [n_rows]), int(torch.randint(2**31 - 1, ())))
        trained = tuple(name for names in layer.groups.values() for name in names)
        constants = tuple(name for name in p if name not in trained)
        for name in trained:
            value = torch.tensor(p[name], device=device, dtype=dtype or torch.get_default_dtype())
            self.register_parameter(name, nn.Parameter(value))
        for name in constants:
            value = torch.tensor(p[name], device=device, dtype=dtype or torch.get_default_dtype())
            self.register_buffer(name, value)
        self._operation = Operation(layer, trained, constants, n_features)
        self._name = self._operation.register(self._values())

    def __setstate__(self, state):
        super().__setstate__(state)
        self._name = self._operation.register(self._values())

    def _values(self):
        names = (*self._operation.trained, *self._operation.constants)
        return [getattr(self, name) for name in names]

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
        """Fit the codebook to descriptors, without labels, in the place of the random one.

        Parameters
        ----------
        batches : iterable
            Of what `forward` takes, or of tuples or lists that begin with it, such as a
            ``DataLoader``.
        of : callable, optional
            Applied to each batch, such as the network before this module.
        seed : int
            Of the sample of descriptors, and of the fit.

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
        return self._operation.layer.n_out(self._operation.parameters(self._values()))

    def extra_repr(self):
        """Return the widths."""
        return f"{self._operation.n_features} -> {self.n_features_out}"


class FisherVector(Pooling):
    r"""Fisher vectors of bags of descriptors, under a mixture that is trained.

    The mixture of K diagonal Gaussians has the free parameters ``weight_logits``, ``means`` and
    ``log_variances``: weights are their softmax, variances :math:`v = \varepsilon + e^\zeta`.
    Encodings are those of :class:`skfisher.FisherVectorEncoder`, in its order; let `PowerL2` and
    ``torch.nn.Linear`` follow.

    Parameters
    ----------
    n_components : int
    n_features : int
        Width of a descriptor.
    include_weights : bool, default=True
        Whether the gradients by the weights are part of the encodings.
    max_iter : int, default=2
        Iterations of EM, in `start`.
    variance_floor : float, default=0.3
        Smallest variance that EM leaves, as a share of the global one; a tenth in training.
    device, dtype
        Of the parameters.

    See Also
    --------
    skfisher.FisherVectorEncoder : The same without PyTorch.

    References
    ----------
    Sánchez, Perronnin, Mensink and Verbeek (2013), equations (16)-(18); trained, Wieschollek, Groh
    and Lensch (2017).
    """

    def __init__(
        self,
        n_components,
        n_features,
        *,
        include_weights=True,
        max_iter=2,
        variance_floor=0.3,
        device=None,
        dtype=None,
    ):
        layer = FisherPooling(
            n_components=n_components,
            include_weights=include_weights,
            max_iter=max_iter,
            variance_floor=variance_floor,
        )
        super().__init__(layer, n_features, n_entries=n_components, device=device, dtype=dtype)

    @classmethod
    def from_estimator(cls, encoder, *, device=None, dtype=None):
        """Return the module of a fitted encoder.

        Parameters
        ----------
        encoder : FisherVectorEncoder
            Fitted. Its `normalize` is not part of the module.
        device, dtype
            Of the parameters.

        Returns
        -------
        module : FisherVector
        """
        mixture = Mixture(encoder.weights_, encoder.means_, encoder.variances_)
        k, d = mixture.means.shape
        options = {name: getattr(encoder, name) for name in ("include_weights", "max_iter")}
        module = cls(
            k, d, **options, variance_floor=encoder.variance_floor, device=device, dtype=dtype
        )
        mean = mixture.weights @ mixture.means
        spread = mixture.weights @ (mixture.variances + mixture.means**2) - mean**2
        least = mixture.variances.min(axis=0)
        floor = np.minimum(spread * encoder.variance_floor / 10, least / 2)
        layer = module._operation.layer
        module._load(layer.free(mixture, {"variance_floor": floor, "global_variance": spread}))
        return module

    def to_estimator(self):
        """Return a fitted encoder of the same mixture.

        Returns
        -------
        encoder : FisherVectorEncoder
        """
        layer = self._operation.layer
        weights, means, variances = layer.mixture_of(self._operation.parameters(self._values()))
        mixture = GaussianMixture(len(weights), covariance_type="diag")
        mixture.weights_, mixture.means_, mixture.covariances_ = weights, means, variances
        mixture.precisions_cholesky_ = 1 / np.sqrt(variances)
        encoder = FisherVectorEncoder(
            len(weights),
            include_weights=layer.include_weights,
            mixture=DiagonalGaussianMixture.from_sklearn(mixture),
            max_iter=layer.max_iter,
            variance_floor=layer.variance_floor,
        )
        return encoder.fit([means])


class PowerL2(nn.Module):
    r"""Signed power, then unit length: what Fisher vectors need before a linear classifier.

    .. math:: u = \operatorname{sign}(x) |x|^\alpha, \qquad y = u / \lVert u \rVert_2

    Parameters
    ----------
    power : float, default=0.5
    eps : float, default=1e-4
        Entries below this size are not raised to the power but scaled, so that the gradient
        stays finite; None for the exact power.

    References
    ----------
    Perronnin, Sánchez and Mensink (2010), section 3.
    """

    def __init__(self, power=0.5, eps=1e-4):
        super().__init__()
        self.power, self.eps = power, eps

    def forward(self, x):
        """Normalise rows.

        Parameters
        ----------
        x : torch.Tensor of shape (B, n)

        Returns
        -------
        y : torch.Tensor of shape (B, n)
        """
        return normalize(x, float(self.power), 0.0 if self.eps is None else float(self.eps))

    def extra_repr(self):
        """Return the settings."""
        return f"power={self.power}, eps={self.eps}"

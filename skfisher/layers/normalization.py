"""Power and L2 normalisation, and centring, as layers of encodings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp

__all__ = ["Centering", "PowerL2", "normalization_of"]


@dataclass(frozen=True)
class PowerL2:
    """The row layer of `skfisher.ops.normalization`, without parameters.

    Parameters
    ----------
    power : float
    eps : float or None
        Of the smooth power, whose slope at 0 is finite; None for the exact one.
    blocks : callable, optional
        Returns the label of each column for the parameters of the chain: columns of one label are
        scaled to unit length before the whole row is.
    """

    power: float = 0.5
    eps: float | None = None
    blocks: Callable | None = None
    groups: ClassVar[dict[str, tuple[str, ...]]] = {}

    def prepare(self, p, dtype):
        """Return the labels of the columns, or None."""
        return None if self.blocks is None else self.blocks(p)

    def apply(self, q, x):
        """Return the normalised rows."""
        return power_l2_normalize(x, power=self.power, blocks=q, eps=self.eps)

    def vjp(self, q, g, x, y, *, with_x):
        """Return ``d_x`` or None, and no gradients by parameters."""
        if not with_x:
            return None, {}
        return power_l2_normalize_vjp(g, x, power=self.power, blocks=q, eps=self.eps), {}


def normalization_of(pooling, power, eps):
    """Return the layer that normalises what a pooling layer makes.

    By power and length, unless the layer has an attribute `normalize` that says otherwise: "l2",
    by length alone, "intra", by the length of each block of its method ``blocks(p)`` and then
    by that of the whole, or "power-intra", by power and then so.
    """
    kind = getattr(pooling, "normalize", None)
    if kind == "l2":
        return PowerL2(1.0)
    if kind == "intra":
        return PowerL2(1.0, blocks=pooling.blocks)
    if kind == "power-intra":
        return PowerL2(power, eps, blocks=pooling.blocks)
    return PowerL2(power, eps)


@dataclass(frozen=True)
class Centering:
    r"""The row layer :math:`y = (x - m) / s`, which keeps mean and scale as constants.

    Encodings of unit length share most of their length with their mean: a linear classifier
    without that mean needs less of a coefficient for the same margin, and descends faster.
    """

    groups: ClassVar[dict[str, tuple[str, ...]]] = {}

    def start(self, encodings):
        """Return the constants: the mean of encodings, and how long they are without it."""
        mean = encodings.mean(axis=0, dtype=np.float64)
        length = np.linalg.norm(encodings - mean, axis=1).mean()
        return {"encoding_mean": mean, "encoding_scale": np.array(length or 1.0)}

    def prepare(self, p, dtype):
        """Return mean and scale."""
        return p["encoding_mean"], float(p["encoding_scale"])

    def apply(self, q, x):
        """Return the centred rows."""
        mean, scale = q
        return (x - mean.astype(x.dtype, copy=False)) / scale

    def vjp(self, q, g, x, y, *, with_x):
        """Return ``d_x`` or None, and no gradients by parameters."""
        return (g / q[1] if with_x else None), {}

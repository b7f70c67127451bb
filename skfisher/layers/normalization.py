"""Power and L2 normalisation, and centring, as layers of encodings."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp

__all__ = ["Centering", "PowerL2"]


@dataclass(frozen=True)
class PowerL2:
    """The row layer of `skfisher.ops.normalization`, without parameters.

    Parameters
    ----------
    power : float
    eps : float or None
        Of the smooth power, whose slope at 0 is finite; None for the exact one.
    """

    power: float = 0.5
    eps: float | None = None
    groups: ClassVar = {}

    def prepare(self, p, dtype):
        """Return None: rows share nothing."""

    def apply(self, q, x):
        """Return the normalised rows."""
        return power_l2_normalize(x, power=self.power, eps=self.eps)

    def vjp(self, q, g, x, y, *, with_x):
        """Return ``d_x`` or None, and no gradients by parameters."""
        if not with_x:
            return None, {}
        return power_l2_normalize_vjp(g, x, power=self.power, eps=self.eps), {}


@dataclass(frozen=True)
class Centering:
    r"""The row layer :math:`y = (x - m) / s`, which keeps mean and scale as constants.

    Encodings of unit length share most of their length with their mean: a linear classifier
    without that mean needs less of a coefficient for the same margin, and descends faster.
    """

    groups: ClassVar = {}

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

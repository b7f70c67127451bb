"""Feature maps as layers: each descriptor goes through a map that can be trained."""

from dataclasses import dataclass
from typing import ClassVar

from skfisher.arrays.libraries import asarray
from skfisher.ops.feature_map import linear_map, linear_map_vjp, tanh_map, tanh_map_vjp

__all__ = ["FeatureMap"]

NAMES = ("map_weight", "map_bias")
MAPS = {"tanh": tanh_map, "linear": linear_map}


@dataclass(frozen=True)
class FeatureMap:
    r"""The row layer :math:`y = \tanh(W x + b)` or :math:`y = W x + b`.

    Its parameters are ``map_weight`` (d_out, d) and ``map_bias`` (d_out,).

    Source: Wieschollek, Groh and Lensch (2017), section 4.

    Parameters
    ----------
    kind : {"tanh", "linear"}
    """

    kind: str
    groups: ClassVar = {"features": NAMES}

    def prepare(self, p, dtype):
        """Return weight and bias in a dtype."""
        return [p[name].astype(dtype, copy=False) for name in NAMES]

    def apply(self, q, x):
        """Return the mapped rows."""
        return MAPS[self.kind](x, *(asarray(a, like=x) for a in q))

    def vjp(self, q, g, x, y, *, with_x):
        """Return ``d_x`` or None, and the gradients by weight and bias."""
        q = [asarray(a, like=x) for a in q]
        if self.kind == "tanh":
            d_x, *gradients = tanh_map_vjp(g, x, *q, y=y, with_x=with_x)
        else:
            d_x, *gradients = linear_map_vjp(g, x, *q, with_x=with_x)
        return d_x, dict(zip(NAMES, gradients, strict=True))

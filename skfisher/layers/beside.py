"""Columns that a row layer leaves as they are, such as the positions of descriptors."""

from dataclasses import dataclass
from typing import Any

from skfisher.arrays.libraries import array_module

__all__ = ["Beside"]


@dataclass(frozen=True)
class Beside:
    """A row layer of all but the last columns, which stay beside what it returns.

    Parameters
    ----------
    layer : RowLayer
    n_columns : int
    """

    layer: Any
    n_columns: int

    @property
    def groups(self):
        """Those of the layer."""
        return self.layer.groups

    @property
    def n_out(self):
        """Width of the rows that it returns, if the layer tells its own."""
        return self.layer.n_out + self.n_columns

    def prepare(self, p, dtype):
        """Return what the layer shares between all rows."""
        return self.layer.prepare(p, dtype)

    def apply(self, q, x):
        """Return what the layer makes of the first columns, and the last."""
        of_layer, beside = self._split(x)
        return array_module(x).concatenate([self.layer.apply(q, of_layer), beside], axis=1)

    def vjp(self, q, g, x, y, *, with_x):
        """Return ``d_x`` or None, and the gradients by the parameters of the layer."""
        (g, d_beside), (x, _), (y, _) = map(self._split, (g, x, y))
        d_x, gradients = self.layer.vjp(q, g, x, y, with_x=with_x)
        if with_x:
            d_x = array_module(d_x).concatenate([d_x, d_beside], axis=1)
        return d_x, gradients

    def _split(self, x):
        return x[:, : -self.n_columns], x[:, -self.n_columns :]

r"""Energies along directions that can be trained, as a layer: low-rank bilinear pooling.

.. math:: e_j = \frac{1}{T} \sum_t \langle u_j, x_t \rangle^2

A linear classifier of them scores the second moments M of a bag by
:math:`\operatorname{tr}(U^\top \operatorname{diag}(c) U M)`: a matrix of low rank for every class.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skfisher.arrays.libraries import asarray
from skfisher.codebooks.moments import second_moments
from skfisher.ops.bilinear import energy_sums, energy_sums_vjp
from skfisher.ops.outer_products import principal_axes

__all__ = ["EnergyPooling"]


@dataclass(frozen=True)
class EnergyPooling:
    """The pooling layer of energies along directions.

    Parameters
    ----------
    n_components : int
        How many directions.
    normalize : {"power-l2", "l2"} or None
        How a classifier wants the encodings.
    """

    n_components: int = 64
    normalize: str | None = "power-l2"

    groups: ClassVar = {"directions": ("directions",)}
    n_start_rows: ClassVar = 2**16
    n_least_rows: ClassVar = 1

    def check(self, n_features):
        """Accept any width."""

    def start(self, bags, seed):
        """Return principal axes of the second moments; beyond their number, random directions."""
        return self.start_from(second_moments(bags, products=True), seed)

    def start_from(self, moments, seed):
        """Return the directions to start from, for the moments of the descriptors."""
        d = len(moments.mean)
        axes, _ = principal_axes(moments.covariance + np.outer(moments.mean, moments.mean), d)
        more = np.random.default_rng(seed).normal(size=(max(0, self.n_components - d), d))
        more /= np.linalg.norm(more, axis=1, keepdims=True)
        return {"directions": np.concatenate([axes.T, more])[: self.n_components]}

    def prepare(self, p, dtype):
        """Return the directions in the dtype of the descriptors."""
        return p["directions"].astype(dtype, copy=False)

    def sums(self, q, x, starts, stops):
        """Return the sums of squares along each direction."""
        return (energy_sums(x, starts, stops, asarray(q, like=x)),)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and the gradient by the directions."""
        q = asarray(q, like=x)
        d_x, d_directions = energy_sums_vjp(*g, x, starts, stops, q, with_x=with_x)
        return d_x, {"directions": d_directions}

    def read(self, q, sums, counts):
        """Return the means of the squares."""
        return sums[0] / counts[:, None]

    def read_vjp(self, q, g, sums, counts):
        """Return the gradient at the sums."""
        return (g / counts[:, None],), {}

    def prepare_vjp(self, q, g):
        """Return the gradient by the directions: they are parameters as they are."""
        return g

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        return 24 * len(p["directions"]), 16 * len(p["directions"])

    def n_out(self, p):
        """Return the width of an encoding."""
        return len(p["directions"])

    def attributes(self, p):
        """Return ``directions_``."""
        return {"directions_": p["directions"]}

    def parameters(self, attributes):
        """Return the directions."""
        return {"directions": attributes["directions_"]}

    def names(self, p):
        """Return ``energy_0``, ``energy_1``, ..."""
        return [f"energy_{i}" for i in range(len(p["directions"]))]

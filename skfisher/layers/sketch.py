"""Sketches of powers of the descriptors as a layer: compact bilinear and kernel pooling."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.utils import check_random_state

from skfisher.arrays.libraries import array_module, empty
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.ops.sketch import sketch_sums, sketch_sums_vjp

__all__ = ["SketchPooling"]


class Order(NamedTuple):
    """A power of the descriptors, and where its sketch lies in an encoding."""

    buckets: np.ndarray  # (order, d)
    signs: np.ndarray
    columns: slice


@dataclass(frozen=True)
class SketchPooling:
    r"""The pooling layer of tensor sketches: nothing in it is trained, all goes through it.

    Without a kernel an encoding is the mean of the sketches of :math:`x^{\otimes p}`. With it, of
    the features of the kernel's Taylor polynomial on the sphere,

    .. math:: e^{-\gamma \lVert x - y \rVert^2} = \sum_p \beta_p^2 \langle x, y \rangle^p, \qquad
              \beta_p^2 = e^{-2 \gamma} \frac{(2 \gamma)^p}{p!},

    with descriptors scaled to unit length: :math:`\beta_0`, :math:`\beta_1 x`, and
    :math:`\beta_p` times the sketches of the orders from 2 on.

    Parameters
    ----------
    n_components : int
        Entries of each sketch.
    degree : int
        The power, or the highest of the kernel's.
    gamma : float or None
        Of the kernel; None for no kernel.
    normalize : {"power-l2", "l2"} or None
        How a classifier wants the encodings.
    """

    n_components: int = 4096
    degree: int = 2
    gamma: float | None = None
    normalize: str | None = "power-l2"

    groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    n_start_rows: ClassVar = 1
    n_least_rows: ClassVar = 1

    @property
    def _orders(self):
        return [self.degree] if self.gamma is None else list(range(2, self.degree + 1))

    def check(self, n_features):
        """Accept any width."""

    def start(self, bags, seed):
        """Return the hashes, those of scikit-learn's `PolynomialCountSketch` for this seed."""
        return self.drawn(bags.n_features, seed)

    def drawn(self, n_features, random_state):
        """Return the hashes of all orders, one below the other."""
        random_state = check_random_state(random_state)
        found = [
            PolynomialCountSketch(
                degree=order, gamma=1, coef0=0,
                n_components=self.n_components, random_state=random_state,
            ).fit(np.zeros((1, n_features)))
            for order in self._orders
        ]  # fmt: skip
        none = np.empty((0, n_features), dtype=np.int64)
        return {
            "buckets": np.concatenate([none, *(sketch.indexHash_ for sketch in found)]),
            "signs": np.concatenate([none, *(sketch.bitHash_ for sketch in found)]),
        }

    def prepare(self, p, dtype):
        """Return the orders."""
        first, column, orders = 0, self._n_exact(p), []
        for order in self._orders:
            rows, columns = slice(first, first + order), slice(column, column + self.n_components)
            orders.append(Order(p["buckets"][rows], p["signs"][rows], columns))
            first, column = rows.stop, columns.stop
        return orders, self._n_exact(p), column

    def sums(self, q, x, starts, stops):
        """Return the sums of descriptors and sketches, side by side."""
        orders, n_exact, n_out = q
        sums = empty((len(starts), n_out), like=x, dtype=np.float64)
        if n_exact:
            x = power_l2_normalize(x, power=1)
            xp = array_module(x)
            for bag, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
                sums[bag, 0] = stop - start
                xp.sum(x[start:stop], axis=0, dtype=np.float64, out=sums[bag, 1:n_exact])
        for buckets, signs, columns in orders:
            sums[:, columns] = sketch_sums(x, starts, stops, buckets, signs, self.n_components)
        return (sums,)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and no gradients by what was prepared."""
        if not with_x:
            return None, {}
        orders, n_exact, _ = q
        (g,) = g
        y = power_l2_normalize(x, power=1) if n_exact else x
        d_y = array_module(x).zeros_like(x)
        if n_exact:
            for bag, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
                d_y[start:stop] += g[bag, 1:n_exact].astype(x.dtype)
        for buckets, signs, columns in orders:
            d_y += sketch_sums_vjp(
                g[:, columns], y, starts, stops, buckets, signs, self.n_components
            )
        return (power_l2_normalize_vjp(d_y, x, power=1) if n_exact else d_y), {}

    def read(self, q, sums, counts):
        """Return the means, times the square roots of the kernel's coefficients."""
        return sums[0] * self._factors(q, counts)

    def read_vjp(self, q, g, sums, counts):
        """Return the gradient at the sums."""
        return (g * self._factors(q, counts),), {}

    def _factors(self, q, counts):
        orders, n_exact, n_out = q
        factors = np.ones(n_out)
        if n_exact:
            factors[0], factors[1:n_exact] = self._beta(0), self._beta(1)
            for order in orders:
                factors[order.columns] = self._beta(len(order.buckets))
        return factors / counts[:, None]

    def _beta(self, order):
        reach = 2 * self.gamma
        log = order * math.log(reach) - math.lgamma(order + 1) - reach
        return math.exp(log / 2)

    def prepare_vjp(self, q, g):
        """Return no gradients: the hashes are as they were drawn."""
        return {}

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        d = p["buckets"].shape[1]
        return 16 * d, 8 * (self.n_out(p) + 2 * d * d)

    def _n_exact(self, p):
        return 0 if self.gamma is None else 1 + p["buckets"].shape[1]

    def n_out(self, p):
        """Return the width of an encoding."""
        return self._n_exact(p) + len(self._orders) * self.n_components

    def attributes(self, p):
        """Return ``buckets_`` and ``signs_``."""
        return {"buckets_": p["buckets"], "signs_": p["signs"]}

    def parameters(self, attributes):
        """Return the hashes."""
        return {"buckets": attributes["buckets_"], "signs": attributes["signs_"]}

    def names(self, p):
        """Return the names of the columns, for descriptors d0, d1, ..."""
        return self.names_of([f"d{j}" for j in range(p["buckets"].shape[1])])

    def names_of(self, dimensions):
        """Return ``sketch_0``, ...; of a kernel ``constant``, ``mean_d0``, ..., ``order2_0``."""
        if self.gamma is None:
            return [f"sketch_{i}" for i in range(self.n_components)]
        names = ["constant", *(f"mean_{name}" for name in dimensions)]
        return names + [f"order{p}_{i}" for p in self._orders for i in range(self.n_components)]

"""Fisher vectors as a layer: sums under a mixture, and what is read off them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skfisher.arrays.libraries import to_host
from skfisher.codebooks.em import Mixture
from skfisher.cuda.layout import scratch_bytes
from skfisher.cuda.statistics import takes
from skfisher.layers.mixture import MixtureLayer
from skfisher.native import statistics as native
from skfisher.ops.fisher import (
    fisher_from_statistics,
    fisher_from_statistics_vjp,
    fisher_sums,
    fisher_sums_vjp,
    fisher_vector,
    fisher_vector_vjp,
)
from skfisher.ops.gaussian import framed_logits, logit_coefficients_vjp, scale_of
from skfisher.ops.soft_assignment import Sums

__all__ = ["FisherPooling"]

COEFFICIENTS = ("linear", "quadratic", "constant")  # as in `logit_coefficients`


@dataclass(frozen=True)
class PreparedMixture:
    """A mixture, and the same in the coordinates that sums are taken in, when these are needed."""

    given: Mixture
    dtype: np.dtype
    parameters: dict

    @cached_property
    def _framed(self):
        like = np.empty((0, 1), dtype=self.dtype)
        frame, parameters, _ = framed_logits(like, *self.given)
        return frame, Mixture(*parameters)

    @property
    def frame(self):
        """The coordinates, `Frame` or None."""
        return self._framed[0]

    @property
    def mixture(self):
        """The mixture in them."""
        return self._framed[1]


@dataclass(frozen=True)
class FisherPooling(MixtureLayer):
    """The pooling layer of Fisher vectors.

    Parameters
    ----------
    n_components, mixture, max_iter, variance_floor, weight_map
        As of `MixtureLayer`.
    include_weights : bool
        Whether the gradients by the weights are part of the encodings.
    """

    include_weights: bool = True

    def prepare(self, p, dtype):
        """Return the mixture, as it is and in the coordinates of the sums."""
        return PreparedMixture(self.mixture_of(p), dtype, p)

    def encode(self, q, x, starts, stops, out=None):
        """Return Fisher vectors, of the dtype of the descriptors and where they are."""
        return fisher_vector(
            x, starts, stops, *q.given, include_weights=self.include_weights, out=out
        )

    def encode_vjp(self, q, g, x, starts, stops, *, with_x, with_parameters):
        """Return ``d_x`` or None, and the gradients by the free parameters, for `g` at `encode`."""
        d_x, *d_mixture = fisher_vector_vjp(
            g, x, starts, stops, *q.given, include_weights=self.include_weights,
            with_x=with_x, with_parameters=with_parameters,
        )  # fmt: skip
        if not with_parameters:
            return d_x, {}
        return d_x, self.free_vjp([to_host(d) for d in d_mixture], q.parameters)

    def has_kernel(self, q, x):
        """Tell whether a kernel encodes these descriptors."""
        return native.takes(x) or takes(x, *q.given)

    def sums(self, q, x, starts, stops):
        """Return S0, S1 and S2 of each bag."""
        return fisher_sums(x, starts, stops, *q.given)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and the gradients by the coefficients of the logits."""
        d_x, d_coefficients = fisher_sums_vjp(Sums(*g), x, starts, stops, *q.given, with_x=with_x)
        return d_x, dict(zip(COEFFICIENTS, d_coefficients, strict=True))

    def read(self, q, sums, counts, out=None):
        """Return the Fisher vectors, in `out` or a new float64 array."""
        return fisher_from_statistics(
            Sums(*sums), counts, *q.mixture, include_weights=self.include_weights, out=out
        )

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums, and those by the mixture with the sums held."""
        d_sums, *direct = fisher_from_statistics_vjp(
            g, Sums(*sums), counts, *q.mixture, include_weights=self.include_weights
        )
        return d_sums, dict(zip(Mixture._fields, direct, strict=True))

    def prepare_vjp(self, q, g):
        """Return the gradients by the free parameters."""
        direct = [g[name] for name in Mixture._fields]
        via = logit_coefficients_vjp([g[name] for name in COEFFICIENTS], *q.mixture)
        d_weights, d_means, d_variances = (a + b for a, b in zip(direct, via, strict=True))
        scale = scale_of(q.frame)
        return self.free_vjp((d_weights, d_means / scale, d_variances / scale**2), q.parameters)

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        return scratch_bytes(*self.means_of(p).shape)

    def n_out(self, p):
        """Return the width of a Fisher vector."""
        k, d = self.means_of(p).shape
        return k * (2 * d + 1) if self.include_weights else 2 * k * d

    def names(self, p):
        """Return ``weight_k0``, ..., ``mean_k0_d0``, ..., ``variance_k0_d0``, ..."""
        k, d = self.means_of(p).shape
        names = [f"weight_k{i}" for i in range(k)] if self.include_weights else []
        for block in ("mean", "variance"):
            names += [f"{block}_k{i}_d{j}" for i in range(k) for j in range(d)]
        return names

r"""Second-order pooling under a mixture: a Gaussian embedding for each component.

.. math:: M_k = \frac{1}{T} \sum_t \gamma_{tk} z_t z_t^\top, \quad z_t = (y_t, 1)
          \;\to\; M_k^\alpha \;\to\; \text{upper triangle}

with y the descriptors standardised by the moments of the mixture that the layer starts from, under
the constants ``descriptor_mean`` and ``descriptor_scale`` (d,).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skfisher.arrays.libraries import asarray
from skfisher.codebooks.em import Mixture
from skfisher.layers.fisher import COEFFICIENTS
from skfisher.layers.mixture import MixtureLayer
from skfisher.layers.second_order import refuse_long
from skfisher.ops.chunks import Frame
from skfisher.ops.gated_moments import gated_moments, gated_moments_vjp
from skfisher.ops.gaussian import frame_on_host, logit_coefficients, logit_coefficients_vjp
from skfisher.ops.matrix_function import eigen, matrix_function, matrix_function_vjp
from skfisher.ops.triangle import triangle, triangle_vjp

__all__ = ["MixtureMatrixPooling"]

# Eigenvalues that count as 0, as a share of those of all components: where no descriptor is near,
# float32 has no digits of posteriors.
LEAST = 1e-24


@dataclass
class PreparedGates:
    """A mixture in standardised coordinates, and the last bags that were read."""

    frame: Frame
    mixture: Mixture
    move: np.ndarray  # (d + 1, d + 1), from the frame's shift to the mean
    dtype: np.dtype  # of products of descriptors
    parameters: dict
    kept: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class MixtureMatrixPooling(MixtureLayer):
    """The pooling layer of Gaussian embeddings under the components of a mixture.

    Parameters
    ----------
    n_components, mixture, max_iter, variance_floor, weight_map
        As of `MixtureLayer`.
    power : float
        Of the matrices.
    normalize : {"l2", "intra", "power-l2"} or None
        How a classifier wants the encodings.
    """

    power: float = 0.5
    normalize: str | None = "l2"

    def check(self, n_features):
        """Check that a fitted mixture has the width of descriptors, and encodings some length."""
        super().check(n_features)
        self.check_length(n_features)

    def check_length(self, n_features):
        """Check that an encoding is not too long."""
        n_out = self.n_components * _n_entries(n_features)
        refuse_long(
            n_out, n_features, f" with n_components={self.n_components}", "lower n_components"
        )

    def start(self, bags, seed):
        """Return the parameters of a mixture of the descriptors of `bags`, and the constants."""
        p = super().start(bags, seed)
        shift, scale = moments_of(self.mixture_of(p))
        return p | {"descriptor_mean": shift, "descriptor_scale": scale}

    def parameters(self, attributes):
        """Return the free parameters of fitted attributes and constants."""
        constants = {name: attributes[name] for name in ("descriptor_mean", "descriptor_scale")}
        return super().parameters(attributes) | constants

    def prepare(self, p, dtype):
        """Return the mixture in the coordinates of the sums."""
        weights, means, variances = self.mixture_of(p)
        if "descriptor_mean" in p:
            mean, scale = p["descriptor_mean"], p["descriptor_scale"]
        else:
            mean, scale = moments_of(p["mixture"])
        # Sums are about a number of float32, where there is one; then moved to the mean.
        rounded = np.clip(mean, -1e38, 1e38).astype(np.float32).astype(np.float64)
        shift = np.where(np.abs(mean) < 1e38, rounded, mean)
        move = np.eye(len(mean) + 1)
        move[:-1, -1] = (shift - mean) / scale
        mixture = Mixture(weights, (means - shift) / scale, variances / scale**2)
        *_, dtype = frame_on_host(dtype, *mixture)
        if not (scale.min() > 2.0**-40 and scale.max() < 2.0**40):
            dtype = np.dtype(np.float64)
        return PreparedGates(Frame(shift, scale), mixture, move, dtype, p)

    def _logits(self, q, x):
        """Return the frame and the coefficients, where the descriptors are."""
        coefficients = [asarray(c.astype(q.dtype), like=x) for c in logit_coefficients(*q.mixture)]
        return Frame(*(asarray(part, like=x) for part in q.frame)), coefficients

    def sums(self, q, x, starts, stops):
        """Return the second moments of each bag under each component."""
        frame, coefficients = self._logits(q, x)
        return (gated_moments(x, starts, stops, coefficients, frame=frame),)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and the gradients by the coefficients of the logits."""
        frame, coefficients = self._logits(q, x)
        d_x, d_coefficients = gated_moments_vjp(
            *g, x, starts, stops, coefficients, frame=frame, with_x=with_x
        )
        return d_x, dict(zip(COEFFICIENTS, d_coefficients, strict=True))

    def _decomposed(self, q, sums, counts):
        moments = q.move @ sums[0] @ q.move.T / counts[:, None, None, None]
        k, side = moments.shape[1:3]
        total = np.einsum("nkii->n", moments)
        return eigen(
            moments.reshape(-1, side, side),
            eps=float(np.finfo(q.dtype).eps),
            noise=np.repeat(LEAST * total, k),
        )

    def read(self, q, sums, counts):
        """Return the triangles of the powers, component by component."""
        decomposed = self._decomposed(q, sums, counts)
        q.kept = sums, decomposed  # for the way back, if that comes next
        functions = matrix_function(decomposed, function="power", power=self.power)
        return triangle(functions).reshape(len(counts), -1)

    def read_vjp(self, q, g, sums, counts):
        """Return the gradient at the sums; the mixture has no part in what is read off them."""
        kept, decomposed = q.kept or (None, None)
        if kept is not sums:
            decomposed = self._decomposed(q, sums, counts)
        side = sums[0].shape[-1]
        g = triangle_vjp(g.reshape(-1, _n_entries(side - 1)), side)
        g = matrix_function_vjp(g, decomposed, function="power", power=self.power)
        g = g.reshape(sums[0].shape) / counts[:, None, None, None]
        return (q.move.T @ g @ q.move,), {}

    def prepare_vjp(self, q, g):
        """Return the gradients by the free parameters."""
        arriving = [g[name] for name in COEFFICIENTS]
        d_weights, d_means, d_variances = logit_coefficients_vjp(arriving, *q.mixture)
        scale = q.frame.scale
        return self.free_vjp((d_weights, d_means / scale, d_variances / scale**2), q.parameters)

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        k, d = self.means_of(p).shape
        return 24 * k * (d + 1), 32 * k * (d + 1) ** 2

    def n_out(self, p):
        """Return the width of an encoding."""
        k, d = self.means_of(p).shape
        return k * _n_entries(d)

    def blocks(self, p):
        """Return the labels of the columns: those of a component are a block."""
        k, d = self.means_of(p).shape
        return np.repeat(np.arange(k), _n_entries(d))

    def names(self, p):
        """Return the names of the columns, for descriptors d0, d1, ..."""
        k, d = self.means_of(p).shape
        return names_of(k, [f"d{j}" for j in range(d)])


def names_of(k, dimensions):
    """Return ``second_k0_d0_d0``, ``second_k0_d0_d1``, ..., ``mean_k0_d0``, ..., ``weight_k0``."""
    names = []
    for i in range(k):
        for j, row in enumerate(dimensions):
            names += [f"second_k{i}_{row}_{column}" for column in dimensions[j:]]
            names.append(f"mean_k{i}_{row}")
        names.append(f"weight_k{i}")
    return names


def moments_of(mixture):
    """Return the mean and the standard deviation of a mixture, per dimension."""
    share = mixture.weights / mixture.weights.sum()
    mean = share @ mixture.means
    return mean, np.sqrt(share @ (mixture.variances + (mixture.means - mean) ** 2))


def _n_entries(d):
    return (d + 1) * (d + 2) // 2

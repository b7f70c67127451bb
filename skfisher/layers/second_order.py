r"""Second-order pooling as a layer: covariances, second moments or Gaussians of bags.

.. math:: \text{sums} \;\to\; \mu, P \;\to\; M \;\to\; f(M + \rho I) \;\to\; \text{norm}
          \;\to\; \text{upper triangle}

Constants are ``descriptor_mean`` and ``descriptor_scale`` (d,), by which descriptors are
standardised, and ``ridge``. With `n_components` there is a free parameter, ``projection``
(n_components, d). All three act on the moments of a bag, which is exact, and far cheaper than
to map its descriptors.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from skfisher.arrays.libraries import asarray, float_dtype, to_host
from skfisher.codebooks.moments import SecondMoments, second_moments
from skfisher.ops.covariance import (
    TILE_ROWS,
    bag_moments,
    bag_moments_vjp,
    second_order_sums,
    second_order_sums_vjp,
    short_bags,
)
from skfisher.ops.gaussian_embedding import gaussian_embedding, gaussian_embedding_vjp
from skfisher.ops.gram import function_of_rows
from skfisher.ops.matrix_function import Eigen, eigen, matrix_function, matrix_function_vjp
from skfisher.ops.matrix_norm import normalize_matrices, normalize_matrices_vjp
from skfisher.ops.newton_schulz import newton_schulz, newton_schulz_vjp
from skfisher.ops.outer_products import principal_axes
from skfisher.ops.triangle import triangle, triangle_vjp

__all__ = ["MatrixPooling", "refuse_long"]

# Of the mean variance of the training descriptors, by default, under logarithms.
LOG_RIDGE = 1e-3
# Without a ridge the iteration diverges beyond, where bags have fewer descriptors than dimensions.
MOST_STEPS = 15
# Numbers of an encoding, at most: 8 MB.
MOST_NUMBERS = 10**6
# Scales beyond which squares in float32 lose digits, or overflow.
LARGE = 2.0**40
EPS = float(np.finfo(np.float64).eps)
# The matrix norm that each word stands for; the length of the triangle is Frobenius' norm.
NORMS = {"l2": "frobenius", "frobenius": "frobenius", "spectral": "spectral", "trace": "trace"}


class Pooled(NamedTuple):
    """What a bag's moments became on the way to its encoding, kept for the way back."""

    means: np.ndarray  # standardised, (n_bags, d)
    covariances: np.ndarray
    matrices: np.ndarray  # what the function was taken of, (n_bags, m, m)
    eigen: Eigen | None
    functions: np.ndarray


@dataclass
class PreparedMoments:
    """Standardisation, ridge and projection, and the last bags that were read."""

    mean: np.ndarray
    scale: np.ndarray
    ridge: float
    projection: np.ndarray | None
    dtype: np.dtype  # of products of descriptors
    eps: float
    kept: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class MatrixPooling:
    """The pooling layer of second-order statistics.

    Parameters
    ----------
    statistic : {"gaussian", "covariance", "second_moment"}
    function : {"power", "log", "newton_schulz", "identity"}
    power : float
    n_iter : int
        Steps of "newton_schulz".
    prescale : {"trace", "frobenius"}
        What "newton_schulz" divides a matrix by beforehand.
    ridge : float or None
        As a share of the mean variance of the descriptors it starts from.
    standardize : bool
    norm : {"l2", "frobenius", "spectral", "trace"} or None
    n_components : int or None
        Rows of the projection.
    normalize : {"l2", None}
        How joint training normalises encodings: by length, or by power too.
    """

    statistic: str = "gaussian"
    function: str = "power"
    power: float = 0.5
    n_iter: int = 5
    prescale: str = "trace"
    ridge: float | None = None
    standardize: bool = True
    norm: str | None = "l2"
    n_components: int | None = None
    normalize: str | None = "l2"

    n_start_rows: ClassVar = 2**16
    n_least_rows: ClassVar = 1

    @property
    def groups(self):
        """The projection, if there is one."""
        return {} if self.n_components is None else {"projection": ("projection",)}

    def check(self, n_features):
        """Check that parameters go together, and that an encoding is not too long."""
        k = self.n_components
        if k is not None and k > n_features:
            raise ValueError(
                f"n_components={k} is more than the {n_features} features of a descriptor: a "
                f"projection can only reduce them, so take {n_features} or fewer."
            )
        if self.function == "log" and self.ridge == 0:
            raise ValueError(
                "function='log' needs a ridge above 0, as the logarithm of the eigenvalue 0 is not "
                "finite: take ridge=None, or a small number."
            )
        if self.function == "log" and self.norm == "trace":
            raise ValueError(
                "norm='trace' needs eigenvalues of one sign, which logarithms do not have: take "
                "norm='l2' or 'spectral'."
            )
        if self.function == "newton_schulz" and self.n_iter > MOST_STEPS and not self.ridge:
            raise ValueError(
                f"n_iter={self.n_iter} steps of Newton-Schulz diverge for bags of fewer "
                f"descriptors than dimensions: take {MOST_STEPS} or fewer, a ridge such as 1e-3, "
                "or function='power', which is the exact root."
            )
        n_out = self._n_entries(n_features if k is None else k)
        refuse_long(
            n_out, n_features, "", "project by n_components, or sketch by CompactBilinearPooling"
        )

    def _side(self, width):
        return width + (self.statistic == "gaussian")

    def _n_entries(self, width):
        side = self._side(width)
        return side * (side + 1) // 2

    def start(self, bags, seed):
        """Return the constants of the descriptors of `bags`, and their principal axes."""
        return self.start_from(second_moments(bags, products=self.n_components is not None))

    def start_from(self, moments: SecondMoments):
        """Return the parameters for the moments of the descriptors."""
        mean, variance = moments.mean, moments.variance
        if self.standardize:
            # a constant dimension has no scale; one that is constant but for rounding neither
            floor = (16 * EPS * np.abs(mean)) ** 2
            scale = np.sqrt(np.where(variance > floor, variance, 1.0))
        else:
            mean, scale = np.zeros_like(mean), np.ones_like(mean)
        share = self.ridge
        if share is None:
            share = LOG_RIDGE if self.function == "log" else 0.0
        level = float((variance / scale**2).mean())
        p = {"descriptor_mean": mean, "descriptor_scale": scale}
        p["ridge"] = np.array(share * (level if level > 0 else 1.0))
        if self.n_components is not None:
            covariance = moments.covariance / (scale[:, None] * scale)
            p["projection"] = principal_axes(covariance, self.n_components)[0].T
        return p

    def prepare(self, p, dtype):
        """Return the constants, and the dtype that products are taken in."""
        scale = p["descriptor_scale"]
        inside = (scale < LARGE).all() and (scale > 1 / LARGE).all()
        sums_dtype = np.dtype(dtype if inside else np.float64)
        return PreparedMoments(
            p["descriptor_mean"], scale, float(p["ridge"]), p.get("projection"),
            sums_dtype, float(np.finfo(sums_dtype).eps),
        )  # fmt: skip

    def sums(self, q, x, starts, stops):
        """Return the sums of descriptors and of their outer products, about the mean."""
        return second_order_sums(x, starts, stops, q.mean, dtype=q.dtype)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and no gradients by what was prepared."""
        if not with_x:
            return None, {}
        return second_order_sums_vjp(*g, x, starts, stops, q.mean, dtype=q.dtype), {}

    def read(self, q, sums, counts):
        """Return the encodings."""
        pooled = self._pooled(q, sums, counts)
        q.kept = sums, pooled  # for the way back, if that comes next
        return self._finished(pooled.functions)

    def encode(self, q, x, starts, stops, out=None):
        """Return encodings, of the dtype of the descriptors and where they are.

        Bags of few descriptors are decomposed by the products of these.
        """
        counts = stops - starts
        few = self._are_few(q, counts)
        n_out = self._n_entries(len(q.mean if q.projection is None else q.projection))
        encodings = np.empty((len(counts), n_out), dtype=float_dtype(x.dtype))
        if few.any():
            numbers = np.flatnonzero(few)
            for bags, rows in short_bags(x, starts[few], stops[few]):
                functions = self._functions_of_rows(q, to_host(rows))
                encodings[numbers[bags]] = self._finished(functions)
        if not few.all():
            sums = self.sums(q, x, starts[~few], stops[~few])
            pooled = self._pooled(q, tuple(map(to_host, sums)), counts[~few])
            encodings[~few] = self._finished(pooled.functions)
        if out is None:
            return asarray(encodings, like=x)
        out[...] = asarray(encodings, like=out)
        return out

    def has_kernel(self, q, x):
        """Tell that no kernel encodes."""
        return False

    def _are_few(self, q, counts):
        """Tell of which bags the products of descriptors are the smaller matrix, by a third."""
        if self.function not in ("power", "log"):
            return np.zeros(len(counts), dtype=bool)
        side = self._side(len(q.mean if q.projection is None else q.projection))
        return (3 * counts <= 2 * side) & (counts <= TILE_ROWS)

    def _functions_of_rows(self, q, rows):
        """Return the functions of bags of few descriptors (n, t, d), in float64."""
        y = np.ascontiguousarray(rows, dtype=np.float64)
        # by a product, whose order of adding does not depend on the number of bags
        means = np.full((1, y.shape[1]), 1 / y.shape[1]) @ y
        noise = ((q.eps * means[:, 0] / q.scale) ** 2).sum(axis=1)
        y = (y - (means if self.statistic == "covariance" else q.mean)) / q.scale
        if q.projection is not None:
            y = y @ q.projection.T
            noise = noise * (q.projection**2).sum()
        if self.statistic == "gaussian":
            y = np.concatenate([y, np.ones((*y.shape[:2], 1))], axis=2)
        return function_of_rows(
            y, function=self.function, power=self.power, ridge=q.ridge, noise=noise
        )

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums, and by the projection."""
        kept, pooled = q.kept or (None, None)
        if kept is not sums:
            pooled = self._pooled(q, sums, counts)
        g = triangle_vjp(g, pooled.functions.shape[1])
        if self.norm is not None:
            g = normalize_matrices_vjp(g, pooled.functions, norm=NORMS[self.norm])
        g = self._function_vjp(q, g, pooled)
        d_means, d_covariances = self._matrices_vjp(g, pooled)
        gradients = {}
        if q.projection is not None:
            d_means, d_covariances, gradients["projection"] = _projected_vjp(
                d_means, d_covariances, *self._standardized(q, sums, counts)[:2], q.projection
            )
        d_covariances = d_covariances / (q.scale[:, None] * q.scale)
        return bag_moments_vjp(d_means / q.scale, d_covariances, sums[0], counts), gradients

    def _standardized(self, q, sums, counts):
        """Return means and covariances of bags, and what rounding may have left of the latter.

        Where descriptors are equal, nothing else is left: their covariance is 0.
        """
        means, covariances = bag_moments(*sums, counts)
        means = means / q.scale
        covariances = covariances / (q.scale[:, None] * q.scale)
        places = q.eps * (means + q.mean / q.scale)
        noise = 8 * EPS * (means**2).sum(axis=1) + (places**2).sum(axis=1)
        nothing = np.trace(covariances, axis1=1, axis2=2) <= noise
        return means, np.where(nothing[:, None, None], 0, covariances), noise

    def _pooled(self, q, sums, counts):
        means, covariances, noise = self._standardized(q, sums, counts)
        if q.projection is not None:
            means = means @ q.projection.T
            covariances = q.projection @ covariances @ q.projection.T
            noise = noise * (q.projection**2).sum()
        matrices = self._matrices(means, covariances)
        decomposed, functions = None, matrices
        if self.function in ("power", "log"):
            decomposed = eigen(matrices, eps=q.eps, noise=noise, ridge=q.ridge)
            functions = matrix_function(decomposed, function=self.function, power=self.power)
        else:
            matrices = matrices + q.ridge * np.eye(matrices.shape[1])
            functions = matrices
        if self.function == "newton_schulz":
            matrices = matrices.astype(q.dtype)
            functions = newton_schulz(matrices, n_iter=self.n_iter, scaling=self.prescale)
        return Pooled(means, covariances, matrices, decomposed, functions.astype(np.float64))

    def _matrices(self, means, covariances):
        if self.statistic == "gaussian":
            return gaussian_embedding(means, covariances)
        if self.statistic == "covariance":
            return covariances
        return covariances + means[:, :, None] * means[:, None, :]

    def _matrices_vjp(self, g, pooled):
        """Return the gradients by means and covariances, for `g`, symmetric, at the matrices."""
        if self.statistic == "gaussian":
            return gaussian_embedding_vjp(g, pooled.means)
        if self.statistic == "covariance":
            return np.zeros_like(pooled.means), g
        return 2 * (g @ pooled.means[:, :, None])[:, :, 0], g

    def _function_vjp(self, q, g, pooled):
        if self.function == "identity":
            return g
        if self.function == "newton_schulz":
            d = newton_schulz_vjp(
                g.astype(q.dtype), pooled.matrices, n_iter=self.n_iter, scaling=self.prescale
            )
            return d.astype(np.float64)
        return matrix_function_vjp(g, pooled.eigen, function=self.function, power=self.power)

    def _finished(self, matrices):
        """Return the triangles of functions, after the norm."""
        if self.norm is not None:
            matrices = normalize_matrices(matrices, norm=NORMS[self.norm])
        return triangle(matrices)

    def prepare_vjp(self, q, g):
        """Return the gradient by the projection, if there is one."""
        return g

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        d = len(p["descriptor_mean"])
        return 24 * d, 32 * d * d

    def n_out(self, p):
        """Return the width of an encoding."""
        return self._n_entries(self._width(p))

    def _width(self, p):
        return len(p["projection"] if "projection" in p else p["descriptor_mean"])

    def attributes(self, p):
        """Return ``mean_``, ``scale_``, ``ridge_`` and, if there is one, ``projection_``."""
        return {shown: p[name] for shown, name in _SHOWN.items() if name in p}

    def parameters(self, attributes):
        """Return the parameters of fitted attributes."""
        return {name: attributes[shown] for shown, name in _SHOWN.items() if shown in attributes}

    def names(self, p):
        """Return the names of the entries of an encoding."""
        return self.names_of([f"d{j}" for j in range(self._width(p))])

    def names_of(self, dimensions):
        """Return ``second_d0_d0``, ``second_d0_d1``, ..., with ``mean_d0`` and ``bias`` between."""
        names = []
        for i, row in enumerate(dimensions):
            names += [f"second_{row}_{column}" for column in dimensions[i:]]
            if self.statistic == "gaussian":
                names.append(f"mean_{row}")
        return [*names, "bias"] if self.statistic == "gaussian" else names


def refuse_long(n_out, n_features, setting, remedy):
    """Raise ValueError where an encoding of so many numbers is too long, with a way out."""
    if n_out > MOST_NUMBERS:
        raise ValueError(
            f"X[0] has {n_features} features per descriptor, of which second-order pooling"
            f"{setting} makes {n_out} numbers a bag, more than {MOST_NUMBERS}: reduce the "
            f"descriptors by DescriptorTransformer(PCA(...)), or {remedy}."
        )


_SHOWN = {
    "mean_": "descriptor_mean",
    "scale_": "descriptor_scale",
    "ridge_": "ridge",
    "projection_": "projection",
}


def _projected_vjp(d_means, d_covariances, means, covariances, projection):
    r"""Return the gradients by means, covariances and the projection of both.

    .. math:: \bar W = \sum (\bar P' + \bar P'^\top) W P + \bar \mu' \mu^\top
    """
    both = d_covariances + d_covariances.transpose(0, 2, 1)
    d_projection = np.einsum("nij,njk->ik", both, projection @ covariances) + d_means.T @ means
    return d_means @ projection, projection.T @ d_covariances @ projection, d_projection

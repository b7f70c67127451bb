r"""Principal coordinates of descriptors, the fixed first step of a jointly trained model.

.. math:: z = U \operatorname{arctanh}\big(\operatorname{clip}((x - m) A, \pm 0.999)\big)

The axes A rotate to the principal directions and scale; the inverse of tanh, and the matrix U,
are there for a feature map ``tanh(W z + b)`` to start at ``(x - m) A``.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, float_dtype
from skfisher.bags.bags import Bags
from skfisher.codebooks.moments import second_moments
from skfisher.parallel.units import HERE, map_rows, row_units

__all__ = ["Whitening", "principal_axes", "whiten", "whiten_bags"]

# tanh has slope 0.002 here: a descriptor farther out would hardly move.
CLIP = 0.999
# Directions of less variance than this share of the largest are noise, and not blown up.
LEAST_VARIANCE = 1e-6
# Descriptors whose smallest variance is this share of the largest, or more, are white already.
WHITE = 0.9
# Beyond such axes and means, and their inverses, float32 may overflow, or have few digits.
LARGE = 2.0**100


@dataclass(frozen=True)
class Whitening:
    """The row layer of the equation above; nothing of it is trained.

    Parameters
    ----------
    mean : float64 array of shape (d,)
    axes : float64 array of shape (d, p)
    squash : bool
        Whether the coordinates are clipped and sent through arctanh.
    unmix : float64 array of shape (p, p), optional
    """

    mean: np.ndarray
    axes: np.ndarray
    squash: bool
    unmix: np.ndarray | None = None
    groups: ClassVar[dict[str, tuple[str, ...]]] = {}

    @property
    def n_out(self):
        """Width of the coordinates."""
        return self.axes.shape[1]

    def prepare(self, p, dtype):
        """Return mean, axes and unmixing matrix in a dtype, or in float64 where it has no range."""
        arrays = (self.mean, self.axes, self.unmix)
        sizes = np.append(np.abs(self.axes).max(axis=0), np.abs(self.mean).max())
        if sizes.max() > LARGE or sizes[:-1].min() < 1 / LARGE:
            dtype = np.float64
        return [None if a is None else a.astype(dtype, copy=False) for a in arrays]

    def apply(self, q, x):
        """Return the coordinates (n, p) of descriptors (n, d)."""
        z, unmix = self._clipped(q, x)
        if self.squash:
            array_module(x).arctanh(z, out=z)
        if unmix is not None:
            z = z @ unmix.T
        return z.astype(x.dtype, copy=False)

    def _clipped(self, q, x):
        """Return the coordinates before arctanh, and the unmixing matrix."""
        xp = array_module(x)
        mean, axes, unmix = (None if a is None else asarray(a, like=x) for a in q)
        z = xp.matmul(x.astype(axes.dtype, copy=False) - mean, axes)
        if self.squash:
            xp.clip(z, -CLIP, CLIP, out=z)
        return z, unmix

    def vjp(self, q, g, x, y, *, with_x):
        """Return ``d_x`` or None, and no gradients by parameters."""
        if not with_x:
            return None, {}
        z, unmix = self._clipped(q, x)
        d_z = g if unmix is None else g @ unmix
        if self.squash:  # what was clipped does not move
            d_z = array_module(x).where(abs(z) < CLIP, d_z / (1 - z * z), 0)
        return (d_z @ asarray(q[1], like=x).T).astype(x.dtype, copy=False), {}


def whiten(x, whitening):
    """Return the coordinates (n, p) of descriptors `x` (n, d), in the dtype to compute in."""
    x = x.astype(float_dtype(x.dtype), copy=False)
    return whitening.apply(whitening.prepare({}, x.dtype), x)


def whiten_bags(bags, whitening, where=HERE):
    """Return the bags with all their descriptors whitened, in the library of `bags`.

    `whitening` may be a `Whitening`, or one with other columns beside it.
    """
    p = whitening.n_out
    values = map_rows(
        functools.partial(whiten, whitening=whitening), row_units(bags, where),
        shape=(p,), dtype=float_dtype(bags.dtype),
        tile=max(1, 2**18 // bags.n_features), scratch=(24 * (bags.n_features + p), 0),
    )  # fmt: skip
    return Bags.from_lengths(values, bags.lengths)


def principal_axes(bags, *, equal, where=HERE):
    """Return the mean and the principal axes of the descriptors of all bags, scaled.

    Parameters
    ----------
    bags : Bags
    equal : bool
        Whether every coordinate gets variance 1, or all are divided by one number that
        makes their mean variance 1.
    where : Where

    Returns
    -------
    mean : float64 array of shape (d,)
    axes : float64 array of shape (d, d)
        Column after column in the order of decreasing variance; zeros for directions without
        variance. Of descriptors that are white already, those of the descriptors, in their order.
    """
    moments = second_moments(bags, where, products=True)
    covariance = moments.covariance
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1], directions[:, ::-1]
    most = max(variances[0], 0.0) or 1.0
    if variances[-1] >= WHITE * most:
        # Rounding would choose the axes. A mixture of diagonal Gaussians fares better by those
        # that made the descriptors white, which are principal axes as likely as not.
        variances, directions = covariance.diagonal(), np.eye(len(covariance))
    # The sign of a direction is arbitrary: fix it, so that results can be repeated.
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(largest))])
    # Where nothing varies, rounding chooses the axes: other descriptors would be given numbers at
    # random along them.
    rounding = len(variances) * np.finfo(np.float64).eps * most
    directions = np.where(variances > rounding, directions, 0)
    if equal:
        scale = np.sqrt(np.maximum(variances, LEAST_VARIANCE * most))
    else:
        scale = np.sqrt(max(variances.mean(), LEAST_VARIANCE * most))
    return moments.mean, directions / scale

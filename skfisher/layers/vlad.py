"""VLAD, NetVLAD, NetFV and learned aggregation of residuals as a layer."""

from dataclasses import dataclass

import numpy as np

from skfisher.layers.assignment import Free
from skfisher.layers.codebook import CodebookPooling, as_sums
from skfisher.ops.gaussian import scale_of
from skfisher.ops.vlad import vlad, vlad_vjp

__all__ = ["VLADPooling"]

# Of a descriptor: a word that has less of a bag is empty.
LEAST_SHARE = 1e-12
# Roundings of a residual.
NOISE = 8


@dataclass(frozen=True)
class VLADPooling(CodebookPooling):
    """The pooling layer of residuals from the centres of a codebook.

    Parameters
    ----------
    n_components, assignment, ratio, metric, codebook
        As for `CodebookPooling`. With a metric, encodings are divided by the number of
        descriptors.
    tied : bool
        Whether soft assignment is by distances to the centres, or by a linear map of its own.
    moments : {1, 2}
        Whether squares of residuals are added up too.
    normalize : {"power-l2", "l2", "intra"} or None
        How a classifier is to have the encodings.
    """

    tied: bool = True
    moments: int = 1
    normalize: str | None = None

    @property
    def order(self):
        """Of the sums that are read."""
        return self.moments

    @property
    def way(self):
        """How descriptors are assigned."""
        return super().way if self.tied else Free()

    def read(self, q, sums, counts):
        """Return the encodings, in the units of the descriptors."""
        sums = as_sums(sums)
        encodings = vlad(sums, q.centers, moments=self.moments)
        encodings[self._is_rounding(q, sums.s0, encodings)] = 0
        return encodings * self._units(q, counts)

    def _is_rounding(self, q, s0, encodings):
        """Tell of each entry whether it is what rounding leaves of nothing.

        Normalisation would blow it up: where all descriptors of a word are at its centre, and where
        a word has next to none.
        """
        reach = np.abs(q.centers).max(axis=0)
        sizes = [np.tile(reach**m, len(q.centers)) for m in range(1, self.moments + 1)]
        shares = np.tile(np.repeat(s0, len(reach), axis=1), self.moments)
        noise = NOISE * np.finfo(q.coefficients[0].dtype).eps
        small = np.abs(encodings) <= noise * shares * np.concatenate(sizes)
        return small | (shares < LEAST_SHARE)

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums, and by the centres with the sums held."""
        d_sums, d_centers = vlad_vjp(
            g * self._units(q, counts), as_sums(sums), q.centers, moments=self.moments
        )
        return tuple(d_sums[: self.order + 1]), {"centers": d_centers}

    def _units(self, q, counts):
        """Return what residuals in the coordinates of the sums are multiplied by."""
        k, d = q.centers.shape
        scale = np.broadcast_to(scale_of(q.frame), d)
        units = np.concatenate([np.tile(scale**m, k) for m in range(1, self.moments + 1)])
        return units if self.metric is None else units / counts[:, None]

    def n_out(self, p):
        """Return the width of an encoding."""
        return self.moments * p["centers"].size

    def columns(self, k, dimensions):
        """Return the names of columns: ``vlad_k0_d0``, ..., and of squares ``square_k0_d0``, ..."""
        return [
            f"{moment}_k{i}_{name}"
            for moment in ("vlad", "square")[: self.moments]
            for i in range(k)
            for name in dimensions
        ]

    def blocks(self, p):
        """Return the labels of the columns: one for each word, and for the squares of each."""
        k, d = p["centers"].shape
        return np.repeat(np.arange(self.moments * k), d)

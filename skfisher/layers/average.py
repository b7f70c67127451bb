"""The mean of a bag as a layer, with standard deviations beside it if wanted."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skfisher.arrays.libraries import asarray
from skfisher.codebooks.moments import global_moments
from skfisher.layers.codebook import as_sums
from skfisher.ops.assignment import assignment_sums, assignment_sums_vjp
from skfisher.ops.average import mean_and_deviation, mean_and_deviation_vjp
from skfisher.ops.chunks import Frame

__all__ = ["AveragePooling"]


@dataclass(frozen=True)
class AveragePooling:
    """The pooling layer of means: all descriptors belong to the one word there is.

    Nothing of it is trained; sums are taken about an ``origin``, in float64.

    Parameters
    ----------
    deviations : bool
        Whether standard deviations follow the means.
    normalize : {"power-l2", "l2"} or None
        How a classifier is to have the encodings.
    """

    deviations: bool = False
    normalize: str | None = None

    groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    n_start_rows: ClassVar = 20_000
    n_least_rows: ClassVar = 1

    @property
    def order(self):
        """Of the sums that are read."""
        return 2 if self.deviations else 1

    def check(self, n_features):
        """Rows of any width have a mean."""

    def start(self, bags, seed):
        """Return the origin: the mean of all descriptors."""
        return {"origin": global_moments(bags).mean}

    def prepare(self, p, dtype):
        """Return the origin."""
        return p["origin"]

    def _one_word(self, q, x):
        """Return the coefficients of the one word, and the frame of the origin."""
        zeros, ones = np.zeros((1, len(q))), np.ones(len(q))
        frame = Frame(asarray(q, like=x), asarray(ones, like=x))
        return (asarray(zeros, like=x), None, asarray(zeros[:, 0], like=x)), frame

    def sums(self, q, x, starts, stops):
        """Return the sums of descriptors, and of their squares if deviations are wanted."""
        coefficients, frame = self._one_word(q, x)
        sums = assignment_sums(
            x, starts, stops, coefficients, frame=frame, hard=True, order=self.order
        )
        return tuple(s[:, 0] for s in sums[1 : self.order + 1])

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and no gradients by what was prepared."""
        if not with_x:
            return None, {}
        coefficients, frame = self._one_word(q, x)
        moments = [s[:, None] for s in g]
        g = as_sums([0 * moments[0][:, :, 0], *moments])
        return assignment_sums_vjp(g, x, starts, stops, coefficients, frame=frame, hard=True)[0], {}

    def read(self, q, sums, counts):
        """Return means, and standard deviations if wanted."""
        return mean_and_deviation(*self._pair(sums), counts, q)

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums."""
        d_sums = mean_and_deviation_vjp(g, *self._pair(sums), counts)
        return tuple(d_sums[: self.order]), {}

    def _pair(self, sums):
        return sums if self.deviations else (*sums, None)

    def prepare_vjp(self, q, g):
        """Return no gradients: the origin makes no difference."""
        return {}

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        d = len(p["origin"])
        return 16 * d, 16 * d

    def n_out(self, p):
        """Return the width of an encoding."""
        return self.order * len(p["origin"])

    def columns(self, dimensions):
        """Return the names of columns: ``mean_d0``, ..., ``std_d0``, ..."""
        blocks = ("mean", "std")[: self.order]
        return [f"{block}_{name}" for block in blocks for name in dimensions]

    def names(self, p):
        """Return the names of the entries of an encoding, dimensions by number."""
        return self.columns([f"d{j}" for j in range(len(p["origin"]))])

    def attributes(self, p):
        """Return nothing: nothing is learnt."""
        return {}

    def parameters(self, attributes):
        """Return the origin, which is a constant."""
        return {"origin": attributes["origin"]}

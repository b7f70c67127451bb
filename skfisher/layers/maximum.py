"""The maximum of a bag in each dimension, as far as a layer it is.

Maxima of the parts of a bag make that of the bag, but do not add up to it; and where a gradient at
it goes, no part can say without the others. So there is no way back.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skfisher.arrays.libraries import empty

__all__ = ["MaximumPooling"]


@dataclass(frozen=True)
class MaximumPooling:
    """The forward half of a pooling layer: maxima take the place of sums."""

    join: ClassVar = np.maximum

    def prepare(self, p, dtype):
        """Return None: bags share nothing."""

    def sums(self, q, x, starts, stops):
        """Return the maximum of each bag in each dimension."""
        maxima = empty((len(starts), x.shape[1]), like=x)
        for i, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            maxima[i] = x[start:stop].max(axis=0)
        return (maxima,)

    def read(self, q, sums, counts):
        """Return the maxima."""
        return sums[0].astype(np.float64)

    def scratch(self, p):
        """Return the bytes that the maxima take on a GPU for each row and for each bag."""
        return 0, 8 * len(p["origin"])

    def n_out(self, p):
        """Return the width of an encoding."""
        return len(p["origin"])

    def columns(self, dimensions):
        """Return the names of columns: ``max_d0``, ..."""
        return [f"max_{name}" for name in dimensions]

"""Bags of every awkward kind, for tests of the native kernels."""

import numpy as np

from skfisher.ops.gaussian import framed_logits

# Components and dimensions about the vectors of 2 to 16 numbers and their pairs; small ones are
# computed in float64.
SHAPES = [
    (1, 1),
    (1, 300),
    (2, 3),
    (7, 40),
    (8, 16),
    (17, 16),
    (31, 9),
    (32, 64),
    (33, 33),
    (65, 5),
]
# Descriptors about the blocks of 4 and 8 rows, and the 256 rows at most of a tile, whose sums
# are float32.
LENGTHS = [1, 3, 8, 9, 40, 255, 256, 257, 511, 600, 1100]


class Case:
    """Bags drawn from a mixture whose means lie `spread` apart, and all of it `offset` from 0."""

    def __init__(self, rng, k, d, lengths, *, offset=0.0, spread=0.5):
        self.stops = np.cumsum(lengths)
        self.starts = self.stops - lengths
        means = offset + spread * rng.normal(size=(k, d))
        variances = rng.uniform(0.5, 2, size=(k, d))
        self.mixture = rng.dirichlet(np.full(k, 3.0)), means, variances
        n = int(self.stops[-1])
        chosen = rng.integers(k, size=n)
        x = means[chosen] + np.sqrt(variances[chosen]) * rng.normal(size=(n, d))
        self.x = x.astype(np.float32)
        self.coefficients, self.frame = self.logits(self.x)

    def logits(self, x):
        frame, _, coefficients = framed_logits(x, *self.mixture)
        return coefficients, frame

    def where(self, x=None, bags=slice(None)):
        """Return the first arguments of operations: descriptors, by default, and some bags."""
        return self.x if x is None else x, self.starts[bags], self.stops[bags]

    def wide(self):
        return self.x.astype(np.float64)


def relative(found, expected):
    """Return the largest distance of a row from the expected one, in lengths of that."""
    found, expected = (a.reshape(len(a), -1) for a in (found, expected))
    norms = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found - expected, axis=1) / norms).max())

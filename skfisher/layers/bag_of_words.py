"""Bags of words as a layer: which share of its descriptors a bag has in each word."""

from dataclasses import dataclass

from skfisher.layers.codebook import CodebookPooling

__all__ = ["BagOfWordsPooling"]


@dataclass(frozen=True)
class BagOfWordsPooling(CodebookPooling):
    """The pooling layer of shares, ``S0 / T``; learned aggregation, with a metric.

    Parameters
    ----------
    n_components, assignment, ratio, metric, codebook
        As for `CodebookPooling`.
    normalize : {"power-l2", "l2"} or None
        How a classifier is to have the encodings.
    """

    normalize: str | None = None

    order = 0

    def check(self, n_features):
        """Check the width of centres, and that there is something to train."""
        super().check(n_features)
        if self.way.hard:
            raise ValueError(
                "assignment='hard' leaves nothing to train: how many descriptors a word has does "
                "not change by small steps. Take assignment='soft'."
            )

    def read(self, q, sums, counts):
        """Return the shares of the words."""
        return sums[0] / counts[:, None]

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums."""
        return (g / counts[:, None],), {}

    def n_out(self, p):
        """Return the width of an encoding."""
        return len(p["centers"])

    def columns(self, k, dimensions):
        """Return the names of columns: ``word_k0``, ..."""
        return [f"word_k{i}" for i in range(k)]

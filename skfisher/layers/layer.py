r"""What a layer is: the two protocols that the chain, and everything that trains it, is written to.

The encoding of a bag is *sums over its descriptors* and *what is read off the sums*. Sums are
the heavy part; they add up, so a bag may be cut anywhere and its parts computed anywhere.
Reading is small and in float64. Fisher vectors, bags of words, VLAD, covariance and learned
aggregation are all of this form (`PoolingLayer`). What maps descriptors one by one before, and
encodings one by one after, is a `RowLayer`.

Layers hold settings. The numbers that are learnt travel beside them, as `Parameters`: a dict of
float64 arrays on the host, free of constraints, so that any of them may take a step anywhere.
`groups` names those that can be trained together; entries of no group are constants that
training keeps, such as the floor of the variances.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = ["Array", "Parameters", "PoolingLayer", "RowLayer", "Sums", "lacks", "n_positions_of"]

Array = Any  # of NumPy or CuPy
Parameters = dict[str, np.ndarray]
Gradients = dict[str, Array]  # by names of the layer's own choice
Sums = tuple[Array, ...]  # first axis: bags; those of the parts of a bag add up


@runtime_checkable
class RowLayer(Protocol):
    """Maps rows one by one: whitening, tanh(Wx + b), power and L2 normalisation."""

    groups: Mapping[str, tuple[str, ...]]

    def prepare(self, p: Parameters, dtype: np.dtype) -> Any:
        """Return ``q``, what all rows of a dtype share, on the host."""

    def apply(self, q: Any, x: Array) -> Array:
        """Return ``y`` (n, n_out) for the rows ``x`` (n, d)."""

    def vjp(
        self, q: Any, g: Array, x: Array, y: Array, *, with_x: bool
    ) -> tuple[Array | None, Parameters]:
        """Return ``d_x``, or None unless it is wanted, and the gradients by the parameters.

        ``g`` (n, n_out) arrives at ``y = apply(q, x)``.
        """


@runtime_checkable
class PoolingLayer(Protocol):
    """Turns the rows of each bag into one vector, by way of sums over them."""

    groups: Mapping[str, tuple[str, ...]]
    n_start_rows: int  # how many rows `start` wants
    n_least_rows: int  # and how many it needs

    def check(self, n_features: int) -> None:
        """Raise ValueError where rows of this width cannot be pooled."""

    def start(self, bags: Any, seed: int) -> Parameters:
        """Return the parameters to start from, found without labels.

        `bags` hold a sample of the rows that the layer will be given.
        """

    def prepare(self, p: Parameters, dtype: np.dtype) -> Any:
        """Return ``q``, what all bags of a dtype share, on the host."""

    def sums(self, q: Any, x: Array, starts: np.ndarray, stops: np.ndarray) -> Sums:
        """Return the sums over the rows of each bag. The fork to a kernel is below here."""

    def sums_vjp(
        self, q: Any, g: Sums, x: Array, starts: np.ndarray, stops: np.ndarray, *, with_x: bool
    ) -> tuple[Array | None, Gradients]:
        """Return ``d_x`` or None, and the gradients by what was prepared, for `g` at the sums.

        Those of the parts of a batch, and those of `read_vjp`, add up by their names.
        """

    def read(self, q: Any, sums: Sums, counts: np.ndarray) -> np.ndarray:
        """Return the encodings (n_bags, n_out) that sums, on the host, stand for."""

    def read_vjp(
        self, q: Any, g: np.ndarray, sums: Sums, counts: np.ndarray
    ) -> tuple[Sums, Gradients]:
        """Return the gradients at the sums and by what was prepared, for `g` at the encodings."""

    def prepare_vjp(self, q: Any, g: Gradients) -> Parameters:
        """Return the gradients by the parameters, for the gradients `g` by what was prepared."""

    def scratch(self, p: Parameters) -> tuple[int, int]:
        """Return the bytes that the sums take on a GPU for each row and for each bag."""

    def n_out(self, p: Parameters) -> int:
        """Return the width of an encoding."""

    def attributes(self, p: Parameters) -> dict[str, np.ndarray]:
        """Return what an estimator shows, names with a trailing underscore."""

    def parameters(self, attributes: Mapping[str, np.ndarray]) -> Parameters:
        """Return the parameters that the attributes, and the constants, stand for."""

    def names(self, p: Parameters) -> list[str]:
        """Return the names of the entries of an encoding."""

    # Taken where it is there:
    #   encode(q, x, starts, stops, out=None), has_kernel(q, x)
    #                                sums and reading in one pass, and whether a kernel does it
    #   encode_vjp(q, g, x, starts, stops, *, with_x, with_parameters)
    #                                `d_x` or None, and the gradients by the parameters, or none,
    #                                for `g` at `encode`: the whole way back, which needs no sums
    #   join                         what makes the sums of a bag of those of its parts, a ufunc, if
    #                                they do not add up
    #   whole                        True where the sums of a bag are not those of its parts: bags
    #                                are never cut or thinned then, and `start` is given whole ones
    #   n_positions                  how many of the last columns of a descriptor are its position,
    #                                which layers below pass on as it is
    #   normalize, blocks(p)         "l2", "intra" or "power-intra": how a classifier wants the
    #                                encodings, if not by power and length; the labels of the
    #                                columns of the last two
    #   noisy(q, noise)              training: `q` for bags that come with a normal number each,
    #                                which `read` and `read_vjp` may look at
    #   shares(q, sums, counts), penalty(q, total), shares_vjp(q, g, sums, counts)
    #                                training: what a term of the loss looks at of each bag, an
    #                                array (n_bags, k); that term and its gradient by the sum of
    #                                the shares of a batch; and, as `read_vjp`, what becomes of
    #                                gradients at the shares. Not asked where `penalizes` is False
    # Asked for by name, and refused with a message where they are missing:
    #   information(p)               solver="natural": a diagonal metric of the parameters
    #   slopes(p, gradients), retract(p, slopes, step)
    #                                solver="line_search": a step within the constraints
    #   health(p)                    what `history_` keeps and the verdict looks at
    #   fault(p)                     what of the constrained parameters is not finite


def lacks(layer, protocol=PoolingLayer):
    """Return the names of what a layer lacks of a protocol, sorted; empty if it is one."""
    return sorted(
        name
        for name in (*protocol.__annotations__, *vars(protocol))
        if not name.startswith("_") and not hasattr(layer, name)
    )


def n_positions_of(pooling):
    """Return how many of the last columns of a descriptor are its position, for a layer."""
    return getattr(pooling, "n_positions", 0)

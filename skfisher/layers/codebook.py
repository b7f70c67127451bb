"""What pooling layers over a codebook share: start, assignment, sums and the way back.

Encodings are read off the sums of `assignment_sums`. The parameters are the ``centers`` (k, d) and
what the way of assigning adds to them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skfisher.arrays.libraries import asarray, empty, float_dtype, is_cupy, to_host
from skfisher.codebooks.centers import first_centers, given_centers, mean_gap, sharpness
from skfisher.codebooks.fitting import INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT
from skfisher.codebooks.given import number_to_fit
from skfisher.cuda.layout import scratch_bytes
from skfisher.layers.assignment import Hard, Metrics, Tied, hidden, positive, shown
from skfisher.native import statistics as native
from skfisher.ops.assignment import assignment_sums, assignment_sums_vjp
from skfisher.ops.chunks import Frame
from skfisher.ops.gaussian import frame_on_host, scale_of
from skfisher.ops.soft_assignment import Sums

__all__ = ["CodebookPooling", "n_sample"]

COEFFICIENTS = ("linear", "quadratic", "constant")
# Logits of a unit step, in the coordinates of the sums, beyond which float32 costs their softmax
# digits.
STEEP = 16.0
# Numbers of encodings that are read off sums at once, on the host: they should stay in cache.
CACHED_NUMBERS = 2**17


@dataclass(frozen=True)
class PreparedCodebook:
    """A codebook in the coordinates that sums are taken in."""

    parameters: dict
    frame: Frame | None
    centers: np.ndarray  # float64
    coefficients: tuple  # of the dtype to work in

    def like(self, x):
        """Return coefficients and frame in the library of `x`."""
        coefficients = [None if c is None else asarray(c, like=x) for c in self.coefficients]
        frame = self.frame
        return coefficients, None if frame is None else Frame(*(asarray(f, like=x) for f in frame))


@dataclass(frozen=True)
class CodebookPooling:
    """Base class of pooling layers over a codebook.

    A subclass says the `order` of the sums it reads, ``read``, ``read_vjp``, ``n_out`` and
    ``columns``.

    Parameters
    ----------
    n_components : int
        Words, unless `codebook` has centres of its own.
    assignment : {"soft", "hard"}
    ratio : float
        Of the weights of the nearest word and the second nearest, at the start of soft
        assignment.
    metric : {"diagonal"} or None
        Whether words have metrics of their own, in soft assignment.
    codebook : estimator, array or None
        As for :class:`~skfisher.VLADEncoder`.
    """

    n_components: int = 16
    assignment: str = "soft"
    ratio: float = 5.0
    metric: str | None = None
    codebook: Any = None

    order = 1

    @property
    def way(self):
        """How descriptors are assigned."""
        if self.assignment == "hard":
            return Hard()
        return Tied() if self.metric is None else Metrics()

    @property
    def groups(self):
        """The one group that may be trained: all parameters."""
        return {"codebook": self.way.names}

    @property
    def n_start_rows(self):
        """How many descriptors the centres are found among."""
        return n_sample(self._n_words)

    @property
    def n_least_rows(self):
        """How many descriptors a codebook needs."""
        return self._n_words if given_centers(self.codebook) is None else 1

    @property
    def _n_words(self):
        """How many words there will be, as far as that is known; a clusterer may find its own."""
        if self.codebook is None:
            return self.n_components
        centers = given_centers(self.codebook)
        return number_to_fit(self.codebook, "n_clusters") if centers is None else len(centers)

    def check(self, n_features):
        """Check that centres that were found before have the width of the descriptors."""
        centers = given_centers(self.codebook)
        if centers is not None and centers.shape[1] != n_features:
            raise ValueError(
                f"codebook has centres of {centers.shape[1]} features, but the mapped descriptors "
                f"have {n_features}: pass centres of that width, or an estimator that is not "
                "fitted."
            )

    def start(self, bags, seed):
        """Return the parameters of words found among the descriptors of `bags`."""
        centers = first_centers(self.codebook, bags, self.n_components, seed)
        gap = 0.0 if self.way.hard else mean_gap(bags.pack().values, centers)
        return self.free(centers, sharpness(gap, centers, self.ratio))

    def free(self, centers, scale):
        """Return the free parameters of centres, assigned to by a scale."""
        return {"centers": centers, **self.way.start(centers, scale)}

    def prepare(self, p, dtype):
        """Return the codebook in the coordinates of the sums."""
        centers = p["centers"]
        uniform = np.full(len(centers), 1 / len(centers))
        spread = np.broadcast_to(0.5 / self.way.precisions(p), centers.shape)
        frame, _, moved, _, work = frame_on_host(dtype, uniform, centers, spread)
        coefficients = self.way.coefficients(p, moved, frame)
        steepest = np.linalg.norm(coefficients[0], axis=1).max()
        if self.way.hard or steepest > STEEP * centers.shape[1]:
            work = np.dtype(np.float64)  # which of two centres is nearer is not for rounding to say
        coefficients = [None if c is None else c.astype(work) for c in coefficients]
        return PreparedCodebook(p, frame, moved, tuple(coefficients))

    def sums(self, q, x, starts, stops):
        """Return the sums of each bag, up to the order that is read."""
        coefficients, frame = q.like(x)
        sums = assignment_sums(
            x, starts, stops, coefficients, frame=frame, hard=self.way.hard, order=self.order
        )
        return tuple(sums[: self.order + 1])

    def encode(self, q, x, starts, stops, out=None):
        """Return encodings, where the descriptors are."""
        n_bags, n_out = len(starts), self.n_out(q.parameters)
        if out is None:
            out = empty((n_bags, n_out), like=x, dtype=float_dtype(x.dtype))
        step = n_bags if is_cupy(x) else max(1, CACHED_NUMBERS // n_out)
        for first in range(0, n_bags, step):
            some = slice(first, first + step)
            sums = self.sums(q, x, starts[some], stops[some])
            encodings = self.read(q, tuple(map(to_host, sums)), (stops - starts)[some])
            out[some] = asarray(encodings, like=out)
        return out

    def has_kernel(self, q, x):
        """Tell whether a native kernel adds these descriptors up."""
        return native.takes(x)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and the gradients by the coefficients of the logits."""
        coefficients, frame = q.like(x)
        d_x, d_coefficients = assignment_sums_vjp(
            as_sums(g), x, starts, stops, coefficients,
            frame=frame, hard=self.way.hard, with_x=with_x,
        )  # fmt: skip
        found = zip(COEFFICIENTS, d_coefficients, strict=True)
        return d_x, {name: d for name, d in found if d is not None}

    def prepare_vjp(self, q, g):
        """Return the gradients by the free parameters."""
        via, others = self.way.vjp(g, q.parameters, q.centers, q.frame)
        d_centers = g.get("centers", np.zeros(q.centers.shape)) + via
        return {"centers": d_centers / scale_of(q.frame), **others}

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        return scratch_bytes(*p["centers"].shape)

    def names(self, p):
        """Return the names of the entries of an encoding, words and dimensions by number."""
        k, d = p["centers"].shape
        return self.columns(k, [f"d{j}" for j in range(d)])

    def attributes(self, p):
        """Return ``cluster_centers_``, and what the assignment adds."""
        return {"cluster_centers_": p["centers"], **shown(self.way, p)}

    def parameters(self, attributes):
        """Return the free parameters that fitted attributes stand for."""
        return {"centers": attributes["cluster_centers_"], **hidden(self.way, attributes)}

    def fault(self, p):
        """Return the name of what is not finite though the free parameters are, or None."""
        with np.errstate(all="ignore"):
            for name, values in positive(self.way, p).items():
                if not (np.isfinite(values).all() and np.isfinite(1 / values).all()):
                    return f"an entry of {name}"
        return None


def n_sample(n_components):
    """Return among how many descriptors words are found."""
    return max(INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT * n_components)


def as_sums(parts):
    """Return the sums, or gradients at them, of which the first are given."""
    return Sums(*parts, *[None] * (3 - len(parts)))

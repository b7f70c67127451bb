r"""Expectation-maximisation for the diagonal Gaussian mixture: exact, chunked, online.

With S0, S1, S2 the sums over all N descriptors of `total_statistics`, one iteration sets

.. math:: w_k = S_{0,k} / N, \qquad \mu_k = S_{1,k} / S_{0,k}, \qquad
          v_k = \max(S_{2,k} / S_{0,k} - \mu_k^2, \; v_{\min}).

Everything here is in float64; only the products over descriptors run in their own dtype.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import asarray, to_host
from skfisher.codebooks.kmeans import cluster
from skfisher.codebooks.moments import Moments
from skfisher.cuda import statistics as kernels
from skfisher.cuda.layout import scratch_bytes
from skfisher.ops.chunks import Frame
from skfisher.ops.expectation import expectation_sums
from skfisher.ops.gaussian import LOG_2PI, framed_logits
from skfisher.ops.soft_assignment import Sums, total_statistics
from skfisher.parallel.units import sum_units
from skfisher.process_state import one_blas_thread

__all__ = [
    "Mixture",
    "StepwiseState",
    "em_iterations",
    "expectation",
    "initial_mixture",
    "stepwise_update",
]

# Descriptors a component that online EM sees before it moves the parameters.
LEAST_SEEN = 20


class Mixture(NamedTuple):
    """Parameters of a diagonal Gaussian mixture, float64."""

    weights: np.ndarray  # (k,)
    means: np.ndarray  # (k, d)
    variances: np.ndarray  # (k, d)


def initial_mixture(values, rows, n_components, moments, floor, *, method, seed):
    """Start EM from clusters of some descriptors.

    Parameters
    ----------
    values : array of shape (n, d)
    rows : int array
        The descriptors to cluster.
    moments : Moments
        Of all descriptors; the clustering runs about their mean.
    floor : array of shape (d,)
        Smallest variance.
    method : {"kmeans", "k-means++"}
        Lloyd's iterations from a k-means++ start, or the start alone.
    seed : int

    Returns
    -------
    mixture : Mixture
        Cluster shares, centroids and variances within clusters.
    """
    # one scale for all dimensions: it keeps distances
    scale = math.sqrt(moments.variance.sum()) or 1.0
    sample = (to_host(values[rows]).astype(np.float64) - moments.mean) / scale
    labels, _ = one_blas_thread(cluster)(sample, n_components, method, seed)
    return _mixture_of_labels(sample, labels, n_components, moments, floor, scale)


def _mixture_of_labels(sample, labels, n_components, moments, floor, scale):
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=n_components)
    means = np.tile(sample.mean(axis=0), (n_components, 1))
    variances = np.tile(sample.var(axis=0), (n_components, 1))
    # fewer distinct descriptors than components leave clusters empty
    for k, members in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        if len(members):
            means[k] = sample[members].mean(axis=0)
            variances[k] = sample[members].var(axis=0)
    weights = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    return Mixture(weights, moments.mean + scale * means, np.maximum(variances * scale**2, floor))


def expectation(units, mixture):
    """Return the sums of all descriptors under the mixture, their frame and log-likelihood.

    Parameters
    ----------
    units : Units
        Of `row_units`.
    mixture : Mixture

    Returns
    -------
    sums : Sums
        Of shapes (k,), (k, d) and (k, d).
    frame : Frame or None
        Coordinates of the sums, those that suit the mixture.
    log_likelihood : float
        Mean over descriptors of the natural logarithm of the density.
    """
    like = np.empty((0, units.values.shape[1]), dtype=units.values.dtype)
    frame, _, coefficients = framed_logits(like, *mixture)
    *sums, log_likelihood = sum_units(
        functools.partial(_sums_of_unit, frame=frame, coefficients=coefficients), units,
        at_once=functools.partial(_sums_of_units, mixture=mixture),
        scratch=scratch_bytes(*mixture.means.shape),
    )  # fmt: skip
    log_likelihood = float(log_likelihood) / units.n_rows
    if frame is not None:  # from the density of scaled descriptors to that of descriptors
        log_likelihood -= float(np.log(frame.scale).sum())
    return Sums(*sums), frame, log_likelihood


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is named by the caller
def _sums_of_unit(x, starts, stops, frame, coefficients):
    frame = None if frame is None else Frame(*(asarray(part, like=x) for part in frame))
    coefficients = [asarray(part, like=x) for part in coefficients]
    sums, log_likelihood = total_statistics(x, starts, stops, coefficients, frame=frame)
    return *(s[0] for s in sums), log_likelihood


@np.errstate(over="ignore", invalid="ignore")
def _sums_of_units(x, starts, stops, mixture):
    if not kernels.takes(x, *mixture):
        return None
    sums, log_likelihood = expectation_sums(x, starts, stops, *mixture)
    return [*sums, log_likelihood]


def maximization(sums, frame, floor, previous):
    """Return the mixture that maximises the expected log-likelihood, variances floored.

    A component without descriptors keeps its place in `previous`, with weight next to nothing.
    """
    total = sums.s0.sum()
    alive = sums.s0 > 1e-12 * total
    share = np.where(alive, sums.s0, 1)[:, None]
    means = sums.s1 / share
    variances = sums.s2 / share - means**2
    if frame is not None:
        means = means * frame.scale + frame.shift
        variances = variances * frame.scale**2
    weights = np.maximum(sums.s0, 1e-12 * total)
    alive = alive[:, None]
    return Mixture(
        weights / weights.sum(),
        np.where(alive, means, previous.means),
        np.where(alive, np.maximum(variances, floor), previous.variances),
    )


def split_empty(mixture, n_descriptors, floor):
    """Replace components that describe next to nothing by halves of the largest ones.

    A component of fewer than ``max(n / (1000 k), 2)`` descriptors is given up. The one with
    the largest contribution to the entropy, ``w (H - log w)``, is split along its
    widest dimension into two that keep its mean and second moment.

    Returns
    -------
    mixture : Mixture
    n_split : int
    """
    k, d = mixture.means.shape
    weights, means, variances = (p.copy() for p in mixture)
    # with hardly more descriptors than components, two of them are too much to ask
    least = max(1e-3 * n_descriptors / k, min(2.0, n_descriptors / (4 * k)))
    empty = np.flatnonzero(weights * n_descriptors < least)
    for position in empty:
        entropies = 0.5 * (d * (1 + LOG_2PI) + np.log(variances).sum(axis=1))
        gains = weights * (entropies - np.log(weights))
        gains[empty] = -np.inf
        j = int(gains.argmax())
        widest = int(variances[j].argmax())
        offset = math.sqrt(variances[j, widest]) / 2
        variances[j, widest] = max(0.75 * variances[j, widest], floor[widest])
        weights[j] /= 2
        weights[position], means[position], variances[position] = weights[j], means[j], variances[j]
        means[position, widest] += offset
        means[j, widest] -= offset
    return Mixture(weights / weights.sum(), means, variances), len(empty)


def em_iterations(units, mixture, floor, *, tol):
    """Run EM, one iteration at a time, for as long as the caller likes.

    Parameters
    ----------
    units : Units
        Of `row_units`.
    mixture : Mixture
        To start from.
    floor : array of shape (d,)
        Smallest variance.
    tol : float

    Yields
    ------
    mixture : Mixture
        After the iteration.
    log_likelihood : float
        Mean per descriptor, of the mixture before the iteration.
    converged : bool
        Whether it gained less than `tol` on the iteration before, with no component
        replaced in between.
    """
    before, splits_left = None, 10
    units.hold()
    while True:
        sums, frame, log_likelihood = expectation(units, mixture)
        mixture = maximization(sums, frame, floor, mixture)
        converged = before is not None and log_likelihood - before < tol
        before = log_likelihood
        if splits_left:  # a bounded number, so that EM ends
            mixture, n_split = split_empty(mixture, units.n_rows, floor)
            if n_split:
                splits_left -= 1
                before, converged = None, False
        yield mixture, log_likelihood, converged


class StepwiseState(NamedTuple):
    """What online EM remembers between batches: statistics per descriptor, in one frame.

    Plain arrays and numbers, which models can be saved with.
    """

    s0: np.ndarray  # (k,)
    s1: np.ndarray  # (k, d)
    s2: np.ndarray  # (k, d)
    shift: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)
    n_steps: int
    n_seen: int

    @classmethod
    def begin(cls, mixture, moments):
        """Return the state before the first batch; its sums are not read."""
        return cls.of_mixture(mixture, moments, 0, 0)

    @classmethod
    def of_mixture(cls, mixture, moments, n_steps, n_seen):
        """Return the state as if `mixture` came from `n_steps` batches."""
        frame = Frame(moments.mean, np.where(moments.variance > 0, np.sqrt(moments.variance), 1.0))
        means = (mixture.means - frame.shift) / frame.scale
        variances = mixture.variances / frame.scale**2
        w = mixture.weights[:, None]
        return cls(mixture.weights, w * means, w * (variances + means**2), *frame, n_steps, n_seen)

    @property
    def sums(self):
        """Statistics per descriptor, in the frame."""
        return Sums(self.s0, self.s1, self.s2)

    @property
    def frame(self):
        """The coordinates of the statistics."""
        return Frame(self.shift, self.scale)


def stepwise_update(state, units, mixture, variance_floor):
    r"""Take one step of online EM with the descriptors of a batch of bags.

    .. math:: \hat s \leftarrow (1 - \rho_i) \hat s + \rho_i s_i, \qquad
              \rho_i = (i + 2)^{-0.6}, \quad \rho_0 = 1,

    with ``s_i`` the sums per descriptor of batch ``i``; then the M-step on the average.

    Source: Cappé and Moulines (2009), section 2.

    Parameters
    ----------
    state : StepwiseState
    units : Units
        Those of `row_units` of the batch.
    mixture : Mixture
    variance_floor : float
        Share of the global variance, as seen so far.

    Returns
    -------
    state : StepwiseState
    mixture : Mixture
        The same until 20 descriptors a component were seen.
    log_likelihood : float
        Mean per descriptor of the batch, before the step.
    """
    n = units.n_rows
    sums, frame, log_likelihood = expectation(units, mixture)
    sums = Sums(*(s / n for s in _change_frame(sums, frame, state.frame)))
    if state.n_steps:
        rho = (state.n_steps + 2) ** -0.6
        sums = Sums(*((1 - rho) * a + rho * b for a, b in zip(state.sums, sums, strict=True)))
    state = StepwiseState(*sums, *state.frame, state.n_steps + 1, state.n_seen + n)
    if state.n_seen >= LEAST_SEEN * len(mixture.weights):
        total = sums.s0.sum()
        mean = sums.s1.sum(axis=0) / total
        variance = sums.s2.sum(axis=0) / total - mean**2
        # of the order of 1 in this frame: what is next to nothing is rounding
        variance = np.where(variance > 1e-12, variance, 0) * state.scale**2
        floor = Moments(mean, variance).floor(variance_floor)
        mixture = maximization(sums, state.frame, floor, mixture)
        mixture, _ = split_empty(mixture, state.n_seen, floor)
    return state, mixture, log_likelihood


def _change_frame(sums, frame, to):
    """Return the sums in the coordinates `to`."""
    shift, scale = (0.0, 1.0) if frame is None else frame
    a, b = scale / to.scale, (shift - to.shift) / to.scale
    s0 = sums.s0[:, None]
    return Sums(sums.s0, a * sums.s1 + b * s0, a**2 * sums.s2 + 2 * a * b * sums.s1 + b**2 * s0)

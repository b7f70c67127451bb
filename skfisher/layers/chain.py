r"""The chain that is trained as one: from bags to encodings, and gradients back.

.. math:: \text{descriptors } z \;\to\; h = \tanh(W z + b) \;\to\; \text{sums}
          \;\to\; \text{Fisher vectors} \;\to\; \text{power, L2} \;\to\; \text{encodings}

Descriptors pass some bags, or a part of a long bag, at a time, so that memory does not grow with
their number. What is computed from a bag's sums is small and in float64.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import (
    asarray,
    cuda_devices,
    finished,
    float_dtype,
    rows_on,
    to_host,
    work_context,
)
from skfisher.bags.bags import Bags
from skfisher.codebooks.em import Mixture
from skfisher.layers.whitening import Whitening, whiten
from skfisher.ops.constraints import (
    floored_exp,
    floored_exp_vjp,
    floored_log,
    normalized_sigmoid,
    normalized_sigmoid_inverse,
    normalized_sigmoid_vjp,
    softmax,
    softmax_vjp,
)
from skfisher.ops.feature_map import linear_map, linear_map_vjp, tanh_map, tanh_map_vjp
from skfisher.ops.fisher import (
    fisher_from_statistics,
    fisher_from_statistics_vjp,
    fisher_sums,
    fisher_sums_vjp,
)
from skfisher.ops.gaussian import logit_coefficients_vjp, scale_of, to_frame
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.ops.soft_assignment import Sums
from skfisher.parallel.threads import cut_bags, map_in_order

__all__ = ["Chain", "Encoded", "encode_bags"]

MAPS = {"tanh": (tanh_map, tanh_map_vjp), "linear": (linear_map, linear_map_vjp)}
WEIGHTS = {
    "softmax": (softmax, softmax_vjp, np.log),
    "sigmoid": (normalized_sigmoid, normalized_sigmoid_vjp, normalized_sigmoid_inverse),
}
# Longer bags are cut into parts, which bounds memory whatever the length of a bag.
ROWS_PER_PART = 2**14


class Encoded(NamedTuple):
    """Bags after a forward pass, with what the way back needs; float64."""

    sums: Sums  # in the frame of the mixture
    fisher: np.ndarray  # (n_bags, n_out), before normalisation
    encodings: np.ndarray  # (n_bags, n_out)
    assignment: "Assignment"  # of the descriptors to the mixture
    mapped: tuple | None  # the descriptors before and after the map, if all bags were one task


@dataclass(frozen=True)
class Chain:
    """What is fixed about the chain; its parameters are dicts of float64 arrays.

    ``map_weight`` (p_out, p) and ``map_bias`` (p_out,), unless the feature map is the
    identity; ``weight_logits`` (k,), ``means`` and ``log_variances`` (k, p_out).
    """

    feature_map: str
    weights: str
    floor: np.ndarray  # (p_out,), variances stay above it
    power: float
    power_eps: float | None
    include_weights: bool
    whitening: Whitening | None = None  # None where descriptors are whitened already
    n_jobs: int | None = None
    device: str | list | None = None

    def mixture(self, parameters):
        """Return the mixture that free parameters stand for."""
        weights = WEIGHTS[self.weights][0](parameters["weight_logits"])
        variances = floored_exp(parameters["log_variances"], floor=self.floor)
        return Mixture(weights, parameters["means"], variances)

    def free(self, mixture):
        """Return the free parameters of a mixture."""
        return {
            "weight_logits": WEIGHTS[self.weights][2](mixture.weights),
            "means": mixture.means,
            "log_variances": floored_log(mixture.variances, floor=self.floor),
        }

    def on(self, turn, values):
        """Return the chain of task number `turn`: several devices take turns."""
        devices = cuda_devices(self.device, values)
        if len(devices) < 2:
            return self
        return replace(self, device=f"cuda:{devices[turn % len(devices)]}")

    def n_threads(self, values):
        """Return how many tasks to run at a time: one for each device, or as asked for.

        If several, what computes `values` is done: threads have streams of their own.
        """
        devices = cuda_devices(self.device, values)
        n_threads = len(devices) if len(devices) > 1 else self.n_jobs
        if n_threads not in (None, 1):
            finished(values)
        return n_threads

    def mapped(self, parameters, bags):
        """Return the descriptors of bags as they enter and as they leave the feature map.

        They are on the one device of the chain, which must be the current one.
        """
        x, starts, stops = rows_on(self.device, bags.values, bags.starts, bags.stops)
        bags = Bags(x, starts, stops).pack()
        x = bags.values
        if self.whitening is None:
            z = x.astype(float_dtype(x.dtype), copy=False)
        else:
            z = whiten(x, self.whitening)
        if self.feature_map == "identity":
            return z, Bags(z, bags.starts, bags.stops)
        h = MAPS[self.feature_map][0](z, *self._map_of(parameters, z))
        return z, Bags(h, bags.starts, bags.stops)

    def _map_of(self, parameters, like):
        names = ("map_weight", "map_bias")
        return [asarray(parameters[name], like=like, dtype=like.dtype) for name in names]

    def forward(self, parameters, bags):
        """Encode bags, all at once: `encode_bags` does it for any number of them."""
        assignment = Assignment(self.mixture(parameters), bags)
        owners, parts = cut_long(bags)
        cuts = self._cut(parameters, parts)
        tasks = [
            (self.on(turn, bags.values), parameters, parts[part], assignment, len(cuts) == 1)
            for turn, part in enumerate(cuts)
        ]
        n_threads = self.n_threads(bags.values)
        results = list(map_in_order(_sum_task, tasks, n_jobs=n_threads))
        mapped = results[-1][1]
        sums = Sums(*(np.concatenate(s) for s in zip(*(r[0] for r in results), strict=True)))
        if len(parts) > len(bags):
            firsts = np.searchsorted(owners, np.arange(len(bags)))
            sums = Sums(*(np.add.reduceat(s, firsts, axis=0) for s in sums))
        fisher = fisher_from_statistics(
            sums, bags.lengths, *assignment.mixture, include_weights=self.include_weights
        )
        encodings = power_l2_normalize(fisher, power=self.power, eps=self.power_eps)
        return Encoded(sums, fisher, encodings, assignment, mapped)

    def backward(self, g, parameters, bags, encoded, *, features, mixture):
        """Return the gradients by the parameters, a dict, for `g` arriving at the encodings.

        Parameters
        ----------
        g : array of shape (n_bags, n_out)
        parameters : dict
        bags : Bags
        encoded : Encoded
            Of these bags and parameters.
        features, mixture : bool
            Whether the gradients by the map, and by the mixture, are wanted.
        """
        features = features and self.feature_map != "identity"
        if not (features or mixture):
            return {}
        assignment = encoded.assignment
        d_fisher = power_l2_normalize_vjp(g, encoded.fisher, power=self.power, eps=self.power_eps)
        d_sums, *direct = fisher_from_statistics_vjp(
            d_fisher, encoded.sums, bags.lengths, *assignment.mixture,
            include_weights=self.include_weights,
        )  # fmt: skip
        owners, parts = cut_long(bags)
        tasks = [
            (
                self.on(turn, bags.values),
                parameters,
                parts[part],
                assignment,
                encoded.mapped,
                d_sums.of(owners[part]),
                features,
            )
            for turn, part in enumerate(self._cut(parameters, parts))
        ]
        total = None
        n_threads = self.n_threads(bags.values)
        for part in map_in_order(_gradient_task, tasks, n_jobs=n_threads):
            total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        d_coefficients, d_map = total[:3], total[3:]
        gradients = dict(zip(("map_weight", "map_bias"), d_map, strict=True)) if features else {}
        if mixture:
            via = logit_coefficients_vjp(d_coefficients, *assignment.mixture)
            d_mixture = Mixture(*(a + b for a, b in zip(direct, via, strict=True)))
            gradients |= self._free_gradients(d_mixture, parameters, scale_of(assignment.frame))
        return gradients

    def _free_gradients(self, d_mixture, parameters, scale):
        weights_vjp = WEIGHTS[self.weights][1]
        return {
            "weight_logits": weights_vjp(d_mixture.weights, parameters["weight_logits"]),
            "means": d_mixture.means / scale,
            "log_variances": floored_exp_vjp(
                d_mixture.variances / scale**2, parameters["log_variances"], floor=self.floor
            ),
        }

    def n_out(self, parameters):
        """Return the width of an encoding."""
        k, d = parameters["means"].shape
        return k * (2 * d + 1) if self.include_weights else 2 * k * d

    def _cut(self, parameters, parts):
        return cut_bags(parts.lengths, self.n_out(parameters))


class Assignment:
    """A mixture, and the same in the coordinates that sums are taken in."""

    def __init__(self, mixture, bags):
        like = np.empty((0, 1), dtype=float_dtype(bags.dtype))
        self.given = mixture
        self.frame, *parameters, _ = to_frame(like, *mixture)
        self.mixture = Mixture(*parameters)


def _sum_task(chain, parameters, bags, assignment, keep):
    """Return the sums of bags, and their descriptors before and after the map to be kept."""
    with work_context(chain.device, bags.values):
        z, h = chain.mapped(parameters, bags)
        sums = fisher_sums(h.values, h.starts, h.stops, *assignment.given)
        return Sums(*(to_host(s) for s in sums)), (z, h) if keep else None


def _gradient_task(chain, parameters, bags, assignment, mapped, d_sums, features):
    """Return the gradients by the coefficients, and by the map if wanted, of some bags."""
    with work_context(chain.device, bags.values):
        return _gradients(chain, parameters, bags, assignment, mapped, d_sums, features)


def _gradients(chain, parameters, bags, assignment, mapped, d_sums, features):
    z, h = chain.mapped(parameters, bags) if mapped is None else mapped
    h, starts, stops = h.values, h.starts, h.stops
    d_sums = Sums(*(asarray(s, like=h, dtype=s.dtype) for s in d_sums))
    d_h, d_coefficients = fisher_sums_vjp(
        d_sums, h, starts, stops, *assignment.given, with_x=features
    )
    gradients = list(d_coefficients)
    if features:
        vjp = MAPS[chain.feature_map][1]
        gradients += vjp(d_h, z, *chain._map_of(parameters, z), y=h, with_x=False)[1:]
    return [to_host(g).astype(np.float64) for g in gradients]


def cut_long(bags):
    """Cut long bags into parts of nearly equal length.

    Returns
    -------
    owners : int array of shape (n_parts,)
        The bag each part belongs to.
    parts : Bags
    """
    n_parts = -(-bags.lengths // ROWS_PER_PART)
    owners = np.repeat(np.arange(len(bags)), n_parts)
    if len(owners) == len(bags):
        return owners, bags
    position = np.arange(len(owners)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    starts, lengths, n_parts = bags.starts[owners], bags.lengths[owners], n_parts[owners]
    stops = starts + lengths * (position + 1) // n_parts
    return owners, Bags(bags.values, starts + lengths * position // n_parts, stops)


def encode_bags(chain, parameters, bags):
    """Encode any number of bags, some of them at a time.

    Returns
    -------
    encodings : array of shape (n_bags, n_out)
        float32 for descriptors of up to 32 bits (integers: 16), else float64.
    """
    n_out = chain.n_out(parameters)
    encodings = np.empty((len(bags), n_out), dtype=float_dtype(bags.dtype))
    parts = cut_bags(bags.lengths, n_out)
    n_threads, single = chain.n_threads(bags.values), replace(chain, n_jobs=1)
    tasks = [
        (single.on(turn, bags.values), parameters, bags[part]) for turn, part in enumerate(parts)
    ]
    # not named: an exception's traceback would keep its threads and limits alive
    for part, block in zip(parts, map_in_order(_encode_task, tasks, n_jobs=n_threads), strict=True):
        encodings[part] = block
    return encodings


def _encode_task(chain, parameters, bags):
    return chain.forward(parameters, bags).encodings

"""What is minimised: the loss of the linear model on the encodings, and its gradients."""

import functools
from typing import NamedTuple

import numpy as np

from skfisher.bags.bags import Bags
from skfisher.ops.feature_map import linear_map
from skfisher.parallel.units import bag_units, cut_bags, sum_units

__all__ = ["LINEAR_MODEL", "Diverged", "Problem", "batch_gradient"]

# The parameters of the linear model, beside those of the layers.
LINEAR_MODEL = ("coef", "intercept")


class Diverged(ArithmeticError):
    """A quantity is no longer finite; the message names it."""


class Problem(NamedTuple):
    """Bags to learn from, with a column of targets, and perhaps of weights, for each output."""

    bags: Bags
    targets: np.ndarray  # (n_bags, n_columns): signs of classes, or numbers
    weights: np.ndarray | None  # the same shape

    def columns(self, columns):
        """Return the problem of some of the outputs."""
        weights = None if self.weights is None else self.weights[:, columns]
        return Problem(self.bags, self.targets[:, columns], weights)

    def take(self, index):
        """Return the problem of some of the bags."""
        weights = None if self.weights is None else self.weights[index]
        return Problem(self.bags[index], self.targets[index], weights)

    def weighted(self, factors):
        """Return the problem with the weight of each bag times a factor."""
        factors = np.asarray(factors, dtype=np.float64)[:, None]
        weights = np.ones_like(self.targets) if self.weights is None else self.weights
        return self._replace(weights=weights * factors)


def batch_gradient(chain, recipe, parameters, batch, duals=None, noise=None):
    """Return the objective of a batch, its gradients by what is trained, and each bag's loss.

    Some bags at a time go forward and back, so that their descriptors between layers are kept.

    Parameters
    ----------
    chain : Chain
    recipe : Recipe
    parameters : dict
        Of the layers, with ``coef`` and ``intercept``.
    batch : Problem
    duals : array of the shape of the targets, optional
        Of a linear model that is fitted anew every epoch.
    noise : array of shape (n_bags,), optional
        For a pooling layer that takes some in training.

    Returns
    -------
    objective : float
        Mean loss of the bags, and the penalties.
    gradients : dict
    losses : array of shape (n_bags,)
    """
    bags = batch.bags
    names = trained_names(chain, recipe)
    beside = {
        "index": np.arange(len(bags)), "targets": batch.targets,
        "weights": batch.weights, "duals": duals, "noise": noise,
    }  # fmt: skip
    beside = {name: values for name, values in beside.items() if values is not None}
    slices = cut_bags(bags.lengths, chain.n_out(parameters))
    row_bytes, bag_bytes = chain.scratch(parameters, bags.n_features)
    scratch = row_bytes, bag_bytes * max(some.stop - some.start for some in slices)
    units = bag_units(bags, slices, chain.where)
    prepared = chain.prepare(parameters, bags.dtype)
    penalty, d_shares = _penalty(chain, prepared, units, noise, scratch)
    step = functools.partial(
        _unit_gradient, chain, recipe, parameters, prepared, names, len(bags), tuple(beside),
        d_shares,
    )  # fmt: skip
    objective, terms, *found = sum_units(step, units, beside=[*beside.values()], scratch=scratch)
    objective += penalty
    gradients = dict(zip(names, found, strict=True))
    if "coef" in gradients:
        coef = parameters["coef"]
        objective += recipe.alpha * float((coef**2).sum())
        gradients["coef"] = gradients["coef"] + 2 * recipe.alpha * coef
    return float(objective), gradients, terms


def _penalty(chain, prepared, units, noise, scratch):
    """Return the term that a pooling layer adds to the loss of a batch, and its gradient.

    It depends on all bags of the batch at once, which therefore go forward once more.
    """
    if not getattr(chain.pooling, "penalizes", hasattr(chain.pooling, "penalty")):
        return 0.0, None
    step = functools.partial(_unit_shares, chain, prepared)
    (total,) = sum_units(step, units, beside=() if noise is None else [noise], scratch=scratch)
    return chain.pooling.penalty(prepared.pooling, total)


def _unit_shares(chain, prepared, x, starts, stops, noise=None):
    prepared = _noisy(chain, prepared, noise)
    sums = chain.sums(prepared, x, starts, stops)
    return (chain.pooling.shares(prepared.pooling, sums, stops - starts).sum(axis=0),)


def _noisy(chain, prepared, noise):
    if noise is None:
        return prepared
    return prepared._replace(pooling=chain.pooling.noisy(prepared.pooling, noise))


def trained_names(chain, recipe):
    """Return the names of the parameters that descent has gradients of."""
    names = chain.names(recipe.train)
    if recipe.task.group in recipe.train and not recipe.alternates:
        names += LINEAR_MODEL
    return names


def _unit_gradient(
    chain, recipe, parameters, prepared, names, n_bags, columns, d_shares, x, starts, stops, *beside
):
    """Return the objective of some bags out of `n_bags`, their losses, and the gradients."""
    of_bags = dict(zip(columns, beside, strict=True))
    prepared = _noisy(chain, prepared, of_bags.get("noise"))
    share = recipe.weight_scale / n_bags
    coef = parameters["coef"]
    encoded = chain.forward(prepared, x, starts, stops)
    decision = linear_map(encoded.encodings, coef, parameters["intercept"])
    problem = Problem(None, of_bags["targets"], of_bags.get("weights"))
    terms, d_decision = recipe.task.losses(decision, problem, of_bags.get("duals"))
    d_decision *= share
    if d_shares is not None:
        d_shares = np.broadcast_to(d_shares, (len(starts), len(d_shares)))
    _, gradients = chain.backward(
        d_decision @ coef, prepared, encoded, x, starts, stops,
        train=recipe.train, d_shares=d_shares,
    )  # fmt: skip
    if "coef" in names:
        gradients["coef"] = d_decision.T @ encoded.encodings
        gradients["intercept"] = d_decision.sum(axis=0)
    losses_of_all = np.zeros(n_bags)  # of the other bags 0, so that they add up too
    losses_of_all[of_bags["index"]] = terms
    return share * float(terms.sum()), losses_of_all, *(gradients[name] for name in names)

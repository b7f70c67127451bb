"""What is minimised: the loss of the linear classifier on the encodings, and its gradients."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from skfisher.bags.bags import Bags
from skfisher.ops import losses
from skfisher.ops.feature_map import linear_map
from skfisher.parallel.threads import cut_bags, map_in_order

__all__ = ["CLASSIFIER", "Problem", "batch_gradient", "mean_loss", "terms_of"]

# The group of the classifier's parameters, beside those of the layers.
CLASSIFIER = {"classifier": ("coef", "intercept")}


class Problem(NamedTuple):
    """Bags to learn from, with a column of signs, and perhaps of weights, for each output."""

    bags: Bags
    signs: np.ndarray  # (n_bags, n_columns)
    weights: np.ndarray | None  # the same shape

    def columns(self, columns):
        """Return the problem of some of the outputs."""
        weights = None if self.weights is None else self.weights[:, columns]
        return Problem(self.bags, self.signs[:, columns], weights)

    def take(self, index):
        """Return the problem of some of the bags."""
        weights = None if self.weights is None else self.weights[index]
        return Problem(self.bags[index], self.signs[index], weights)

    def weighted(self, factors):
        """Return the problem with the weight of each bag times a factor."""
        factors = np.asarray(factors, dtype=np.float64)[:, None]
        weights = np.ones_like(self.signs) if self.weights is None else self.weights
        return self._replace(weights=weights * factors)


def batch_gradient(chain, recipe, parameters, batch, duals=None):
    """Return the objective of a batch, its gradients by what is trained, and each bag's loss.

    Some bags at a time go forward and back, so that their mapped descriptors can be kept.

    Parameters
    ----------
    chain : Chain
    recipe : Recipe
    parameters : dict
        Of the layers, with ``coef`` and ``intercept``.
    batch : Problem
    duals : array of the shape of the signs, optional
        For ``loss="dual"``.

    Returns
    -------
    objective : float
        Mean loss of the bags, and the penalty.
    gradients : dict
    losses : array of shape (n_bags,)
    """
    parts = cut_bags(batch.bags.lengths, chain.n_out(parameters))
    values, n_threads = batch.bags.values, chain.n_threads(batch.bags.values)
    chains = [chain]
    if len(parts) > 1:  # threads over the parts, none within
        chain = replace(chain, n_jobs=1)
        chains = [chain.on(turn, values) for turn in range(len(parts))]
    share = recipe.weight_scale / len(batch.bags)
    tasks = [
        (c, recipe, parameters, batch.take(p), None if duals is None else duals[p], share)
        for c, p in zip(chains, parts, strict=True)
    ]
    objective, gradients, terms = 0.0, {}, []
    for part_terms, part in map_in_order(_part_gradient, tasks, n_jobs=n_threads):
        objective += share * float(part_terms.sum())
        terms.append(part_terms)
        for name, g in part.items():
            gradients[name] = gradients[name] + g if name in gradients else g
    if "coef" in gradients:
        coef = parameters["coef"]
        objective += recipe.alpha * float((coef**2).sum())
        gradients["coef"] = gradients["coef"] + 2 * recipe.alpha * coef
    return objective, gradients, np.concatenate(terms)


def _part_gradient(chain, recipe, parameters, batch, duals, share):
    """Return the losses of some bags, and the gradients of their sum times `share`."""
    coef = parameters["coef"]
    encoded = chain.forward(parameters, batch.bags)
    decision = linear_map(encoded.encodings, coef, parameters["intercept"])
    terms, d_decision = terms_of(recipe, decision, batch, duals)
    d_decision *= share
    gradients = chain.backward(
        d_decision @ coef, parameters, batch.bags, encoded, train=recipe.train
    )
    if "classifier" in recipe.train and not recipe.alternates:
        gradients["coef"] = d_decision.T @ encoded.encodings
        gradients["intercept"] = d_decision.sum(axis=0)
    return terms, gradients


def terms_of(recipe, decision, problem, duals=None):
    """Return the loss of each sample, and the gradient of their sum by the decision values."""
    if recipe.loss == "dual":
        return losses.dual(decision, problem.signs, duals)  # the weights are in the duals
    name = recipe.loss
    if name == "log_loss" and not (recipe.single_label and decision.shape[1] > 1):
        name = "logistic"
    return getattr(losses, name)(decision, problem.signs, weights=problem.weights)


def mean_loss(recipe, decision, problem):
    """Return the mean loss of decision values, for comparison between epochs.

    Signals that are no measure of success, such as minus the margin, are measured by the squared
    hinge.
    """
    if recipe.loss in ("linear", "dual"):
        terms, _ = losses.squared_hinge(decision, problem.signs, weights=problem.weights)
    else:
        terms, _ = terms_of(recipe, decision, problem)
    return float(terms.mean())

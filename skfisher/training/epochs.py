"""Gradient descent on the chain and its linear classifier together, an epoch at a time.

An epoch takes a model and returns another one. Nothing is written to, so that the model of
the last finished epoch is always there to return to.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from skfisher.arrays.libraries import device_of
from skfisher.bags.bags import Bags
from skfisher.layers.chain import encode_bags
from skfisher.ops import losses
from skfisher.ops.feature_map import linear_map
from skfisher.parallel.threads import cut_bags, map_in_order
from skfisher.svm.sdca import dual_coordinate_ascent
from skfisher.training.optimizers import (
    SGD,
    Adam,
    clip_norm,
    constant,
    cosine,
    mixture_information,
    precondition,
)

__all__ = ["GROUPS", "Diverged", "Model", "Problem", "Recipe", "mean_loss", "run_epoch"]

# What the groups that a user may train are made of.
GROUPS = {
    "features": ("map_weight", "map_bias"),
    "mixture": ("weight_logits", "means", "log_variances"),
    "classifier": ("coef", "intercept"),
}
OPTIMIZERS = {"adam": Adam(), "sgd": SGD(momentum=0.9), "natural": SGD(momentum=0.9)}
SCHEDULES = {"cosine": cosine, "constant": constant}


class Diverged(ArithmeticError):
    """A quantity is no longer finite; the message names it."""


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


class Model(NamedTuple):
    """Free parameters, with ``coef`` and ``intercept``, and what the optimiser remembers."""

    parameters: dict
    state: dict
    duals: np.ndarray | None = None  # of a classifier that is fitted anew every epoch


class Epoch(NamedTuple):
    """What an epoch did."""

    model: Model
    loss: float  # mean over samples, with the penalty
    gradient_norm: float  # mean over batches


@dataclass(frozen=True)
class Recipe:
    """How to descend."""

    train: tuple
    loss: str
    solver: str
    learning_rate: dict  # by group
    schedule: str
    clip_norm: float | None
    batch_size: int
    max_iter: int
    max_descriptors: int | None
    alpha: float
    C: float
    seed: int
    svm_seed: int
    single_label: bool  # one of several classes, so that log_loss joins them

    @property
    def alternates(self):
        """Whether the classifier is fitted anew every epoch, not descended on."""
        return self.loss in ("linear", "dual") or self.solver == "line_search"

    @property
    def factors(self):
        """Learning rates by parameter."""
        return {
            name: self.learning_rate[group] for group, names in GROUPS.items() for name in names
        }

    def start(self, parameters):
        """Return a model before its first step."""
        if self.solver == "line_search":
            return Model(parameters, {"step": self.learning_rate["mixture"]})
        return Model(parameters, OPTIMIZERS[self.solver].start(parameters))

    def fit_classifier(self, chain, model, problem):
        """Return the parameters with an SVM fitted to the encodings, and its duals.

        The duals of the epoch before stay feasible when the encodings move, and are where
        the ascent starts.
        """
        solution = dual_coordinate_ascent(
            encode_bags(chain, model.parameters, problem.bags),
            problem.signs,
            self.C if problem.weights is None else self.C * problem.weights,
            loss="hinge" if self.loss == "hinge" else "squared_hinge",
            duals=model.duals,
            tol=1e-3,
            max_iter=100,
            seed=self.svm_seed,
        )
        classifier = {
            "coef": solution.coef.astype(np.float64),
            "intercept": solution.intercept.astype(np.float64),
        }
        return model.parameters | classifier, solution.duals


def run_epoch(chain, recipe, model, problem, epoch):
    """Pass once over all bags, in random batches.

    Parameters
    ----------
    chain : Chain
    recipe : Recipe
    model : Model
    problem : Problem
    epoch : int
        Counted from 0; with the seed of the recipe it fixes every random choice.

    Returns
    -------
    result : Epoch

    Raises
    ------
    Diverged
        If a loss or a gradient is not finite, or the model at the end, or what it makes of bags.
    """
    run = _line_search if recipe.solver == "line_search" else _descend
    result = run(chain, recipe, model, problem, epoch)
    _check_model(chain, result.model.parameters, problem.bags[: recipe.batch_size])
    return result


def _descend(chain, recipe, model, problem, epoch):
    """Take a step for every batch."""
    parameters, state, duals = model
    optimizer = OPTIMIZERS[recipe.solver]
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(len(problem.bags))
    firsts = range(0, len(order), recipe.batch_size)
    if recipe.alternates:
        parameters, duals = recipe.fit_classifier(chain, model, problem)
    total, norms = 0.0, []
    for position, first in enumerate(firsts):
        index = np.sort(order[first : first + recipe.batch_size])
        batch = problem.take(index)
        batch = batch._replace(bags=draw_descriptors(batch.bags, recipe.max_descriptors, rng))
        loss, gradients = _batch_gradient(
            chain, recipe, parameters, batch, None if duals is None else duals[index]
        )
        if recipe.solver == "natural":
            gradients = _natural(chain, parameters, gradients)
        gradients, norm = clip_norm(gradients, recipe.clip_norm)
        _check_finite(loss, norm, gradients)
        step = epoch * len(firsts) + position
        rate = SCHEDULES[recipe.schedule](step, recipe.max_iter * len(firsts))
        parameters, state = optimizer.step(
            parameters, gradients, state, rate=rate, factors=recipe.factors
        )
        total += loss * len(index)
        norms.append(norm)
    return Epoch(Model(parameters, state, duals), total / len(order), float(np.mean(norms)))


def _batch_gradient(chain, recipe, parameters, batch, duals):
    """Return the objective of a batch, and its gradients by what is trained.

    Some bags at a time go forward and back, so that their mapped descriptors can be kept.
    """
    parts = cut_bags(batch.bags.lengths, chain.n_out(parameters))
    values, n_threads = batch.bags.values, chain.n_threads(batch.bags.values)
    chains = [chain]
    if len(parts) > 1:  # threads over the parts, none within
        chain = replace(chain, n_jobs=1)
        chains = [chain.on(turn, values) for turn in range(len(parts))]
    share = 1 / len(batch.bags)
    tasks = [
        (c, recipe, parameters, batch.take(p), None if duals is None else duals[p], share)
        for c, p in zip(chains, parts, strict=True)
    ]
    loss, gradients = 0.0, {}
    for part_loss, part in map_in_order(_part_gradient, tasks, n_jobs=n_threads):
        loss += part_loss
        for name, g in part.items():
            gradients[name] = gradients[name] + g if name in gradients else g
    if "coef" in gradients:
        coef = parameters["coef"]
        loss += recipe.alpha * float((coef**2).sum())
        gradients["coef"] = gradients["coef"] + 2 * recipe.alpha * coef
    return loss, gradients


def _part_gradient(chain, recipe, parameters, batch, duals, share):
    """Return the sum of the losses of some bags, times `share`, and its gradients."""
    coef = parameters["coef"]
    encoded = chain.forward(parameters, batch.bags)
    decision = linear_map(encoded.encodings, coef, parameters["intercept"])
    terms, d_decision = _terms(recipe, decision, batch, duals)
    d_decision *= share
    gradients = chain.backward(
        d_decision @ coef, parameters, batch.bags, encoded,
        features="features" in recipe.train, mixture="mixture" in recipe.train,
    )  # fmt: skip
    if "classifier" in recipe.train and not recipe.alternates:
        gradients["coef"] = d_decision.T @ encoded.encodings
        gradients["intercept"] = d_decision.sum(axis=0)
    return share * float(terms.sum()), gradients


def _terms(recipe, decision, problem, duals=None):
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
        terms, _ = _terms(recipe, decision, problem)
    return float(terms.mean())


def _natural(chain, parameters, gradients):
    """Divide the gradients by the mixture by its Fisher information."""
    mixture = chain.mixture(parameters)
    names = GROUPS["mixture"]
    information = mixture_information(mixture.weights, mixture.variances, floor=chain.floor)
    information = dict(zip(names, information, strict=True))
    return precondition(gradients, {n: i for n, i in information.items() if n in gradients})


def _line_search(chain, recipe, model, problem, epoch):
    """Fit the classifier, then take one projected gradient step on the mixture, downhill.

    The step is halved until the objective of all bags falls by a share of what the gradient
    promises; the next epoch starts from twice the last step.
    """
    parameters, duals = recipe.fit_classifier(chain, model, problem)
    old = chain.mixture(parameters)
    objective, gradients = 0.0, {}
    batches = [
        problem.take(slice(first, first + recipe.batch_size))
        for first in range(0, len(problem.bags), recipe.batch_size)
    ]
    for batch in batches:
        loss, part = _batch_gradient(chain, recipe, parameters, batch, None)
        share = len(batch.bags) / len(problem.bags)
        objective += share * loss
        for name, g in part.items():
            gradients[name] = gradients.get(name, 0) + share * g
    # From the free parameters back to those of the mixture: this one is tangent to the simplex.
    excess = old.variances - chain.floor
    slopes = (
        gradients["weight_logits"] / old.weights,
        gradients["means"],
        gradients["log_variances"] / np.maximum(excess, np.finfo(np.float64).tiny),
    )
    norm = float(np.sqrt(sum((g**2).sum() for g in slopes)))
    _check_finite(objective, norm, gradients)
    step = 2 * model.state["step"]
    for _ in range(40):
        weights, means, variances = (p - step * g for p, g in zip(old, slopes, strict=True))
        weights = np.maximum(weights, 1e-6)
        new = old._replace(
            weights=weights / weights.sum(),
            means=means,
            variances=np.maximum(variances, 2 * chain.floor),
        )
        moved = {**parameters, **chain.free(new)}
        reached = 0.0
        for batch in batches:
            decision = encode_bags(chain, moved, batch.bags) @ parameters["coef"].T
            terms, _ = _terms(recipe, decision + parameters["intercept"], batch)
            reached += float(terms.sum()) / len(problem.bags)
        if reached <= objective - 1e-4 * step * norm**2:
            return Epoch(Model(moved, {"step": step}, duals), reached, norm)
        step /= 2
    return Epoch(Model(parameters, {"step": step}, duals), objective, norm)


def _check_finite(loss, norm, gradients):
    if not np.isfinite(loss):
        raise Diverged("the loss")
    if not np.isfinite(norm):
        for name, g in gradients.items():
            if not np.isfinite(g).all():
                raise Diverged(f"the gradient by {name}")
        raise Diverged("the norm of the gradient")


def _check_model(chain, parameters, bags):
    """Check that a model can encode: no later step looks at what the last one has made."""
    for name, values in parameters.items():
        if not np.isfinite(values).all():
            raise Diverged(f"the parameter {name}")
    with np.errstate(all="ignore"):
        # Free parameters may be finite, and what they stand for is not.
        weights, _, variances = chain.mixture(parameters)
        if not np.isfinite(np.log(weights)).all():
            raise Diverged("the logarithm of a mixture weight")
        if not np.isfinite(variances).all():
            raise Diverged("a variance of the mixture")
        if not np.isfinite(encode_bags(chain, parameters, bags)).all():
            raise Diverged("an entry of the encodings")


def draw_descriptors(bags, most, rng):
    """Return the bags with at most so many descriptors each, drawn at random, in order."""
    lengths = bags.lengths
    if most is None or lengths.max() <= most:
        return bags
    rows = [
        np.arange(start, start + length)
        if length <= most
        else start + np.sort(rng.choice(length, most, replace=False))
        for start, length in zip(bags.starts.tolist(), lengths.tolist(), strict=True)
    ]
    with device_of(bags.values):
        values = bags.values[np.concatenate(rows)]
    return Bags.from_lengths(values, np.minimum(lengths, most))

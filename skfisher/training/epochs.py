"""Gradient descent on a chain and its linear classifier together, an epoch at a time.

An epoch takes a model and returns another one. Nothing is written to, so that the model of
the last finished epoch is always there to return to.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from skfisher.bags.sampling import draw_from_each
from skfisher.layers.encode import encode_bags
from skfisher.training.line_search import line_search
from skfisher.training.objective import Diverged, batch_gradient
from skfisher.training.optimizers import clip_norm
from skfisher.training.recipe import SCHEDULES, SOLVERS, Model

__all__ = ["Diverged", "Epoch", "run_epoch"]


class Epoch(NamedTuple):
    """What an epoch did."""

    model: Model
    loss: float  # mean over samples, with the penalty
    gradient_norm: float  # mean over batches
    record: Mapping = MappingProxyType({})  # what the sampler tells of the epoch


def run_epoch(chain, recipe, model, problem, epoch, *, check=True):
    """Pass once over all bags, in random batches.

    Parameters
    ----------
    chain : Chain
    recipe : Recipe
    model : Model
    problem : Problem
    epoch : int
        Counted from 0; with the seed of the recipe it fixes every random choice.
    check : bool
        Whether to look at the model at the end, and at what it makes of some bags.

    Returns
    -------
    result : Epoch

    Raises
    ------
    Diverged
        If a loss or a gradient is not finite, or the model at the end, or what it makes of bags.
    """
    if recipe.solver == "line_search":
        model, loss, norm, gradients = line_search(chain, recipe, model, problem)
        _check_finite(loss, norm, gradients)
        result = Epoch(model, loss, norm)
    else:
        result = _descend(chain, recipe, model, problem, epoch)
    if check:
        _check_model(chain, result.model.parameters, problem.bags[: recipe.batch_size])
    return result


def _descend(chain, recipe, model, problem, epoch):
    """Take a step for every batch."""
    parameters, state, duals = model
    solver, factors = SOLVERS[recipe.solver], recipe.factors(chain.groups)
    rng = np.random.default_rng([recipe.seed, epoch])
    n_bags, sampler = len(problem.bags), recipe.sampler
    memory = state["sampler"]
    if memory is None:
        memory = sampler.begin(chain, parameters, problem.bags)
    waiting = sampler.start(memory, rng, n_bags)
    n_steps = -(-n_bags // recipe.batch_size)
    if recipe.alternates:
        parameters, duals = recipe.fit_classifier(chain, model, problem)
    total, n_seen, norms = 0.0, 0, []
    for position in range(n_steps):
        index, weights, waiting = sampler.draw(waiting, rng, recipe.batch_size)
        batch = problem.take(index)
        if weights is not None:
            batch = batch.weighted(weights)
        batch = batch._replace(bags=draw_from_each(batch.bags, recipe.max_descriptors, rng))
        loss, gradients, losses = batch_gradient(
            chain, recipe, parameters, batch,
            duals=None if duals is None else duals[index],
            noise=rng.normal(size=len(index)) if hasattr(chain.pooling, "noisy") else None,
        )  # fmt: skip
        waiting = sampler.observe(waiting, index, losses if weights is None else losses / weights)
        memories = []
        for link, memory in zip(solver.links, state["links"], strict=True):
            gradients, memory = link.apply(
                gradients, memory, parameters=parameters, chain=chain, bags=batch.bags
            )
            memories.append(memory)
        gradients, norm = clip_norm(gradients, recipe.clip_norm)
        _check_finite(loss, norm, gradients)
        step = epoch * n_steps + position
        rate = SCHEDULES[recipe.schedule](step, recipe.max_iter * n_steps)
        parameters, memory = solver.optimizer.step(
            parameters, gradients, state["optimizer"], rate=rate, factors=factors
        )
        state = state | {"links": tuple(memories), "optimizer": memory}
        total += loss * len(index)
        n_seen += len(index)
        norms.append(norm)
    memory, record = sampler.end(waiting)
    model = Model(parameters, state | {"sampler": memory}, duals)
    return Epoch(model, total / n_seen, float(np.mean(norms)), record)


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
    # Free parameters may be finite, and what they stand for is not.
    fault_of = getattr(chain.pooling, "fault", lambda _: None)
    if fault := fault_of(parameters):
        raise Diverged(fault)
    with np.errstate(all="ignore"):
        if not np.isfinite(encode_bags(chain, parameters, bags)).all():
            raise Diverged("an entry of the encodings")

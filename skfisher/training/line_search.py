"""Projected gradient steps on the pooling layer alone, as long as the objective falls.

Source: Sydorov, Sakurada and Lampert (2014), section 3.
"""

import numpy as np

from skfisher.layers.encode import encode_bags
from skfisher.training.objective import batch_gradient
from skfisher.training.recipe import Model

__all__ = ["line_search"]

MOST_HALVINGS = 40
# Of the fall that the gradient promises, the share that is enough (Armijo, 1966).
SUFFICIENT = 1e-4


def line_search(chain, recipe, model, problem):
    """Fit the classifier, then take one step downhill.

    The step is halved until the objective of all bags falls by a share of what the gradient
    promises; the next epoch starts from twice the last step.

    Parameters
    ----------
    chain : Chain
        Its pooling layer has `slopes` and `retract`.
    recipe : Recipe
    model : Model
    problem : Problem

    Returns
    -------
    model : Model
    objective : float
        Reached by it.
    norm : float
        Of the gradient.
    gradients : dict
    """
    parameters, duals = recipe.fit_classifier(chain, model, problem)
    objective, gradients = 0.0, {}
    batches = [
        problem.take(slice(first, first + recipe.batch_size))
        for first in range(0, len(problem.bags), recipe.batch_size)
    ]
    for batch in batches:
        loss, part, _ = batch_gradient(chain, recipe, parameters, batch)
        share = len(batch.bags) / len(problem.bags)
        objective += share * loss
        for name, g in part.items():
            gradients[name] = gradients.get(name, 0) + share * g
    slopes = chain.pooling.slopes(parameters, gradients)
    norm = float(np.sqrt(sum((g**2).sum() for g in slopes)))
    step = 2 * model.state["step"]
    if np.isfinite(objective) and np.isfinite(norm):
        for _ in range(MOST_HALVINGS):
            with np.errstate(all="ignore"):  # NaN is no objective to take a step for
                moved = chain.pooling.retract(parameters, slopes, step)
                reached = sum(_loss(chain, recipe, moved, b) / len(problem.bags) for b in batches)
            if reached <= objective - SUFFICIENT * step * norm**2:
                return Model(moved, {"step": step}, duals), reached, norm, gradients
            step /= 2
    return Model(parameters, {"step": step}, duals), objective, norm, gradients


def _loss(chain, recipe, parameters, batch):
    """Return the sum of the losses of some bags."""
    encodings = encode_bags(chain, parameters, batch.bags)
    decision = encodings @ parameters["coef"].T + parameters["intercept"]
    terms, _ = recipe.task.losses(decision, batch)
    return recipe.weight_scale * float(terms.sum())

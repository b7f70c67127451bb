"""How good a jointly trained model is on some bags, and whether training made it worse."""

from typing import NamedTuple

import numpy as np

from skfisher.layers.encode import encode_bags

__all__ = ["Verdict", "decide", "fault_of", "judge"]

# Training has made a model worse if on the training bags its score is so much lower, or its loss so
# much and half again higher, than that of the frozen model, or if it has left a component
# less than this share of its fair weight, 1/K.
WIDE_MARGIN = 0.1
LOST_WEIGHT = 1e-3


class Verdict(NamedTuple):
    """What is said of a model, by the bags that it was fitted to."""

    score: float
    loss: float  # of its last linear model
    weight: float  # the smallest of the mixture, times K; NaN where nothing has weights


def decide(chain, models, bags):
    """Return the decision values of bags by all models, beside each other."""
    return np.hstack([encode_bags(chain, m, bags) @ m["coef"].T + m["intercept"] for m in models])


def judge(task, problem, decision, health):
    """Return the verdict on a model.

    Parameters
    ----------
    task : Task
    problem : Problem
        The bags that it was fitted to.
    decision : array of the shape of the targets
    health : dict
        What the pooling layer tells of itself.
    """
    smallest = health.get("smallest_weight", np.nan)
    return Verdict(
        task.score(decision, problem.targets), task.fitted_loss(decision, problem), smallest
    )


def fault_of(before, after):
    """Return what speaks against the model after training, or None."""
    if after.score < before.score - WIDE_MARGIN:
        return (
            f"the score of the last linear model is {after.score:.3g}, that of baseline_ "
            f"{before.score:.3g}"
        )
    if not after.loss <= 1.5 * before.loss + WIDE_MARGIN:
        return (
            f"the loss of the last linear model is {after.loss:.3g}, that of baseline_ "
            f"{before.loss:.3g}"
        )
    if after.weight < min(LOST_WEIGHT, before.weight):
        return f"K times the smallest weight of the mixture is {after.weight:.2g}"
    return None

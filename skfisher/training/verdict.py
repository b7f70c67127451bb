"""How good a jointly trained model is on some bags, and whether training made it worse."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score

from skfisher.layers.encode import encode_bags
from skfisher.ops import losses

__all__ = ["Verdict", "decide", "fault_of", "judge", "score_of"]

# Training has made a model worse if on the training bags its score is so much lower, or its loss so
# much and half again higher, than that of the frozen model, or if it has left a component
# less than this share of its fair weight, 1/K.
WIDE_MARGIN = 0.1
LOST_WEIGHT = 1e-3


class Verdict(NamedTuple):
    """What is said of a model, by the bags that it was fitted to."""

    score: float
    loss: float  # of its last classifier
    weight: float  # the smallest of the mixture, times K; NaN where nothing has weights


def decide(chain, models, bags):
    """Return the decision values of bags by all models, beside each other."""
    return np.hstack([encode_bags(chain, m, bags) @ m["coef"].T + m["intercept"] for m in models])


def score_of(targets, decision):
    """Return the accuracy of decisions, or for label indicators their mean average precision."""
    if targets.kind == "multilabel":
        columns = zip((targets.signs > 0).T, decision.T, strict=True)
        # a label that no bag has cannot be found
        scores = [average_precision_score(*column) for column in columns if column[0].any()]
        return float(np.mean(scores)) if scores else np.nan
    return float(accuracy_score(targets.labels(targets.signs), targets.labels(decision)))


def judge(targets, weights, decision, *, loss, health):
    """Return the verdict on a model.

    Parameters
    ----------
    targets : Targets
    weights : array of the shape of the signs, or None
        Of the terms of the loss.
    decision : array of the shape of the signs
    loss : str
        Of the last classifier.
    health : dict
        What the pooling layer tells of itself.
    """
    terms, _ = getattr(losses, loss)(decision, targets.signs, weights=weights)
    smallest = health.get("smallest_weight", np.nan)
    return Verdict(score_of(targets, decision), float(terms.mean()), smallest)


def fault_of(before, after):
    """Return what speaks against the model after training, or None."""
    if after.score < before.score - WIDE_MARGIN:
        return (
            f"the score of the last SVM is {after.score:.3g}, that of baseline_ {before.score:.3g}"
        )
    if not after.loss <= 1.5 * before.loss + WIDE_MARGIN:
        return f"the loss of the last SVM is {after.loss:.3g}, that of baseline_ {before.loss:.3g}"
    if after.weight < min(LOST_WEIGHT, before.weight):
        return f"K times the smallest weight of the mixture is {after.weight:.2g}"
    return None

r"""How descriptors are assigned to words: the free parameters, and the logits that they make.

Four ways share the centres `c`. *Hard* assignment is to the nearest of them. *Tied*, the logits are
:math:`-\alpha |x - c_k|^2`; with *metrics* of the words' own, :math:`-\sum_d p_{kd} (x_d -
c_{kd})^2`; *free*, :math:`\langle W_k, x \rangle + b_k`, which starts as tied and is trained beside
the centres. Positive numbers are exponentials of what is trained.

Sums are taken in coordinates ``y = (x - shift) / scale`` in which squares keep their digits. So
each way returns coefficients for these, and takes gradients back from them.
"""

from typing import ClassVar

import numpy as np

from skfisher.ops.constraints import floored_exp, floored_exp_vjp, floored_log
from skfisher.ops.gaussian import scale_of
from skfisher.ops.learned_aggregation import metric_logits, metric_logits_vjp
from skfisher.ops.vlad import distance_logits, distance_logits_vjp

__all__ = ["Free", "Hard", "Metrics", "Tied", "hidden", "positive", "shown"]

# Between a centre and the next in numbers, as a share of the usual square: more than sums round.
# Of centres that are equally near, the first is taken, whatever rounds how.
TIE = 1e-12


def _own_spread(centers):
    """Return the mean variance of centres in a dimension: a unit for distances, where any is right.

    1 where there is none.
    """
    return float(centers.var(axis=0).mean()) or 1.0


class Hard:
    """Assignment to the nearest centre."""

    hard = True
    names = ("centers",)
    shown: ClassVar[dict[str, str]] = {}

    def start(self, centers, sharpness):
        """Return the parameters other than the centres for a scale of soft assignment."""
        return {}

    def precisions(self, p):
        """Return half the inverse variances for which coordinates are chosen."""
        return np.full(p["centers"].shape[1], 0.5 / _own_spread(p["centers"]))

    def coefficients(self, p, centers, frame):
        """Return linear, quadratic or None, and constant for centres in a frame."""
        linear, constant = distance_logits(centers, self.precisions(p) * scale_of(frame) ** 2)
        return linear, None, constant - TIE * np.median(-constant) * np.arange(len(constant))

    def vjp(self, g, p, centers, frame):
        """Return the gradients by centres in the frame, and by the other parameters."""
        return 0.0, {}


class Tied:
    """The softmax of squared distances in one scale."""

    hard = False
    names = ("centers", "log_sharpness")
    shown: ClassVar = {"log_sharpness": "scale_"}

    def start(self, centers, sharpness):
        """Return the parameters other than the centres for a scale of soft assignment."""
        return {"log_sharpness": np.array([np.log(sharpness)])}

    def precisions(self, p):
        """Return half the inverse variances for which coordinates are chosen."""
        sharpness = floored_exp(p["log_sharpness"], floor=0.0)
        return np.repeat(sharpness, p["centers"].shape[1])

    def coefficients(self, p, centers, frame):
        """Return linear, quadratic or None, and constant for centres in a frame."""
        linear, constant = distance_logits(centers, self.precisions(p) * scale_of(frame) ** 2)
        return linear, None, constant

    def vjp(self, g, p, centers, frame):
        """Return the gradients by centres in the frame, and by the other parameters."""
        squares = scale_of(frame) ** 2
        d_centers, d_metric = distance_logits_vjp(
            (g["linear"], g["constant"]), centers, self.precisions(p) * squares
        )
        d_sharpness = (d_metric * squares).sum(keepdims=True)
        by_log = floored_exp_vjp(d_sharpness, p["log_sharpness"], floor=0.0)
        return d_centers, {"log_sharpness": by_log}


class Metrics:
    """The softmax of squared distances in a diagonal metric of each word."""

    hard = False
    names = ("centers", "log_metrics")
    shown: ClassVar = {"log_metrics": "metrics_"}

    def start(self, centers, sharpness):
        """Return the parameters other than the centres for a scale of soft assignment."""
        return {"log_metrics": np.full(centers.shape, np.log(sharpness))}

    def precisions(self, p):
        """Return half the inverse variances for which coordinates are chosen."""
        return floored_exp(p["log_metrics"], floor=0.0)

    def coefficients(self, p, centers, frame):
        """Return linear, quadratic or None, and constant for centres in a frame."""
        return metric_logits(centers, self.precisions(p) * scale_of(frame) ** 2)

    def vjp(self, g, p, centers, frame):
        """Return the gradients by centres in the frame, and by the other parameters."""
        squares = scale_of(frame) ** 2
        arriving = g["linear"], g["quadratic"], g["constant"]
        d_centers, d_metrics = metric_logits_vjp(arriving, centers, self.precisions(p) * squares)
        by_log = floored_exp_vjp(d_metrics * squares, p["log_metrics"], floor=0.0)
        return d_centers, {"log_metrics": by_log}


class Free:
    """The softmax of a linear map that the centres have no part in."""

    hard = False
    names = ("centers", "assignment_weights", "assignment_biases")
    shown: ClassVar = {
        "assignment_weights": "assignment_coef_",
        "assignment_biases": "assignment_intercept_",
    }

    def start(self, centers, sharpness):
        """Return the parameters other than the centres for a scale of soft assignment."""
        middle = centers.mean(axis=0)  # what all words share makes no difference
        about = centers - middle
        biases = -sharpness * (about * (centers + middle)).sum(axis=1)
        return {"assignment_weights": 2 * sharpness * about, "assignment_biases": biases}

    def precisions(self, p):
        """Return half the inverse variances for which coordinates are chosen."""
        return np.full(p["centers"].shape[1], 0.5 / _own_spread(p["centers"]))

    def coefficients(self, p, centers, frame):
        """Return linear, quadratic or None, and constant for centres in a frame."""
        weights = p["assignment_weights"] - p["assignment_weights"].mean(axis=0)
        constant = p["assignment_biases"] - p["assignment_biases"].mean()
        if frame is not None:
            constant = constant + weights @ frame.shift
        return weights * scale_of(frame), None, constant

    def vjp(self, g, p, centers, frame):
        """Return the gradients by centres in the frame, and by the other parameters."""
        # Gradients sum to 0 over the words: that a mean was subtracted changes nothing.
        d_weights = g["linear"] * scale_of(frame)
        if frame is not None:
            d_weights = d_weights + np.outer(g["constant"], frame.shift)
        return 0.0, {"assignment_weights": d_weights, "assignment_biases": g["constant"]}


def positive(way, p):
    """Return the attributes of an assignment that must be above 0."""
    logs = {name: attribute for name, attribute in way.shown.items() if name.startswith("log_")}
    return {attribute: floored_exp(p[name], floor=0.0) for name, attribute in logs.items()}


def shown(way, p):
    """Return the attributes that an estimator shows of an assignment."""
    return {attribute: p[name] for name, attribute in way.shown.items()} | positive(way, p)


def hidden(way, attributes):
    """Return the parameters that the attributes of an assignment stand for."""
    found = {name: attributes[attribute] for name, attribute in way.shown.items()}
    logs = [name for name in found if name.startswith("log_")]
    return found | {name: floored_log(found[name], floor=0.0) for name in logs}

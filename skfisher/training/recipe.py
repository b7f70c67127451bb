"""How to descend: the links of a step, and their settings."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from skfisher.layers.encode import encode_bags
from skfisher.svm.solver import fit_linear_svms
from skfisher.training.importance import LossSampling
from skfisher.training.natural_gradient import FeatureMetric, NaturalGradient
from skfisher.training.objective import CLASSIFIER, Diverged
from skfisher.training.optimizers import SGD, Adam, constant, cosine
from skfisher.training.sampling import Shuffle

__all__ = ["SAMPLERS", "SCHEDULES", "SOLVERS", "Model", "Recipe"]


class Model(NamedTuple):
    """Free parameters, with ``coef`` and ``intercept``, and what the links remember."""

    parameters: dict
    state: dict
    duals: np.ndarray | None = None  # of a classifier that is fitted anew every epoch

    def of_other_bags(self):
        """Return the model without what is known of the bags it was trained on."""
        return self._replace(duals=None, state=self.state | {"sampler": None})


class Solver(NamedTuple):
    """The links of a step: what gradients pass, and what turns them into a step."""

    optimizer: Any
    links: tuple = ()
    needs: tuple = ()  # of the pooling layer, beside the protocol


SOLVERS = {
    "adam": Solver(Adam()),
    "sgd": Solver(SGD(momentum=0.9)),
    "natural": Solver(SGD(momentum=0.9), (NaturalGradient(),), ("information",)),
    "structured_natural": Solver(
        SGD(momentum=0.9), (NaturalGradient(), FeatureMetric()), ("information",)
    ),
    "line_search": Solver(None, (), ("slopes", "retract")),
}
SAMPLERS = {"uniform": Shuffle(), "loss": LossSampling()}
SCHEDULES = {"cosine": cosine, "constant": constant}


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
    weight_scale: float = 1.0  # what makes the mean weight of bags 1
    sampler: Any = field(default_factory=Shuffle)

    @property
    def alternates(self):
        """Whether the classifier is fitted anew every epoch, not descended on."""
        return self.loss in ("linear", "dual") or self.solver == "line_search"

    def factors(self, groups):
        """Return learning rates by parameter."""
        groups = groups | CLASSIFIER
        return {
            name: rate
            for group, rate in self.learning_rate.items()
            for name in groups.get(group, ())
        }

    def start(self, parameters):
        """Return a model before its first step."""
        solver = SOLVERS[self.solver]
        if self.solver == "line_search":
            first = [rate for group, rate in self.learning_rate.items() if group in self.train]
            return Model(parameters, {"step": first[0]})
        links = tuple(link.start(parameters) for link in solver.links)
        optimizer = solver.optimizer.start(parameters)
        return Model(parameters, {"links": links, "optimizer": optimizer, "sampler": None})

    def fit_classifier(self, chain, model, problem):
        """Return the parameters with an SVM fitted to the encodings, and its duals.

        The duals of the epoch before stay feasible when the encodings move, and are where
        the ascent starts.
        """
        encodings = encode_bags(chain, model.parameters, problem.bags)
        if not np.isfinite(encodings).all():
            raise Diverged("an entry of the encodings")
        solution = fit_linear_svms(
            encodings,
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

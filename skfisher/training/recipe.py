"""How to descend: the links of a step, and their settings."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from skfisher.layers.encode import encode_bags
from skfisher.training.importance import LossSampling
from skfisher.training.natural_gradient import FeatureMetric, NaturalGradient
from skfisher.training.objective import LINEAR_MODEL, Diverged
from skfisher.training.optimizers import SGD, Adam, constant, cosine
from skfisher.training.sampling import Shuffle
from skfisher.training.task import Task

__all__ = ["SAMPLERS", "SCHEDULES", "SOLVERS", "Model", "Recipe"]


class Model(NamedTuple):
    """Free parameters, with ``coef`` and ``intercept``, and what the links remember."""

    parameters: dict
    state: dict
    duals: np.ndarray | None = None  # of a linear model that is fitted anew every epoch

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
    task: Task
    solver: str
    learning_rate: dict  # by group
    schedule: str
    clip_norm: float | None
    batch_size: int
    max_iter: int
    max_descriptors: int | None
    alpha: float
    seed: int
    weight_scale: float = 1.0  # what makes the mean weight of bags 1
    sampler: Any = field(default_factory=Shuffle)

    @property
    def alternates(self):
        """Whether the linear model is fitted anew every epoch, not descended on."""
        return self.task.alternates or self.solver == "line_search"

    def factors(self, groups):
        """Return learning rates by parameter."""
        groups = groups | {self.task.group: LINEAR_MODEL}
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
        """Return the parameters with a linear model fitted to the encodings, and its duals."""
        encodings = encode_bags(chain, model.parameters, problem.bags)
        if not np.isfinite(encodings).all():
            raise Diverged("an entry of the encodings")
        coef, intercept, duals = self.task.fit_anew(encodings, problem, model.duals)
        return model.parameters | {"coef": coef, "intercept": intercept}, duals

"""The line search: every step goes downhill, by as much as the gradient promises."""

import numpy as np
import pytest

from skfisher import Bags
from skfisher.layers.chain import Chain
from skfisher.layers.fisher import FisherPooling
from skfisher.layers.normalization import PowerL2
from skfisher.training.classification import Classification
from skfisher.training.line_search import SUFFICIENT, line_search
from skfisher.training.objective import Problem, batch_gradient
from skfisher.training.recipe import Recipe


@pytest.fixture
def task(rng):
    """Return chain, recipe, a model to start from and bags of two classes that differ in spread."""
    signs = np.where(np.arange(24) % 2, 1.0, -1.0)[:, None]
    values = [rng.normal(scale=1 + 0.5 * (s > 0), size=(12, 3)) for s in signs[:, 0]]
    bags = Bags.from_list(values)
    chain = Chain((), FisherPooling(2, max_iter=2), (PowerL2(0.5, 1e-3),))
    recipe = Recipe(
        train=("mixture",), task=Classification(), solver="line_search",
        learning_rate={"mixture": 1.0}, schedule="constant", clip_norm=None, batch_size=7,
        max_iter=1, max_descriptors=None, alpha=0.0, seed=0,
    )  # fmt: skip
    return chain, recipe, recipe.start(chain.pooling.start(bags, 0)), Problem(bags, signs, None)


def test_every_step_falls_by_a_share_of_what_the_gradient_promises(task):
    chain, recipe, model, problem = task
    for _ in range(4):
        after, reached, norm, _ = line_search(chain, recipe, model, problem)
        # the objective before the step, under the classifier of this epoch
        head = {name: after.parameters[name] for name in ("coef", "intercept")}
        before, _, _ = batch_gradient(chain, recipe, model.parameters | head, problem)
        now, _, _ = batch_gradient(chain, recipe, after.parameters, problem)
        assert reached == pytest.approx(now)
        assert reached <= before - SUFFICIENT * after.state["step"] * norm**2 + 1e-12
        assert reached < before
        model = after


def test_a_step_stays_among_the_mixtures(task):
    chain, recipe, model, problem = task
    model = model._replace(state={"step": 1e3})  # far too long a first try
    after, *_ = line_search(chain, recipe, model, problem)
    weights, _, variances = chain.pooling.mixture_of(after.parameters)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()
    assert (variances > after.parameters["variance_floor"]).all()
    assert after.state["step"] < 2e3

"""The chain from bags to encodings and back, against plain formulas and central differences."""

from dataclasses import replace

import numpy as np
import pytest

from skfisher import Bags
from skfisher.bags.sampling import draw_from_each
from skfisher.codebooks.em import Mixture
from skfisher.layers import chain as chain_module
from skfisher.layers.chain import Chain, cut_long
from skfisher.layers.encode import encode_bags
from skfisher.layers.feature_map import FeatureMap
from skfisher.layers.fisher import FisherPooling
from skfisher.layers.normalization import PowerL2
from skfisher.layers.whitening import Whitening, whiten_bags
from skfisher.parallel.units import Where
from skfisher.training.classification import Classification
from skfisher.training.objective import Problem, batch_gradient
from skfisher.training.recipe import Recipe
from tests.ops import references

LENGTHS = [1, 7, 30, 13]
K, D_IN, D_OUT = 3, 4, 5


def bags_of(rng, dtype=np.float64):
    values = rng.normal(scale=0.5, size=(sum(LENGTHS), D_IN))
    return Bags.from_lengths(values.astype(dtype), LENGTHS)


GROUPS = {**FeatureMap.groups, **FisherPooling.groups, "classifier": ("coef", "intercept")}


def chain_of(rng, *, feature_map="tanh", weights="softmax", eps=0.05, offset=0.0, **options):
    """Return a chain and random parameters for it."""
    d = D_IN if feature_map == "identity" else D_OUT
    pooling = FisherPooling(K, weight_map=weights, **options)
    below = () if feature_map == "identity" else (FeatureMap(feature_map),)
    chain = Chain(below, pooling, (PowerL2(0.5, eps),))
    mixture = Mixture(
        rng.dirichlet(np.full(K, 5.0)),
        rng.normal(scale=0.3, size=(K, d)) + offset,
        rng.uniform(0.05, 0.2, size=(K, d)),
    )
    constants = {"variance_floor": np.full(d, 0.01), "global_variance": np.ones(d)}
    parameters = pooling.free(mixture, constants)
    if below:
        parameters["map_weight"] = rng.normal(scale=0.5, size=(D_OUT, D_IN))
        parameters["map_bias"] = rng.normal(scale=0.1, size=D_OUT)
    return chain, parameters


def forward(chain, parameters, bags):
    return chain.forward(
        chain.prepare(parameters, bags.dtype), bags.values, bags.starts, bags.stops
    )


def backward(chain, g, parameters, bags, encoded, *, train):
    prepared = chain.prepare(parameters, bags.dtype)
    rows = bags.values, bags.starts, bags.stops
    return chain.backward(g, prepared, encoded, *rows, train=train)[1]


ALL = ("features", "mixture")
CONSTANTS = {"variance_floor", "global_variance"}


CHAINS = {
    "default": {},
    "linear map": {"feature_map": "linear"},
    "no map": {"feature_map": "identity"},
    "sigmoid weights": {"weights": "sigmoid"},
    "without weights": {"include_weights": False},
    "components far from the origin": {"feature_map": "linear", "offset": 30.0},
}
every_chain = pytest.mark.parametrize("options", CHAINS.values(), ids=CHAINS)


def assert_gradients(f, parameters, gradients, rng, *, h=1e-5, rel=2e-5):
    """Compare gradients with central differences of `f` along random directions."""
    for name, gradient in gradients.items():
        assert gradient.shape == parameters[name].shape
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            up, down = (
                f({**parameters, name: parameters[name] + s * h * direction}) for s in (1, -1)
            )
            expected = (up - down) / (2 * h)
            assert float((gradient * direction).sum()) == pytest.approx(expected, rel=rel, abs=1e-7)


@every_chain
def test_forward_agrees_with_the_plain_formulas(options, rng):
    chain, parameters = chain_of(rng, **options)
    bags = bags_of(rng)
    h = bags.values
    for layer in chain.below:
        h = h @ parameters["map_weight"].T + parameters["map_bias"]
        h = np.tanh(h) if layer.kind == "tanh" else h
    fisher = references.fisher_vector(
        h,
        bags.starts,
        bags.stops,
        *chain.pooling.mixture_of(parameters),
        include_weights=chain.pooling.include_weights,
    )
    powered = fisher * (fisher**2 + chain.above[0].eps ** 2) ** -0.25
    expected = powered / np.linalg.norm(powered, axis=1, keepdims=True)
    np.testing.assert_allclose(forward(chain, parameters, bags).encodings, expected, atol=1e-9)
    np.testing.assert_allclose(encode_bags(chain, parameters, bags), expected, atol=1e-9)


@every_chain
def test_backward_agrees_with_central_differences(options, rng):
    chain, parameters = chain_of(rng, **options)
    bags = bags_of(rng)
    encoded = forward(chain, parameters, bags)
    g = rng.normal(size=encoded.encodings.shape)
    gradients = backward(chain, g, parameters, bags, encoded, train=ALL)
    assert set(gradients) == set(parameters) - CONSTANTS
    assert_gradients(
        lambda p: float((g * forward(chain, p, bags).encodings).sum()), parameters, gradients, rng
    )


@pytest.mark.parametrize("train", [("features",), ("mixture",), ("classifier",), ()])
def test_backward_gives_what_is_asked_for(train, rng):
    chain, parameters = chain_of(rng)
    bags = bags_of(rng)
    encoded = forward(chain, parameters, bags)
    g = rng.normal(size=encoded.encodings.shape)
    both = backward(chain, g, parameters, bags, encoded, train=ALL)
    some = backward(chain, g, parameters, bags, encoded, train=train)
    names = {name for group in train for name in chain.groups.get(group, ())}
    assert set(some) == names
    for name in names:
        np.testing.assert_array_equal(some[name], both[name])


def recipe_of(loss, kind="multiclass"):
    return Recipe(
        train=tuple(GROUPS),
        task=Classification(loss, kind=kind),
        solver="adam",
        learning_rate=dict.fromkeys(GROUPS, 1e-2),
        schedule="constant",
        clip_norm=None,
        batch_size=4,
        max_iter=1,
        max_descriptors=None,
        alpha=0.05,
        seed=0,
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "loss", ["squared_hinge", "hinge", "quadratic", "log_loss", "linear", "dual"]
)
def test_the_whole_chain_with_its_loss_agrees_with_central_differences(loss, weighted, rng):
    chain, parameters = chain_of(rng)
    bags = bags_of(rng)
    signs = np.where(np.arange(4)[:, None] % 3 == np.arange(3), 1.0, -1.0)
    n_out = K * (2 * D_OUT + 1)
    parameters |= {"coef": rng.normal(size=(3, n_out)), "intercept": rng.normal(size=3)}
    weights = rng.uniform(0.5, 2, size=signs.shape) if weighted else None
    duals = rng.uniform(size=signs.shape)
    problem, recipe = Problem(bags, signs, weights), recipe_of(loss)
    _, gradients, _ = batch_gradient(chain, recipe, parameters, problem, duals)
    fitted = {"coef", "intercept"} if recipe.alternates else set()
    assert set(gradients) == set(parameters) - fitted - CONSTANTS
    assert_gradients(
        lambda p: batch_gradient(chain, recipe, p, problem, duals)[0], parameters, gradients, rng
    )


def test_log_loss_of_several_labels_takes_each_on_its_own(rng):
    chain, parameters = chain_of(rng)
    parameters |= {"coef": np.zeros((3, K * (2 * D_OUT + 1))), "intercept": np.zeros(3)}
    problem = Problem(bags_of(rng), np.ones((4, 3)), None)
    loss, _, _ = batch_gradient(
        chain, recipe_of("log_loss", "multilabel"), parameters, problem, None
    )
    assert loss == pytest.approx(3 * np.log(2))


def test_long_bags_are_cut_without_a_trace(rng, monkeypatch):
    chain, parameters = chain_of(rng)
    bags = bags_of(rng)
    encoded = forward(chain, parameters, bags)
    g = rng.normal(size=encoded.encodings.shape)
    gradients = backward(chain, g, parameters, bags, encoded, train=ALL)
    monkeypatch.setattr(chain_module, "ROWS_PER_PART", 4)
    owners, parts = cut_long(bags)
    assert parts.lengths.max() <= 4
    assert np.bincount(owners, weights=parts.lengths).tolist() == LENGTHS
    cut = forward(chain, parameters, bags)
    np.testing.assert_allclose(cut.encodings, encoded.encodings, atol=1e-14)
    for name, gradient in backward(chain, g, parameters, bags, cut, train=ALL).items():
        np.testing.assert_allclose(gradient, gradients[name], rtol=1e-10, atol=1e-13)


def test_threads_do_not_change_a_bit(rng, monkeypatch):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 8)
    chain, parameters = chain_of(rng)
    bags = bags_of(rng)
    results = []
    for n_jobs in (None, 2):
        chain = replace(chain, where=Where(n_jobs))
        encoded = forward(chain, parameters, bags)
        g = np.ones_like(encoded.encodings)
        gradients = backward(chain, g, parameters, bags, encoded, train=ALL)
        results.append({"e": encoded.encodings, "all": encode_bags(chain, parameters, bags)})
        results[-1] |= gradients
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name])


def test_float32_is_close_to_float64(rng):
    chain, parameters = chain_of(rng)
    narrow = bags_of(rng, np.float32)
    wide = Bags(narrow.values.astype(np.float64), narrow.starts, narrow.stops)
    assert encode_bags(chain, parameters, narrow).dtype == np.float32
    results = []
    for bags in (narrow, wide):
        encoded = forward(chain, parameters, bags)
        g = np.linspace(-1, 1, encoded.encodings.size).reshape(encoded.encodings.shape)
        results.append(backward(chain, g, parameters, bags, encoded, train=ALL))
    for name, gradient in results[1].items():
        # sums over the descriptors of a bag cancel a digit or two
        np.testing.assert_allclose(
            results[0][name], gradient, rtol=0, atol=1e-4 * np.abs(gradient).max()
        )


@pytest.mark.parametrize("unmix", [False, True])
def test_whitening_on_the_way_is_whitening_before(unmix, rng):
    chain, parameters = chain_of(rng)
    bags = bags_of(rng)
    matrix = rng.normal(size=(D_IN, D_IN)) if unmix else None
    whitening = Whitening(rng.normal(size=D_IN), 0.3 * np.eye(D_IN), True, matrix)
    before = forward(chain, parameters, whiten_bags(bags, whitening))
    on_the_way = forward(replace(chain, below=(whitening, *chain.below)), parameters, bags)
    np.testing.assert_allclose(on_the_way.encodings, before.encodings, atol=1e-13)


def test_bags_in_any_order_and_place_are_encoded_alike(rng):
    chain, parameters = chain_of(rng)
    bags = bags_of(rng)
    encodings = encode_bags(chain, parameters, bags)
    order = [2, 0, 3, 3, 1]
    np.testing.assert_allclose(
        encode_bags(chain, parameters, bags[order]), encodings[order], atol=1e-13
    )


def test_drawn_descriptors_are_some_of_their_bag_in_order(rng):
    bags = Bags.from_lengths(np.arange(51.0)[:, None], LENGTHS)
    drawn = draw_from_each(bags, 10, rng)
    assert drawn.lengths.tolist() == [1, 7, 10, 10]
    for part, whole in zip(drawn, bags, strict=True):
        assert np.isin(part, whole).all()
        assert (np.diff(part[:, 0]) > 0).all()
    assert draw_from_each(bags, 30, rng) is bags
    assert draw_from_each(bags, None, rng) is bags


@pytest.mark.parametrize("rows_per_part", [2**14, 4])
def test_the_gradient_by_descriptors_adds_up_where_bags_overlap(rows_per_part, rng, monkeypatch):
    monkeypatch.setattr(chain_module, "ROWS_PER_PART", rows_per_part)
    chain, parameters = chain_of(rng)
    values = bags_of(rng).values
    bags = Bags(values, np.array([0, 2, 20, 3]), np.array([6, 12, 33, 4]))  # rows 12 to 19 in none
    encoded = forward(chain, parameters, bags)
    g = rng.normal(size=encoded.encodings.shape)
    prepared = chain.prepare(parameters, bags.dtype)
    rows = bags.values, bags.starts, bags.stops
    d_x, gradients = chain.backward(g, prepared, encoded, *rows, train=(), with_x=True)
    assert gradients == {}
    assert d_x.shape == values.shape
    assert not d_x[12:20].any()

    def value(p):
        there = Bags(p["x"], bags.starts, bags.stops)
        return float((g * forward(chain, parameters, there).encodings).sum())

    assert_gradients(value, {"x": values}, {"x": d_x}, rng)

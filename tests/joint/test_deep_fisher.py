"""Deep Fisher networks in joint training, from the loss down to the descriptors."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError

from skfisher import Bags, DeepFisherEncoder, ImagePatches, JointClassifier
from skfisher.joint.settings import recipe_of
from skfisher.layers import chain as chain_module
from skfisher.layers import deep_fisher
from skfisher.layers import encode as encode_module
from skfisher.layers.deep_fisher import affine_map
from skfisher.layers.encode import encode_bags
from skfisher.ops.normalization import power_l2_normalize
from skfisher.training.objective import Problem, batch_gradient

RNG = np.random.default_rng(0)
Y = np.arange(12) % 2
SERIES = Bags.from_list(
    [RNG.normal(size=(n, 3)) + (1 + y) * np.sin(np.arange(n))[:, None]
     for n, y in zip((40, 33, 7, 5, 64, 21) * 2, Y, strict=True)]
)  # fmt: skip
PLANE = ImagePatches(2, positions=1.0).fit_transform(RNG.normal(size=(12, 8, 7)).cumsum(axis=1))
CASES = {
    "series": (SERIES, {"cell": 4}),
    "series, second layer": (SERIES, {"cell": 3, "window": 3, "stack": 1, "layers": (2,)}),
    "plane": (PLANE, {"n_positions": 2, "cell": 0.26}),
}
cases = pytest.mark.parametrize(("bags", "options"), CASES.values(), ids=CASES)
SMALL = {"max_iter": 2, "batch_size": 5, "random_state": 0}


def network(**options):
    return DeepFisherEncoder((3, 2), projection=PCA(4), reduction=PCA(3, whiten=True), **options)


def trained(bags, options, **settings):
    return JointClassifier(network(**options), **{**SMALL, **settings}).fit(bags, Y)


@cases
def test_training_starts_at_the_network_that_is_fitted_without_labels(bags, options):
    encoder = network(**options).set_params(random_state=3)
    expected = encoder.fit_transform(bags) / np.sqrt(len(encoder.layers))
    layer = replace(encoder.pooling(), power_eps=1e-14)
    p = layer.start(bags, 3)
    encodings = encode_bags(chain_module.Chain((), layer), p, bags)
    found = power_l2_normalize(encodings, blocks=layer.blocks(p))
    np.testing.assert_allclose(found, expected, atol=1e-6)  # the root of rounding, near 0
    assert len(layer.names(p)) == expected.shape[1]


@cases
def test_gradients_of_the_whole_chain_are_those_of_central_differences(bags, options):
    model = trained(bags, options, max_iter=1)
    chain, parameters = model._chain(), model._parameters()[0]
    recipe = recipe_of(model, model._task(), chain.pooling, len(bags), 0)
    problem = Problem(bags, np.where(Y[:, None] > 0, 1.0, -1.0), None)
    _, gradients, _ = batch_gradient(chain, recipe, parameters, problem)
    assert {"map_weight", "local_means", "projection_weight", "reduction_bias",
            "global_log_variances", "coef"} <= set(gradients)  # fmt: skip
    for name, gradient in gradients.items():
        direction = RNG.normal(size=gradient.shape)
        h = 1e-6 / np.linalg.norm(direction)

        def loss(step, name=name, direction=direction):
            moved = {**parameters, name: parameters[name] + step * direction}
            return batch_gradient(chain, recipe, moved, problem)[0]

        expected = (loss(h) - loss(-h)) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-8), name


@cases
def test_it_trains_and_is_kept(bags, options):
    model = trained(bags, options, max_iter=8)
    assert model.history_["loss"][-1] < 0.9 * model.history_["loss"][0]
    for name in ("map_weight_", "local_means_", "projection_weight_", "global_variances_"):
        assert np.abs(getattr(model, name) - getattr(model.baseline_, name)).max() > 1e-3
    decision = model.decision_function(bags)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.decision_function(bags), decision)
    names = model.get_feature_names_out()
    assert len(names) == model.transform(bags).shape[1]
    assert names[-1] == "layer2_variance_k1_code2"
    np.testing.assert_array_equal(trained(bags, options, max_iter=8).coef_, model.coef_)


@cases
def test_whole_bags_pass_however_long_and_in_any_company(bags, options, monkeypatch):
    model = trained(bags, options)
    expected = model.transform(bags)
    monkeypatch.setattr(chain_module, "ROWS_PER_PART", 4)
    monkeypatch.setattr(encode_module, "LONG_BAG", 4)
    monkeypatch.setattr(deep_fisher, "CODE_NUMBERS", 1)
    np.testing.assert_allclose(model.transform(bags), expected, atol=1e-12)
    np.testing.assert_allclose(model.transform(bags[[3]])[0], expected[3], atol=1e-12)
    apart = trained(bags, options)
    np.testing.assert_allclose(apart.network_coef_, model.network_coef_, atol=1e-6)


def test_positions_are_no_features():
    model = trained(PLANE, CASES["plane"][1])
    assert model.n_features_in_ == 6
    assert model.axes_.shape == (4, 4)
    assert model.local_means_.shape == (3, 4)
    fewer = trained(PLANE, CASES["plane"][1], n_features_out=2)
    assert fewer.local_means_.shape == (3, 2)
    again = fewer.set_params(warm_start=True).fit(PLANE, Y)
    assert again.n_iter_ == 4
    with pytest.raises(ValueError, match="n_features_out=5 is more than the 4 features of a"):
        trained(PLANE, CASES["plane"][1], n_features_out=5)
    flat = Bags(PLANE.values[:, -2:], PLANE.starts, PLANE.stops)
    with pytest.raises(ValueError, match="2 features per descriptor, but the encoder takes the"):
        trained(flat, CASES["plane"][1])


class Square(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X[:, :3] ** 2


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"layers": (1,)}, {}, r"layers=\(1,\) has no second layer to train"),
        ({"n_components": (2, 0)}, {}, r"n_components=\(2, 0\): give"),
        ({"projection": LinearDiscriminantAnalysis()}, {}, "projection=Linear.* learns from label"),
        ({"reduction": LinearDiscriminantAnalysis()}, {}, "reduction=Linear.* learns from labels"),
        ({"reduction": Square()}, {}, r"reduction=Square\(\) is not a linear map"),
        ({}, {"max_descriptors": 9}, "max_descriptors=9 takes descriptors at random, but DeepFish"),
        ({}, {"solver": "natural"}, "solver='natural' needs information, which DeepFisherPooling"),
        ({}, {"solver": "line_search"}, "solver='line_search' needs slopes and retract"),
        ({}, {"train": "mixture"}, "it may name 'features', 'local', 'projection', 'reduction'"),
    ],
)
def test_what_has_no_gradient_is_refused(options, settings, message):
    encoder = network(cell=4).set_params(**options)
    model = JointClassifier(encoder, **{**SMALL, **settings})
    with pytest.raises(ValueError, match=message):
        model.fit(SERIES, Y)
    with pytest.raises(NotFittedError):
        model.predict(SERIES)


def test_linear_transformers_are_read_as_matrices():
    x = RNG.normal(size=(30, 5)) + 2
    for transformer in (PCA(3, whiten=True), TruncatedSVD(2), LinearDiscriminantAnalysis()):
        transformer.fit(x, np.arange(30) % 3)
        weight, bias = affine_map(transformer, 5, "projection")
        np.testing.assert_allclose(x @ weight.T + bias, transformer.transform(x), atol=1e-10)

"""What every layer promises: its gradients, its dtypes, no side effects, bags that stand alone.

A new layer is added to `ROWS` or `POOLINGS`, and is tested.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skfisher import Bags, DeepFisherEncoder, FisherVectorEncoder, JointClassifier
from skfisher.arrays.libraries import to_host
from skfisher.codebooks.em import Mixture
from skfisher.layers.average import AveragePooling
from skfisher.layers.bag_of_words import BagOfWordsPooling
from skfisher.layers.bilinear import EnergyPooling
from skfisher.layers.chain import Chain, added
from skfisher.layers.feature_map import FeatureMap
from skfisher.layers.fisher import FisherPooling
from skfisher.layers.gate import GatedPooling
from skfisher.layers.layer import PoolingLayer, RowLayer, lacks
from skfisher.layers.mixture_second_order import MixtureMatrixPooling
from skfisher.layers.normalization import Centering, PowerL2
from skfisher.layers.second_order import MatrixPooling
from skfisher.layers.sketch import SketchPooling
from skfisher.layers.vlad import VLADPooling
from skfisher.layers.whitening import Whitening

D, D_OUT, K = 4, 3, 3
LENGTHS = np.array([1, 7, 4, 4, 13])
STOPS = np.cumsum(LENGTHS)
STARTS = STOPS - LENGTHS


def wave(*shape, phase=0.0, size=1.0):
    """Return numbers that look random, and are the same with every library."""
    return size * np.sin(2.3 * np.arange(np.prod(shape)) + phase).reshape(shape)


MAP = {"map_weight": wave(D_OUT, D, phase=0.3), "map_bias": wave(D_OUT, phase=1.0, size=0.2)}
CENTER = {"encoding_mean": wave(D, phase=2.0), "encoding_scale": np.array(0.7)}
WHITENING = wave(D, size=0.1), 0.4 * np.eye(D, D_OUT) + wave(D, D_OUT, phase=1.4, size=0.1)

ROWS = {
    "tanh": (FeatureMap("tanh"), MAP),
    "linear": (FeatureMap("linear"), MAP),
    "whitening": (Whitening(*WHITENING, squash=False), {}),
    "whitening, squashed": (Whitening(*WHITENING, squash=True), {}),
    "whitening, unmixed": (Whitening(*WHITENING, True, wave(D_OUT, D_OUT, phase=0.9)), {}),
    "power, L2": (PowerL2(0.5, 0.05), {}),
    "exact power, L2": (PowerL2(0.7), {}),
    "L2 of blocks and all": (PowerL2(1.0, blocks=lambda _: np.array([0, 1, 1, 0])), {}),
    "centring": (Centering(), CENTER),
}
MIXTURE = Mixture(
    np.array([0.2, 0.5, 0.3]), wave(K, D, phase=0.6), 0.4 + wave(K, D, phase=1.7, size=0.2)
)
CONSTANTS = {"variance_floor": np.full(D, 0.05), "global_variance": np.ones(D)}


def fisher(mixture=MIXTURE, **options):
    layer = FisherPooling(K, **options)
    return layer, layer.free(mixture, CONSTANTS)


def gated_moments(offset=0, **options):
    layer = MixtureMatrixPooling(K, **options)
    mixture = MIXTURE._replace(means=MIXTURE.means + offset)
    constants = CONSTANTS | {
        "descriptor_mean": np.full(D, offset + 0.1), "descriptor_scale": np.linspace(0.7, 1.3, D),
    }  # fmt: skip
    return layer, layer.free(mixture, CONSTANTS) | constants


def gated(**options):
    options = {"function": "newton_schulz", "n_components": D_OUT, "norm": None} | options
    layer = GatedPooling(3, matrix=MatrixPooling(**options))
    return layer, {
        "descriptor_mean": np.full(D, 0.1), "descriptor_scale": np.linspace(0.7, 1.3, D),
        "ridge": np.array(0.0), "projections": wave(3, D_OUT, D, phase=0.4),
        "gate": wave(3, D, phase=1.9), "spread": wave(3, D, phase=2.6),
    }  # fmt: skip


def sketch(**options):
    layer = SketchPooling(8, **options)
    return layer, layer.drawn(D, 0)


@dataclass(frozen=True)
class BiasedMean:
    """The mean of a bag plus a bias: the smallest pooling layer there is."""

    n_start_rows = n_least_rows = 1
    groups: ClassVar = {"pooling": ("bias",)}

    def check(self, n_features):
        pass

    def start(self, bags, seed):
        return {"bias": np.zeros(bags.n_features)}

    def prepare(self, p, dtype):
        return p["bias"]

    def sums(self, q, x, starts, stops):
        return (np.stack([x[a:b].sum(axis=0) for a, b in zip(starts, stops, strict=True)]),)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        return (np.repeat(g[0], stops - starts, axis=0).astype(x.dtype) if with_x else None), {}

    def read(self, q, sums, counts):
        return sums[0] / counts[:, None] + q

    def read_vjp(self, q, g, sums, counts):
        return (g / counts[:, None],), {"bias": g.sum(axis=0)}

    def prepare_vjp(self, q, g):
        return g

    def scratch(self, p):
        return 0, 8 * len(p["bias"])

    def n_out(self, p):
        return len(p["bias"])

    def attributes(self, p):
        return {"bias_": p["bias"]}

    def parameters(self, attributes):
        return {"bias": attributes["bias_"]}

    def names(self, p):
        return [f"mean_d{j}" for j in range(len(p["bias"]))]


def codebook(Layer, offset=0.0, **options):
    layer = Layer(K, **options)
    p = layer.free(wave(K, D, phase=0.6) + offset, 0.8)
    # about where training starts, but for nothing that is special there
    p = {name: value + wave(*value.shape, phase=0.4, size=0.1) for name, value in p.items()}
    return layer, p


SECOND_ORDER = {
    "descriptor_mean": wave(D, phase=0.4, size=0.3),
    "descriptor_scale": 1 + wave(D, phase=1.2, size=0.4),
    "ridge": np.array(0.0),
}


def second_order(statistic="gaussian", ridge=0.0, **options):
    p = SECOND_ORDER | {"ridge": np.array(ridge)}
    if "n_components" in options:
        p["projection"] = wave(options["n_components"], D, phase=0.7)
    return MatrixPooling(statistic, **options), p


def deep(n_positions=0, **options):
    """Return a deep network of two features a descriptor, or of four."""
    options = {"cell": 2, "projection": PCA(3), "reduction": PCA(2), **options}
    encoder = DeepFisherEncoder((2, 2), n_positions=n_positions, **options)
    layer, d = encoder.pooling(), D - n_positions
    n_code, n_beside = 2 * (2 * d + 1), 3 * encoder.stack ** (2 if n_positions else 1)
    p = {"cell": np.array(encoder.cell)}
    p |= {"projection_weight": wave(3, n_code), "projection_bias": wave(3)}
    p |= {"reduction_weight": wave(2, n_beside), "reduction_bias": wave(2, phase=1.0)}
    for prefix, width in (("local_", d), ("global_", 2)):
        mixture = Mixture(
            np.array([0.4, 0.6]), wave(2, width, phase=0.6), 0.5 + wave(2, width, size=0.2)
        )
        constants = {"variance_floor": np.full(width, 0.05), "global_variance": np.ones(width)}
        free = layer.local.free(mixture, constants)
        p |= {f"{prefix}{name}": value for name, value in free.items()}
    return layer, p


POOLINGS = {
    "Fisher": fisher(),
    "Fisher, sigmoid": fisher(weight_map="sigmoid"),
    "Fisher without weights": fisher(include_weights=False),
    "Fisher far from the origin": fisher(MIXTURE._replace(means=MIXTURE.means + 40)),
    "VLAD": codebook(VLADPooling, assignment="hard"),
    "VLAD, squares": codebook(VLADPooling, assignment="hard", moments=2),
    "NetVLAD": codebook(VLADPooling),
    "NetVLAD far from the origin": codebook(VLADPooling, 40),
    "NetVLAD, free": codebook(VLADPooling, tied=False),
    "NetVLAD, free, far from the origin": codebook(VLADPooling, 40, tied=False),
    "NetFV": codebook(VLADPooling, moments=2),
    "NetFV far from the origin": codebook(VLADPooling, 40, moments=2),
    "learned aggregation, VLAD": codebook(VLADPooling, metric="diagonal"),
    "learned aggregation, bag of words": codebook(BagOfWordsPooling, metric="diagonal"),
    "learned aggregation far from the origin": codebook(BagOfWordsPooling, 40, metric="diagonal"),
    "bag of words": codebook(BagOfWordsPooling),
    "gated moments": gated_moments(),
    "gated moments, power": gated_moments(power=0.3, weight_map="sigmoid"),
    "gated moments far from the origin": gated_moments(40),
    "gate": gated(),
    "gate, covariances": gated(statistic="covariance", function="power", power=0.4),
    "energies": (EnergyPooling(5), {"directions": wave(5, D, phase=0.5)}),
    "sketch": sketch(),
    "sketch, cube": sketch(degree=3),
    "sketch, kernel": sketch(degree=3, gamma=0.7),
    "mean": (AveragePooling(), {"origin": wave(D)}),
    "mean and deviation": (AveragePooling(deviations=True), {"origin": wave(D)}),
    "mean and bias": (BiasedMean(), {"bias": wave(D)}),
    "Gaussian": second_order(),
    "Gaussian, projected": second_order(n_components=2),
    "Gaussian, logarithm": second_order(function="log", ridge=0.1, norm="spectral"),
    "Gaussian, Newton-Schulz": second_order(function="newton_schulz", norm=None),
    "covariance": second_order("covariance", power=0.3, norm=None),
    "covariance, projected": second_order("covariance", norm="frobenius", n_components=2),
    "covariance, Newton-Schulz": second_order(
        "covariance", function="newton_schulz", prescale="frobenius", n_iter=3, ridge=0.01
    ),
    "deep Fisher": deep(),
    "deep Fisher, second layer": deep(layers=(2,), cell=1, window=3, stack=1),
    "deep Fisher in the plane": deep(2, cell=0.7),
    "second moment": second_order("second_moment", function="identity", norm="trace"),
    "second moment, projected": second_order("second_moment", norm="spectral", n_components=3),
}
rows = pytest.mark.parametrize(("layer", "p"), ROWS.values(), ids=ROWS)
poolings = pytest.mark.parametrize(("layer", "p"), POOLINGS.values(), ids=POOLINGS)


def descriptors(layer, p, dtype=np.float64):
    """Return descriptors near what the layer has learnt."""
    x = wave(int(STOPS[-1]), D, phase=0.2)
    where = [p[name] for name in ("means", "centers") if name in p]
    return (x + where[0].mean() if where else x).astype(dtype)


def encode(layer, p, x, starts=STARTS, stops=STOPS):
    q = layer.prepare(p, x.dtype)
    return layer.read(q, layer.sums(q, x, starts, stops), stops - starts)


def gradients(layer, p, x, g):
    """Return ``d_x`` and the gradients by the parameters of a pooling layer."""
    q = layer.prepare(p, x.dtype)
    sums = layer.sums(q, x, STARTS, STOPS)
    d_sums, direct = layer.read_vjp(q, g, sums, LENGTHS)
    d_x, via = layer.sums_vjp(q, d_sums, x, STARTS, STOPS, with_x=True)
    return d_x, layer.prepare_vjp(q, added(direct, via))


def assert_slope(f, value, gradient, *, h=1e-6, rel=1e-6):
    """Compare a gradient with central differences along directions."""
    assert gradient.shape == value.shape
    for phase in range(3):
        direction = wave(*value.shape, phase=phase + 0.1)
        expected = (f(value + h * direction) - f(value - h * direction)) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=rel, abs=1e-7)


def test_layers_keep_the_protocol():
    assert all(isinstance(layer, RowLayer) for layer, _ in ROWS.values())
    assert all(isinstance(layer, PoolingLayer) for layer, _ in POOLINGS.values())
    assert all(lacks(layer) == [] for layer, _ in POOLINGS.values())
    assert {"sums", "read_vjp", "n_start_rows"} <= set(lacks(PowerL2()))


@rows
def test_rows_have_the_gradients_of_central_differences(layer, p):
    x = descriptors(layer, p)
    q = layer.prepare(p, x.dtype)
    y = layer.apply(q, x)
    g = wave(*y.shape, phase=0.8)
    d_x, by_parameter = layer.vjp(q, g, x, y, with_x=True)
    assert_slope(lambda x: float((g * layer.apply(q, x)).sum()), x, d_x, rel=1e-5)
    names = {name for names in layer.groups.values() for name in names}
    assert set(by_parameter) == names
    for name, gradient in by_parameter.items():

        def loss(value, name=name):
            return float((g * layer.apply(layer.prepare({**p, name: value}, x.dtype), x)).sum())

        assert_slope(loss, p[name], gradient, rel=1e-5)
    nothing, same = layer.vjp(q, g, x, y, with_x=False)
    assert nothing is None
    for name, gradient in by_parameter.items():
        np.testing.assert_array_equal(same[name], gradient)


@rows
def test_rows_stand_alone_keep_their_dtype_and_are_not_written_to(layer, p):
    for dtype in (np.float32, np.float64):
        x = descriptors(layer, p, dtype)
        q, before = layer.prepare(p, x.dtype), x.copy()
        y = layer.apply(q, x)
        d_x, _ = layer.vjp(q, np.ones_like(y), x, y, with_x=True)
        assert y.dtype == d_x.dtype == dtype
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(layer.apply(q, x[3:5]), y[3:5], rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(x, before)


@poolings
def test_pooling_has_the_gradients_of_central_differences(layer, p):
    x = descriptors(layer, p)
    g = wave(len(LENGTHS), layer.n_out(p), phase=0.8)
    d_x, by_parameter = gradients(layer, p, x, g)
    assert_slope(lambda x: float((g * encode(layer, p, x)).sum()), x, d_x, rel=1e-5)
    assert set(by_parameter) == {name for names in layer.groups.values() for name in names}
    for name, gradient in by_parameter.items():

        def loss(value, name=name):
            return float((g * encode(layer, {**p, name: value}, x)).sum())

        assert_slope(loss, p[name], gradient, rel=1e-5)


@pytest.mark.parametrize("name", [n for n in POOLINGS if hasattr(POOLINGS[n][0], "encode_vjp")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_way_back_in_one_pass_is_that_through_the_sums(name, dtype):
    layer, p = POOLINGS[name]
    x = descriptors(layer, p, dtype)
    g = wave(len(LENGTHS), layer.n_out(p), phase=0.8).astype(dtype)
    q = layer.prepare(p, x.dtype)
    rows = q, g, x, STARTS, STOPS
    d_x, found = layer.encode_vjp(*rows, with_x=True, with_parameters=True)
    expected = gradients(layer, p, x, g)
    tolerance = 2e-5 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(d_x, expected[0], atol=tolerance * np.abs(expected[0]).max())
    assert found.keys() == expected[1].keys()
    for key, value in expected[1].items():
        np.testing.assert_allclose(found[key], value, atol=tolerance * np.abs(value).max())
    nothing, same = layer.encode_vjp(*rows, with_x=False, with_parameters=True)
    assert nothing is None
    np.testing.assert_array_equal(same["means"], found["means"])
    d_same, nothing = layer.encode_vjp(*rows, with_x=True, with_parameters=False)
    assert nothing == {}
    np.testing.assert_array_equal(d_same, d_x)


@poolings
def test_without_the_gradient_by_rows_the_others_are_the_same(layer, p):
    x = descriptors(layer, p)
    q = layer.prepare(p, x.dtype)
    g = tuple(np.ones_like(s) for s in layer.sums(q, x, STARTS, STOPS))
    _, expected = layer.sums_vjp(q, g, x, STARTS, STOPS, with_x=True)
    nothing, found = layer.sums_vjp(q, g, x, STARTS, STOPS, with_x=False)
    assert nothing is None
    for name, gradient in expected.items():
        np.testing.assert_array_equal(found[name], gradient)


@pytest.mark.parametrize(
    "name", [n for n, (layer, _) in POOLINGS.items() if not getattr(layer, "whole", False)]
)
@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_bag_may_be_cut_anywhere(name, cut):
    layer, p = POOLINGS[name]
    x = descriptors(layer, p)
    q = layer.prepare(p, x.dtype)
    starts, stops = np.array([0, cut]), np.array([cut, len(x)])
    parts = layer.sums(q, x, starts, stops)
    whole = layer.sums(q, x, starts[:1], stops[-1:])
    for part, sums in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part.sum(axis=0), sums[0], atol=1e-12)


@poolings
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_bag_is_pooled_alike_in_any_order_and_company(layer, p, dtype):
    x = descriptors(layer, p, dtype)
    expected = encode(layer, p, x)
    tolerance = 2e-6 if dtype == np.float32 else 1e-13
    for i, (start, stop) in enumerate(zip(STARTS, STOPS, strict=True)):
        bag = x[start:stop] if getattr(layer, "whole", False) else x[start:stop][::-1]
        alone = encode(layer, p, bag, np.array([0]), np.array([stop - start]))
        np.testing.assert_allclose(
            alone[0], expected[i], atol=tolerance * max(1, np.abs(expected[i]).max())
        )


@poolings
def test_encodings_are_float64_and_nothing_is_written_to(layer, p):
    x = descriptors(layer, p, np.float32)
    before, parameters = x.copy(), copy.deepcopy(p)
    g = wave(len(LENGTHS), layer.n_out(p))
    assert encode(layer, p, x).dtype == np.float64
    d_x, by_parameter = gradients(layer, p, x, g)
    assert d_x.dtype == np.float32
    assert {gradient.dtype for gradient in by_parameter.values()} <= {np.dtype(np.float64)}
    np.testing.assert_array_equal(x, before)
    for name, values in parameters.items():
        np.testing.assert_array_equal(p[name], values)


@poolings
def test_attributes_stand_for_the_parameters(layer, p):
    free = {name for names in layer.groups.values() for name in names}
    constants = {name: value for name, value in p.items() if name not in free}
    back = layer.parameters(layer.attributes(p) | constants)
    x = descriptors(layer, p)
    np.testing.assert_allclose(encode(layer, back, x), encode(layer, p, x), atol=1e-12)
    names = layer.names(p)
    assert len(names) == len(set(names)) == layer.n_out(p)


@poolings
def test_a_start_needs_no_labels_and_has_the_width_of_the_rows(layer, p):
    x = descriptors(layer, p)
    bags = Bags.from_lengths(x, LENGTHS)
    assert layer.n_least_rows <= layer.n_start_rows
    layer.check(D)
    first, again = layer.start(bags, 0), layer.start(bags, 0)
    assert first.keys() == p.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert value.shape == p[name].shape
    assert np.isfinite(encode(layer, first, x)).all()


@pytest.mark.parametrize("name", [n for n in POOLINGS if n != "mean and bias"])
def test_pooling_layers_work_on_other_devices(stand_in, name):
    layer, p = POOLINGS[name]
    x = descriptors(layer, p)
    g = wave(len(LENGTHS), layer.n_out(p))
    there = stand_in.asarray(x)
    q = layer.prepare(p, x.dtype)
    sums, expected = layer.sums(q, there, STARTS, STOPS), layer.sums(q, x, STARTS, STOPS)
    for a, b in zip(sums, expected, strict=True):
        np.testing.assert_allclose(to_host(a), b, atol=1e-12)
    d_sums, _ = layer.read_vjp(q, g, expected, LENGTHS)
    d_there = tuple(stand_in.asarray(s) for s in d_sums)
    d_x, by_there = layer.sums_vjp(q, d_there, there, STARTS, STOPS, with_x=True)
    d_x_here, by_here = layer.sums_vjp(q, d_sums, x, STARTS, STOPS, with_x=True)
    np.testing.assert_allclose(to_host(d_x), d_x_here, atol=1e-10)
    for key, gradient in by_here.items():
        np.testing.assert_allclose(to_host(by_there[key]), gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in ROWS if n not in ("power, L2", "centring")])
def test_layers_below_work_on_other_devices(stand_in, name):
    layer, p = ROWS[name]
    x = descriptors(layer, p)
    q = layer.prepare(p, x.dtype)
    y = layer.apply(q, x)
    there = stand_in.asarray(x)
    y_there = layer.apply(q, there)
    np.testing.assert_allclose(to_host(y_there), y, atol=1e-13)
    g = np.ones_like(y)
    d_x, _ = layer.vjp(q, stand_in.asarray(g), there, y_there, with_x=True)
    np.testing.assert_allclose(to_host(d_x), layer.vjp(q, g, x, y, with_x=True)[0], atol=1e-12)


class MeanEncoder(FisherVectorEncoder):
    """An encoder that is not of this package's own."""

    def pooling(self):
        return BiasedMean()


def test_a_chain_of_any_layers_trains():
    chain = Chain((FeatureMap("tanh"),), BiasedMean(), (Centering(),))
    assert set(chain.groups) == {"features", "pooling"}
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = [rng.normal(size=(10, D)) * (1 + 2 * c) for c in y]  # of equal means
    model = JointClassifier(MeanEncoder(), max_iter=40, batch_size=10, random_state=0).fit(X, y)
    assert model.bias_.shape == (D,)
    assert list(model.get_feature_names_out()) == [f"mean_d{j}" for j in range(D)]
    assert set(model.history_) == {"loss", "gradient_norm", "seconds"}
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    with pytest.raises(ValueError, match="solver='natural' needs information, which BiasedMean"):
        JointClassifier(MeanEncoder(), solver="natural").fit(X, y)
    with pytest.raises(ValueError, match="'line_search' needs slopes and retract"):
        JointClassifier(MeanEncoder(), solver="line_search", train="pooling").fit(X, y)

"""Layers over a codebook: descriptors that lie far out, and rules of assignment."""

import numpy as np
import pytest

from skfisher import Bags
from skfisher.layers.assignment import Free
from skfisher.layers.bag_of_words import BagOfWordsPooling
from skfisher.layers.vlad import VLADPooling

K, D = 5, 64  # enough that float32 is what is computed in
STOPS = np.array([3, 40, 41, 300])
STARTS = np.array([0, 3, 40, 41])
LAYERS = {
    "NetVLAD": VLADPooling(K),
    "NetVLAD, free": VLADPooling(K, tied=False),
    "NetFV": VLADPooling(K, moments=2),
    "VLAD": VLADPooling(K, assignment="hard"),
    "VLAD with metrics": VLADPooling(K, metric="diagonal"),
    "bag of words": BagOfWordsPooling(K),
    "bag of words with metrics": BagOfWordsPooling(K, metric="diagonal"),
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def problem(rng, layer, offset):
    x = (rng.normal(size=(300, D)) + offset).astype(np.float32)
    p = layer.start(Bags(x, STARTS, STOPS), seed=0)
    return x, p


def passes(layer, p, x, g):
    """Return encodings, ``d_x`` and the gradients by the parameters."""
    q = layer.prepare(p, x.dtype)
    sums = layer.sums(q, x, STARTS, STOPS)
    counts = STOPS - STARTS
    d_sums, direct = layer.read_vjp(q, g, sums, counts)
    d_x, via = layer.sums_vjp(q, d_sums, x, STARTS, STOPS, with_x=True)
    return layer.read(q, sums, counts), d_x, layer.prepare_vjp(q, direct | via)


@every_layer
def test_a_thousand_deviations_cost_float32_no_digits_either_way(rng, layer):
    x, p = problem(rng, layer, offset=1000)
    g = rng.normal(size=(4, layer.n_out(p)))
    narrow = passes(layer, p, x, g)
    wide = passes(layer, p, x.astype(np.float64), g)
    for found, expected in zip(narrow[:2], wide[:2], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    for name, expected in wide[2].items():
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(narrow[2][name], expected, rtol=0, atol=atol)


@every_layer
def test_most_work_is_in_float32(rng, layer):
    x, p = problem(rng, layer, offset=0)
    dtype = layer.prepare(p, x.dtype).coefficients[0].dtype
    assert dtype == (np.float64 if layer.way.hard else np.float32)


def test_sharp_assignment_is_in_float64(rng):
    layer = VLADPooling(K)
    x, p = problem(rng, layer, offset=0)
    sharp = {**p, "log_sharpness": p["log_sharpness"] + 8}
    assert layer.prepare(sharp, x.dtype).coefficients[0].dtype == np.float64
    free = VLADPooling(K, tied=False)
    steep = {"centers": p["centers"], **Free().start(p["centers"], 1e4)}
    assert free.prepare(steep, x.dtype).coefficients[0].dtype == np.float64


def test_what_all_words_share_makes_no_difference_to_a_free_assignment(rng):
    layer = VLADPooling(K, tied=False)
    x, p = problem(rng, layer, offset=0)
    g = rng.normal(size=(4, layer.n_out(p)))
    moved = {
        **p,
        "assignment_weights": p["assignment_weights"] + rng.normal(size=D),
        "assignment_biases": p["assignment_biases"] + 3,
    }
    x = x.astype(np.float64)
    pairs = zip(passes(layer, moved, x, g)[:2], passes(layer, p, x, g)[:2], strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    by_name = passes(layer, p, x, g)[2]
    np.testing.assert_allclose(by_name["assignment_weights"].sum(axis=0), 0, atol=1e-9)
    assert by_name["assignment_biases"].sum() == pytest.approx(0, abs=1e-9)


def test_a_fault_is_of_what_the_free_parameters_stand_for(rng):
    layer = VLADPooling(K)
    _, p = problem(rng, layer, offset=0)
    assert layer.fault(p) is None
    for value in (800.0, -800.0):
        assert layer.fault({**p, "log_sharpness": np.array([value])}) == "an entry of scale_"
    free = VLADPooling(K, tied=False)
    assert free.fault(free.free(p["centers"], 1)) is None


@every_layer
def test_equal_centers_share_alike(rng, layer):
    x = rng.normal(size=(300, D))
    center = x[:1]
    p = layer.free(np.repeat(center, K, axis=0), 1.0)
    encodings, d_x, by_parameter = passes(layer, p, x, np.ones((4, layer.n_out(p))))
    assert np.isfinite(encodings).all()
    assert np.isfinite(d_x).all()
    assert all(np.isfinite(g).all() for g in by_parameter.values())
    if not layer.way.hard:
        words = encodings.reshape(4, -1, K, encodings.shape[1] // K // max(layer.order, 1))
        np.testing.assert_allclose(words, np.broadcast_to(words[:, :, :1], words.shape), rtol=1e-9)

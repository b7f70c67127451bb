"""VLAD and its logits by what they stand for; loops and differences are in `test_all`."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import pairwise_distances

from skfisher.ops.assignment import assignment_sums
from skfisher.ops.learned_aggregation import metric_logits, metric_logits_vjp
from skfisher.ops.soft_assignment import Sums
from skfisher.ops.vlad import distance_logits, distance_logits_vjp, vlad, vlad_vjp


@pytest.fixture
def words(rng):
    return rng.normal(size=(5, 3))


def test_logits_are_distances_but_for_what_all_words_share(rng, words):
    x, metric = rng.normal(size=(20, 3)), rng.uniform(0.5, 2, size=3)
    linear, constant = distance_logits(words, metric)
    squares = pairwise_distances(x * np.sqrt(metric), words * np.sqrt(metric)) ** 2
    found = softmax(x @ linear.T + constant, axis=1)
    np.testing.assert_allclose(found, softmax(-squares, axis=1), rtol=1e-12)


def test_metrics_that_are_equal_are_one_metric(rng, words):
    metric = rng.uniform(0.5, 2, size=3)
    metrics = np.tile(metric, (5, 1))
    linear, constant = distance_logits(words, metric)
    own_linear, quadratic, own_constant = metric_logits(words, metrics)
    np.testing.assert_array_equal(own_linear, linear)
    np.testing.assert_array_equal(own_constant, constant)
    np.testing.assert_array_equal(quadratic, -metrics)
    # gradients by the metric of all are the sums of those by each
    g1, g0 = rng.normal(size=(5, 3)), rng.normal(size=5)
    d_words, d_metric = distance_logits_vjp((g1, g0), words, metric)
    own_d_words, d_metrics = metric_logits_vjp((g1, np.zeros((5, 3)), g0), words, metrics)
    np.testing.assert_allclose(own_d_words, d_words)
    np.testing.assert_allclose(d_metrics.sum(axis=0), d_metric)


def test_the_published_equations_of_netvlad(rng, words):
    # softmax with w = 2 alpha c and b = -alpha |c|^2
    x, alpha = rng.normal(size=(9, 3)), 1.7
    a = softmax(x @ (2 * alpha * words).T - alpha * (words**2).sum(axis=1), axis=1)
    expected = np.stack([(a[:, [k]] * (x - c)).sum(axis=0) for k, c in enumerate(words)])
    linear, constant = distance_logits(words, np.full(3, alpha))
    borders = np.array([0]), np.array([9])
    sums = assignment_sums(x, *borders, (linear, None, constant))
    np.testing.assert_allclose(vlad(sums, words)[0], expected.ravel(), rtol=1e-10)


def test_residuals_from_their_own_means_vanish(rng):
    # which makes k-means stand still
    x = rng.normal(size=(50, 2))
    labels = rng.integers(3, size=50)
    one_hot = np.eye(3)[labels]
    sums = Sums(one_hot.sum(axis=0)[None], (one_hot.T @ x)[None], (one_hot.T @ x**2)[None])
    means = sums.s1[0] / sums.s0[0][:, None]
    found = vlad(sums, means, moments=2).reshape(2, 3, 2)
    np.testing.assert_allclose(found[0], 0, atol=1e-12)
    scatter = [((x[labels == k] - means[k]) ** 2).sum(axis=0) for k in range(3)]
    np.testing.assert_allclose(found[1], scatter, rtol=1e-10)


@pytest.mark.parametrize("moments", [1, 2])
def test_the_way_back_is_linear_in_the_sums(rng, words, moments):
    def draw():
        return Sums(rng.uniform(1, 2, size=(4, 5)), *rng.normal(size=(2, 4, 5, 3)))

    one, other = draw(), draw()
    g = rng.normal(size=(4, moments * 15))
    d_one, _ = vlad_vjp(g, one, words, moments=moments)
    d_other, _ = vlad_vjp(g, other, words, moments=moments)
    for a, b in zip(d_one, d_other, strict=True):
        np.testing.assert_array_equal(a, b)  # whatever the sums
    change = vlad(other, words, moments=moments) - vlad(one, words, moments=moments)
    expected = sum(
        (d * (b - a)).sum() for d, a, b in zip(d_one, one, other, strict=True) if d is not None
    )
    assert (g * change).sum() == pytest.approx(expected)

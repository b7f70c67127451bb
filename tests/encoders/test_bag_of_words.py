"""Bags of words against scikit-learn's k-means, and plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances

from skfisher import BagOfWordsEncoder, Bags, JointClassifier
from skfisher.layers.bag_of_words import BagOfWordsPooling


@pytest.fixture(scope="module")
def bags():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 3)) for n in rng.integers(1, 60, size=20)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hard_shares_are_those_of_kmeans(bags, dtype):
    bags = [bag.astype(dtype) for bag in bags]
    kmeans = KMeans(5, n_init=1, random_state=0).fit(np.concatenate(bags))
    encoder = BagOfWordsEncoder(codebook=kmeans, normalize=None)
    found = encoder.fit_transform(bags)
    expected = [np.bincount(kmeans.predict(bag), minlength=5) / len(bag) for bag in bags]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == dtype
    roots = BagOfWordsEncoder(codebook=kmeans).fit_transform(bags)
    np.testing.assert_allclose(roots, np.sqrt(expected), rtol=1e-6)  # of unit length


@pytest.mark.parametrize("metric", [None, "diagonal"])
def test_soft_shares_are_a_mean_softmax(bags, metric):
    encoder = BagOfWordsEncoder(
        4, assignment="soft", metric=metric, ratio=3, normalize=None, random_state=0
    )
    found = encoder.fit_transform(bags)
    for bag, shares in zip(bags, found, strict=True):
        logits = -encoder.scale_ * pairwise_distances(bag, encoder.cluster_centers_) ** 2
        a = np.exp(logits)
        np.testing.assert_allclose(shares, (a / a.sum(axis=1, keepdims=True)).mean(axis=0))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    assignment=st.sampled_from(["hard", "soft"]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_shares_are_positive_and_sum_to_1(seed, assignment, scale):
    rng = np.random.default_rng(seed)
    bags = [scale * (10 + rng.normal(size=(n, 2))) for n in (1, 3, 7)]
    codebook = scale * (10 + rng.normal(size=(rng.integers(1, 5), 2)))
    encoder = BagOfWordsEncoder(codebook=codebook, assignment=assignment, normalize=None)
    shares = encoder.fit_transform(bags)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # in units of another size: the same
    other = BagOfWordsEncoder(codebook=4 * codebook, assignment=assignment, normalize=None)
    np.testing.assert_allclose(other.fit_transform([4 * b for b in bags]), shares, atol=1e-12)


def test_the_sharper_the_softer_becomes_hard(bags):
    codebook = np.random.default_rng(0).normal(size=(4, 3))
    hard = BagOfWordsEncoder(codebook=codebook, normalize=None).fit_transform(bags)
    soft = BagOfWordsEncoder(codebook=codebook, assignment="soft", normalize=None).fit(bags)
    soft.scale_ = 1e6
    np.testing.assert_allclose(soft.transform(bags), hard, atol=1e-3)


@pytest.mark.parametrize("native", ["0", ""], ids=["NumPy", "as it is built"])
@pytest.mark.parametrize("offset", [0, 5])
def test_of_words_equally_near_the_first_is_taken(monkeypatch, native, offset):
    # whole numbers, as SIFT: half of the descriptors lie half way, and rounding may not decide
    monkeypatch.setenv("SKFISHER_NATIVE", native)
    words = np.array([[2, 0], [0, 0], [0, 2], [2, 2]]) + offset
    grid = np.array([[i, j] for i in range(3) for j in range(3)]) + offset
    expected = [1, 1, 2, 0, 0, 2, 0, 0, 3]
    for dtype in ("uint8", "float32", "float64"):
        encoder = BagOfWordsEncoder(codebook=words, normalize=None).fit(grid[None].astype(dtype))
        found = encoder.transform([row[None].astype(dtype) for row in grid])
        assert found.argmax(axis=1).tolist() == expected
        assert (found.max(axis=1) == 1).all()


def test_hard_words_are_not_float32_s_to_tell_apart():
    # two words next to each other, and descriptors on both sides: 1 in 10 million apart
    words = np.array([[1.0, 0.0], [1.0 + 1e-6, 0.0]])
    bags = [np.float32([[1.0, 0]]), np.float32([[1.0 + 1e-6, 0]])]
    encoder = BagOfWordsEncoder(codebook=words, normalize=None).fit(bags)
    np.testing.assert_array_equal(encoder.transform(bags), np.eye(2))


def test_the_bits_depend_on_the_bag_alone(bags):
    for assignment in ("hard", "soft"):
        encoder = BagOfWordsEncoder(7, assignment=assignment, random_state=0).fit(bags)
        whole = encoder.transform(bags)
        order = np.random.default_rng(1).permutation(len(bags))
        threads = encoder.set_params(n_jobs=2).transform(Bags.from_list(bags)[order])
        np.testing.assert_array_equal(threads, whole[order])
        for bag, one in zip(bags, whole, strict=True):
            np.testing.assert_array_equal(encoder.transform([bag])[0], one)


def test_more_words_than_distinct_descriptors():
    bags = [np.zeros((9, 2)), np.ones((4, 2))]
    shares = BagOfWordsEncoder(8, normalize=None, random_state=0).fit_transform(bags)
    assert np.count_nonzero(shares) == 2
    np.testing.assert_array_equal(shares.sum(axis=1), 1)


def test_names_are_those_of_words(bags):
    encoder = BagOfWordsEncoder(3, random_state=0).fit(bags)
    assert list(encoder.get_feature_names_out()) == ["word_k0", "word_k1", "word_k2"]


def test_partial_fit_finds_words(bags):
    encoder = BagOfWordsEncoder(3, normalize=None, random_state=0)
    for first in range(0, 20, 5):
        encoder.partial_fit(bags[first : first + 5])
    labels = pairwise_distances(bags[3], encoder.cluster_centers_).argmin(axis=1)
    expected = np.bincount(labels, minlength=3) / len(labels)
    np.testing.assert_allclose(encoder.transform(bags[3:4])[0], expected)


class TestTrained:
    """Learned aggregation."""

    def test_centers_and_metrics_learn_what_a_frozen_codebook_misses(self):
        # what tells the classes apart lies in the dimension of least variance
        rng = np.random.default_rng(0)
        y = np.arange(60) % 2
        bags = [rng.normal(size=(20, 3)) * [3, 3, 0.2] + [0, 0, 0.3 * c] for c in y]
        encoder = BagOfWordsEncoder(3, assignment="soft", metric="diagonal")
        options = {"feature_map": "identity", "whiten": False, "random_state": 0}
        model = JointClassifier(encoder, max_iter=30, learning_rate=0.03, **options).fit(bags, y)
        assert model.metrics_.shape == (3, 3)
        assert (model.metrics_ > 0).all()
        assert model.baseline_.score(bags, y) < 0.8
        assert model.score(bags, y) > 0.95

    def test_hard_shares_are_refused(self, bags):
        y = np.arange(20) % 2
        with pytest.raises(ValueError, match="assignment='hard' leaves nothing to train"):
            JointClassifier(BagOfWordsEncoder(2)).fit(bags, y)

    def test_hard_shares_have_no_gradient(self, bags):
        layer, x = BagOfWordsPooling(2, assignment="hard"), np.concatenate(bags)
        q = layer.prepare({"centers": x[:2]}, x.dtype)
        borders = np.array([0]), np.array([len(x)])
        d_x, by_logits = layer.sums_vjp(q, (np.ones((1, 2)),), x, *borders, with_x=True)
        assert (d_x == 0).all()
        assert (layer.prepare_vjp(q, by_logits)["centers"] == 0).all()

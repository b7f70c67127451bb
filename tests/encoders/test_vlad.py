"""VLAD against scikit-learn's k-means and plain loops, and what must not change it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.cluster import DBSCAN, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize

from skfisher import Bags, JointClassifier, PowerL2Normalizer, VLADEncoder
from skfisher.codebooks.centers import mean_gap
from tests.memory import peak_memory

CENTERS = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [50.0, 50.0, 50.0]])


def bags_of(n_bags=20, d=3, seed=0, dtype=np.float64, offset=0.0):
    rng = np.random.default_rng(seed)
    return [
        (3 * rng.normal(size=(n, d)) + offset).astype(dtype)
        for n in rng.integers(1, 60, size=n_bags)
    ]


@pytest.fixture(scope="module")
def bags():
    return bags_of()


def reference(bags, centers, scale=None, moments=1):
    """Return VLAD by scikit-learn's distances and a loop over descriptors; hard without scale."""
    out = []
    for bag in bags:
        sums = np.zeros((moments, *centers.shape))
        squares = pairwise_distances(bag.astype(np.float64), centers) ** 2
        for row, distances in zip(bag.astype(np.float64), squares, strict=True):
            a = np.exp(-(scale or 0) * (distances - distances.min()))
            a = a / a.sum() if scale else np.arange(len(centers)) == distances.argmin()
            for k, center in enumerate(centers):
                for m in range(moments):
                    sums[m, k] += a[k] * (row - center) ** (m + 1)
        out.append(sums.ravel())
    return np.array(out)


@pytest.mark.parametrize("moments", [1, 2])
@pytest.mark.parametrize("assignment", ["soft", "hard"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_encodings_are_residuals_from_the_words(assignment, moments, dtype):
    bags = bags_of(dtype=dtype)
    encoder = VLADEncoder(4, assignment=assignment, moments=moments, normalize=None, random_state=0)
    found = encoder.fit_transform(bags)
    scale = encoder.scale_ if assignment == "soft" else None
    expected = reference(bags, encoder.cluster_centers_, scale, moments)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_hard_assignment_is_that_of_kmeans(bags):
    kmeans = KMeans(5, n_init=1, random_state=0).fit(np.concatenate(bags))
    encoder = VLADEncoder(codebook=kmeans, assignment="hard", normalize=None).fit(bags)
    np.testing.assert_array_equal(encoder.cluster_centers_, kmeans.cluster_centers_)
    for bag, found in zip(bags, encoder.transform(bags), strict=True):
        expected, labels = np.zeros((5, 3)), kmeans.predict(bag)
        np.add.at(expected, labels, bag - kmeans.cluster_centers_[labels])
        np.testing.assert_allclose(found, expected.ravel(), atol=1e-12)


def test_the_scale_gives_the_nearest_word_so_many_times_the_weight_of_the_second(bags):
    x = np.concatenate(bags)
    encoder = VLADEncoder(4, ratio=20, random_state=0).fit(bags)
    nearest = np.sort(pairwise_distances(x, encoder.cluster_centers_) ** 2, axis=1)
    gap = (nearest[:, 1] - nearest[:, 0]).mean()
    assert encoder.scale_ == pytest.approx(math.log(20) / gap)


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_normalisation_is_that_of_the_normalizer(bags, assignment):
    plain = VLADEncoder(4, assignment=assignment, moments=2, normalize=None, random_state=0)
    sums = plain.fit_transform(bags)
    for kind, expected in [
        ("power-l2", PowerL2Normalizer().transform(sums)),
        ("l2", normalize(sums)),
        ("intra", PowerL2Normalizer(1, blocks=8).transform(sums)),
    ]:
        found = clone(plain).set_params(normalize=kind).fit_transform(bags)
        np.testing.assert_allclose(found, expected, atol=1e-13)
    np.testing.assert_array_equal(plain.blocks(), np.repeat(np.arange(8), 3))


@pytest.mark.parametrize("kind", ["power-l2", "intra", "l2", None])
@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_words_without_descriptors_have_zeros(assignment, kind):
    encoder = VLADEncoder(codebook=CENTERS, assignment=assignment, normalize=kind, ratio=1e6)
    bags = [[[1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]] * 3, [[5.0, 1.0, 0.0], [3.0, 1.0, 0.0]]]
    found = encoder.fit_transform(bags).reshape(3, 4, 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 3], 0, atol=1e-9)
    if assignment == "hard":
        np.testing.assert_array_equal(found[1], 0)  # all descriptors at their word
        np.testing.assert_array_equal(found[[0, 2], 2], 0)


def test_with_metrics_encodings_are_means(bags):
    sums = VLADEncoder(3, normalize=None, random_state=0).fit_transform(bags)
    means = VLADEncoder(3, metric="diagonal", normalize=None, random_state=0).fit_transform(bags)
    counts = np.array([len(bag) for bag in bags])[:, None]
    np.testing.assert_allclose(means, sums / counts, rtol=1e-10, atol=1e-12)


def test_a_free_assignment_starts_as_a_tied_one():
    bags = bags_of(offset=300)
    tied = VLADEncoder(3, normalize=None, random_state=0).fit_transform(bags)
    free = VLADEncoder(3, tied=False, normalize=None, random_state=0).fit_transform(bags)
    np.testing.assert_allclose(free, tied, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"assignment": "hard"}, {"moments": 2}, {"tied": False}])
def test_an_offset_of_a_thousand_deviations_costs_float32_no_digits(options):
    d = 80  # enough that float32 is what is computed in
    narrow = [np.float32(bag / 3) for bag in bags_of(d=d, offset=3000)]
    wide = [bag.astype(np.float64) for bag in narrow]
    centers = VLADEncoder(8, random_state=0).fit(wide).cluster_centers_
    encoder = VLADEncoder(codebook=centers, normalize=None, **options)
    expected = encoder.fit_transform(wide)
    found = encoder.fit_transform(narrow)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.integers(-100, 100), k=st.integers(1, 6))
def test_moving_or_turning_everything_moves_nothing_or_turns_it(seed, shift, k):
    rng = np.random.default_rng(seed)
    bags = [rng.normal(size=(n, 3)) for n in (1, 4, 9)]
    centers = rng.normal(size=(k, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    options = {"assignment": rng.choice(["soft", "hard"]), "normalize": None}
    one = VLADEncoder(codebook=centers, **options).fit_transform(bags)
    moved = [bag @ turn + shift for bag in bags]
    other = VLADEncoder(codebook=centers @ turn + shift, **options).fit_transform(moved)
    np.testing.assert_allclose(other.reshape(3, k, 3), one.reshape(3, k, 3) @ turn, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), times=st.integers(2, 5))
def test_descriptors_that_repeat_add_up_and_change_nothing_normalised(seed, times):
    rng = np.random.default_rng(seed)
    bags = [rng.normal(size=(n, 2)) for n in (1, 5)]
    codebook = rng.normal(size=(3, 2))
    sums = VLADEncoder(codebook=codebook, normalize=None).fit(bags)
    repeated = [np.repeat(bag, times, axis=0) for bag in bags]
    np.testing.assert_allclose(sums.transform(repeated), times * sums.transform(bags), atol=1e-10)
    unit = sums.set_params(normalize="intra")
    np.testing.assert_allclose(unit.transform(repeated), unit.transform(bags), atol=1e-10)


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_more_words_than_distinct_descriptors(assignment):
    bags = [np.zeros((5, 2)), np.ones((4, 2)), np.zeros((1, 2))]
    for k in (2, 5):
        encoder = VLADEncoder(k, assignment=assignment, random_state=0)
        encodings = encoder.fit_transform(bags)
        assert np.isfinite(encodings).all()
        assert {tuple(c) for c in abs(encoder.cluster_centers_).round(9)} <= {(0, 0), (1, 1)}
        if assignment == "hard":
            np.testing.assert_array_equal(encodings, 0)
    same = VLADEncoder(3, assignment=assignment).fit_transform([np.full((6, 2), 7.0)])
    np.testing.assert_array_equal(same, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_descriptors_at_their_word_have_no_residual(dtype, assignment):
    # rounding does, which a root and a norm would make a vector of
    rng = np.random.default_rng(0)
    codebook = np.float32(100 * rng.normal(size=(9, 40)))
    encoder = VLADEncoder(codebook=codebook, assignment=assignment).fit([codebook])
    encoder.scale_ = 1.0  # so sharp that nothing is left for any other word
    bags = [np.repeat(codebook[[k]], 300, axis=0).astype(dtype) for k in range(9)]
    np.testing.assert_array_equal(encoder.transform(bags), 0)


def test_one_word_has_all_there_is(bags):
    encoder = VLADEncoder(1, normalize=None, random_state=0).fit(bags)
    mean = np.concatenate(bags).mean(axis=0)
    np.testing.assert_allclose(encoder.cluster_centers_, [mean], atol=1e-12)
    expected = [(bag - encoder.cluster_centers_).sum(axis=0) for bag in bags]
    np.testing.assert_allclose(encoder.transform(bags), expected, atol=1e-10)


@pytest.mark.parametrize("native", ["0", ""], ids=["NumPy", "as it is built"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("assignment", ["soft", "hard"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 2), (16, 24)])
def test_the_bits_of_an_encoding_depend_on_its_bag_alone(
    rng, monkeypatch, shape, assignment, dtype, native
):
    monkeypatch.setenv("SKFISHER_NATIVE", native)
    k, d = shape
    lengths = rng.permutation([1, 1, 2, 2, 3, 5, 31, 64, 255, 256, 257, 513, 2500])
    x = np.split(rng.normal(100, 20, size=(lengths.sum(), d)).astype(dtype), lengths.cumsum()[:-1])
    encoder = VLADEncoder(k, assignment=assignment, max_descriptors=1000, random_state=0)
    whole = encoder.fit(x).transform(x)
    for one, bag in zip(whole, x, strict=True):
        np.testing.assert_array_equal(encoder.transform([bag.copy()])[0], one)
    order = rng.permutation(len(x))
    threads = encoder.set_params(n_jobs=2).transform(Bags.from_list(x)[order])
    np.testing.assert_array_equal(threads, whole[order])


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_a_long_bag_is_encoded_in_parts(monkeypatch, assignment):
    bags = bags_of(n_bags=6, offset=50)
    encoder = VLADEncoder(3, assignment=assignment, random_state=0).fit(bags)
    bags.insert(3, np.concatenate(bags[1:]))
    whole = encoder.transform(bags)
    monkeypatch.setattr("skfisher.layers.encode.LONG_BAG", 50)
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 30)
    one = encoder.transform(bags)
    np.testing.assert_allclose(one, whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(encoder.set_params(n_jobs=2).transform(bags), one)


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_memory_does_not_grow_with_a_bag(rng, assignment):
    encoder = VLADEncoder(64, assignment=assignment, random_state=0)
    x = rng.normal(size=(400_000, 4)).astype(np.float32)
    encoder.fit([x[:3000]])
    # the assignments alone would take 98 MiB
    assert peak_memory(lambda: encoder.transform([x]), n_calls=2) < 20 * 2**20


@pytest.mark.parametrize("assignment", ["soft", "hard"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_devices_and_their_memory_do_not_change_a_bit(stand_in, monkeypatch, assignment, dtype):
    bags = [(b + 50).astype(dtype) for b in bags_of(n_bags=6)]
    encoder = VLADEncoder(3, assignment=assignment, random_state=0).fit(bags)
    bags.insert(3, np.concatenate(bags[1:]))
    monkeypatch.setattr("skfisher.layers.encode.LONG_BAG", 30)
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    expected, found = encoder.transform(bags), []
    for device in ("cuda", "cuda:1", "cuda:all"):
        for n_bytes in (2**40, 4000):
            monkeypatch.setattr("tests.device_array.Memory.n_bytes", n_bytes)
            found.append(encoder.set_params(device=device).transform(bags))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    tolerance = 1e-12 if expected.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=tolerance)


class TestCodebook:
    """Words that come from elsewhere."""

    def test_a_fitted_one_is_used_as_it_is(self, bags):
        kmeans = KMeans(2, n_init=1, random_state=1).fit(np.concatenate(bags))
        expected = VLADEncoder(codebook=kmeans.cluster_centers_).fit(bags).transform(bags)
        for given_codebook in (kmeans, FrozenEstimator(kmeans), kmeans.cluster_centers_.tolist()):
            encoder = VLADEncoder(codebook=given_codebook).fit(bags)
            np.testing.assert_array_equal(encoder.transform(bags), expected)
        # cloned, a frozen one stays fitted
        again = clone(VLADEncoder(codebook=FrozenEstimator(kmeans))).fit(bags)
        np.testing.assert_array_equal(again.cluster_centers_, kmeans.cluster_centers_)

    @pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
    def test_an_unfitted_one_is_cloned_and_fitted(self, bags, kind):
        codebook = kind(3, n_init=1, random_state=0)
        encoder = VLADEncoder(codebook=codebook).fit(bags)
        assert not hasattr(codebook, "cluster_centers_")
        expected = clone(codebook).fit(np.concatenate(bags)).cluster_centers_
        np.testing.assert_array_equal(encoder.cluster_centers_, expected)
        assert not hasattr(encoder, "partial_fit")

    def test_it_is_not_written_to(self, bags):
        centers = CENTERS.copy()
        encoder = VLADEncoder(codebook=centers).fit(bags)
        encoder.cluster_centers_[:] = 0
        np.testing.assert_array_equal(centers, CENTERS)

    @pytest.mark.parametrize(
        ("codebook", "message"),
        [
            (np.zeros((3, 2)), r"X\[0\] has 3 features per descriptor, but the centres .* have 2"),
            (np.zeros(3), r"codebook has shape \(3,\)"),
            (np.full((2, 3), np.nan), r"codebook\[0, 0\] is nan, but should be finite"),
            (FrozenEstimator(KMeans(2)), "codebook is frozen, but not fitted"),
        ],
    )
    def test_a_bad_one_is_refused(self, bags, codebook, message):
        with pytest.raises(ValueError, match=message):
            VLADEncoder(codebook=codebook).fit(bags)

    @pytest.mark.parametrize("codebook", [PCA(2), DBSCAN()])
    def test_an_estimator_without_centers_is_refused(self, bags, codebook):
        with pytest.raises(TypeError, match="which finds no cluster_centers_: pass a KMeans"):
            VLADEncoder(codebook=codebook).fit(bags)

    def test_words_are_found_among_a_draw(self, bags):
        few = VLADEncoder(2, max_descriptors=50, random_state=0).fit(bags)
        again = VLADEncoder(2, max_descriptors=50, random_state=0).fit(bags)
        np.testing.assert_array_equal(few.cluster_centers_, again.cluster_centers_)
        drawn = {tuple(row) for row in np.concatenate(bags)}
        everything = VLADEncoder(50, max_descriptors=50, random_state=0).fit(bags)
        assert {tuple(c) for c in everything.cluster_centers_.round(9)} <= {
            tuple(np.round(row, 9)) for row in drawn
        }
        with pytest.raises(ValueError, match="max_descriptors=1 leaves fewer descriptors than"):
            VLADEncoder(2, max_descriptors=1).fit(bags)


class TestPartialFit:
    """Mini-batch k-means on given batches."""

    def test_steps_are_those_of_scikit_learn(self, bags):
        encoder = VLADEncoder(3, random_state=0).partial_fit(bags[:5])
        # from the words before the first step, which are those of the first batch alone
        start = VLADEncoder(3, random_state=0).fit(bags[:5]).cluster_centers_
        peer = MiniBatchKMeans(3, init=start, n_init=1, reassignment_ratio=0)
        for first in range(0, 20, 5):
            batch = bags[first : first + 5]
            if first:
                encoder.partial_fit(batch)
            peer.partial_fit(np.concatenate(batch))
            np.testing.assert_allclose(encoder.cluster_centers_, peer.cluster_centers_, rtol=1e-10)

    def test_the_scale_is_of_all_batches(self, bags):
        encoder = VLADEncoder(3, random_state=0)
        gaps = []
        for first in (0, 7, 14):
            batch = bags[first : first + 7]
            encoder.partial_fit(batch)
            gaps.append(mean_gap(np.concatenate(batch), encoder.cluster_centers_))
        counts = [sum(map(len, bags[i : i + 7])) for i in (0, 7, 14)]
        assert encoder.scale_ == pytest.approx(math.log(5) / np.average(gaps, weights=counts))

    def test_it_goes_on_from_a_fit(self, bags):
        encoder = VLADEncoder(3, random_state=0).fit(bags)
        before = encoder.cluster_centers_
        encoder.partial_fit(bags[:1])
        n, n_new = sum(map(len, bags)), len(bags[0])
        moved = np.abs(encoder.cluster_centers_ - before).max()
        assert 0 < moved < 10 * n_new / n
        encoder.set_params(n_components=4)
        with pytest.raises(ValueError, match="n_components=4, but there are 3 words"):
            encoder.partial_fit(bags)

    def test_threads_and_devices_do_not_change_it(self, bags, stand_in, monkeypatch):
        monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
        one, two, there = (
            VLADEncoder(3, random_state=0, **options)
            for options in ({}, {"n_jobs": 2}, {"device": "cuda:all"})
        )
        for first in (0, 10):
            for encoder in (one, two, there):
                encoder.partial_fit(bags[first : first + 10])
        np.testing.assert_array_equal(two.cluster_centers_, one.cluster_centers_)
        np.testing.assert_allclose(there.cluster_centers_, one.cluster_centers_, rtol=1e-12)

    def test_too_few_descriptors_are_refused(self):
        with pytest.raises(ValueError, match="n_components=16 needs at least 16 descriptors"):
            VLADEncoder().partial_fit([np.zeros((5, 2))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "diagonal", "assignment": "hard"}, "metric='diagonal' is about soft assign"),
        ({"tied": False, "assignment": "hard"}, "tied=False is about soft assignment"),
        ({"tied": False, "metric": "diagonal"}, "metric='diagonal' is about distances"),
        ({"ratio": 1}, "'ratio' parameter of VLADEncoder must be"),
        ({"normalize": "max"}, "'normalize' parameter of VLADEncoder must be"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(bags, options, message):
    with pytest.raises(ValueError, match=message):
        VLADEncoder(**options).fit(bags)


def test_names_say_word_and_dimension(bags):
    encoder = VLADEncoder(2, moments=2, random_state=0).fit(bags)
    names = encoder.get_feature_names_out(["r", "g", "b"])
    assert names[1 * 3 + 2] == "vlad_k1_b"
    assert names[6 + 0] == "square_k0_r"
    assert encoder.get_feature_names_out()[5] == "vlad_k1_d2"
    frame = encoder.set_output(transform="pandas").transform(bags)
    assert list(frame.columns) == list(encoder.get_feature_names_out())


def test_a_fill_value_is_named():
    bags = bags_of(d=100, dtype=np.float32)
    encoder = VLADEncoder(4, moments=2, normalize=None, random_state=0).fit(bags)
    bags[5] = bags[5].copy()
    bags[5][0, 2] = -3e38
    with pytest.raises(ValueError, match=r"X\[5\] has a descriptor so far from all words"):
        encoder.transform(bags)


class TestTrained:
    """NetVLAD, NetFV and learned aggregation through `JointClassifier`."""

    Y = np.arange(40) % 2

    @pytest.fixture
    def X(self):
        # of equal means: what differs is how descriptors lie about two places
        rng = np.random.default_rng(0)
        signs = [rng.choice([-1.0, 1.0], size=(30, 1)) for _ in self.Y]
        return [
            np.hstack([3 * s, (2 * y - 1) * s]) + rng.normal(size=(30, 2))
            for s, y in zip(signs, self.Y, strict=True)
        ]

    @pytest.mark.parametrize(
        ("encoder", "learnt"),
        [
            (VLADEncoder(2), {"cluster_centers_", "scale_"}),
            (
                VLADEncoder(2, tied=False),
                {"cluster_centers_", "assignment_coef_", "assignment_intercept_"},
            ),
            (VLADEncoder(2, moments=2), {"cluster_centers_", "scale_"}),
            (VLADEncoder(2, metric="diagonal"), {"cluster_centers_", "metrics_"}),
            (VLADEncoder(2, assignment="hard"), {"cluster_centers_"}),
        ],
    )
    @pytest.mark.parametrize("kind", ["power-l2", "intra"])
    def test_every_parameter_learns(self, X, encoder, learnt, kind):
        encoder = clone(encoder).set_params(normalize=kind)
        model = JointClassifier(encoder, feature_map="identity", max_iter=5, random_state=0)
        model.fit(X, self.Y)
        if encoder.assignment == "soft":
            assert model.history_["loss"][-1] < model.history_["loss"][0]
        for name in learnt:
            assert (getattr(model, name) != getattr(model.baseline_, name)).any()
            assert getattr(model, name).dtype == np.float64
        assert model.score(X, self.Y) >= model.baseline_.score(X, self.Y)

    def test_training_starts_at_the_words_given(self, X):
        kmeans = KMeans(3, n_init=1, random_state=0)
        model = JointClassifier(VLADEncoder(codebook=kmeans), max_iter=0, random_state=0)
        assert model.fit(X, self.Y).cluster_centers_.shape == (3, 2)
        wrong = JointClassifier(VLADEncoder(codebook=np.zeros((2, 3))))
        with pytest.raises(ValueError, match="codebook has centres of 3 features, but the mapped"):
            wrong.fit(X, self.Y)

    @pytest.mark.parametrize("kind", ["l2", "intra", "power-l2"])
    def test_the_frozen_model_encodes_as_the_encoder_does(self, X, kind):
        # on descriptors that are whitened already, by what the joint model has found
        options = {"feature_map": "identity", "power_eps": None, "center": False, "max_iter": 0}
        model = JointClassifier(VLADEncoder(3, normalize=kind), random_state=0, **options)
        model.fit(X, self.Y)
        whitened = [(x - model.center_) @ model.axes_ for x in X]
        encoder = VLADEncoder(codebook=model.cluster_centers_, normalize=kind)
        np.testing.assert_allclose(model.transform(X), encoder.fit_transform(whitened), atol=1e-6)

    def test_a_step_that_leaves_nothing_finite_is_named(self, X):
        model = JointClassifier(VLADEncoder(2), learning_rate=1e4, max_iter=3, random_state=0)
        with np.errstate(all="ignore"), pytest.warns(ConvergenceWarning, match="no longer finite"):
            model.fit(X, self.Y)
        assert np.isfinite(model.decision_function(X)).all()

    def test_in_a_pipeline(self, X):
        pipe = make_pipeline(VLADEncoder(3, random_state=0), PCA(2)).fit(X)
        assert pipe.transform(X).shape == (40, 2)

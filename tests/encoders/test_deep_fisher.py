"""Deep Fisher networks, against the same steps taken one by one."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfisher import (
    Bags,
    DeepFisherEncoder,
    FisherVectorEncoder,
    ImagePatches,
)
from skfisher.encoders import window_codes
from skfisher.encoders.window_codes import iter_stacks
from tests.memory import peak_memory

RNG = np.random.default_rng(0)
SERIES = [RNG.normal(size=(n, 3)) + np.sin(np.arange(n))[:, None] for n in (40, 33, 7, 5, 64, 21)]
IMAGES = RNG.normal(size=(8, 12, 9)).cumsum(axis=1)
PLANE = ImagePatches(3, positions=1.0).fit_transform(IMAGES)


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-300)


def fisher(encoder, bags):
    """Return normalised Fisher vectors under the mixture of a fitted encoder."""
    given = FisherVectorEncoder(mixture=encoder.mixture_).fit(bags)
    vectors = given.transform(bags)
    return unit(np.sign(vectors) * np.sqrt(np.abs(vectors)))


def windows_of_series(bag, cell, window):
    """Return a column of windows, each an array of descriptors."""
    cells = [bag[first : first + cell] for first in range(0, len(bag), cell)]
    n = max(1, len(cells) - window + 1)
    return [[np.concatenate(cells[first : first + window])] for first in range(n)]


def windows_of_plane(bag, cell, window):
    """Return rows of windows, each an array of descriptors or empty."""
    x, y = np.floor((bag[:, -2:] - bag[:, -2:].min(axis=0)) / cell + 1e-4).astype(int).T
    columns, rows = max(1, x.max() + 2 - window), max(1, y.max() + 2 - window)
    return [
        [
            bag[(i <= y) & (y < i + window) & (j <= x) & (x < j + window), :-2]
            for j in range(columns)
        ]
        for i in range(rows)
    ]


def encoded(encoder, bags, cut):
    """Return encodings, step by step."""
    encodings = []
    for bag in bags:
        grid = cut(bag, encoder.cell_, encoder.window)
        codes = {
            (i, j): encoder.projection_.transform(fisher(encoder.local_, [w]))[0]
            for i, row in enumerate(grid)
            for j, w in enumerate(row)
            if len(w)
        }
        nothing = np.zeros(len(next(iter(codes.values()))))
        n, m = len(grid), len(grid[0])
        high, wide = encoder.stack, encoder.stack if encoder.n_positions else 1
        rows = []
        for i in range(max(1, n - high + 1)):
            for j in range(max(1, m - wide + 1)):
                places = [
                    (min(i + a, n - 1), min(j + b, m - 1)) for a in range(high) for b in range(wide)
                ]
                if any(place in codes for place in places):
                    rows.append(np.concatenate([codes.get(place, nothing) for place in places]))
        rows = encoder.reduction_.transform(unit(np.array(rows)))
        whole = bag[:, : bag.shape[1] - encoder.n_positions]
        parts = fisher(encoder.local_, [whole])[0], fisher(encoder.global_, [rows])[0]
        encodings.append(np.concatenate(parts))
    return np.array(encodings)


@pytest.mark.parametrize("options", [{}, {"window": 3, "stack": 1}, {"window": 1, "stack": 3}])
def test_series_are_encoded_as_by_the_steps_one_by_one(options):
    encoder = DeepFisherEncoder((3, 2), cell=4, random_state=0, **options).fit(SERIES)
    expected = encoded(encoder, SERIES, windows_of_series)
    np.testing.assert_allclose(encoder.transform(SERIES), expected, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"window": 3, "stack": 1}, {"window": 1, "stack": 3}])
def test_images_are_encoded_as_by_the_steps_one_by_one(options):
    encoder = DeepFisherEncoder((3, 2), n_positions=2, cell=0.21, random_state=0, **options)
    # holes, so that windows and parts of stacks are empty
    bags = [bag[np.abs(bag[:, -1]) > 0.25] if i % 2 else bag for i, bag in enumerate(PLANE)]
    encoder.fit(bags)
    expected = encoded(encoder, bags, windows_of_plane)
    np.testing.assert_allclose(encoder.transform(bags), expected, atol=1e-9)


def test_layers_are_the_columns_asked_for():
    both = DeepFisherEncoder((3, 2), cell=4, random_state=0).fit(SERIES)
    Z = both.transform(SERIES)
    first, second = (
        DeepFisherEncoder((3, 2), cell=4, layers=layers, random_state=0).fit_transform(SERIES)
        for layers in ((1,), (2,))
    )
    np.testing.assert_allclose(np.hstack([first, second]), Z, atol=1e-12)
    assert DeepFisherEncoder((3, 2), layers=(1,)).fit(SERIES).global_ is None
    names = both.get_feature_names_out(["a", "b", "c"])
    assert len(names) == Z.shape[1] == len(set(names))
    assert names[3] == "layer1_mean_k0_a"
    assert names[first.shape[1] + 2] == "layer2_mean_k0_code0"
    both.set_params(layers=(1,))
    assert both.transform(SERIES).shape == first.shape
    one = DeepFisherEncoder((3, 2), layers=(1,), random_state=0).fit(SERIES).set_params(layers=(2,))
    with pytest.raises(ValueError, match=r"layers=\(2,\), but fit was for \(1,\) alone"):
        one.transform(SERIES)


def test_names_leave_out_positions():
    encoder = DeepFisherEncoder((3, 2), n_positions=2, layers=(1,), random_state=0).fit(PLANE)
    names = encoder.get_feature_names_out()
    assert len(names) == encoder.transform(PLANE).shape[1] == 3 * (2 * 9 + 1)
    assert names[-1] == "variance_k2_d8".replace("variance", "layer1_variance")


@pytest.mark.parametrize("n_positions", [0, 2])
def test_bits_of_a_bag_depend_on_no_other_and_on_no_threads(n_positions):
    bags = PLANE if n_positions else Bags.from_list(SERIES)
    encoder = DeepFisherEncoder((3, 2), n_positions=n_positions, random_state=0).fit(bags)
    Z = encoder.transform(bags)
    np.testing.assert_array_equal(encoder.transform(bags[::-1])[::-1], Z)
    for i in range(len(bags)):
        np.testing.assert_array_equal(encoder.transform(bags[[i]])[0], Z[i])
    np.testing.assert_array_equal(encoder.set_params(n_jobs=3).transform(bags), Z)


@pytest.mark.parametrize("n_positions", [0, 2])
def test_bands_of_long_bags_change_nothing(n_positions, monkeypatch):
    bags = PLANE if n_positions else SERIES
    encoder = DeepFisherEncoder((3, 2), n_positions=n_positions, random_state=0, cell=None)
    Z = encoder.fit_transform(bags)
    monkeypatch.setattr(window_codes, "BAND_NUMBERS", 1)
    monkeypatch.setattr(window_codes, "GROUP_NUMBERS", 100)
    np.testing.assert_allclose(encoder.transform(bags), Z, atol=1e-12)
    np.testing.assert_allclose(encoder.fit_transform(bags), Z, atol=1e-7)


def test_memory_does_not_grow_with_the_codes_of_a_long_bag():
    encoder = DeepFisherEncoder((32, 2), random_state=0, projection=PCA(4), reduction=PCA(4))
    encoder.fit([RNG.normal(size=(500, 16)) for _ in range(3)])
    bag = RNG.normal(size=(100_000, 16))  # 12 500 windows of 1056 numbers: 106 MB
    assert peak_memory(lambda: encoder.transform([bag]), n_calls=1) < 60e6


def test_a_bag_smaller_than_a_window_is_one_window():
    encoder = DeepFisherEncoder((2, 2), cell=4, random_state=0).fit(SERIES)
    short = [SERIES[0][:n] for n in (1, 3, 8)]
    expected = encoded(encoder, short, lambda bag, *_: [[bag]])
    np.testing.assert_allclose(encoder.transform(short), expected, atol=1e-9)


@pytest.mark.parametrize(("n_positions", "bags"), [(0, SERIES), (2, PLANE)])
def test_windows_larger_than_all_bags_take_no_more_memory(n_positions, bags):
    options = {"n_positions": n_positions, "cell": 4 if n_positions == 0 else 0.3}
    wide, enough = (
        DeepFisherEncoder((2, 2), window=window, random_state=0, **options).fit_transform(bags)
        for window in (10**9, 64)
    )
    np.testing.assert_array_equal(wide, enough)


def test_empty_windows_are_left_out():
    near = np.hstack([RNG.normal(size=(40, 2)), RNG.uniform(0, 2, size=(40, 2))])
    bag = np.vstack([near, near + np.array([0, 0, 50, 50])])
    encoder = DeepFisherEncoder((2, 2), n_positions=2, cell=1, random_state=0).fit([bag, near])
    layout = encoder._layout(Bags.from_list([bag]), 1)
    cells = layout.cells(Bags.from_list([bag]), 0)
    n_windows, n_stacks = layout.n_windows(cells)
    assert cells.shape[0] > 50
    assert n_windows < 40
    assert n_windows <= n_stacks < 100
    assert np.isfinite(encoder.transform([bag])).all()


def test_bands_without_a_cell_change_nothing(monkeypatch):
    near = np.hstack([RNG.normal(size=(40, 2)), RNG.uniform(0, 2, size=(40, 2))])
    bag = np.vstack([near, near + np.array([0, 0, 0, 50])])  # rows of cells with none
    bags = [bag, near, bag[::-1]]
    encoder = DeepFisherEncoder((2, 2), n_positions=2, cell=1, random_state=0)
    Z = encoder.fit_transform(bags)
    monkeypatch.setattr(window_codes, "BAND_NUMBERS", 1)
    monkeypatch.setattr(window_codes, "GROUP_NUMBERS", 100)
    np.testing.assert_allclose(encoder.transform(bags), Z, atol=1e-12)


class Recorder(TransformerMixin, BaseEstimator):
    """Remember what it is fitted to, and pass on two columns."""

    def fit(self, X, y=None):
        self.seen_, self.labels_ = X.copy(), y
        return self

    def transform(self, X):
        return X[:, :2]


def test_windows_have_the_labels_of_their_bags():
    # a bag whose descriptors are all one point has a code of its own
    bags = [np.full((30, 2), float(i)) + RNG.normal(size=(30, 2)) * 1e-3 for i in range(4)]
    labels = np.array(["a", "b", "c", "d"])
    encoder = DeepFisherEncoder(
        (4, 2), cell=5, projection=Recorder(), reduction=Recorder(), max_windows=11, random_state=0
    ).fit(bags, labels)
    for step in (encoder.projection_, encoder.reduction_):
        assert len(step.seen_) == len(step.labels_) == 11
        assert set(step.labels_) == set(labels)
    strongest = np.abs(encoder.projection_.seen_[:, :4]).argmax(axis=1)
    by_label = [set(strongest[encoder.projection_.labels_ == label]) for label in labels]
    means = encoder.local_.means_[:, 0].round().astype(int)
    assert [means[list(found)].tolist() for found in by_label] == [[0], [1], [2], [3]]


def test_any_transformer_projects_and_those_that_need_labels_get_them():
    y = np.arange(6) % 3
    encoder = DeepFisherEncoder(
        (3, 2), cell=4, random_state=0,
        projection=LinearDiscriminantAnalysis(), reduction=make_pipeline(StandardScaler(), PCA(3)),
    )  # fmt: skip
    assert encoder.fit(SERIES, y).transform(SERIES).shape == (6, 3 * 7 + 2 * 7)
    assert encoder.__sklearn_tags__().target_tags.required
    encoder.set_params(projection=TruncatedSVD(3), reduction=PCA(3, whiten=True))
    assert encoder.fit(SERIES).transform(SERIES).shape == (6, 35)
    assert not encoder.__sklearn_tags__().target_tags.required
    with pytest.raises(ValueError, match="y has shape"):
        encoder.fit(SERIES, y[:-1])


def test_pca_given_is_that_of_scikit_learn():
    for whiten in (False, True):
        encoder = DeepFisherEncoder((3, 2), cell=4, random_state=0, reduction=PCA(3, whiten=whiten))
        encoder.fit(SERIES)
        expected = encoded(encoder, SERIES, windows_of_series)
        np.testing.assert_allclose(encoder.transform(SERIES), expected, atol=1e-9)


def test_rounding_is_not_whitened():
    # one window a bag, repeated in its stack: at most half the directions are any
    bags = [RNG.normal(size=(5, 2)) for _ in range(200)]
    encoder = DeepFisherEncoder((3, 2), random_state=0).fit(bags)
    assert encoder.reduction_.n_components_ <= encoder.projection_.n_components_
    assert np.abs(encoder.global_.means_).max() < 20


def test_windows_are_drawn_by_the_seed():
    one, same, other = (
        DeepFisherEncoder((3, 2), cell=4, max_windows=9, random_state=seed).fit_transform(SERIES)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_dtypes(dtype):
    bags = [(10 * bag).astype(dtype) for bag in SERIES]
    encoder = DeepFisherEncoder((3, 2), cell=4, random_state=0).fit(bags)
    Z = encoder.transform(bags)
    assert Z.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert np.isfinite(Z).all()


def test_second_layer_tells_order_that_one_layer_forgets():
    rng = np.random.default_rng(1)
    step = np.repeat([[3.0, 0.0], [0.0, 3.0]], 20, axis=0)
    bags = [rng.normal(size=(40, 2)) + (step if i % 2 else step.reshape(20, 2, 2).swapaxes(0, 1)
            .reshape(40, 2)[rng.permutation(40)]) for i in range(60)]  # fmt: skip
    y = np.arange(60) % 2
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    right = {}
    for layers in ((1,), (2,)):
        encoder = DeepFisherEncoder((2, 2), cell=4, layers=layers, random_state=0)
        model = make_pipeline(encoder, lda).fit(bags[:30], y[:30])
        right[layers] = model.score(bags[30:], y[30:])
    assert right[2,] == 1
    assert right[1,] < 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": (2, 2, 2)}, r"n_components=\(2, 2, 2\): give the components of the mix"),
        ({"n_components": (2, 0)}, r"n_components=\(2, 0\): give"),
        ({"n_positions": 1}, "n_positions=1: it is 0 for series"),
        ({"n_positions": 2, "layers": (2, 1)}, r"layers=\(2, 1\): take \(1,\), \(2,\) or \(1, 2\)"),
        ({"cell": 2.5}, r"cell=2\.5: a cell of a series is a number of descriptors"),
        ({"n_components": 500}, "needs at least 500 descriptors to fit"),
        ({"n_components": (2, 90)}, r"needs at least 90 stacks of windows .* got \d+ in n_sample"),
        ({"n_components": (2, 9), "max_windows": 8}, "got max_windows=8: .* raise max_windows"),
        ({"window": 0}, "'window' parameter of DeepFisherEncoder must be"),
    ],
)
def test_errors_say_what_is_wrong(options, message):
    encoder = DeepFisherEncoder(**{"n_components": (2, 2), "cell": 4, **options})
    with pytest.raises(ValueError, match=message):
        encoder.fit(SERIES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stack": 257}, "stack=257 puts 257 windows side by side, but 256 is the most"),
        ({"layers": ()}, r"layers=\(\): take"),
        ({"layers": (1, 2, 3)}, r"layers=\(1, 2, 3\): take"),
        ({"layers": 2}, "'layers' parameter of DeepFisherEncoder must be"),
        ({"window": 0}, "'window' parameter of DeepFisherEncoder must be"),
        ({"stack": 3}, "stack=3, but fit was with stack=2: fit again"),
        ({"n_positions": 2}, "n_positions=2, but fit was with n_positions=0: fit again"),
    ],
)
def test_what_has_changed_since_fit_is_named(changes, message):
    encoder = DeepFisherEncoder((2, 2), cell=4, random_state=0).fit(SERIES)
    with pytest.raises(ValueError, match=message):
        encoder.set_params(**changes).transform(SERIES)


def test_positions_alone_are_refused():
    encoder = DeepFisherEncoder((2, 2), n_positions=2)
    with pytest.raises(ValueError, match=r"2 features per descriptor, but with n_positions=2"):
        encoder.fit([np.zeros((9, 2))])
    encoder = DeepFisherEncoder((2, 2), n_positions=2, cell=0.5, random_state=0).fit(PLANE)
    far = PLANE[0].copy()
    far[0, -1] = 1e9
    with pytest.raises(ValueError, match=r"X\[1\] covers .* cells of side cell=0\.5"):
        encoder.transform([PLANE[0], far])


def test_stacks_of_one_window_are_its_code():
    layout = DeepFisherEncoder(stack=1, cell=2)._layout(None)
    codes = RNG.normal(size=(5, 3))
    band = window_codes.WindowCodes(0, np.ones((5, 1), bool), codes, ())
    (stacks,) = iter_stacks([band], layout)
    np.testing.assert_allclose(stacks.codes, unit(codes), rtol=1e-14)
    assert stacks.counts.tolist() == [5]

"""DescriptorTransformer."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import skfisher.descriptors.transformer
from skfisher.bags.bags import Bags
from skfisher.bags.sampling import draw_descriptors
from skfisher.descriptors.positions import PositionAppender
from skfisher.descriptors.transformer import DescriptorTransformer


@parametrize_with_checks(
    [
        DescriptorTransformer(StandardScaler()),
        DescriptorTransformer(PCA(1), max_descriptors=8, n_jobs=2),
        DescriptorTransformer(IncrementalPCA(1), incremental=True),
        DescriptorTransformer(LinearDiscriminantAnalysis()),
        PositionAppender(),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def bags(rng):
    return Bags.from_list([rng.normal(size=(n, 6)) @ np.diag(range(1, 7)) for n in (9, 1, 30, 14)])


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut what is transformed, and what partial_fit sees, into many blocks."""
    monkeypatch.setattr(skfisher.descriptors.transformer, "BLOCK_NUMBERS", 6 * 256)


@pytest.mark.parametrize(
    "transformer", [StandardScaler(), PCA(3), Nystroem(n_components=5, random_state=0)]
)
def test_agrees_with_the_transformer_on_stacked_descriptors(bags, transformer):
    found = DescriptorTransformer(transformer).fit_transform(bags)
    expected = clone(transformer).fit(bags.values).transform(bags.values)
    np.testing.assert_allclose(found.values, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found.lengths, bags.lengths)


def test_every_form_of_bags_gives_the_same(rng):
    cube = rng.normal(size=(4, 5, 3))
    expected = DescriptorTransformer(PCA(2)).fit_transform(cube)
    for X in (list(cube), Bags.from_list(list(cube))):
        found = DescriptorTransformer(PCA(2)).fit_transform(X)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)


def test_a_subset_of_bags_is_transformed_and_learned_from_alone(bags):
    some = bags[[2, 0]]
    found = DescriptorTransformer(PCA(2)).fit_transform(some)
    expected = DescriptorTransformer(PCA(2)).fit_transform(some.to_list())
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)


def test_the_given_transformer_is_not_fitted(bags):
    transformer = StandardScaler()
    DescriptorTransformer(transformer).fit(bags)
    assert not hasattr(transformer, "mean_")


@pytest.mark.parametrize("n_jobs", [2, 3])
def test_threads_and_blocks_do_not_change_the_result(rng, small_blocks, n_jobs):
    many = Bags.from_list([rng.normal(size=(n, 6)) for n in (2000, 3, 900, 1100)])
    one = DescriptorTransformer(PCA(4)).fit(many)
    several = DescriptorTransformer(PCA(4), n_jobs=n_jobs).fit(many)
    expected = one.transform(many)
    np.testing.assert_array_equal(several.transform(many).values, expected.values)
    whole = one.transformer_.transform(many.values)
    np.testing.assert_allclose(expected.values, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_users_choose_the_workers(rng, small_blocks, backend):
    many = [rng.normal(size=(n, 6)) for n in (700, 3, 900)]
    transformer = DescriptorTransformer(PCA(4), n_jobs=2).fit(many)
    expected = transformer.transform(many)
    with joblib.parallel_config(backend, n_jobs=2):
        np.testing.assert_array_equal(transformer.transform(many).values, expected.values)


def test_max_descriptors_fits_on_a_seeded_sample(bags):
    def scaler(seed, n):
        transformer = DescriptorTransformer(
            StandardScaler(), max_descriptors=n, random_state=seed
        ).fit(bags)
        return transformer.transformer_

    assert scaler(0, 20).n_samples_seen_ == 20
    np.testing.assert_array_equal(scaler(0, 20).mean_, scaler(0, 20).mean_)
    assert (scaler(0, 20).mean_ != scaler(1, 20).mean_).any()
    assert scaler(0, 54).n_samples_seen_ == scaler(0, None).n_samples_seen_ == 54


def test_the_sample_is_of_different_descriptors_that_are_in_the_bags(bags):
    # bags that leave descriptors out, in another order
    some = bags[[3, 0]]
    sample, owners = draw_descriptors(some, 20, 0)
    assert len({tuple(x) for (x,) in sample}) == len(sample) == 20
    for (x,), owner in zip(sample, owners, strict=True):
        assert (some[owner] == x).all(axis=1).any()


def test_the_sample_is_uniform():
    numbered = Bags.from_lengths(np.arange(10)[:, None], [3, 7])
    counts = np.zeros(10)
    for seed in range(2000):
        sample, _ = draw_descriptors(numbered, 4, seed)
        counts[sample.pack().values] += 1
    # 800 expected each, with a standard deviation of 22
    assert np.abs(counts - 800).max() < 5 * 22


class Recorder(TransformerMixin, BaseEstimator):
    """Remembers what it was fitted on."""

    def fit(self, X, y=None):
        self.batches_ = [(X, y)]
        return self

    def partial_fit(self, X, y=None):
        self.batches_ = [*getattr(self, "batches_", []), (X, y)]
        return self

    def transform(self, X):
        return X


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("max_descriptors", [None, 1000])
def test_descriptors_bear_the_labels_of_their_bags(rng, small_blocks, incremental, max_descriptors):
    labels = np.array([3, 1, 2])
    marked = Bags.from_list(
        [np.full((n, 6), c) for n, c in zip((700, 5, 900), labels, strict=True)]
    )
    fitted = DescriptorTransformer(
        Recorder(), incremental=incremental, max_descriptors=max_descriptors
    ).fit(marked, labels)
    batches = fitted.transformer_.batches_
    assert (len(batches) > 1) == incremental
    assert sum(len(x) for x, _ in batches) == (max_descriptors or 1605)
    for x, y in batches:
        np.testing.assert_array_equal(x[:, 0], y)


def test_supervised_transformers_use_the_labels():
    X, y = make_blobs(60, n_features=4, centers=3, random_state=0)
    twice = [np.array([x, x]) for x in X]
    found = DescriptorTransformer(LinearDiscriminantAnalysis()).fit_transform(twice, y)
    expected = LinearDiscriminantAnalysis().fit(np.repeat(X, 2, axis=0), np.repeat(y, 2))
    np.testing.assert_allclose(found.values[::2], expected.transform(X), rtol=1e-6, atol=1e-8)


def test_incremental_blocks_are_about_equal(rng, small_blocks):
    # a last block of 1 descriptor would be fewer than 5 components
    many = [rng.normal(size=(2 * 256 + 1, 6))]
    fitted = DescriptorTransformer(IncrementalPCA(5), incremental=True).fit(many)
    assert fitted.transformer_.n_samples_seen_ == 513
    mean = many[0].mean(axis=0)
    np.testing.assert_allclose(fitted.transformer_.mean_, mean, atol=1e-12)


def test_partial_fit_goes_on(bags):
    steps = DescriptorTransformer(StandardScaler())
    steps.partial_fit(bags[:2]).partial_fit(bags[2:])
    expected = StandardScaler().fit(bags.values)
    np.testing.assert_allclose(steps.transformer_.mean_, expected.mean_, rtol=1e-12)
    np.testing.assert_allclose(steps.transformer_.var_, expected.var_, rtol=1e-12)
    with pytest.raises(ValueError, match="6 features"):
        steps.partial_fit([np.ones((3, 2))])


def test_fit_starts_anew_after_partial_fit(bags):
    steps = (
        DescriptorTransformer(StandardScaler(), incremental=True).partial_fit(bags).fit(bags[:1])
    )
    assert steps.transformer_.n_samples_seen_ == 9


def test_memory_maps_are_read_in_blocks(rng, tmp_path, small_blocks):
    values = rng.integers(0, 256, size=(5000, 6), dtype=np.uint8)
    Bags.from_lengths(values, [2000, 3000]).save(tmp_path)
    mapped = Bags.load(tmp_path)
    fitted = DescriptorTransformer(Recorder(), incremental=True, max_descriptors=None).fit(mapped)
    assert max(len(x) for x, _ in fitted.transformer_.batches_) <= 300
    np.testing.assert_array_equal(fitted.transform(mapped).values, values)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.float16, np.float32),
        (np.uint8, np.float32),
        (np.int32, np.float64),
        (bool, np.float32),
    ],
)
def test_dtypes(rng, dtype, expected):
    x = rng.integers(0, 2 if dtype is bool else 256, size=(20, 3)).astype(dtype)
    # left to itself, MinMaxScaler returns float64 for integers
    found = DescriptorTransformer(MinMaxScaler()).fit_transform([x[:5], x[5:]])
    assert found.dtype == expected
    assert found.values.min() >= 0
    assert found.values.max() == pytest.approx(1)


def test_tables_become_tables_or_data_frames(rng):
    X = rng.normal(size=(9, 4))
    expected = PCA(2).fit_transform(X)
    transformer = DescriptorTransformer(PCA(2))
    np.testing.assert_allclose(transformer.fit_transform(X), expected, rtol=1e-10, atol=1e-12)
    frame = pd.DataFrame(X, columns=list("abcd"), index=range(10, 19))
    found = transformer.set_output(transform="pandas").fit_transform(frame)
    assert list(found.columns) == ["pca0", "pca1"]
    assert list(found.index) == list(range(10, 19))
    with pytest.raises(ValueError, match=r"write \[X\] if X is one bag"):
        DescriptorTransformer(PCA(2)).fit([X]).transform(X)


def test_bags_pass_where_data_frames_are_asked_for(bags):
    pipe = make_pipeline(DescriptorTransformer(PCA(2)), PositionAppender())
    pipe.set_output(transform="pandas")
    assert isinstance(pipe.fit_transform(bags), Bags)
    assert isinstance(pipe.fit(bags).transform(bags), Bags)
    assert pipe.get_feature_names_out().tolist() == ["pca0", "pca1", "position"]


def test_transformers_set_to_data_frames_are_read(bags):
    inner = StandardScaler().set_output(transform="pandas")
    found = DescriptorTransformer(inner).fit_transform(bags)
    expected = DescriptorTransformer(StandardScaler()).fit_transform(bags)
    np.testing.assert_array_equal(found.values, expected.values)


def test_feature_names_come_from_the_transformer(rng):
    fitted = DescriptorTransformer(StandardScaler()).fit([rng.normal(size=(5, 2))])
    assert fitted.get_feature_names_out().tolist() == ["x0", "x1"]
    assert fitted.get_feature_names_out(["a", "b"]).tolist() == ["a", "b"]
    nameless = DescriptorTransformer(FunctionTransformer(np.abs)).fit([rng.normal(size=(5, 2))])
    with pytest.raises(AttributeError, match="does not provide get_feature_names_out"):
        nameless.get_feature_names_out()


def test_clone_pickle_and_nested_parameters(bags):
    fitted = DescriptorTransformer(PCA(2), max_descriptors=20, random_state=3).fit(bags)
    expected = fitted.transform(bags).values
    again = pickle.loads(pickle.dumps(fitted)).transform(bags).values
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(clone(fitted).fit(bags).transform(bags).values, expected)
    changed = clone(fitted).set_params(transformer__n_components=1).fit(bags)
    assert changed.transform(bags).n_features == 1


class WrongShape(TransformerMixin, BaseEstimator):
    """Returns one row too few."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[1:]


@pytest.mark.parametrize(
    ("transformer", "params", "error", "words"),
    [
        (OneHotEncoder(), {}, TypeError, "sparse matrix, but descriptors are dense"),
        (WrongShape(), {}, ValueError, r"shape \(54, n_features_out\)"),
        (PCA(2), {"incremental": True}, TypeError, "needs a transformer with partial_fit"),
        (LinearSVC(), {}, ValueError, "implementing 'fit' and 'transform'"),
        ("PCA", {}, ValueError, "'transformer' parameter"),
        (PCA(2), {"max_descriptors": 0}, ValueError, "'max_descriptors' parameter"),
    ],
)
def test_what_cannot_work_is_refused(bags, transformer, params, error, words):
    with pytest.raises(error, match=words):
        DescriptorTransformer(transformer, **params).fit_transform(bags)


def test_labels_of_another_length_are_refused(bags):
    with pytest.raises(ValueError, match=r"y has shape \(2,\), but X holds 4 bags"):
        DescriptorTransformer(PCA(2)).fit(bags, [0, 1])


def test_only_some_transformers_can_go_on():
    assert hasattr(DescriptorTransformer(StandardScaler()), "partial_fit")
    assert hasattr(DescriptorTransformer(KMeans()), "transform")
    assert not hasattr(DescriptorTransformer(PCA()), "partial_fit")

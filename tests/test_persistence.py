"""Saved models: what comes back predicts the same, to the last bit, and is small."""

import copy
import functools
import io
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import skfisher
from skfisher import (
    MFCC,
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseSIFT,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    GradientFeatureKernel,
    GradientFeatureMap,
    ImagePatches,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
    LinearSDCA,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    PositionAppender,
    PowerL2Normalizer,
    SecondOrderPooling,
    SpatialPyramid,
    VLADEncoder,
    Windows,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
BAGS = Bags.from_list([RNG.normal(i % 2, 1, size=(5 + i, 3)) for i in range(20)])
TABLE = RNG.normal(size=(20, 4))
IMAGES = RNG.integers(0, 256, size=(6, 9, 8), dtype=np.uint8)
SOUNDS = RNG.uniform(-1, 1, size=(4, 900))
Y = np.arange(20) % 2


def gaussian_mixture():
    return GaussianMixture(2, covariance_type="diag", random_state=0)


def mlp():
    return MLPClassifier((5,), solver="lbfgs", max_iter=20, random_state=0)


def trained_online():
    encoder = FisherVectorEncoder(2, random_state=0)
    for first in (0, 10):
        encoder.partial_fit(BAGS[first : first + 10])
    return encoder


# how to fit an estimator, and what it is asked to do again
CASES = {
    "mixture": (
        lambda: DiagonalGaussianMixture(2, random_state=0).fit(BAGS),
        "predict_proba",
        BAGS,
    ),
    "mixture, partial_fit": (
        lambda: DiagonalGaussianMixture(2, random_state=np.random.RandomState(0)).partial_fit(BAGS),
        "score_samples",
        BAGS,
    ),
    "mixture, from scikit-learn": (
        lambda: DiagonalGaussianMixture.from_sklearn(gaussian_mixture().fit(BAGS.values)),
        "predict_proba",
        BAGS,
    ),
    "gated moments": (
        lambda: MixtureSecondOrderPooling(2, random_state=0).fit(BAGS),
        "transform",
        BAGS,
    ),
    "gate": (
        lambda: GatedSecondOrderPooling(2, random_state=0).fit(BAGS),
        "transform",
        BAGS,
    ),
    "energies": (
        lambda: LowRankBilinearPooling(5, random_state=0).fit(BAGS),
        "transform",
        BAGS,
    ),
    "sketch": (
        lambda: CompactBilinearPooling(8, random_state=0).fit(BAGS),
        "transform",
        BAGS,
    ),
    "encoder": (lambda: FisherVectorEncoder(2, random_state=0).fit(BAGS), "transform", BAGS),
    "encoder, float32": (
        lambda: FisherVectorEncoder(2, random_state=0).fit(np.float32(TABLE[:, None, :])),
        "transform",
        np.float32(TABLE[:, None, :]),
    ),
    "encoder, data frame": (
        lambda: FisherVectorEncoder(2, random_state=0).set_output(transform="pandas").fit(TABLE),
        "transform",
        TABLE,
    ),
    "second order": (lambda: SecondOrderPooling().fit(BAGS), "transform", BAGS),
    "second order, projected": (
        lambda: SecondOrderPooling(n_components=2).partial_fit(BAGS[:5]).partial_fit(BAGS[5:]),
        "transform",
        BAGS,
    ),
    "second order, joint": (
        lambda: JointClassifier(
            SecondOrderPooling(n_components=2), batch_size=10, max_iter=2, random_state=0
        ).fit(BAGS, Y),
        "decision_function",
        BAGS,
    ),
    "encoder, partial_fit": (trained_online, "transform", BAGS),
    "encoder, batches": (
        lambda: FisherVectorEncoder(
            mixture=DiagonalGaussianMixture(2, batch_size=4, random_state=0, max_iter=3)
        ).fit(BAGS),
        "transform",
        BAGS,
    ),
    "encoder, fitted mixture": (
        lambda: FisherVectorEncoder(mixture=DiagonalGaussianMixture(2).fit(BAGS)).fit(BAGS),
        "transform",
        BAGS,
    ),
    "encoder, mixture to fit": (
        lambda: FisherVectorEncoder(mixture=gaussian_mixture()).fit(BAGS),
        "transform",
        BAGS,
    ),
    "encoder, frozen mixture": (
        lambda: FisherVectorEncoder(
            mixture=FrozenEstimator(gaussian_mixture().fit(BAGS.values))
        ).fit(BAGS),
        "transform",
        BAGS,
    ),
    "VLAD": (lambda: VLADEncoder(2, random_state=0).fit(BAGS), "transform", BAGS),
    "VLAD, partial_fit": (
        lambda: VLADEncoder(2, random_state=0).partial_fit(BAGS[:10]).partial_fit(BAGS[10:]),
        "transform",
        BAGS,
    ),
    "VLAD, words of scikit-learn": (
        lambda: VLADEncoder(codebook=KMeans(2, n_init=1, random_state=0)).fit(BAGS),
        "transform",
        BAGS,
    ),
    "bag of words": (lambda: BagOfWordsEncoder(2, random_state=0).fit(BAGS), "transform", BAGS),
    "deep Fisher": (
        lambda: DeepFisherEncoder((2, 2), cell=2, random_state=0).fit(BAGS),
        "transform",
        BAGS,
    ),
    "mean": (lambda: MeanPooling("mean_std").fit(BAGS), "transform", BAGS),
    "normalizer": (lambda: PowerL2Normalizer(blocks=2).fit(TABLE), "transform", TABLE),
    "descriptors": (lambda: DescriptorTransformer(PCA(2)).fit(BAGS), "transform", BAGS),
    "descriptors, incremental": (
        lambda: DescriptorTransformer(IncrementalPCA(2), incremental=True).fit(BAGS),
        "transform",
        BAGS,
    ),
    "positions": (lambda: PositionAppender(2.0).fit(BAGS), "transform", BAGS),
    "patches": (
        lambda: ImagePatches((3, 2), step=2, positions=1.0).fit(IMAGES),
        "transform",
        IMAGES,
    ),
    "dense SIFT": (lambda: DenseSIFT(8, step=4).fit(IMAGES), "transform", IMAGES),
    "sound": (lambda: MFCC(8000, deltas=1).fit(SOUNDS), "transform", SOUNDS),
    "windows": (lambda: Windows(3, step=2).fit(BAGS), "transform", BAGS),
    "pyramid": (
        lambda: SpatialPyramid(VLADEncoder(2, random_state=0), ((1, 1), (1, 2))).fit(BAGS),
        "transform",
        BAGS,
    ),
    "kernel of gradients": (
        lambda: GradientFeatureKernel(mlp(), target="jacobian").fit(TABLE, Y),
        "transform",
        TABLE,
    ),
    "map of gradients": (
        lambda: GradientFeatureMap(mlp(), target="jacobian", random_state=0).fit(TABLE, Y),
        "transform",
        TABLE,
    ),
    "joint": (
        lambda: JointFisherSVC(n_components=2, batch_size=10, max_iter=2, random_state=0).fit(
            BAGS, Y
        ),
        "decision_function",
        BAGS,
    ),
    "joint, any encoder": (
        lambda: JointClassifier(
            FisherVectorEncoder(2), batch_size=10, max_iter=2, loss="log_loss", random_state=0
        ).fit(BAGS, Y),
        "predict_proba",
        BAGS,
    ),
    "joint, NetVLAD": (
        lambda: JointClassifier(
            VLADEncoder(2, tied=False), batch_size=10, max_iter=2, random_state=0
        ).fit(BAGS, Y),
        "decision_function",
        BAGS,
    ),
    "joint regression": (
        lambda: JointRegressor(
            FisherVectorEncoder(2), batch_size=10, max_iter=2, random_state=0
        ).fit(BAGS, np.column_stack([Y, np.arange(len(Y))])),
        "predict",
        BAGS,
    ),
    "linear SVM": (
        lambda: LinearSDCA(random_state=0).fit(TABLE, Y),
        "decision_function",
        TABLE,
    ),
    "pipeline": (
        lambda: make_pipeline(
            DescriptorTransformer(PCA(2)),
            FisherVectorEncoder(2, random_state=0),
            PowerL2Normalizer(),
            LinearSVC(random_state=0),
        ).fit(BAGS, Y),
        "decision_function",
        BAGS,
    ),
}


@functools.cache
def fitted(case):
    fit, method, X = CASES[case]
    return fit(), method, X


def through_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file, compress=3)
    return joblib.load(io.BytesIO(file.getvalue()))


def through_skops(estimator):
    skops = pytest.importorskip("skops.io")
    state = skops.dumps(estimator)
    untrusted = skops.get_untrusted_types(data=state)
    # anything else would ask users to trust what they cannot know
    assert [name for name in untrusted if not name.startswith("skfisher.")] == []
    return skops.loads(state, trusted=untrusted)


WAYS = {
    "pickle": lambda estimator: pickle.loads(pickle.dumps(estimator)),
    "joblib": through_joblib,
    "skops": through_skops,
    "deepcopy": copy.deepcopy,
}


def predict(estimator, method, X):
    return plain(getattr(estimator, method)(X))


def plain(result):
    return result.values if isinstance(result, Bags) else np.asarray(result)


def test_every_public_estimator_is_here():
    public = {
        name
        for name in skfisher.__all__
        if isinstance(getattr(skfisher, name), type)
        and issubclass(getattr(skfisher, name), BaseEstimator)
    }
    assert public <= {type(estimator).__name__ for estimator, _, _ in map(fitted, CASES)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_what_is_read_back_predicts_the_same(case, way):
    estimator, method, X = fitted(case)
    expected = predict(estimator, method, X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restored = WAYS[way](estimator)
    found = predict(restored, method, X)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert vars(restored).keys() == vars(estimator).keys()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [case for case in CASES if "partial_fit" in case])
def test_online_training_goes_on_where_it_was_saved(case, way):
    estimator, method, X = fitted(case)
    original, restored = copy.deepcopy(estimator), WAYS[way](estimator)
    for model in (original, restored):
        model.partial_fit(BAGS[5:15])
    found = predict(restored, method, X)
    np.testing.assert_array_equal(found, predict(original, method, X))
    assert (found != predict(estimator, method, X)).any()


@pytest.mark.parametrize("way", WAYS)
def test_an_exact_fit_goes_on_online_where_it_was_saved(way):
    encoder = fitted("encoder")[0]
    original, restored = copy.deepcopy(encoder), WAYS[way](encoder)
    for model in (original, restored):
        model.partial_fit(BAGS[:10])
    np.testing.assert_array_equal(restored.means_, original.means_)
    assert (restored.means_ != encoder.means_).any()


def test_other_processes_read_what_was_saved(tmp_path):
    models = {case: fitted(case) for case in CASES}
    expected = {case: predict(*model) for case, model in models.items()}
    with open(tmp_path / "models", "wb") as file:
        pickle.dump((models, expected), file)
    script = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    models, expected = pickle.load(file)
for case, (estimator, method, X) in models.items():
    found = getattr(estimator, method)(X)
    np.testing.assert_array_equal(getattr(found, "values", found), expected[case], err_msg=case)
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", script, tmp_path / "models"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("way", ["pickle", "joblib", "skops"])
@pytest.mark.parametrize("case", ["mixture", "encoder", "descriptors", "pipeline"])
def test_another_minor_version_warns(case, way, monkeypatch):
    estimator, method, X = fitted(case)
    reads = {
        "pickle": (pickle.dumps, pickle.loads),
        "joblib": (dump_joblib, lambda state: joblib.load(io.BytesIO(state))),
        "skops": (dump_skops, load_skops),
    }
    dump, load = reads[way]
    monkeypatch.setattr("skfisher.contract.estimator.__version__", "0.7.3")
    state = dump(estimator)
    monkeypatch.setattr("skfisher.contract.estimator.__version__", "0.8.0")
    with pytest.warns(UserWarning, match="saved by skfisher 0.7.3 and is loaded by 0.8.0"):
        restored = load(state)
    np.testing.assert_array_equal(predict(restored, method, X), predict(estimator, method, X))


def dump_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    return file.getvalue()


def dump_skops(estimator):
    return pytest.importorskip("skops.io").dumps(estimator)


def load_skops(state):
    skops = pytest.importorskip("skops.io")
    return skops.loads(state, trusted=skops.get_untrusted_types(data=state))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("normalizer", "dense SIFT")]
)
def test_a_clone_is_not_fitted(case):
    estimator, method, X = fitted(case)
    copied = clone(estimator)
    assert not [name for name in vars(copied) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        getattr(copied, method)(X)


@pytest.mark.parametrize(
    "case", ["mixture", "encoder", "encoder, batches", "encoder, mixture to fit", "descriptors"]
)
def test_a_fitted_clone_predicts_the_same(case):
    estimator, method, X = fitted(case)
    np.testing.assert_array_equal(
        predict(clone(estimator).fit(X), method, X), predict(estimator, method, X)
    )


@pytest.mark.parametrize(
    "estimator",
    [
        DiagonalGaussianMixture(4, random_state=0, max_iter=2),
        DiagonalGaussianMixture(4, random_state=0, max_descriptors=1000, max_iter=2),
        FisherVectorEncoder(4, random_state=0, max_iter=2),
        FisherVectorEncoder(
            mixture=DiagonalGaussianMixture(4, random_state=0, max_iter=1, batch_size=100)
        ),
        FisherVectorEncoder(mixture=DiagonalGaussianMixture(4, random_state=0, max_iter=2)),
        DescriptorTransformer(PCA(2), max_descriptors=1000, random_state=0),
        DescriptorTransformer(IncrementalPCA(2), max_descriptors=None, incremental=True),
        PositionAppender(),
        SecondOrderPooling(n_components=2),
    ],
)
def test_a_model_of_mapped_bags_holds_none_of_them(estimator, tmp_path):
    values = np.random.default_rng(0).normal(size=(50_000, 4)).astype(np.float32)
    Bags.from_lengths(values, np.full(500, 100)).save(tmp_path)
    bags = Bags.load(tmp_path)
    estimator = clone(estimator).fit(bags)
    assert len(pickle.dumps(estimator)) < 10_000
    Path(bags.values.filename).unlink()
    restored = pickle.loads(pickle.dumps(estimator))
    found = (
        restored.transform(bags[:2]) if hasattr(restored, "transform") else restored.predict(bags)
    )
    assert np.isfinite(plain(found)).all()


def test_attributes_are_plain():
    for case in ("mixture", "encoder", "encoder, partial_fit", "encoder, batches"):
        attributes = dict(vars(fitted(case)[0]))
        if "mixture_" in attributes:
            attributes |= vars(attributes.pop("mixture_"))
        for name, value in attributes.items():
            if name.endswith("_"):
                assert isinstance(value, np.ndarray | float | int | bool | str | list), name
                if isinstance(value, np.ndarray):
                    assert type(value) is np.ndarray
                    assert value.flags.owndata or value.base.nbytes <= 2 * value.nbytes, name

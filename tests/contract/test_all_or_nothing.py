"""A fit that fails or is interrupted leaves the old model whole, or a whole new one."""

import itertools
import sys

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

import skfisher
from skfisher import (
    MFCC,
    BagOfWordsEncoder,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseHead,
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
from skfisher.contract.estimator import BagEstimator

pytestmark = pytest.mark.filterwarnings("ignore")  # of few iterations, or of ignored errors

N = 12
Y = np.arange(N) % 3
MOMENTS = 5  # at which a fit is stopped


def bags(width):
    return list(np.random.default_rng(width).normal(size=(N, 5, width)) + Y[:, None, None])


def table(width):
    return np.stack([bag.mean(axis=0) for bag in bags(width)])


def images(n_channels):
    return np.random.default_rng(0).normal(size=(N, 4, 4, n_channels))


def large_images(n_channels):
    """Return images of bytes that hold a patch; of `n_channels` they differ alone."""
    shape = (N, 20 + n_channels, 24, 3)
    return list(np.random.default_rng(n_channels).random(shape, dtype=np.float32))


def sounds(n_channels):
    return list(np.random.default_rng(n_channels).uniform(-1, 1, size=(N, 300, n_channels)))


def fit(estimator, X):
    return estimator.fit(X, Y)


def fit_transform(estimator, X):
    estimator.fit_transform(X, Y)
    return estimator


def partial_fit(estimator, X):
    if isinstance(estimator, JointFisherSVC):
        return estimator.partial_fit(X, Y, classes=[0, 1, 2])
    return estimator.partial_fit(X, Y)


def encode(estimator, X):
    return estimator.transform(X)


def predict(estimator, X):
    return estimator.predict(X)


def decide(estimator, X):
    estimator.predict(X)
    return estimator.decision_function(X)


def network(X):
    """Return a network for samples of the width of `X`."""
    rng = np.random.default_rng(0)
    return DenseHead([rng.normal(size=shape) for shape in ((X.shape[1], 6), (6, 4))])


MIXTURE = {"n_components": 2, "max_iter": 3, "random_state": 0}
JOINT = {"n_components": 2, "max_iter": 2, "random_state": 0}
OF_NETWORKS = {"target": "jacobian"}
# name: (estimator for a network, samples of a width, what it is asked, how it is fitted)
CASES = {
    "mixture": (
        lambda _: DiagonalGaussianMixture(**MIXTURE),
        bags,
        DiagonalGaussianMixture.score_samples,
        fit,
    ),
    "mixture, online": (
        lambda _: DiagonalGaussianMixture(batch_size=4, **MIXTURE),
        bags,
        DiagonalGaussianMixture.score_samples,
        fit,
    ),
    "mixture, warm": (
        lambda _: DiagonalGaussianMixture(warm_start=True, **MIXTURE),
        bags,
        DiagonalGaussianMixture.score_samples,
        fit,
    ),
    "mixture, part": (
        lambda _: DiagonalGaussianMixture(**MIXTURE),
        bags,
        DiagonalGaussianMixture.score_samples,
        partial_fit,
    ),
    "gated moments": (lambda _: MixtureSecondOrderPooling(**MIXTURE), bags, encode, fit),
    "gated moments, part": (
        lambda _: MixtureSecondOrderPooling(**MIXTURE),
        bags,
        encode,
        partial_fit,
    ),
    "gate": (lambda _: GatedSecondOrderPooling(2, random_state=0), bags, encode, fit),
    "energies": (lambda _: LowRankBilinearPooling(5, random_state=0), bags, encode, fit),
    "sketch": (lambda _: CompactBilinearPooling(8, random_state=0), bags, encode, fit),
    "encoder": (lambda _: FisherVectorEncoder(**MIXTURE), bags, encode, fit),
    "encoder, mixture": (
        lambda _: FisherVectorEncoder(mixture=DiagonalGaussianMixture(**MIXTURE)),
        bags,
        encode,
        fit,
    ),
    "encoder, part": (lambda _: FisherVectorEncoder(**MIXTURE), bags, encode, partial_fit),
    "VLAD": (lambda _: VLADEncoder(2, random_state=0), bags, encode, fit),
    "VLAD, words of scikit-learn": (
        lambda _: VLADEncoder(codebook=MiniBatchKMeans(2, n_init=1, random_state=0)),
        bags,
        encode,
        fit,
    ),
    "VLAD, part": (lambda _: VLADEncoder(2, random_state=0), bags, encode, partial_fit),
    "bag of words": (lambda _: BagOfWordsEncoder(2, random_state=0), bags, encode, fit),
    "bag of words, part": (
        lambda _: BagOfWordsEncoder(2, random_state=0),
        bags,
        encode,
        partial_fit,
    ),
    "second order": (lambda _: SecondOrderPooling(), bags, encode, fit),
    "second order, part": (
        lambda _: SecondOrderPooling(n_components=2),
        bags,
        encode,
        partial_fit,
    ),
    "deep Fisher": (lambda _: DeepFisherEncoder((2, 2), cell=2, random_state=0), bags, encode, fit),
    "mean": (lambda _: MeanPooling(), bags, encode, fit),
    "joint": (lambda _: JointFisherSVC(**JOINT), bags, decide, fit),
    "joint, early": (lambda _: JointFisherSVC(early_stopping=True, **JOINT), bags, decide, fit),
    "joint, warm": (lambda _: JointFisherSVC(warm_start=True, **JOINT), bags, decide, fit),
    "joint, any encoder": (
        lambda _: JointClassifier(
            FisherVectorEncoder(2), **{k: v for k, v in JOINT.items() if k != "n_components"}
        ),
        bags,
        decide,
        fit,
    ),
    "joint, part": (lambda _: JointFisherSVC(**JOINT), bags, decide, partial_fit),
    "joint regression": (
        lambda _: JointRegressor(FisherVectorEncoder(2), max_iter=2, random_state=0),
        bags,
        predict,
        fit,
    ),
    "joint regression, part": (
        lambda _: JointRegressor(FisherVectorEncoder(2), max_iter=2, random_state=0),
        bags,
        predict,
        partial_fit,
    ),
    "SDCA": (lambda _: LinearSDCA(max_iter=4, random_state=0), table, decide, fit),
    "normalizer": (lambda _: PowerL2Normalizer(), table, encode, fit),
    "transformer": (lambda _: DescriptorTransformer(StandardScaler()), bags, encode, fit),
    "transformer, part": (
        lambda _: DescriptorTransformer(MiniBatchKMeans(2, random_state=0, n_init=1)),
        bags,
        encode,
        partial_fit,
    ),
    "positions": (lambda _: PositionAppender(), bags, encode, fit),
    "patches": (lambda _: ImagePatches(2), images, encode, fit),
    "patches, at once": (lambda _: ImagePatches(2), images, encode, fit_transform),
    "SIFT": (lambda _: DenseSIFT(20), large_images, encode, fit),
    "sound": (lambda _: MFCC(8000), sounds, encode, fit),
    "series": (lambda _: Windows(2), bags, encode, fit),
    "series, at once": (lambda _: Windows(2), bags, encode, fit_transform),
    "pyramid": (lambda _: SpatialPyramid(MeanPooling(), (1, 2), n_positions=0), bags, encode, fit),
    "kernel": (lambda n: GradientFeatureKernel(n, **OF_NETWORKS), table, encode, fit),
    "kernel, at once": (
        lambda n: GradientFeatureKernel(n, **OF_NETWORKS),
        table,
        encode,
        fit_transform,
    ),
    "map": (lambda n: GradientFeatureMap(n, n_components=3, **OF_NETWORKS), table, encode, fit),
    "map, part": (
        lambda n: GradientFeatureMap(n, n_components=3, **OF_NETWORKS),
        table,
        encode,
        partial_fit,
    ),
}


def stopped(function, moment, error):
    """Call a function, stopped by an error where it calls ours the `moment`-th time.

    Returns
    -------
    stopped : bool
    n_moments : int
        If it was not.
    """
    moments = itertools.count()

    def stop(frame, event, argument):
        ours = frame.f_globals.get("__name__", "").startswith("skfisher.")
        if ours and event == "call" and next(moments) == moment:
            raise error("as asked")

    sys.setprofile(stop)
    try:
        function()
    except (error, AttributeError):  # which is what scikit-learn makes of errors in available_if
        return True, None
    finally:
        sys.setprofile(None)
    return False, next(moments)


def moments_of(learn, begin, X):
    """Return some moments of a fit: its first ones, and others up to its end."""
    learn(begin(), X)  # what is looked for once, is found now
    estimator = begin()
    _, n_moments = stopped(lambda: learn(estimator, X), None, RuntimeError)
    return sorted({0, 1, 2, *np.linspace(3, n_moments - 1, MOMENTS).astype(int)})


def test_every_estimator_is_a_case():
    public = (getattr(skfisher, name) for name in skfisher.__all__)
    estimators = {c for c in public if isinstance(c, type) and issubclass(c, BagEstimator)}
    X = table(3)
    assert {type(make(network(X))) for make, *_ in CASES.values()} == estimators


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", CASES)
def test_a_first_fit_that_is_stopped(name, error):
    make, samples, ask, learn = CASES[name]
    X = samples(3)
    head = network(table(3))
    n_stops = 0
    for moment in moments_of(learn, lambda: make(head), X):
        estimator = make(head)
        before = dict(vars(estimator))
        was_stopped, _ = stopped(lambda e=estimator: learn(e, X), moment, error)
        if not was_stopped:  # Python ignores errors where it closes a generator
            continue
        if error is KeyboardInterrupt and vars(estimator) != before:
            assert len(ask(estimator, X))  # of the last finished iteration
            continue
        n_stops += 1
        assert vars(estimator) == before
        if name not in ("normalizer", "SIFT"):  # which learn nothing
            with pytest.raises(NotFittedError):
                ask(estimator, X)
    assert n_stops > 3


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", CASES)
def test_a_fit_to_other_bags_that_is_stopped(name, error):
    make, samples, ask, learn = CASES[name]
    width = 3 if learn is partial_fit or "warm" in name else 2
    old, new = samples(3), samples(width)
    if width == 3:
        new = new[::-1]
    heads = {3: network(table(3)), 2: network(table(2))}

    def begin():
        estimator = learn(make(heads[3]), old)
        if "network" in estimator.get_params(deep=False):
            estimator.set_params(network=heads[width])
        return estimator

    n_stops = 0
    for moment in moments_of(learn, begin, new):
        estimator = begin()
        expected = ask(estimator, old)
        was_stopped, _ = stopped(lambda e=estimator: learn(e, new), moment, error)
        if not was_stopped:
            continue
        if error is KeyboardInterrupt and getattr(estimator, "n_features_in_", 3) != 3:
            assert len(ask(estimator, new))
            continue
        n_stops += 1
        found = ask(estimator, old)
        if error is KeyboardInterrupt and width == 3:  # perhaps an iteration further
            assert len(found) == len(expected)
            continue
        if isinstance(found, skfisher.Bags):
            found, expected = found.values, expected.values
        np.testing.assert_array_equal(found, expected)
    assert n_stops > 3


@pytest.mark.parametrize("name", CASES)
def test_a_fit_that_is_refused(name):
    make, samples, _, learn = CASES[name]
    estimator = learn(make(network(table(3))), samples(3))
    before = dict(vars(estimator))
    bad = samples(2)
    bad[-1][:] = np.nan
    with pytest.raises(ValueError, match=""):
        learn(estimator, bad)
    assert vars(estimator) == before

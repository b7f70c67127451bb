"""Threads change no bit, ours, those of BLAS and those of others; nor do batches of gradients."""

import functools
import threading

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from skfisher import (
    BagOfWordsEncoder,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    GradientFeatureKernel,
    GradientFeatureMap,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
    LinearSDCA,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    SecondOrderPooling,
    VLADEncoder,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
# wide enough, and so many, that BLAS would use threads
BAGS = [RNG.normal(size=(40 + i, 24)) + i % 3 for i in range(60)]
TABLE = RNG.normal(size=(1100, 200))
LABELS = np.arange(1100) % 3
HEAD = DenseHead([RNG.normal(size=s) / 9 for s in ((200, 150), (150, 80), (80, 20))])
EM = {"n_components": 8, "max_iter": 3, "random_state": 0}
JOINT = {"n_components": 8, "max_iter": 2, "random_state": 0}


class PlainTransformer(DescriptorTransformer):
    """Fits on few descriptors: what the transformer does in its own fit is not ours."""

    def fit(self, X, y=None):
        with threadpool_limits(1):
            return super().fit(X, y)


CASES = {
    "mixture": (DiagonalGaussianMixture(**EM), BAGS, None, "score_samples"),
    "mixture, k-means++": (
        DiagonalGaussianMixture(init_params="k-means++", **EM), BAGS, None, "predict_proba",
    ),
    "encoder": (FisherVectorEncoder(**EM), BAGS, None, "transform"),
    "encoder, online": (
        FisherVectorEncoder(mixture=DiagonalGaussianMixture(batch_size=20, **EM)),
        BAGS, None, "transform",
    ),
    "encoder, normalised": (
        FisherVectorEncoder(normalize="power-l2", **EM), BAGS, None, "transform",
    ),
    "gated moments": (MixtureSecondOrderPooling(**EM), BAGS, None, "transform"),
    "gate": (GatedSecondOrderPooling(random_state=0), BAGS, None, "transform"),
    "energies": (LowRankBilinearPooling(4), BAGS, None, "transform"),
    "sketch": (CompactBilinearPooling(64, random_state=0), BAGS, None, "transform"),
    "sketch, kernel": (
        CompactBilinearPooling(64, degree=3, kernel="rbf", random_state=0), BAGS, None, "transform",
    ),
    "VLAD": (VLADEncoder(8, random_state=0), BAGS, None, "transform"),
    "VLAD, hard": (
        VLADEncoder(8, assignment="hard", normalize=None, random_state=0), BAGS, None, "transform",
    ),
    "bag of words": (
        BagOfWordsEncoder(8, assignment="soft", random_state=0), BAGS, None, "transform",
    ),
    "deep Fisher": (DeepFisherEncoder((8, 4), random_state=0), BAGS, None, "transform"),
    "mean": (MeanPooling("mean_std"), BAGS, None, "transform"),
    "joint, NetVLAD": (
        JointClassifier(VLADEncoder(8), max_iter=2, random_state=0), BAGS, Y, "decision_function",
    ),
    "second order": (SecondOrderPooling(), BAGS, None, "transform"),
    "second order, logarithm": (
        SecondOrderPooling("covariance", function="log", n_components=3), BAGS, None, "transform",
    ),
    "second order, iteration": (SecondOrderPooling.isqrt_cov(), BAGS, None, "transform"),
    "transformer": (PlainTransformer(PCA(6), random_state=0), BAGS, None, "transform"),
    "joint": (JointFisherSVC(**JOINT), BAGS, Y, "decision_function"),
    "joint, small": (
        JointFisherSVC(2, n_features_out=3, max_iter=2, random_state=0), BAGS, Y, "transform",
    ),
    "joint, hinge": (JointFisherSVC(loss="hinge", **JOINT), BAGS, Y, "decision_function"),
    "joint, ovr": (JointFisherSVC(multi_class="ovr", **JOINT), BAGS, Y, "decision_function"),
    "joint, dual": (JointFisherSVC(loss="dual", **JOINT), BAGS, Y, "decision_function"),
    "joint, line search": (JointFisherSVC.sydorov(8, max_iter=2, random_state=0), BAGS, Y,
                           "decision_function"),
    "joint, any encoder": (
        JointClassifier(FisherVectorEncoder(**EM), loss="log_loss", max_iter=2, random_state=0),
        BAGS, Y, "decision_function",
    ),
    "joint regression": (
        JointRegressor(FisherVectorEncoder(**EM), max_iter=2, random_state=0),
        BAGS, Y, "predict",
    ),
    "joint regression, tube": (
        JointRegressor(
            FisherVectorEncoder(**EM), loss="epsilon_insensitive", epsilon=0.1, max_iter=2,
            random_state=0,
        ),
        BAGS, Y, "predict",
    ),
    "SDCA": (
        LinearSDCA(max_iter=20, random_state=0), TABLE[:600], LABELS[:600], "decision_function",
    ),
    "SDCA, wide": (
        LinearSDCA(max_iter=20, random_state=0), TABLE[:150], LABELS[:150], "decision_function",
    ),
    "kernel": (GradientFeatureKernel(HEAD), TABLE[:600], None, "transform"),
    "kernel, jacobian": (
        GradientFeatureKernel(
            HEAD, layer=[0, 1], target="jacobian", activations=True, max_outputs=3
        ),
        TABLE[:600], None, "transform",
    ),
    "map": (GradientFeatureMap(HEAD, n_components=99), TABLE, None, "transform"),
    "map, jacobian": (
        GradientFeatureMap(HEAD, layer=0, target="jacobian", n_components=99),
        TABLE, None, "transform",
    ),
    "map, sketch": (
        GradientFeatureMap(HEAD, method="tensor_sketch", n_components=99), TABLE, None, "transform",
    ),
}  # fmt: skip


def results(case, **parameters):
    """Return everything that a fit leaves and that the fitted estimator says."""
    estimator, X, y, method = case
    fitted = type(estimator)(**{**estimator.get_params(deep=False), **parameters}).fit(X, y)
    said = getattr(fitted, method)(X)
    if isinstance(fitted, GradientFeatureKernel):
        yield fitted.fit_transform(X)
    yield getattr(said, "values", said)
    for name, value in sorted(vars(fitted).items()):
        if name.endswith("_") and isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield value


def assert_same(name, **parameters):
    for found, wanted in zip(results(CASES[name], **parameters), expected(name), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.fixture
def busy():
    """Threads of the user's that draw from the generators of libraries meanwhile."""
    done = threading.Event()
    x = np.random.default_rng(1).normal(size=(50, 5))

    def work():
        while not done.is_set():
            LinearSVC(loss="hinge", max_iter=10**6, random_state=0).fit(x, x[:, 0] > 0)
            KMeans(3, n_init=1, random_state=0).fit(x)
            np.random.rand(100)  # noqa: NPY002

    threads = [threading.Thread(target=work) for _ in range(2)]
    # k-means sets the threads of BLAS for a while: to what they are already
    with threadpool_limits(1):
        for thread in threads:
            thread.start()
        yield
        done.set()
        for thread in threads:
            thread.join()


@functools.cache
def expected(name):
    with threadpool_limits(1):
        return list(results(CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_threads(name):
    with threadpool_limits(3):
        assert_same(name)
        if "n_jobs" in CASES[name][0].get_params():
            assert_same(name, n_jobs=2)


@pytest.mark.parametrize("name", CASES)
def test_what_other_threads_do(name, busy):
    assert_same(name, **({"n_jobs": 2} if "n_jobs" in CASES[name][0].get_params() else {}))


@pytest.mark.parametrize("batch_size", [1, 100, 300])
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("kernel", "map"))])
def test_batches_of_gradients(name, batch_size):
    assert_same(name, batch_size=batch_size)


@pytest.mark.parametrize("native", ["0", ""], ids=["NumPy", "as it is built"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (JointFisherSVC(**JOINT), "transform"),
        (JointClassifier(FisherVectorEncoder(**EM), max_iter=2, random_state=0), "transform"),
        (DiagonalGaussianMixture(**EM), "predict_proba"),
        (DiagonalGaussianMixture(**EM), "score_samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_company_changes_what_is_computed_of_descriptors_by_rounding(
    estimator, method, dtype, native, monkeypatch, rng
):
    monkeypatch.setenv("SKFISHER_NATIVE", native)
    lengths = [1, 40, 1, 2, 300, 3, 17, 1, 256, 64, 5, 99]
    bags = [rng.normal(size=(n, 24)).astype(dtype) for n in lengths]
    call = getattr(clone(estimator).fit(bags, Y[: len(bags)]), method)
    whole, alone = call(bags), np.concatenate([call([bag]) for bag in bags])
    # The guide promises this: products of descriptors, the exponentials and norms after them. The
    # square root of joint models has a slope of 1 / sqrt(power_eps) = 100 where encodings are 0.
    resolutions = 2 / 1e-4**0.5 if method == "transform" else 50
    atol = resolutions * np.finfo(dtype).eps * np.abs(whole).max()
    np.testing.assert_allclose(alone, whole, rtol=0, atol=atol)
    if method == "transform":  # without the root
        atol = 50 * np.finfo(dtype).eps * (whole**2).max()
        np.testing.assert_allclose(alone * abs(alone), whole * abs(whole), rtol=0, atol=atol)

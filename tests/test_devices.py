"""Every estimator works on any device."""

import gc
import pickle
import weakref

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn import config_context
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorDisplay,
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
    MixtureDisplay,
    MixtureSecondOrderPooling,
    PositionAppender,
    PowerL2Normalizer,
    SecondOrderPooling,
    SpatialPyramid,
    VLADEncoder,
)

from . import device_array

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# Every estimator, wherever its samples are and wherever it is asked to work.

RNG = np.random.default_rng(0)
LABELS = np.arange(12) % 2
BAGS = [RNG.normal(size=(5 + 3 * i, 4)) + LABELS[i] for i in range(12)]
TABLE = RNG.normal(size=(12, 6))
HEAD = DenseHead([RNG.normal(size=(6, 7)), RNG.normal(size=(7, 20))])
EM = {"max_iter": 3, "random_state": 0}
CLASSIFIERS = JointClassifier | JointFisherSVC | LinearSDCA
JOINT = {"max_iter": 2, "batch_size": 5, "random_state": 0}
CASES = {
    "encoder": (FisherVectorEncoder(2, **EM), ["transform"], BAGS),
    "encoder, no weights": (
        FisherVectorEncoder(2, include_weights=False, **EM),
        ["transform"],
        BAGS,
    ),
    "mixture, batches": (
        DiagonalGaussianMixture(2, batch_size=5, **EM),
        ["predict_proba"],
        BAGS,
    ),
    "encoder, normalised": (
        FisherVectorEncoder(2, normalize="power-l2", **EM),
        ["transform"],
        BAGS,
    ),
    "encoder, subset": (FisherVectorEncoder(2, max_descriptors=90, **EM), ["transform"], BAGS),
    "second order": (SecondOrderPooling(), ["transform"], BAGS),
    "second order, projected": (
        SecondOrderPooling("covariance", function="log", n_components=3),
        ["transform"],
        BAGS,
    ),
    "second order, joint": (
        JointClassifier(SecondOrderPooling(n_components=3), **JOINT),
        ["decision_function", "transform", "predict"],
        BAGS,
    ),
    "encoder, other mixture": (
        FisherVectorEncoder(mixture=GaussianMixture(2, covariance_type="diag", random_state=0)),
        ["transform"],
        BAGS,
    ),
    "mixture": (
        DiagonalGaussianMixture(2, tol=0, **EM),
        ["predict_proba", "score_samples", "predict", "score", "bic", "aic"],
        BAGS,
    ),
    "gated moments": (MixtureSecondOrderPooling(2, **EM), ["transform"], BAGS),
    "gate": (GatedSecondOrderPooling(2, random_state=0), ["transform"], BAGS),
    "energies": (LowRankBilinearPooling(5, random_state=0), ["transform"], BAGS),
    "sketch": (CompactBilinearPooling(8, random_state=0), ["transform"], BAGS),
    "sketch, kernel": (
        CompactBilinearPooling(8, degree=3, kernel="rbf", normalize="l2", random_state=0),
        ["transform"],
        BAGS,
    ),
    "VLAD": (VLADEncoder(2, random_state=0), ["transform"], BAGS),
    "VLAD, hard, squares": (
        VLADEncoder(3, assignment="hard", moments=2, normalize=None, random_state=0),
        ["transform"],
        BAGS,
    ),
    "VLAD, words given": (
        VLADEncoder(codebook=KMeans(3, n_init=1, random_state=0), normalize="intra"),
        ["transform"],
        BAGS,
    ),
    "bag of words": (BagOfWordsEncoder(3, random_state=0), ["transform"], BAGS),
    "bag of words, metrics": (
        BagOfWordsEncoder(3, assignment="soft", metric="diagonal", random_state=0),
        ["transform"],
        BAGS,
    ),
    "deep Fisher": (DeepFisherEncoder((2, 2), cell=2, random_state=0), ["transform"], BAGS),
    "deep Fisher, plane": (
        DeepFisherEncoder((2, 2), n_positions=2, random_state=0),
        ["transform"],
        BAGS,
    ),
    "mean": (MeanPooling(), ["transform"], BAGS),
    "mean, deviation": (MeanPooling("mean_std", normalize="power-l2"), ["transform"], BAGS),
    "maximum": (MeanPooling("max"), ["transform"], BAGS),
    "joint, NetVLAD": (
        JointClassifier(VLADEncoder(2), **JOINT),
        ["decision_function", "transform", "predict"],
        BAGS,
    ),
    "joint, deep Fisher": (
        JointClassifier(DeepFisherEncoder((2, 2), cell=6), **JOINT),
        ["decision_function", "transform", "predict"],
        BAGS,
    ),
    "joint, deep Fisher in the plane": (
        JointClassifier(DeepFisherEncoder((2, 2), n_positions=2, cell=1.5), **JOINT),
        ["decision_function", "transform"],
        BAGS,
    ),
    "joint, any encoder": (
        JointClassifier(FisherVectorEncoder(2, max_iter=2), **JOINT),
        ["decision_function", "transform", "predict"],
        BAGS,
    ),
    "joint": (JointFisherSVC(2, **JOINT), ["decision_function", "transform", "predict"], BAGS),
    "joint, identity": (
        JointFisherSVC(2, feature_map="identity", max_descriptors=9, **JOINT),
        ["decision_function", "transform"],
        BAGS,
    ),
    "joint, one for each class": (
        JointFisherSVC.wieschollek(2, multi_class="ovr", random_state=0, max_iter=2),
        ["decision_function", "transform"],
        BAGS,
    ),
    "joint, line search": (
        JointFisherSVC.sydorov(2, max_iter=2, random_state=0),
        ["transform"],
        BAGS,
    ),
    "joint regression": (
        JointRegressor(FisherVectorEncoder(2, max_iter=2), **JOINT),
        ["predict", "transform"],
        BAGS,
    ),
    "joint regression, tube": (
        JointRegressor(
            FisherVectorEncoder(2, max_iter=2), loss="epsilon_insensitive", epsilon=0.1, **JOINT
        ),
        ["predict"],
        BAGS,
    ),
    "descriptors": (DescriptorTransformer(PCA(2)), ["transform"], BAGS),
    "positions": (PositionAppender(), ["transform"], BAGS),
    "pyramid": (SpatialPyramid(VLADEncoder(2, random_state=0)), ["transform"], BAGS),
    "pyramid, series": (
        SpatialPyramid(VLADEncoder(2, random_state=0), (1, 2), n_positions=0),
        ["transform"],
        BAGS,
    ),
    "normalizer": (PowerL2Normalizer(), ["transform"], TABLE),
    "normalizer, blocks": (PowerL2Normalizer(0.3, blocks=2), ["transform"], TABLE),
    "kernel": (GradientFeatureKernel(HEAD), ["transform"], TABLE),
    "kernel, Jacobian": (
        GradientFeatureKernel(HEAD, layer=0, target="jacobian", batch_size=5),
        ["transform"],
        TABLE,
    ),
    "classifier": (LinearSDCA(random_state=0), ["decision_function", "predict"], TABLE),
    "map": (GradientFeatureMap(HEAD, n_components=9, batch_size=5), ["transform"], TABLE),
}
every_case = pytest.mark.parametrize("case", CASES)


def on_host(result):
    """Return a result as NumPy array, from wherever it is."""
    if isinstance(result, Bags):
        result = result.values
    return result.get() if hasattr(result, "get") else np.asarray(result)


def assert_same(result, expected):
    # signs of eigenvectors are those of the smallest differences
    assert_allclose(abs(on_host(result)), abs(on_host(expected)), rtol=0, atol=1e-6)


def kind_of(result):
    """Return where a result is: "cpu", or the number of its device."""
    if isinstance(result, Bags):
        result = result.values
    return result.device.id if hasattr(result, "get") else "cpu"


def placed(stand_in, samples, place):
    """Return samples on the host, or on a device of the stand-in."""
    if place == "cpu":
        return samples
    with stand_in.cuda.Device(place):
        if isinstance(samples, list):
            return [stand_in.asarray(bag) for bag in samples]
        return stand_in.asarray(samples)


def objects(bags):
    """Return a one-dimensional array of bags."""
    array = np.empty(len(bags), dtype=object)
    for i, bag in enumerate(bags):
        array[i] = bag
    return array


def places_to_work(estimator):
    if "device" not in estimator.get_params():
        return [None]
    one = [None, "cpu", "cuda", "cuda:1", "auto"]
    if isinstance(estimator, GradientFeatureKernel | GradientFeatureMap):
        return one
    return [*one, "cuda:all", ["cuda:1", "cuda:0"]]


@quiet
@pytest.mark.filterwarnings("ignore:batch_size")
@every_case
@pytest.mark.parametrize("place", ["cpu", 0, 1])
def test_results_and_their_place_are_those_of_the_input(stand_in, monkeypatch, case, place):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    estimator, methods, samples = CASES[case]
    expected = clone(estimator).fit(samples, LABELS)
    here = placed(stand_in, samples, place)
    for device in places_to_work(estimator):
        ours = clone(estimator)
        if device is not None:
            ours.set_params(device=device)
        ours.fit(here, LABELS)
        for method in methods:
            wanted, result = (
                getattr(fitted, method)(x) for fitted, x in ((expected, samples), (ours, here))
            )
            assert_same(result, wanted)
            labels = method == "predict" and isinstance(
                ours, JointClassifier | JointFisherSVC | LinearSDCA
            )
            is_array = np.ndim(on_host(result)) > 0 and not labels
            assert kind_of(result) == (place if is_array else "cpu")
        for name, value in vars(ours).items():
            values = value if isinstance(value, list | tuple) else [value]
            assert not any(isinstance(v, stand_in.ndarray) for v in values), name
        # what was fitted anywhere works on the host
        again = pickle.loads(pickle.dumps(ours))
        if device is not None:
            again.set_params(device=None)
        assert_same(getattr(again, methods[0])(samples), getattr(expected, methods[0])(samples))
    assert device_array.current_device() == 0


@quiet
@quiet
@pytest.mark.parametrize("device", ["cuda:1", "cuda:all"])
def test_whatever_is_fetched_is_fetched_on_its_device(stand_in, monkeypatch, device):
    get = device_array.DeviceArray.get

    def checked(self):
        assert self._device == device_array.current_device()
        return get(self)

    monkeypatch.setattr(device_array.DeviceArray, "get", checked)
    FisherVectorEncoder(2, device=device, **EM).fit(BAGS).transform(BAGS)
    JointFisherSVC(2, device=device, **JOINT).fit(BAGS, LABELS).decision_function(BAGS)


def test_an_object_array_of_device_arrays_is_a_list(stand_in):
    there = placed(stand_in, BAGS, 1)
    encoder = FisherVectorEncoder(2, **EM).fit(objects(there))
    result = encoder.transform(objects(there))
    assert result.device.id == 1
    np.testing.assert_array_equal(result.get(), encoder.transform(there).get())


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_dtypes_of_tables_are_those_of_the_host(stand_in, dtype):
    X = (4 * abs(TABLE)).astype(dtype)
    there = stand_in.asarray(X)
    for estimator in (PowerL2Normalizer(power=1), GradientFeatureKernel(HEAD)):
        expected = clone(estimator).fit(X).transform(X)
        result = clone(estimator).fit(there).transform(there)
        assert result.dtype == expected.dtype
        assert_allclose(result.get(), expected, rtol=1e-5, atol=1e-6)


@quiet
def test_data_frames_are_on_the_host(stand_in):
    pytest.importorskip("pandas")
    bags, table = placed(stand_in, BAGS, 1), placed(stand_in, TABLE, 1)
    for estimator, there, host in (
        (FisherVectorEncoder(2, **EM), bags, BAGS),
        (PowerL2Normalizer(), table, TABLE),
        (DescriptorTransformer(PCA(2)), table, TABLE),
    ):
        with config_context(transform_output="pandas"):
            frame = clone(estimator).fit(there).transform(there)
            expected = clone(estimator).fit(host).transform(host)
        assert list(frame.columns) == list(expected.columns)
        assert_same(frame.to_numpy(), expected.to_numpy())


@quiet
@pytest.mark.filterwarnings("ignore:batch_size")
@pytest.mark.parametrize("case", [case for case in CASES if "kernel" not in case and case != "map"])
def test_partial_fit_on_devices(stand_in, case):
    estimator, methods, samples = CASES[case]
    if not hasattr(estimator, "partial_fit"):
        pytest.skip("it has no partial_fit")
    options = {"classes": [0, 1]} if isinstance(estimator, JointClassifier | JointFisherSVC) else {}
    expected, ours = clone(estimator), clone(estimator)
    for _ in range(2):
        expected.partial_fit(samples, LABELS, **options)
        ours.partial_fit(placed(stand_in, samples, 1), stand_in.asarray(LABELS), **options)
    assert_same(getattr(ours, methods[0])(samples), getattr(expected, methods[0])(samples))


# Wrong input, and what is left behind.


@pytest.mark.parametrize("form", ["list", "objects", "Bags", "cube"])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_bad_descriptors_on_a_device_are_named(stand_in, form, value, word):
    bags = [np.ones((7, 3)) for _ in range(4)]
    bags[2][5, 1] = value
    with stand_in.cuda.Device(1):
        given = {
            "list": [stand_in.asarray(bag) for bag in bags],
            "objects": objects([stand_in.asarray(bag) for bag in bags]),
            "Bags": Bags.from_list([stand_in.asarray(bag) for bag in bags]),
            "cube": stand_in.asarray(np.stack(bags)),
        }[form]
    for estimator in (DiagonalGaussianMixture(2), FisherVectorEncoder(2), JointFisherSVC(2)):
        with pytest.raises(ValueError, match=rf"X\[2\] contains {word} in descriptor 5"):
            estimator.fit(given, [0, 1, 0, 1])


def test_bad_vectors_on_a_device_are_named(stand_in):
    X = TABLE.copy()
    X[4, 2] = np.inf
    for estimator in (PowerL2Normalizer(), GradientFeatureKernel(HEAD), GradientFeatureMap(HEAD)):
        with pytest.raises(ValueError, match=r"X\[4\] contains infinity in feature"):
            estimator.fit(stand_in.asarray(X))
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
            estimator.fit(stand_in.asarray(X[:, 0]))
        with pytest.raises(ValueError, match=r"X holds 0 sample\(s\) of 6 feature\(s\)"):
            estimator.fit(stand_in.asarray(X[:0]))
        with pytest.raises(ValueError, match="X has 5 features, but"):
            estimator.fit(stand_in.asarray(TABLE)).transform(stand_in.asarray(TABLE[:, :5]))


def test_samples_on_different_devices_are_refused(stand_in):
    here, there = placed(stand_in, BAGS, 0), placed(stand_in, BAGS, 1)
    with pytest.raises(TypeError, match=r"X\[1\] is on <CUDA Device 1>, but X\[0\] is on <CUDA D"):
        FisherVectorEncoder(2).fit([here[0], there[1]])
    with pytest.raises(TypeError, match=r"X\[2\] is a numpy array, but X\[0\] is a cupy array"):
        FisherVectorEncoder(2).fit([here[0], here[1], BAGS[2]])
    with pytest.raises(TypeError, match="X_val is on the CPU, but X is on <CUDA Device 0>"):
        JointFisherSVC(2).fit(here, LABELS, X_val=BAGS, y_val=LABELS)
    with pytest.raises(TypeError, match="X_val is on <CUDA Device 1>, but X is on <CUDA Device 0>"):
        JointFisherSVC(2).fit(here, LABELS, X_val=Bags.from_list(there), y_val=LABELS)
    kernel = GradientFeatureKernel(HEAD)
    with pytest.raises(TypeError, match="Y is on <CUDA Device 0>, but X is on the CPU"):
        kernel(TABLE, stand_in.asarray(TABLE))


def test_an_encoding_that_overflows_on_a_device_is_named(stand_in):
    bags = [bag.astype(np.float32) for bag in BAGS]
    encoder = FisherVectorEncoder(2, max_iter=3, random_state=0).fit(bags)
    bags[3][1, 2] = 3e38
    with pytest.raises(ValueError, match=r"X\[3\] has a descriptor .* standard deviations from"):
        encoder.transform(placed(stand_in, bags, 1))
    with pytest.raises(ValueError, match=r"X\[3\] has a descriptor .* standard deviations from"):
        encoder.set_params(device="cuda:all").transform(bags)


def test_memory_that_does_not_suffice_is_said(stand_in, monkeypatch):
    encoder = FisherVectorEncoder(2, max_iter=3, random_state=0).fit(BAGS)
    monkeypatch.setattr(device_array.Memory, "n_bytes", 100)
    with pytest.raises(MemoryError, match="The GPU's memory does not suffice: about"):
        encoder.set_params(device="cuda").transform(BAGS)


@quiet
@pytest.mark.parametrize("device", [None, "cuda:1", "cuda:all"])
@pytest.mark.parametrize("case", ["encoder", "joint", "mixture"])
def test_an_interrupted_fit_keeps_nothing_on_a_device(stand_in, monkeypatch, case, device):
    estimator, _, samples = CASES[case]
    estimator = clone(estimator).set_params(device=device, max_iter=20)
    given = placed(stand_in, samples, 1) if device is None else samples
    alive, matmul = [], device_array.lookup("matmul")
    begin = device_array.DeviceArray.__init__

    def remembered(self, *args):
        begin(self, *args)
        alive.append(weakref.ref(self))

    def interrupted(*args, **kwargs):
        if len(alive) > 150:
            raise KeyboardInterrupt
        return matmul(*args, **kwargs)

    gc.collect()
    monkeypatch.setattr(device_array.DeviceArray, "__init__", remembered)
    monkeypatch.setattr(device_array.StandIn, "matmul", staticmethod(interrupted), raising=False)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(given, LABELS)
    gc.collect()
    assert [array() for array in alive if array() is not None] == []
    assert device_array.current_device() == 0


@quiet
def test_joint_training_reads_descriptors_from_the_device(stand_in, monkeypatch):
    # whitened once and kept there, they are not moved again
    moved = []
    asarray, fill = device_array.StandIn.asarray, device_array.DeviceArray.set

    def count(x):
        if isinstance(x, np.ndarray) and x.ndim == 2 and x.shape[1] == 4 and len(x) > 12:
            moved.append(len(x))

    def counted(x, dtype=None):
        count(x)
        return asarray(x, dtype=dtype)

    def filled(self, x, stream=None):
        count(x)
        fill(self, x)

    monkeypatch.setattr(device_array.StandIn, "asarray", staticmethod(counted))
    monkeypatch.setattr(device_array.DeviceArray, "set", filled)
    model = JointFisherSVC(2, max_iter=4, random_state=0, batch_size=12, device="cuda:1")
    model.fit(BAGS, LABELS)
    n = sum(map(len, BAGS))
    # for the axes, for whitening, whitened to stay, and a sample for the first mixture
    assert n <= sum(moved) <= 4 * n


@quiet
@pytest.mark.parametrize("case", ["encoder", "mixture", "mixture, batches", "joint"])
def test_devices_and_their_memory_change_no_bit(stand_in, monkeypatch, case):
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    estimator, methods, samples = CASES[case]
    found = []
    for device in ("cuda", "cuda:1", "cuda:all", ["cuda:1", "cuda:0"]):
        for n_bytes in (2**40, 10_000):
            monkeypatch.setattr(device_array.Memory, "n_bytes", n_bytes)
            fitted = clone(estimator).set_params(device=device).fit(samples, LABELS)
            found.append((fitted.means_, getattr(fitted, methods[0])(samples)))
    there = placed(stand_in, samples, 1)
    fitted = clone(estimator).fit(there, LABELS)
    found.append((fitted.means_, getattr(fitted, methods[0])(there).get()))
    for means, result in found[1:]:
        np.testing.assert_array_equal(means, found[0][0])
        np.testing.assert_array_equal(result, found[0][1])


def test_bags_are_handled_on_their_own_device(stand_in):
    bags = Bags.from_list(placed(stand_in, BAGS, 1))  # while another one is current
    some = bags[[7, 2, 5]]
    expected = np.concatenate([BAGS[i] for i in (7, 2, 5)])
    np.testing.assert_array_equal(some.pack().values.get(), expected)
    np.testing.assert_array_equal(np.concatenate([b.get() for b in some.blocks(9)]), expected)
    joined = Bags.concatenate([some, Bags.from_list(placed(stand_in, BAGS[:1], 1))])
    np.testing.assert_array_equal(joined.values.get(), np.concatenate([expected, BAGS[0]]))
    assert joined.device.id == 1


@quiet
@pytest.mark.parametrize("dispatch", [False, True])
def test_pipelines_and_displays_take_bags_on_a_device(stand_in, dispatch):
    pytest.importorskip("matplotlib")
    bags = Bags.from_list(placed(stand_in, BAGS, 1))
    pipeline = make_pipeline(FisherVectorEncoder(2, **EM), PowerL2Normalizer(), LinearSDCA())
    with config_context(array_api_dispatch=dispatch):
        # With dispatch it imports parts of CuPy that the stand-in has not; without, scikit-learn
        # 1.6 asks NumPy to put indices on the device of X, and so refuses any CuPy array.
        new = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9)
        if new and not dispatch:
            scores = cross_val_score(pipeline, bags, LABELS, cv=2)
            assert_allclose(scores, cross_val_score(pipeline, Bags.from_list(BAGS), LABELS, cv=2))
        encoder = FisherVectorEncoder(2, **EM).fit(bags)
        host = FisherVectorEncoder(2, **EM).fit(BAGS)
        assert_allclose(encoder.means_, host.means_)
        assert_allclose(
            FisherVectorDisplay.from_estimator(encoder, bags).means,
            FisherVectorDisplay.from_estimator(host, BAGS).means,
            atol=1e-9,
        )
        mixture = DiagonalGaussianMixture(2, tol=0, **EM).fit(bags)
        assert MixtureDisplay.from_estimator(mixture, bags).figure_
        supervised = DescriptorTransformer(LinearDiscriminantAnalysis())
        labels = stand_in.asarray(LABELS)
        assert supervised.fit(bags, labels).transform(bags).n_features == 1


@quiet
def test_labels_to_score_with_may_be_on_a_device(stand_in):
    for estimator, samples in (
        (JointFisherSVC(2, **JOINT), BAGS),
        (JointRegressor(FisherVectorEncoder(2), **JOINT), BAGS),
        (LinearSDCA(random_state=0), TABLE),
    ):
        there, labels = placed(stand_in, samples, 1), placed(stand_in, LABELS, 1)
        weights = placed(stand_in, np.ones(12), 1)
        here = clone(estimator).fit(samples, LABELS).score(samples, LABELS)
        expected = pytest.approx(here, rel=1e-9)
        assert clone(estimator).fit(there, labels).score(there, labels) == expected
        assert clone(estimator).fit(there, labels).score(there, labels, weights) == expected


@quiet
def test_wrong_calls_are_refused_as_python_does():
    encoder = FisherVectorEncoder(2, **EM)
    with pytest.raises(TypeError, match="multiple values for argument 'y'"):
        encoder.fit(BAGS, LABELS, y=LABELS)
    with pytest.raises(TypeError, match="positional argument"):
        encoder.fit(BAGS, LABELS, LABELS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        encoder.fit(BAGS, z=LABELS)

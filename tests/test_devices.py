"""Devices: how they are named, and that every estimator works on any of them."""

import gc
import pickle
import subprocess
import sys
import weakref
from types import ModuleType, SimpleNamespace

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
    LinearSDCA,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureDisplay,
    MixtureSecondOrderPooling,
    PositionAppender,
    PowerL2Normalizer,
    SecondOrderPooling,
    VLADEncoder,
)
from skfisher.arrays import libraries
from skfisher.arrays.libraries import cuda_devices, cuda_usable, parse_device
from skfisher.contract.validation import check_bags
from skfisher.parallel.units import Where, row_units, sum_units

from . import device_array

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def n_gpus(monkeypatch):
    """Return a function that makes so many GPUs visible."""
    return lambda n: monkeypatch.setattr(libraries, "cuda_usable", lambda: (n, "" if n else "Why."))


def test_devices_are_read(n_gpus):
    n_gpus(3)
    for device, place in [
        (None, None),
        ("cpu", "cpu"),
        ("auto", 0),
        ("cuda", 0),
        ("cuda:2", 2),
        ("cuda:all", (0, 1, 2)),
        (["cuda:2", "cuda:0"], (2, 0)),
        (("cuda:1",), 1),
    ]:
        assert parse_device(device) == place
    n_gpus(1)
    assert parse_device("cuda:all") == 0
    n_gpus(0)
    assert parse_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:3", r"device='cuda:3' does not exist: 2 CUDA devices are visible, counted from 0"),
        (["cuda:0", "cuda:2"], r"'cuda:2'\] does not exist: 2 CUDA devices"),
        (["cuda:1", "cuda:1"], "names a device twice"),
        (["cuda", "cuda:0"], "names a device twice"),
        (["cuda:0", "cpu"], "is not known: use None, 'cpu', 'cuda'"),
        (["cuda:all", "cuda:0"], "is not known"),
        ([], r"device=\[\] is not known"),
        ([0, 1], r"device=\[0, 1\] is not known"),
        ("cuda:-1", "is not known"),
        ("gpu", "is not known"),
    ],
)
def test_wrong_devices_are_refused(n_gpus, device, message):
    n_gpus(2)
    with pytest.raises(ValueError, match=message):
        parse_device(device)


def test_one_device_where_one_is_needed(n_gpus):
    n_gpus(2)
    assert parse_device("cuda:1", several=False) == 1
    with pytest.raises(ValueError, match="device='cuda:all': one device is needed here"):
        parse_device("cuda:all", several=False)
    n_gpus(1)
    assert parse_device("cuda:all", several=False) == 0


def test_without_a_gpu_every_word_for_one_says_why(n_gpus):
    n_gpus(0)
    for device in ("cuda", "cuda:all", "cuda:7", ["cuda:0", "cuda:1"]):
        with pytest.raises(ValueError, match=r"needs CuPy and a visible GPU; Why\."):
            parse_device(device)


@pytest.fixture
def fresh_cuda_usable():
    cuda_usable.cache_clear()
    yield cuda_usable
    cuda_usable.cache_clear()


def test_cupy_that_is_not_installed(fresh_cuda_usable, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it raises ImportError
    n_devices, reason = fresh_cuda_usable()
    assert n_devices == 0
    assert reason == "CuPy is not installed. Install skfisher[cuda13x] or skfisher[cuda12x]."


def cupy_that_counts(count):
    library = ModuleType("cupy")
    library.__version__ = "14.2.0"
    library.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))
    return library


def test_cupy_without_a_driver_or_device(fresh_cuda_usable, monkeypatch):
    def fail():
        raise RuntimeError("driver version is insufficient")

    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(fail))
    n_devices, reason = fresh_cuda_usable()
    assert n_devices == 0
    assert reason.startswith("CuPy 14.2.0 reports: driver version is insufficient. Check that nvid")

    fresh_cuda_usable.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(lambda: 0))
    assert fresh_cuda_usable()[1].startswith("CuPy 14.2.0 sees no device. Check that nvidia-smi")

    fresh_cuda_usable.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", cupy_that_counts(lambda: 2))
    assert fresh_cuda_usable() == (2, "")


def test_importing_the_package_imports_no_array_library():
    code = "import sys, skfisher; print('cupy' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_work_is_where_the_data_are_or_where_it_is_asked_for(stand_in):
    host = np.ones((3, 2))
    with stand_in.cuda.Device(1):
        x = stand_in.asarray(host)
    assert cuda_devices(None, host) == cuda_devices("cpu", host) == cuda_devices("cpu", x) == ()
    assert cuda_devices(None, x) == (1,)
    assert cuda_devices("cuda", x) == cuda_devices("cuda:0", host) == (0,)
    assert cuda_devices("cuda:all", host) == (0, 1)


def test_arrays_are_fetched_in_the_stream_of_their_own_device(stand_in, monkeypatch):
    # another stream does not wait for what computes them
    current, get = [], device_array.DeviceArray.get

    def noted(self):
        current.append(device_array.current_device())
        return get(self)

    with stand_in.cuda.Device(1):
        x = stand_in.asarray(np.arange(3.0))
    monkeypatch.setattr(device_array.DeviceArray, "get", noted)
    np.testing.assert_array_equal(libraries.to_host(x), np.arange(3.0))
    np.testing.assert_array_equal(libraries.asarray(x, like=np.empty(0)), np.arange(3.0))
    assert current == [1, 1]


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


@pytest.mark.parametrize("way", ["device", "rows", "array"])
def test_large_arrays_are_not_staged(stand_in, monkeypatch, way):
    # CuPy would keep pinned memory of every size
    x = np.arange(2.0**18).reshape(-1, 4)
    like, asarray = stand_in.zeros(1), device_array.StandIn.asarray

    def small(x, dtype=None):
        assert not isinstance(x, np.ndarray) or x.nbytes <= 2**20
        return asarray(x, dtype)

    monkeypatch.setattr(device_array.StandIn, "asarray", staticmethod(small))
    if way == "device":
        there = libraries.to_device(x, "cuda")
    elif way == "rows":
        there, _, _ = libraries.rows_on("cuda", x, np.array([0]), np.array([len(x)]))
    else:
        there = libraries.asarray(x, like=like, dtype=np.float32)
        assert there.dtype == np.float32
    np.testing.assert_array_equal(there.get(), x)


def test_threads_read_what_is_done(stand_in, monkeypatch):
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(device_array.current_device()))
    monkeypatch.setattr(stand_in.cuda, "get_current_stream", lambda: stream)
    with stand_in.cuda.Device(1):
        x = stand_in.zeros((3, 2))
    bags = Bags.from_lengths(x, [2, 1])
    for n_jobs, expected in ((None, []), (2, [1])):
        # in one thread the work goes on in the same stream
        sum_units(lambda x: [x.sum()], row_units(bags, Where(n_jobs, "cpu")), tile=2)
        assert waits == expected
    sum_units(lambda x, *_: [x.sum()], row_units(bags, Where(None, "cuda:all"), 1))
    assert waits[1:] == [1, 1][: len(waits) - 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_samples_are_done_when_they_have_been_checked(stand_in, monkeypatch, dtype):
    # to look at floats is to wait; threads may read the values then
    waits = []
    stream = SimpleNamespace(synchronize=lambda: waits.append(device_array.current_device()))
    to_float = device_array.DeviceArray.__float__

    def looked_at(self):
        waits.append(device_array.current_device())
        return to_float(self)

    monkeypatch.setattr(stand_in.cuda, "get_current_stream", lambda: stream)
    monkeypatch.setattr(device_array.DeviceArray, "__float__", looked_at)
    with stand_in.cuda.Device(1):
        bags = Bags(stand_in.asarray(np.ones((9, 4), dtype=dtype)), [0, 5], [5, 9])
    check_bags(DiagonalGaussianMixture(2), bags, reset=True)
    assert waits == [1]


@pytest.mark.parametrize("way", ["to_device", "asarray"])
def test_devices_wait_for_each_other_where_arrays_go_between_them(stand_in, monkeypatch, way):
    with stand_in.cuda.Device(1):
        x = stand_in.asarray(np.arange(12.0).reshape(3, 4))[:, ::2]
    log, contiguous = [], device_array.lookup("ascontiguousarray")

    def note(what):
        log.append((what, device_array.current_device()))

    stream = SimpleNamespace(synchronize=lambda: note("wait"))
    copy = device_array.StandIn.asarray

    def copied(x, dtype=None):
        if x._device != device_array.current_device():
            assert x._values.flags.c_contiguous  # else CuPy makes a copy, and does not wait
            note("copy")
        return copy(x, dtype)

    def packed(x):
        note("pack")
        return contiguous(x)

    monkeypatch.setattr(stand_in.cuda, "get_current_stream", lambda: stream)
    monkeypatch.setattr(device_array.StandIn, "asarray", staticmethod(copied))
    monkeypatch.setattr(stand_in, "ascontiguousarray", packed, raising=False)
    if way == "to_device":
        there = libraries.to_device(x, "cuda:0")
    else:
        there = libraries.asarray(x, like=stand_in.zeros(1))
    # before the copy for what is read, after it as memory that was read is used again
    assert log == [("pack", 1), ("wait", 1), ("copy", 0), ("wait", 0)]
    assert there.device.id == 0
    np.testing.assert_array_equal(there.get(), [[0, 2], [4, 6], [8, 10]])


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
    "mean": (MeanPooling(), ["transform"], BAGS),
    "mean, deviation": (MeanPooling("mean_std", normalize="power-l2"), ["transform"], BAGS),
    "maximum": (MeanPooling("max"), ["transform"], BAGS),
    "joint, NetVLAD": (
        JointClassifier(VLADEncoder(2), **JOINT),
        ["decision_function", "transform", "predict"],
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
    "descriptors": (DescriptorTransformer(PCA(2)), ["transform"], BAGS),
    "positions": (PositionAppender(), ["transform"], BAGS),
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
        (LinearSDCA(random_state=0), TABLE),
    ):
        there, labels = placed(stand_in, samples, 1), placed(stand_in, LABELS, 1)
        weights = placed(stand_in, np.ones(12), 1)
        expected = clone(estimator).fit(samples, LABELS).score(samples, LABELS)
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

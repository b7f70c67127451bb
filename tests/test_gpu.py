"""Estimators on a GPU: the results of the CPU, arrays of the right kind, memory as it was."""

import gc
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skfisher import (
    Bags,
    DeepFisherEncoder,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    JointClassifier,
    JointFisherSVC,
    PowerL2Normalizer,
)
from skfisher.cuda import module

# five iterations of EM converge nowhere
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
pytestmark = [pytest.mark.gpu, quiet]

ENCODER = FisherVectorEncoder(8, max_iter=5, random_state=0)
MIXTURE = DiagonalGaussianMixture(8, max_iter=5, tol=0, random_state=0)
SMALL = {"max_iter": 2, "batch_size": 4, "random_state": 0}
JOINT = JointFisherSVC(3, **SMALL)
DEEP = DeepFisherEncoder((3, 2), random_state=0)
JOINT_DEEP = JointClassifier(DEEP, **SMALL)
BY_LOSS = JointClassifier(FisherVectorEncoder(3), sampling="loss", **SMALL)
NATURAL = JointClassifier(FisherVectorEncoder(3), solver="structured_natural", **SMALL)


def bags_of(dtype=np.float32, n_bags=12, d=20):
    """Return bags of two classes, the longest of several chunks."""
    rng = np.random.default_rng(0)
    y = np.arange(n_bags) % 2
    lengths = rng.integers(20, 900, size=n_bags)
    bags = [rng.normal(size=(length, d)) for length in lengths]
    return [(bag + 0.5 * label).astype(dtype) for bag, label in zip(bags, y, strict=True)], y


@pytest.fixture
def unused_memory(cupy):
    """Return a function that tells how much memory CuPy holds, garbage collected."""

    def used():
        gc.collect()
        cupy.cuda.runtime.deviceSynchronize()
        return cupy.get_default_memory_pool().used_bytes()

    return used


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("estimator", "method"),
    [(ENCODER, "transform"), (MIXTURE, "score_samples"), (MIXTURE, "predict_proba"),
     (JOINT, "decision_function"), (JOINT, "transform"), (DEEP, "transform"),
     (JOINT_DEEP, "decision_function"), (BY_LOSS, "decision_function"),
     (NATURAL, "decision_function")],
    ids=str,
)  # fmt: skip
def test_results_are_those_of_the_cpu(cupy, estimator, method, dtype):
    bags, y = bags_of(dtype)
    expected = getattr(clone(estimator).fit(bags, y), method)(bags)
    tolerance = 2e-3 if dtype == np.float32 else 1e-8

    # moved there, and back
    moved = clone(estimator).set_params(device="cuda").fit(bags, y)
    result = getattr(moved, method)(bags)
    there = [cupy.asarray(bag) for bag in bags]
    stayed = clone(estimator).fit(there, y)
    result_there = getattr(stayed, method)(there)
    for part, part_there, wanted in zip(result, result_there, expected, strict=True):
        assert isinstance(part, np.ndarray | np.generic)
        assert isinstance(part_there, cupy.ndarray)
        scale = np.abs(wanted).max()
        assert_allclose(part, wanted, rtol=0, atol=tolerance * scale)
        assert_allclose(part_there.get(), wanted, rtol=0, atol=tolerance * scale)

    # what was fitted is on the host, and works there
    for fitted in (moved, stayed):
        arrays = [value for value in vars(fitted).values() if hasattr(value, "shape")]
        assert all(isinstance(value, np.ndarray | np.generic) for value in arrays)
        again = pickle.loads(pickle.dumps(fitted)).set_params(device=None)
        for part, wanted in zip(getattr(again, method)(bags), expected, strict=True):
            assert_allclose(part, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def test_normalizer(cupy):
    x = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)
    for normalizer in (PowerL2Normalizer(), PowerL2Normalizer(0.3)):
        result = normalizer.fit(cupy.asarray(x)).transform(cupy.asarray(x))
        assert isinstance(result, cupy.ndarray)
        assert_allclose(result.get(), normalizer.fit_transform(x), rtol=1e-5, atol=1e-7)


def test_bits_do_not_depend_on_where_the_data_were(cupy):
    bags, _ = bags_of()
    encoder = clone(ENCODER).fit(bags)
    moved = clone(encoder).set_params(device="cuda").fit(bags)
    there = clone(encoder).fit([cupy.asarray(bag) for bag in bags])
    assert_array_equal(moved.means_, there.means_)
    result = there.transform([cupy.asarray(bag) for bag in bags])
    assert_array_equal(moved.transform(bags), result.get())
    alone = np.concatenate([moved.transform([bag]) for bag in bags])
    assert_array_equal(moved.transform(bags), alone)


def test_all_devices_give_the_bits_of_one(cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU is visible, this needs two")
    bags, _ = bags_of(n_bags=40)
    one = clone(ENCODER).set_params(device="cuda").fit(bags)
    for device in ("cuda:all", ["cuda:1", "cuda:0"]):
        several = clone(ENCODER).set_params(device=device).fit(bags)
        assert_array_equal(several.means_, one.means_)
        assert_array_equal(several.transform(bags), one.transform(bags))
    with cupy.cuda.Device(1):
        there = [cupy.asarray(bag) for bag in bags]
    result = one.set_params(device=None).transform(there)
    assert result.device.id == 1
    with cupy.cuda.Device(0):
        mixed = [cupy.asarray(bags[0]), there[1]]
    with pytest.raises(TypeError, match="keep all bags on one device"):
        one.transform(mixed)


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:all"])
def test_the_caller_may_be_in_a_stream_of_its_own(cupy, device):
    bags, y = bags_of()
    encoder = clone(ENCODER).fit(bags).set_params(device=device, n_jobs=2)
    joint = clone(JOINT).fit(bags, y).set_params(device=device, n_jobs=2)
    expected = [encoder.transform(bags), joint.decision_function(bags)]
    host = Bags.from_list(bags)
    with cupy.cuda.Stream(non_blocking=True):  # no other one waits for it
        for scale in (2, 4):
            late = cupy.asarray(host.values * np.float32(scale)) / np.float32(scale)
            there = Bags(late, host.starts, host.stops)
            found = [encoder.transform(there), joint.decision_function(there)]
            for result, wanted in zip(found, expected, strict=True):
                scale_of_result = np.abs(wanted).max()
                assert_allclose(result.get(), wanted, rtol=0, atol=2e-3 * scale_of_result)


def test_memory_is_left_as_it_was(cupy, unused_memory, monkeypatch):
    bags, y = bags_of()
    there = Bags.from_list([cupy.asarray(bag) for bag in bags])
    encoder = clone(ENCODER).set_params(device="cuda")

    def work():
        encoder.fit(bags).transform(bags)
        clone(ENCODER).fit(there).transform(there)
        clone(JOINT).set_params(device="cuda").fit(bags, y).predict(bags)

    work()  # libraries keep what they take at first
    before = unused_memory()
    work()
    assert unused_memory() == before

    # a call that fails
    broken = [bag.copy() for bag in bags]
    broken[7][3, 1] = np.nan
    with pytest.raises(ValueError, match=r"X\[7\] contains NaN in descriptor 3"):
        encoder.transform([cupy.asarray(bag) for bag in broken])
    assert unused_memory() == before

    # a call that is interrupted, where the second kernel is launched
    load, launches = module.kernel, []

    def kernel(*args, **kwargs):
        launches.append(args)
        if len(launches) == 2:
            raise KeyboardInterrupt
        return load(*args, **kwargs)

    monkeypatch.setattr(module, "kernel", kernel)
    for data in (bags, there):
        launches.clear()
        with pytest.raises(KeyboardInterrupt):
            encoder.transform(data)
        assert unused_memory() == before


def test_tensors_of_torch_on_a_gpu(cupy):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    bags, _ = bags_of()
    encoder = clone(ENCODER).fit(bags)
    expected = encoder.transform(bags)
    tensors = [torch.from_numpy(bag).cuda() for bag in bags]
    result = encoder.transform(tensors)
    assert isinstance(result, torch.Tensor)
    assert result.device == tensors[0].device
    assert_allclose(result.cpu().numpy(), expected, rtol=0, atol=1e-4)
    # of its own, not the memory of a tensor given
    assert all(result.data_ptr() != tensor.data_ptr() for tensor in tensors)
    on_cpu = encoder.transform([tensor.cpu() for tensor in tensors])
    assert isinstance(on_cpu, torch.Tensor)
    assert on_cpu.device.type == "cpu"
    with torch.cuda.stream(torch.cuda.Stream()):  # what torch computes there is waited for
        late = [tensor * 1 for tensor in tensors]
        assert_allclose(encoder.transform(late).cpu().numpy(), expected, rtol=0, atol=1e-4)

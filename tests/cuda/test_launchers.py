"""The launchers on device arrays: a stand-in as strict as CuPy, whose kernels run on the CPU.

Nothing that a kernel or a library of device arrays is given may be NumPy's, and estimators
reach the kernels on one device and on several.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher import DiagonalGaussianMixture, FisherVectorEncoder, PowerL2Normalizer
from skfisher.arrays.libraries import to_host
from skfisher.cuda import groups, layout, module, statistics
from skfisher.ops import gaussian
from skfisher.ops.expectation import expectation_sums
from skfisher.ops.fisher import fisher_sums, fisher_sums_vjp, fisher_vector, fisher_vector_vjp
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp

from ..device_array import DeviceArray, current_device

LENGTHS = np.array([3, 40, 300, 1])
STOPS = np.cumsum(LENGTHS)
STARTS = STOPS - LENGTHS
K, D = 5, 6


@pytest.fixture
def launched(_host_kernels, stand_in, monkeypatch):
    """Run kernels on the arrays of a stand-in for CuPy; return the names of those launched."""
    _host_kernels.schedule = 0
    _host_kernels.launched.clear()

    def argument(value):
        if isinstance(value, np.ndarray):
            raise TypeError("a kernel was given an array on the host")
        if isinstance(value, DeviceArray):
            assert value.device.id == current_device()
            return value._values
        return value

    def kernel(expression, shared_bytes=0):
        function = _host_kernels.kernel(expression, shared_bytes)
        return lambda grid, block, args, **rest: function(
            grid, block, tuple(map(argument, args)), **rest
        )

    monkeypatch.delenv("SKFISHER_FUSED")
    monkeypatch.setattr(module, "kernel", kernel)
    monkeypatch.setattr(module, "on_device", lambda x: isinstance(x, DeviceArray))
    address = property(lambda self: {"data": (self._values.ctypes.data, False)})
    monkeypatch.setattr(DeviceArray, "__cuda_array_interface__", address, raising=False)
    return _host_kernels.launched


@pytest.fixture
def mixture(rng):
    return rng.dirichlet(np.ones(K)), rng.normal(size=(K, D)), rng.uniform(0.5, 2, size=(K, D))


@pytest.fixture
def x(rng):
    return rng.normal(size=(STOPS[-1], D)).astype(np.float32)


@pytest.mark.parametrize("scratch", [2**20, 1])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0], [3, 0]])
@pytest.mark.parametrize("parameters_on_device", [True, False])
def test_operations(
    launched, stand_in, monkeypatch, rng, x, mixture, scratch, order, parameters_on_device
):
    monkeypatch.setattr(statistics, "SCRATCH", scratch)
    starts, stops = STARTS[order], STOPS[order]
    on_device = stand_in.asarray(x)
    parameters = [stand_in.asarray(p) if parameters_on_device else p for p in mixture]
    out = stand_in.empty((len(order), 2 * K * D), dtype=np.float32)
    found = [
        fisher_vector(on_device, starts, stops, *parameters),
        fisher_vector(on_device, starts, stops, *parameters, include_weights=False, out=out),
        *fisher_sums(on_device, starts, stops, *parameters),
    ]
    assert found[1] is out
    sums, log_likelihood = expectation_sums(on_device, starts, stops, *parameters)
    found += [*sums, log_likelihood]
    g = rng.normal(size=found[0].shape).astype(np.float32)
    found += fisher_vector_vjp(stand_in.asarray(g), on_device, starts, stops, *parameters)
    found += [power_l2_normalize(found[0])]
    found += [power_l2_normalize_vjp(stand_in.asarray(g), found[0])]
    assert all(isinstance(f, DeviceArray) for f in found)
    for stage in ("score", "moments", "bag_vectors", "bag_sums", "vjp", "power_l2_normalize"):
        assert any(stage in name for name in launched)
    # on the host, by the array code
    sums, log_likelihood = expectation_sums(x, starts, stops, *mixture)
    vectors = fisher_vector(x, starts, stops, *mixture)
    expected = [
        vectors,
        vectors[:, K:],
        *fisher_sums(x, starts, stops, *mixture),
        *(*sums, log_likelihood),
        *fisher_vector_vjp(g, x, starts, stops, *mixture),
        power_l2_normalize(vectors),
        power_l2_normalize_vjp(g, vectors),
    ]
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == e.dtype
        assert_allclose(f.get(), e, rtol=0, atol=1e-4 * np.abs(e).max())  # digits: other tests


@pytest.mark.parametrize("fused", ["0", "1"])
def test_coordinates_are_chosen_on_the_host(launched, stand_in, monkeypatch, x, mixture, fused):
    # sums of several devices are added up there: rounding must not tell their coordinates apart
    monkeypatch.setenv("SKFISHER_FUSED", fused)

    def reach(means, variances, of_host_arrays=gaussian.reach):
        assert isinstance(means, np.ndarray)
        assert isinstance(variances, np.ndarray)
        return of_host_arrays(means, variances)

    monkeypatch.setattr(gaussian, "reach", reach)
    parameters = [stand_in.asarray(p) for p in mixture]
    bags = stand_in.asarray(x), STARTS, STOPS
    vectors = fisher_vector(*bags, *parameters)
    sums = fisher_sums(*bags, *parameters)
    fisher_sums_vjp(sums, *bags, *parameters)
    fisher_vector_vjp(vectors, *bags, *parameters)
    expectation_sums(*bags, *parameters)
    gaussian.log_joint(bags[0], *parameters)


def test_kernels_need_no_coefficients_of_logits(launched, stand_in, monkeypatch, x, mixture):
    # which take as long to compute, for large mixtures, as the kernels
    monkeypatch.delattr(gaussian, "logit_coefficients")
    bags = stand_in.asarray(x), STARTS, STOPS
    sums = fisher_sums(*bags, *mixture)
    fisher_sums_vjp(sums, *bags, *mixture)
    expectation_sums(*bags, *mixture)


def test_a_view_between_vectors_is_copied(launched, stand_in):
    room = stand_in.asarray(np.arange(41, dtype=np.float32))
    view = room[1:].reshape(10, 4)
    copy = layout.vector_aligned(view)
    assert copy._values.ctypes.data % 16 == 0
    np.testing.assert_array_equal(copy.get(), view.get())
    assert np.shares_memory(layout.vector_aligned(copy)._values, copy._values)


def test_scattered_rows_are_gathered_on_the_device(launched, stand_in, x):
    chunks = np.array([[0, 0, 3], [1, 300, 310]], dtype=np.int32)
    rows, moved = groups.window(stand_in.asarray(x), chunks)
    assert isinstance(rows, DeviceArray)
    np.testing.assert_array_equal(rows.get(), np.concatenate([x[:3], x[300:310]]))
    np.testing.assert_array_equal(moved, [[0, 0, 3], [1, 3, 13]])


@pytest.mark.parametrize("device", [None, "cuda", "cuda:all"])
def test_estimators(launched, stand_in, rng, device):
    bags = [rng.normal(size=(n, 4)).astype(np.float32) for n in (60, 5, 130, 40)]
    # a few iterations: EM then sends differences of rounding far apart
    model = FisherVectorEncoder(3, random_state=0)
    expected = model.fit(bags).transform(bags)
    normalized = PowerL2Normalizer().fit_transform(expected)
    parameters = model.means_, model.variances_
    assert not launched
    X = [stand_in.asarray(bag) for bag in bags] if device is None else bags
    model.set_params(device=device).fit(X)
    for found, wanted in zip((model.means_, model.variances_), parameters, strict=True):
        assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert "skfisher::chunk_log_likelihood" in launched
    encodings = model.transform(X)
    assert isinstance(encodings, DeviceArray) == (device is None)
    assert "skfisher::bag_vectors<float>" in launched
    assert_allclose(to_host(encodings), expected, rtol=0, atol=1e-3)
    if device is None:
        result = PowerL2Normalizer().fit_transform(encodings)
        assert_allclose(result.get(), normalized, rtol=0, atol=1e-3)
    mixture = DiagonalGaussianMixture(3, tol=0.3, random_state=0, device=device).fit(X)
    assert np.isfinite(mixture.lower_bound_)


def test_several_devices_give_the_bits_of_one(launched, rng):
    bags = [rng.normal(size=(n, 4)).astype(np.float32) for n in (60, 5, 130, 40)]
    results = []
    for device in ("cuda", "cuda:1", "cuda:all"):
        model = FisherVectorEncoder(3, random_state=0, device=device)
        results.append([model.fit(bags).means_.tobytes(), model.transform(bags).tobytes()])
    assert launched
    assert results[0] == results[1] == results[2]

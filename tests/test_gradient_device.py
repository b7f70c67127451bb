"""Gradient features on arrays that are not NumPy's, by a stand-in as strict as CuPy.

This shows that nothing mixes host and device arrays or relies on NumPy alone; only a GPU can
show more. Where there is one, the same tests run on CuPy.
"""

import contextlib
import pickle
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import skfisher.backend
from skfisher import DenseHead, GradientFeatureKernel, GradientFeatureMap
from skfisher.ops.trace_kernel import convolution_trace_kernel


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that refuses to meet NumPy arrays, or to become one unasked."""

    def __init__(self, values):
        self.values = values

    def get(self):
        return self.values.copy()

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        assert method == "__call__"
        if out:
            kwargs["out"] = tuple(unwrapped(x) for x in out)
        result = ufunc(*(unwrapped(x) for x in inputs), **kwargs)
        return out[0] if out else wrapped(result)

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"numpy.{func.__name__} got a device array")

    def __getitem__(self, key):
        return wrapped(self.values[unwrapped_key(key)])

    def __setitem__(self, key, value):
        self.values[unwrapped_key(key)] = unwrapped(value)

    def __len__(self):
        return len(self.values)

    def __bool__(self):
        return bool(self.values)

    def __int__(self):
        return int(self.values)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        attribute = getattr(self.values, name)
        if not callable(attribute):
            return wrapped(attribute)
        return lambda *args, **kwargs: wrapped(attribute(*map(unwrapped, args), **kwargs))


def wrapped(x):
    return DeviceArray(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def unwrapped(x):
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array met a device array")
    if isinstance(x, (list, tuple)):
        return type(x)(map(unwrapped, x))
    return x.values if isinstance(x, DeviceArray) else x


def unwrapped_key(key):
    return tuple(map(unwrapped, key)) if isinstance(key, tuple) else unwrapped(key)


class StandIn(ModuleType):
    """A module with NumPy's functions, on device arrays."""

    ndarray = DeviceArray
    cuda = SimpleNamespace(Device=lambda index: contextlib.nullcontext())
    fft = SimpleNamespace(
        rfft=lambda x, axis: wrapped(np.fft.rfft(unwrapped(x), axis=axis)),
        irfft=lambda x, n, axis: wrapped(np.fft.irfft(unwrapped(x), n=n, axis=axis)),
    )

    @staticmethod
    def asarray(x, dtype=None):
        values = x.values if isinstance(x, DeviceArray) else x
        return DeviceArray(np.array(values, dtype=dtype))

    def __getattr__(self, name):
        function = getattr(np, name)

        def on_device(*args, out=None, **kwargs):
            if out is not None:
                kwargs["out"] = unwrapped(out)
            return wrapped(function(*map(unwrapped, args), **kwargs))

        return on_device


@pytest.fixture(params=["stand-in", pytest.param("cupy", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Return a library of device arrays, usable as ``device="cuda"``."""
    if request.param == "cupy":
        n_devices, reason = skfisher.backend.cuda_usable()
        if n_devices == 0:
            pytest.skip(reason)
        return pytest.importorskip("cupy")
    library = StandIn("cupy")
    monkeypatch.setitem(sys.modules, "cupy", library)
    monkeypatch.setattr(skfisher.backend, "cuda_usable", lambda: (1, ""))
    return library


HEAD = DenseHead(
    [
        np.random.default_rng(k).normal(size=shape)
        for k, shape in enumerate([(6, 7), (7, 5), (5, 20)])
    ],
    activation=["relu", "tanh"],
)
SETTINGS = [
    {},
    {"layer": [0, 1, 2], "activations": True, "bias": True, "temperature": np.inf},
    {"layer": [0, 1, 2], "target": "jacobian"},
    {"layer": 0, "target": "jacobian", "max_outputs": 3, "normalize": False},
    {"target": "none"},
    {"target": np.full(20, 1 / 20), "batch_size": 4},
]
ESTIMATORS = [
    *(GradientFeatureKernel(HEAD, **params) for params in SETTINGS),
    *(GradientFeatureMap(HEAD, n_components=9, **params) for params in SETTINGS),
    GradientFeatureMap(HEAD, n_components=9, method="tensor_sketch"),
    GradientFeatureKernel("precomputed", n_activations=2, bias=True),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_those_of_numpy(rng, device, estimator, dtype):
    X = rng.normal(size=(10, 6)).astype(dtype)
    expected = estimator.fit(X).transform(X)
    tolerance = {"rtol": 0, "atol": 1e-4 if dtype == np.float32 else 1e-9}

    on_device = device.asarray(X)
    estimator.set_params(device=None).fit(on_device)  # work where the samples are
    result = estimator.transform(on_device)
    assert isinstance(result, device.ndarray)
    assert result.dtype == dtype
    assert_allclose(abs(result.get()), abs(expected), **tolerance)
    assert_allclose(abs(estimator.fit_transform(on_device).get()), abs(expected), **tolerance)
    # what was fitted on a device opens and works on the host
    again = pickle.loads(pickle.dumps(estimator))
    assert_allclose(abs(again.transform(X)), abs(expected), **tolerance)

    estimator.set_params(device="cuda")  # work there, and come back
    result = estimator.fit(X).transform(X)
    assert isinstance(result, np.ndarray)
    assert_allclose(abs(result), abs(expected), **tolerance)
    result = estimator.set_params(device="cpu").transform(on_device)
    assert isinstance(result, device.ndarray)
    assert_allclose(abs(result.get()), abs(expected), **tolerance)
    estimator.set_params(device=None)


def test_call_on_device(rng, device):
    X, Y = rng.normal(size=(10, 6)), rng.normal(size=(7, 6))
    kernel = GradientFeatureKernel(HEAD)
    result = kernel(device.asarray(X), device.asarray(Y))
    assert_allclose(result.get(), kernel(X, Y), atol=1e-12)


def test_convolution_kernel_on_device(rng, device):
    for n_positions in (2, 12):
        a, e = rng.normal(size=(5, n_positions, 6)), rng.normal(size=(5, n_positions, 4))
        result = convolution_trace_kernel(device.asarray(a), device.asarray(e))
        assert_allclose(result.get(), convolution_trace_kernel(a, e), atol=1e-12)


def test_bad_samples_on_device_are_named(rng, device):
    X = rng.normal(size=(10, 6))
    kernel = GradientFeatureKernel(HEAD).fit(X)
    X[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\[4\] contains NaN or infinity"):
        kernel.transform(device.asarray(X))
    with pytest.raises(ValueError, match=r"shape \(n_samples, n_features\), got \(10,\)"):
        kernel.transform(device.asarray(X[:, 0]))
    with pytest.raises(ValueError, match="X has 5 features, but GradientFeatureKernel is expect"):
        kernel.transform(device.asarray(np.ones((3, 5))))

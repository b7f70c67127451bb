"""Gradient features on arrays that are not NumPy's, by a stand-in as strict as CuPy.

This shows that nothing mixes host and device arrays or relies on NumPy alone; only a GPU can
show more. Where there is one, the same tests run on CuPy.
"""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher import DenseHead, GradientFeatureKernel, GradientFeatureMap

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
def test_results_are_those_of_numpy(rng, device_library, estimator, dtype):
    X = rng.normal(size=(10, 6)).astype(dtype)
    expected = estimator.fit(X).transform(X)
    tolerance = {"rtol": 0, "atol": 1e-4 if dtype == np.float32 else 1e-9}

    on_device = device_library.asarray(X)
    estimator.set_params(device=None).fit(on_device)  # work where the samples are
    result = estimator.transform(on_device)
    assert isinstance(result, device_library.ndarray)
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
    assert isinstance(result, device_library.ndarray)
    assert_allclose(abs(result.get()), abs(expected), **tolerance)
    estimator.set_params(device=None)


def test_call_on_device(rng, device_library):
    X, Y = rng.normal(size=(10, 6)), rng.normal(size=(7, 6))
    kernel = GradientFeatureKernel(HEAD)
    result = kernel(device_library.asarray(X), device_library.asarray(Y))
    assert_allclose(result.get(), kernel(X, Y), atol=1e-12)


def test_bad_samples_on_device_are_named(rng, device_library):
    X = rng.normal(size=(10, 6))
    kernel = GradientFeatureKernel(HEAD).fit(X)
    X[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\[4\] contains \w+ in feature"):
        kernel.transform(device_library.asarray(X))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        kernel.transform(device_library.asarray(X[:, 0]))
    with pytest.raises(ValueError, match="X has 5 features, but GradientFeatureKernel is expect"):
        kernel.transform(device_library.asarray(np.ones((3, 5))))

"""The stand-in for CuPy: it refuses what CuPy refuses, and claims nothing that CuPy lacks."""

import inspect
import re

import numpy as np
import pytest

from tests.device_array import ATTRIBUTES, FUNCTIONS, METHODS, Device, DeviceArray, StandIn


@pytest.fixture
def library():
    return StandIn(n_devices=2)


def test_it_computes(library):
    x = library.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert isinstance(x @ x, DeviceArray)
    np.testing.assert_array_equal((x @ x + 1).get(), [[8, 11], [16, 23]])
    np.testing.assert_array_equal(library.exp(x).sum(axis=0).get(), np.exp(x.get()).sum(axis=0))
    y = library.empty((2, 2))
    assert library.multiply(x, 2, out=y) is y
    x[0] = y[1]
    np.testing.assert_array_equal(x.get(), [[6, 8], [3, 4]])
    assert float(x[0, 0]) == 6
    np.testing.assert_array_equal(x[np.array([1, 0]), 1].get(), [4, 8])  # as CuPy does


@pytest.mark.parametrize(
    "mix",
    [
        lambda xp, x: x + np.ones(2),
        lambda xp, x: np.ones(2) * x,
        lambda xp, x: np.asarray(x),
        lambda xp, x: np.concatenate([x, x]),
        lambda xp, x: xp.concatenate([x, np.ones(2)]),
        lambda xp, x: xp.maximum(x, np.ones(2)),
        lambda xp, x: xp.exp(np.ones(2)),
        lambda xp, x: x.__setitem__(slice(None), np.ones(2)),
    ],
)
def test_host_arrays_are_refused(library, mix):
    with pytest.raises(TypeError):
        mix(library, library.asarray([1.0, 2.0]))


@pytest.mark.parametrize(
    "use",
    [
        lambda xp, x: xp.linalg.svd(x),
        lambda xp, x: x.max(initial=0),
        lambda xp, x: xp.clip(x, 0, 1, where=True),
        lambda xp, x: xp.multiply.reduceat(x, [0]),
        lambda xp, x: x.searchsorted(1),
        lambda xp, x: np.exp(x, where=True),
    ],
)
def test_what_cupy_lacks_or_nobody_needs_yet_is_refused(library, use):
    with pytest.raises((AttributeError, AssertionError)):
        use(library, library.asarray([1.0, 2.0]))


def test_arrays_are_used_on_their_own_device(library):
    x = library.asarray([1.0, 2.0])
    with Device(1):
        y = library.asarray([1.0, 2.0])
        assert y.device == Device(1)
        with pytest.raises(RuntimeError, match="on device 0 was used while device 1 is current"):
            x + y
        moved = library.asarray(x)
        np.testing.assert_array_equal((moved + y).get(), [2, 4])
    with pytest.raises(RuntimeError, match="on device 1 was used while device 0 is current"):
        y.sum()
    assert x.device == Device(0)


def keywords_of(function):
    """Return the names of the arguments of a function of CuPy, from its signature or its docs."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        # names before "=", a comma or the end, without what stands in brackets
        line = function.__doc__.split("\n")[0].split("->")[0]
        return set(re.findall(r"\b(\w+)\s*(?=[,=)])", line.split("(", 1)[1]))
    if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        return None
    return set(parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_those_of_cupy(name):
    function = pytest.importorskip("cupy")
    for part in name.split("."):
        function = getattr(function, part)
    known = keywords_of(function)
    assert known is None or set(FUNCTIONS[name]) <= known


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_those_of_cupy(name):
    method = getattr(pytest.importorskip("cupy").ndarray, name)
    assert set(METHODS[name] or ()) <= keywords_of(method)


def test_attributes_are_those_of_cupy():
    assert set(ATTRIBUTES) <= set(dir(pytest.importorskip("cupy").ndarray))

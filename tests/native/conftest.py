"""The native kernels under every instruction set of this machine, where they were built."""

import pytest

from skfisher.native import library


@pytest.fixture(params=library.INSTRUCTION_SETS)
def native(request, monkeypatch):
    """Choose an instruction set; return what switches to the array code and back."""
    monkeypatch.setenv("SKFISHER_NATIVE", request.param)
    if library.instruction_set() != request.param:
        pytest.skip(f"{request.param}: {library.describe()}")
    return request.param


@pytest.fixture
def array_code(monkeypatch):
    """Return a function that calls another with the native kernels switched off."""

    def call(function, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setenv("SKFISHER_NATIVE", "0")
            return function(*args, **kwargs)

    return call

"""The native kernels under every instruction set of this machine, where they were built."""

import os
import subprocess

import pytest

from skfisher.native import library


@pytest.fixture(scope="session", autouse=True)
def _watched(tmp_path_factory):
    """Compile the kernels anew with the flags that ``make sanitize`` asks for."""
    flags = os.environ.get("SKFISHER_HOST_FLAGS")
    if flags is None:
        return
    folder, source = tmp_path_factory.mktemp("native"), library.FOLDER / "kernels.c"
    command = ["cc", "-std=gnu11", "-O1", "-ffp-contract=fast", "-shared", "-fPIC", *flags.split()]
    target = folder / "kernels.native.so"
    # the compiler itself is not to be watched
    environment = {name: os.environ[name] for name in os.environ if name != "LD_PRELOAD"}
    subprocess.run([*command, "-o", target, source, "-lm"], env=environment, check=True)
    library.FOLDER = folder
    library._load.cache_clear()


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

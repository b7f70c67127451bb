"""Which code serves: the kernels where they load, the array code everywhere else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import skfisher
from skfisher.native import library
from skfisher.ops.fisher import fisher_vector

ENCODE = """
import numpy as np, skfisher
x = np.random.default_rng(0).normal(size=(60, 40)).astype("f4")
encoder = skfisher.FisherVectorEncoder(8, max_iter=2, random_state=0)
print(encoder.fit_transform([x[:20], x[20:50], x[50:]]).shape)
skfisher.show_versions()
"""


def run(folder, code):
    """Run code with the package of a folder, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("SKFISHER_NATIVE", None)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.fixture
def package(tmp_path):
    """Return a folder with a copy of the package in it, without a library."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(Path(skfisher.__file__).parent, tmp_path / "skfisher", ignore=ignore)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no C compiler was found"), (b"not a library", "does not load")],
    ids=["absent", "broken"],
)
def test_without_a_library_numpy_serves_and_one_line_says_why(package, content, says):
    if content is not None:
        (package / "skfisher/native/kernels.native.so").write_bytes(content)
    printed = run(package, ENCODE)
    assert printed.startswith("(3, 648)\n")
    (line,) = (line for line in printed.splitlines() if "NumPy serves" in line)
    assert says in line


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("int unrelated(void) { return 0; }", "does not load: "),
        ("int skfisher_interface(void) { return -1; }", "built from other sources"),
    ],
    ids=["a function is missing", "of another version"],
)
def test_a_library_of_something_else_is_not_called(package, source, says):
    compiler = shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler on the path")
    (package / "other.c").write_text(source)
    library_file = package / "skfisher/native/kernels.native.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library_file, "other.c"],
                   cwd=package, check=True)  # fmt: skip
    printed = run(package, ENCODE)
    assert printed.startswith("(3, 648)\n")
    assert says in printed


def test_the_variable_switches_off_and_chooses(native, monkeypatch):
    assert library.describe() == f"native kernels, {native}"
    monkeypatch.setenv("SKFISHER_NATIVE", "0")
    assert library.instruction_set() is None
    assert library.describe() == "NumPy serves: SKFISHER_NATIVE=0"
    monkeypatch.setenv("SKFISHER_NATIVE", "baseline")
    assert library.instruction_set() == "baseline"
    monkeypatch.setenv("SKFISHER_NATIVE", "mmx")
    assert library.describe().endswith(": there is no SKFISHER_NATIVE=mmx here")


def test_float64_and_other_libraries_are_left_to_the_array_code(native, stand_in):
    x = np.zeros((2, 3), np.float32)
    assert library.takes(x)
    assert library.takes(x.astype(np.int16))
    assert not library.takes(x.astype(np.float16))
    assert not library.takes(x.astype(">f4"))
    assert not library.takes(x.astype(np.float64))
    assert not library.takes(x.astype(np.int32))
    assert not library.takes(stand_in.asarray(x))


def test_the_kernels_are_what_serves(native, array_code, rng):
    # in float32 they round differently, which nothing else would
    x = rng.normal(size=(400, 40)).astype(np.float32)
    mixture = np.full(16, 1 / 16), rng.normal(size=(16, 40)), np.ones((16, 40))
    where = np.array([0, 150]), np.array([150, 400])
    found = fisher_vector(x, *where, *mixture)
    expected = array_code(fisher_vector, x, *where, *mixture)
    assert found.dtype == expected.dtype == np.float32
    assert (found != expected).any()
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())

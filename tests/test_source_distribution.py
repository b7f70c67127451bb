"""The source distribution holds what a clone does, and tests itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")  # which pyproject.toml asks for

ROOT = Path(__file__).parents[1]


def files_of_project():
    """Return the files that git tracks; in an unpacked distribution, all that it came with."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        names = tracked.stdout.split("\0")[:-1]
    else:
        names = next(ROOT.glob("*.egg-info/SOURCES.txt")).read_text("utf-8").splitlines()
    names = [name for name in names if ".egg-info" not in name and (ROOT / name).is_file()]
    return sorted(set(names) - {".gitignore"})


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Build the distribution from a copy, and return its folder."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in files_of_project():
        target = folder / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "clone", check=True, capture_output=True
    )
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def test_nothing_of_the_project_is_missing(unpacked):
    missing = [name for name in files_of_project() if not (unpacked / name).is_file()]
    assert missing == []


def test_it_tests_itself(unpacked):
    chosen = [
        "tests/encoders/test_golden.py",
        "tests/ops/test_fisher.py::test_any_lengths_agree_with_plain_loops",
        "tests/test_layers.py",
        "tests/test_packaging.py::test_the_reference_lists_every_public_name",
        "tests/test_packaging.py::test_setup_cfg_holds_settings_of_tools_and_no_metadata",
        "tests/cuda/test_layout.py",
    ]
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    environment.pop("PYTEST_ADDOPTS", None)
    code = (
        "import sys, pytest, skfisher as s; print(s.__file__); sys.exit(pytest.main(sys.argv[1:]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", *chosen],
        cwd=unpacked, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert run.stdout.splitlines()[0] == str(unpacked / "skfisher" / "__init__.py")

"""What is promised about the package as a whole."""

import configparser
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import skfisher

ROOT = Path(__file__).parents[1]


def test_version_is_the_one_installed():
    assert metadata.version("skfisher") == skfisher.__version__


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {skfisher.__version__}\n" in citation


def test_import_brings_in_no_optional_package():
    optional = {"cupy", "cv2", "dask", "distributed", "matplotlib", "skops", "torch"}
    code = f"""
        import sys, skfisher, skfisher.dask
        for name in skfisher.__all__: getattr(skfisher, name)
        print(*{optional} & set(sys.modules))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == []


def test_import_brings_in_nothing_but_the_version():
    code = """
        import sys, skfisher
        print(*(name for name in sys.modules if name.startswith(("skfisher.", "sklearn", "numpy"))))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == ["skfisher.version"]


def test_each_public_name_comes_from_one_module_for_type_checkers_too():
    stub = (ROOT / "skfisher" / "__init__.pyi").read_text("utf-8")
    homes = {name: home for home, name in re.findall(r"^from \.(\S+) import (\S+) as", stub, re.M)}
    assert homes.pop("__version__") == "version"
    assert homes == skfisher._HOMES
    assert skfisher.__all__ == sorted(homes)


def test_a_name_stays_what_it_is_whatever_is_imported_first():
    for first in ("skfisher.environment", "skfisher.torch"):
        names = "(getattr(skfisher, name) for name in skfisher.__all__)"
        code = f"import {first}, skfisher; print(*map(callable, {names}))"
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert set(printed.stdout.split()) == {"True"}


def test_the_package_run_as_a_program_prints_the_versions():
    printed = subprocess.run(
        [sys.executable, "-m", "skfisher"], check=True, capture_output=True, text=True
    )
    assert f"skfisher: {skfisher.__version__}" in printed.stdout


def test_public_modules_are_attributes_and_readers_of_data_load_when_asked_for():
    code = """
        import sys, skfisher
        print("skfisher.datasets" in sys.modules)
        print(*(name in dir(skfisher) for name in ["datasets", "descriptors"]))
        print(skfisher.datasets.load_fsdd.__name__, skfisher.descriptors.mfcc.__name__)
        print(hasattr(skfisher, "no_such_module"))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert printed.stdout.splitlines() == ["False", "True True", "load_fsdd mfcc", "False"]


def test_the_reference_lists_every_public_name():
    page = (ROOT / "docs" / "api.rst").read_text("utf-8")
    modules = re.split(r"^\.\. currentmodule:: (\S+)$", page, flags=re.MULTILINE)
    for name, text in zip(modules[1::2], modules[2::2], strict=True):
        module = importlib.import_module(name)
        listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
        assert sorted(listed) == sorted(set(module.__all__) - {"__version__"})
        assert set(listed) <= set(dir(module))  # to ask for one may need an optional package


def test_the_recipe_for_conda_says_what_pyproject_says():
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / ".ci/conda/meta.yaml").read_text("utf-8"))
    with open(ROOT / "pyproject.toml", "rb") as file:
        whole = tomllib.load(file)
    project, extras = whole["project"], whole["project"]["optional-dependencies"]
    assert recipe["package"] == {"name": project["name"], "version": skfisher.__version__}
    assert recipe["about"]["summary"] == project["description"]
    assert recipe["about"]["license"] == project["license"]
    assert [recipe["about"]["license_file"]] == project["license-files"]

    python = f"python{project['requires-python']}"
    required = {kind: _plain(names) for kind, names in recipe["requirements"].items()}
    assert required["run"] == {python, *project["dependencies"]}
    assert required["host"] == {python, "pip", *whole["build-system"]["requires"]}
    # conda has other names for two of them
    optional = [*extras["dask"], *extras["torch"], *extras["cuda12x"], *extras["cuda13x"]]
    renamed = [re.sub(r"^torch", "pytorch", name).replace("-cuda12x", "") for name in optional]
    assert required["run_constrained"] == _plain(name.replace("-cuda13x", "") for name in renamed)


def _plain(requirements):
    """Return requirements without extras and spaces."""
    return {re.sub(r"\[.*?\]| ", "", requirement) for requirement in requirements}


def test_setup_cfg_holds_settings_of_tools_and_no_metadata():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    tools = {re.sub(r"tool:|:.*", "", section) for section in settings.sections()}
    tools -= {"egg_info"}  # which setuptools writes to that of a source distribution
    with open(ROOT / "pyproject.toml", "rb") as file:
        elsewhere = set(tomllib.load(file)["tool"])
    assert tools == {"pytest", "coverage", "codespell"}
    assert elsewhere == {"setuptools", "cibuildwheel", "mypy", "ruff"}

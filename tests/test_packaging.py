"""What is promised about the package as a whole."""

import configparser
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import skfisher

ROOT = Path(__file__).parents[1]


def test_version_is_the_one_installed():
    assert metadata.version("skfisher") == skfisher.__version__


def test_import_brings_in_no_optional_package():
    code = """
        import sys, skfisher
        print(*{"cupy", "cv2", "matplotlib", "skops", "torch"} & set(sys.modules))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == []


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
        assert all(hasattr(module, public) for public in listed)


def test_setup_cfg_holds_settings_of_tools_and_no_metadata():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    tools = {re.sub(r"tool:|:.*", "", section) for section in settings.sections()}
    tools -= {"egg_info"}  # which setuptools writes to that of a source distribution
    with open(ROOT / "pyproject.toml", "rb") as file:
        elsewhere = set(tomllib.load(file)["tool"])
    assert tools == {"pytest", "coverage", "codespell"}
    assert elsewhere == {"setuptools", "cibuildwheel", "mypy", "ruff"}

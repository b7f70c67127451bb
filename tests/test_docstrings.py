"""Docstrings are complete, and every example in them, the README and the guide runs."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import numpydoc.validate
import pytest

import skfisher

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("docs/*.rst")), *sorted(ROOT.glob("docs/guide/*.rst"))]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(skfisher.__path__, "skfisher.")
    if module.name != "skfisher.native._kernels"  # a library in C, which is no module
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

# numpydoc's names of what must hold: sections known, in order, and without double blank lines;
# parameters all documented, in order, with types; a summary that ends with a full stop.
CHECKS = {"GL01", "GL03", "GL05", "GL06", "GL07", "GL08", "GL10", "PR01", "PR02", "PR03", "PR04"}
CHECKS |= {"PR10", "SS01", "SS03", "SS04", "YD01"}
# Classes and functions a user starts from also point to others, and have examples.
CHECKS_OF_NAMES = CHECKS | {"SA01", "EX01"}


def is_ours(thing):
    """Tell whether a class, function, method or property was written in this package."""
    function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
    return (getattr(inspect.unwrap(function), "__module__", None) or "").startswith("skfisher")


def public_methods():
    """Return the full names of public methods and properties of the public classes."""
    for name in skfisher.__all__:
        thing = getattr(skfisher, name)
        if inspect.isclass(thing):
            for member in sorted(dir(thing)):
                value = inspect.getattr_static(thing, member)
                written = callable(value) or isinstance(
                    value, (property, classmethod, staticmethod)
                )
                if not member.startswith("_") and written and is_ours(value):
                    yield f"skfisher.{name}.{member}"


def functions(*modules):
    """Return the full names of functions of these modules that list their parameters."""
    for name in MODULES:
        if name.startswith(modules):
            module = importlib.import_module(name)
            for member in module.__all__:
                thing = getattr(module, member)
                if inspect.isfunction(thing) and "Parameters\n" in (thing.__doc__ or ""):
                    yield f"{name}.{member}"


def faults(name, checks):
    """Return what numpydoc finds wrong with the docstring of `name`."""
    found = numpydoc.validate.validate(name)["errors"]
    return [f"{code}: {text}" for code, text in found if code in checks]


@pytest.mark.parametrize("name", sorted(skfisher.__all__))
def test_docstrings_of_public_names_are_complete(name):
    assert faults(f"skfisher.{name}", CHECKS_OF_NAMES) == []


@pytest.mark.parametrize("name", list(public_methods()))
def test_docstrings_of_methods_are_complete(name):
    assert faults(name, CHECKS) == []


@pytest.mark.parametrize(
    "name", list(functions("skfisher.dask", "skfisher.datasets", "skfisher.descriptors"))
)
def test_docstrings_of_functions_are_complete(name):
    assert faults(name, CHECKS) == []


@pytest.mark.parametrize("name", list(functions("skfisher.ops.")))
def test_docstrings_of_operations_are_right(name):
    # they may point to each other for parameters: "as in `soft_statistics`"
    assert faults(name, CHECKS - {"PR01", "PR03", "PR04"}) == []


OF_TORCH = {
    f"skfisher.torch.{name}"
    for name in ("layers", "normalization", "operator", "passes", "pooling", "rows")
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    if name in OF_TORCH:
        pytest.importorskip("torch")
    if name.startswith("skfisher.dask."):
        pytest.importorskip("distributed")
    results = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert results.failed == 0


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_in_the_guide_run(page):
    if page.stem == "torch":
        pytest.importorskip("torch")
    if page.stem == "distributed":
        pytest.importorskip("distributed")
    results = doctest.testfile(
        str(page), module_relative=False, optionflags=FLAGS, encoding="utf-8"
    )
    assert results.failed == 0


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_readme_example_classifies_digits(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len(example.strip().splitlines()) <= 11
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    assert float(capsys.readouterr().out) >= 0.98  # as it says

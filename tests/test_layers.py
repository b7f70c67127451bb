"""The floors of the package: what may import what, read off the source.

A file imports from lower floors, or from its own floor as long as no imports go in circles.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

import skfisher

ROOT = Path(skfisher.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]

# From the ground up. A folder stands for all files in it; a file not listed is an error.
FLOORS = [
    ["arrays/", "_compat.py", "process_state.py", "version.py", "warning.py"],
    ["bags/", "cuda/", "native/"],
    ["ops/", "contract/"],
    ["parallel/"],
    ["layers/", "codebooks/", "descriptors/", "svm/"],
    ["encoders/", "training/", "torch/"],
    ["joint/", "gradient_features/"],
    ["dask/", "display/", "datasets.py", "environment.py", "__init__.py", "__main__.py"],
]
MODULES_OF_TORCH = {
    f"torch/{name}.py"
    for name in ("layers", "normalization", "operator", "passes", "pooling", "rows")
}
# These are imported by functions of the files that the table names, and nowhere else. Modules of
# PyTorch are of a file that PyTorch is imported at the top of: it is read when they are asked for.
OPTIONAL = {
    "cupy": {"arrays/devices.py", "arrays/libraries.py", "cuda/module.py", "parallel/gpus.py"},
    "torch": {"torch/modules.py", *MODULES_OF_TORCH},
    "dask": {"dask/kernel.py"},
    "distributed": {"dask/workers.py"},
    "cloudpickle": {"dask/workers.py"},
    "matplotlib": {
        f"display/{name}.py"
        for name in ("components", "encodings", "fisher_vector", "mixture", "pyplot")
    },
}


def floor(name):
    """Return the number of the floor a file lives on."""
    for number, rooms in enumerate(FLOORS):
        if any(name == room or (room.endswith("/") and name.startswith(room)) for room in rooms):
            return number
    raise AssertionError(f"{name} has no floor: give it one in tests/test_layers.py")


def read_imports(source, package=()):
    """Yield (module, name or None, inside a function) for every import in a source text.

    Parameters
    ----------
    source : str
    package : tuple of str
        The package the file is in, to resolve relative imports.
    """
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            for alias in node.names:
                yield module, alias.name, id(node) in inside


@functools.cache
def imports_of(name):
    package = ("skfisher", *Path(name).parts[:-1])
    return list(read_imports((ROOT / name).read_text("utf-8"), package))


def file_of(module, name):
    """Return the file of ours that ``from module import name`` reads, or None."""
    for parts in (f"{module}.{name}".split("."), module.split(".")):
        if parts[0] == "skfisher":
            path = "/".join(parts[1:])
            for candidate in (f"{path}.py", f"{path}/__init__.py".lstrip("/")):
                if candidate in NAMES:
                    return candidate
    return None


def ours(name):
    """Return the files of ours that a file imports."""
    found = {file_of(module, part) for module, part, _ in imports_of(name)}
    return found - {None, name}


def test_the_reader_of_imports():
    source = """
import a.b
from . import c
from .d import e
from ..f import g
def h():
    import i
    from j import k
"""
    assert list(read_imports(source, ("p", "q"))) == [
        ("a.b", None, False),
        ("p.q", "c", False),
        ("p.q.d", "e", False),
        ("p.f", "g", False),
        ("i", None, True),
        ("j", "k", True),
    ]
    assert file_of("skfisher.bags.bags", "Bags") == "bags/bags.py"
    assert file_of("skfisher", "datasets") == "datasets.py"
    assert file_of("skfisher", "Bags") == "__init__.py"
    assert file_of("skfisher.ops", None) == "ops/__init__.py"
    assert file_of("numpy", "array") is None


def test_contributors_read_the_floors_that_are_held():
    lines = (ROOT.parent / "CONTRIBUTING.md").read_text("utf-8").splitlines()
    rows = [re.match(r"\| (\d) \| ([^|]*) \|", line) for line in lines]
    table = [(int(row[1]), room) for row in rows if row for room in re.findall(r"`(.+?)`", row[2])]
    assert table == [(number, room) for number, rooms in enumerate(FLOORS) for room in rooms]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_imports_from_a_higher_floor(name):
    own = floor(name)
    assert [other for other in ours(name) if floor(other) > own] == []


def test_imports_have_no_cycles():
    waiting = {name: ours(name) for name in NAMES}
    while waiting:
        free = {name for name, needs in waiting.items() if not needs & waiting.keys()}
        assert free, f"these import each other: {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in free}


KERNELS_AND_OPERATIONS = [n for n in NAMES if n.startswith(("cuda/", "native/", "ops/"))]


@pytest.mark.parametrize("name", KERNELS_AND_OPERATIONS)
def test_operations_and_kernels_know_arrays_only(name):
    lower = ("arrays/", "cuda/", "native/", "ops/")
    assert [other for other in ours(name) if not other.startswith(lower)] == []
    roots = {module.split(".")[0] for module, _, _ in imports_of(name)}
    assert roots.isdisjoint({"sklearn", "joblib", "torch", "matplotlib"})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "_compat.py"])
def test_private_names_of_scikit_learn_come_from_one_file(name):
    private = [
        (module, part)
        for module, part, _ in imports_of(name)
        if module.split(".")[0] == "sklearn"
        and any(piece.startswith("_") for piece in [*module.split("."), part or ""])
    ]
    assert private == []


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_are_imported_in_functions_of_few_files(package):
    found = {
        (name, inside)
        for name in NAMES
        for module, _, inside in imports_of(name)
        if module.split(".")[0] == package
    }
    assert {name for name, _ in found} <= OPTIONAL[package]
    assert all(inside for name, inside in found if name not in MODULES_OF_TORCH)

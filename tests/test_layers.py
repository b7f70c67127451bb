"""The floors of the package: what may import what, read off the source.

A file imports from lower floors, or from its own floor as long as no imports go in circles.
"""

import ast
from pathlib import Path

import pytest

import skfisher

ROOT = Path(skfisher.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]

# From the ground up. A folder stands for all files in it; a file not listed is an error.
FLOORS = [
    [
        "backend.py",
        "_compat.py",
        "mapped.py",
        "npy.py",
        "ragged.py",
        "storage.py",
        "tensors.py",
        "bags.py",
        "warning.py",
        "dense.py",
        "feature_names.py",
    ],
    ["validation.py", "estimator.py", "cuda/", "interchange.py", "output.py"],
    ["ops/"],
    [
        "parallel.py",
        "passes.py",
        "em.py",
        "fisher_encoding.py",
        "sdca.py",
        "linear_svm.py",
        "optimizers.py",
        "networks.py",
        "torch_modules.py",
        "whitening.py",
        "targets.py",
        "joint_model.py",
        "joint_training.py",
        "joint_verdict.py",
    ],
    [
        "mixture_fitter.py",
        "mixture.py",
        "encoding.py",
        "normalization.py",
        "descriptors.py",
        "patches.py",
        "gradient_features.py",
        "gradient_kernel.py",
        "gradient_map.py",
        "joint_settings.py",
        "joint_fitted.py",
        "joint_fit.py",
        "joint_input.py",
        "joint.py",
        "linear_sdca.py",
    ],
    [
        "pyplot.py",
        "inspection.py",
        "joint_inspection.py",
        "datasets.py",
        "extraction.py",
        "show_versions.py",
        "__init__.py",
    ],
]
# These may be imported where and how the table says, and nowhere else.
OPTIONAL = {
    "cupy": {"backend.py", "cuda/module.py", "cuda/transfer.py"},
    "torch": {"torch_modules.py"},
    "matplotlib": {"inspection.py", "pyplot.py"},
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
    """Return the files of ours that a file imports, save for the version in __init__."""
    found = {file_of(m, n) for m, n, _ in imports_of(name) if (m, n) != ("skfisher", "__version__")}
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
    assert file_of("skfisher.bags.bags", "Bags") == "bags.py"
    assert file_of("skfisher", "bags") == "bags.py"
    assert file_of("skfisher", "Bags") == "__init__.py"
    assert file_of("skfisher.ops", None) == "ops/__init__.py"
    assert file_of("numpy", "array") is None


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


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("cuda/", "ops/"))])
def test_operations_and_kernels_know_arrays_only(name):
    lower = ("backend.py", "ragged.py", "cuda/", "ops/")
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
    assert all(inside for _, inside in found)

"""Sphinx configuration."""

import importlib.util
import inspect
import os
import re
from pathlib import Path

import skfisher

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
HAS_TORCH = importlib.util.find_spec("torch") is not None

project = "skfisher"
author = "The skfisher developers"
copyright = "The skfisher developers"
version = release = skfisher.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",  # MathJax among the site's own files
    "myst_parser",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "auto_examples/**/*.ipynb"]
default_role = "literal"

autosummary_generate = True
autodoc_typehints = "none"
autodoc_mock_imports = [] if HAS_TORCH else ["torch"]  # whose modules are documented without it
autodoc_default_options = {"members": True, "inherited-members": True}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
toc_object_entries_show_parents = "hide"


def needs_data(example):
    """Tell whether an example reads data that does not come with scikit-learn."""
    loaders = r"SKFISHER_DATA|load_(fsdd|japanese_vowels|scene15)"
    return re.search(loaders, example.read_text(encoding="utf-8")) is not None


def needs_torch(example):
    """Tell whether an example imports PyTorch."""
    source = example.read_text(encoding="utf-8")
    return re.search(r"^import torch", source, re.MULTILINE) is not None


# Examples on data of one's own run where SKFISHER_DATA names the folder, those with PyTorch where
# it is installed; elsewhere they are shown.
runnable = [
    re.escape(example.name)
    for example in sorted(EXAMPLES.rglob("plot_*.py"))
    if ("SKFISHER_DATA" in os.environ or not needs_data(example))
    and (HAS_TORCH or not needs_torch(example))
]

sphinx_gallery_conf = {
    "examples_dirs": str(EXAMPLES),
    "gallery_dirs": "auto_examples",
    "subsection_order": [
        f"../examples/{section}"
        for section in ("images", "sound", "series", "slides", "training", "kernels", "scale")
    ],
    "filename_pattern": rf"/({'|'.join(runnable)})$",
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("skfisher",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "plot_gallery": "True",
}

html_theme = "pydata_sphinx_theme"
html_title = "skfisher"
html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system says
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {
        "text": "skfisher",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
    },
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without a section around them need no empty sidebar.
html_sidebars = {page: [] for page in ("index", "install", "tour", "faq")}


def show_kept_figure(app, page, source):
    """Show the figure that `keep_figure.py` kept on the page of an example that was not run."""
    gallery, _, name = page.partition("/")
    example = EXAMPLES / f"{name}.py"
    if gallery != "auto_examples" or not example.is_file() or re.escape(example.name) in runnable:
        return
    file, date = re.search(
        r'thumbnail_path = "(.*-(\d{4}-\d\d-\d\d)\.png)"', example.read_text(encoding="utf-8")
    ).groups()
    before, footer, after = source[0].partition(".. _sphx_glr_download_")
    figure = (
        f".. figure:: /{file}\n   :alt: The last figure of this example.\n\n"
        f"   The last figure, from a run on {date}. This page was built without running the code."
        "\n\n"
    )
    source[0] = before + figure + footer + after


def skip_what_others_document(app, what, name, obj, skip, options):
    """Leave out methods inherited from scikit-learn: its documentation describes them."""
    function = inspect.unwrap(getattr(obj, "fget", None) or getattr(obj, "__func__", obj))
    home = getattr(function, "__module__", None) or ""
    if what == "class" and callable(function) and not home.startswith("skfisher"):
        return True
    return None


def sign_modules(app, what, name, obj, options, signature, annotation):
    """Sign modules of PyTorch by their own parameters, where its classes are stand-ins."""
    if what != "class" or not name.startswith("skfisher.torch."):
        return None
    _, *parameters = inspect.signature(obj.__init__).parameters.values()
    return str(inspect.Signature(parameters)), annotation


def setup(app):
    """Register what autodoc asks."""
    app.connect("source-read", show_kept_figure)
    app.connect("autodoc-process-signature", sign_modules)
    app.connect("autodoc-skip-member", skip_what_others_document)

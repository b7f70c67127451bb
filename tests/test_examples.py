"""Examples: those that need data say so and stop, where the data are not there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("plot_*.py"))
ON_DATA = [path for path in EXAMPLES if "SKFISHER_DATA" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", ON_DATA, ids=lambda path: path.stem)
def test_missing_data_are_named_and_no_error(path, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "SKFISHER_DATA"}
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "SKFISHER_DATA is not set: get " in done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_title_is_a_heading_and_there_is_a_picture(path):
    source = path.read_text("utf-8")
    _, title, line, *_ = source.splitlines()
    assert source.startswith('"""\n')
    assert line == "=" * len(title)
    assert "plt.show()" in source


# Pages of these may be built where they cannot run: see docs/conf.py.
KEPT = [
    path
    for path in EXAMPLES
    if path in ON_DATA
    or re.search(r"^import torch|import .*load_japanese_vowels", path.read_text("utf-8"), re.M)
]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_dated_figure_is_kept_for_pages_that_are_built_without_data_or_pytorch(path):
    (name,) = re.findall(
        r'^# sphinx_gallery_thumbnail_path = "(.*)"$', path.read_text("utf-8"), re.M
    )
    assert re.fullmatch(rf"_static/examples/{path.stem}-20\d\d-[01]\d-[0-3]\d\.png", name)
    assert 1000 < (ROOT / "docs" / name).stat().st_size <= 60_000


def test_no_figure_is_kept_in_vain():
    figures = {figure.name for figure in (ROOT / "docs/_static/examples").iterdir()}
    assert len(figures) == len(KEPT)
    for figure in figures:
        assert any(figure in path.read_text("utf-8") for path in KEPT)

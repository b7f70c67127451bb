"""Examples: those that need data say so and stop, where the data are not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("plot_*.py"))
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

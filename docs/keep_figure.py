"""Run an example and keep its last figure, for pages that are built where it cannot run.

    SKFISHER_DATA=... python docs/keep_figure.py examples/images/plot_scenes.py

The figure goes to docs/_static/examples, with the date of the run in its name, in the place of an
older one, and the example is told to use it as its thumbnail. `conf.py` shows it on the page of
an example that was not run.
"""

import datetime
import re
import runpy
import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from PIL import Image

FIGURES = Path(__file__).parent / "_static" / "examples"
DOTS = 100  # an inch
SETTING = "# sphinx_gallery_thumbnail_path = "


def run(example):
    """Run an example and return its last figure, as a picture of few colours."""
    mpl.use("agg")
    runpy.run_path(str(example), run_name="__main__")
    file = BytesIO()
    plt.figure(plt.get_fignums()[-1]).savefig(file, dpi=DOTS)
    return Image.open(file).convert("RGB").quantize(64)


def set_thumbnail(source, figure):
    """Return the source of an example, told to use a figure as its thumbnail."""
    line = f'{SETTING}"_static/examples/{figure.name}"'
    source = re.sub(rf"^{SETTING}.*\n\n", "", source, flags=re.MULTILINE)
    before, quotes, after = source.partition('\n"""\n')
    return f"{before}{quotes}\n{line}\n{after}"


def main():
    """Keep the figure of the example that the command line names."""
    example = Path(sys.argv[1])
    picture = run(example)
    for old in FIGURES.glob(f"{example.stem}-????-??-??.png"):
        old.unlink()
    figure = FIGURES / f"{example.stem}-{datetime.date.today()}.png"
    picture.save(figure, optimize=True)
    example.write_text(set_thumbnail(example.read_text("utf-8"), figure), encoding="utf-8")
    print(f"{figure}: {figure.stat().st_size} bytes")


if __name__ == "__main__":
    main()

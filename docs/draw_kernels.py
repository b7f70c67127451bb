"""Draw ``_static/kernels.svg``, how the kernels cut their work.

Run it as ``python docs/draw_kernels.py``. The sizes of blocks, tiles and chunks are read from
the package, for K = 64 components in D = 64 dimensions.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

from skfisher.cuda import configurations, layout

K, D = 64, 64
LENGTHS = [300, 150, 600]  # of the bags in the picture
ROWS_AT_ONCE, SLAB = 64, 32  # of moments.cu and score.cu
INK, FAINT, LINE, PALE = "#22303c", "#6f7d89", "#c3ccd4", "#f1f4f6"
BAGS = ["#d1495b", "#e0982b", "#2e86ab"]
TILE, THREAD = "#b9d7e3", "#1d5c77"
TOP, BOTTOM = 185, 185 + 1.2 * 128  # of what the panels line up by


class Canvas:
    """Axes whose unit is a hundredth of an inch; y grows downwards."""

    def __init__(self, width, height):
        self.figure = plt.figure(figsize=(width / 100, height / 100), facecolor="white")
        self.ax = self.figure.add_axes([0, 0, 1, 1])
        self.ax.set(xlim=(0, width), ylim=(height, 0))
        self.ax.axis("off")

    def box(self, x, y, width, height, **style):
        style = {"facecolor": PALE, "edgecolor": LINE, "lw": 0.8} | style
        self.ax.add_patch(Rectangle((x, y), width, height, **style))

    def tile(self, *where):
        self.box(*where, facecolor=TILE, edgecolor="none")

    def thread(self, *where, result=True):
        """Mark what one thread holds, or reads."""
        self.box(*where, facecolor=THREAD, edgecolor="none", alpha=1 if result else 0.5)

    def text(self, x, y, text, **style):
        style = {"ha": "center", "va": "center", "fontsize": 7.5, "linespacing": 1.3} | style
        self.ax.text(x, y, text, **style)

    def title(self, x, text, formulas):
        self.text(x, 26, text, ha="left", va="baseline", fontsize=11, weight="bold")
        for line, formula in enumerate(formulas):
            self.text(x, 386 + 19 * line, formula, ha="left", va="baseline", fontsize=8)

    def beside(self, x, start, stop, text, side):
        """Mark a length beside x, to the left (side=-1) or right, with a text."""
        ends = [x, x + 4 * side, x + 4 * side, x]
        self.ax.plot(ends, [start, start, stop, stop], color=INK, lw=0.8)
        ha = "left" if side > 0 else "right"
        self.text(x + 8 * side, (start + stop) / 2, text, ha=ha)

    def along(self, y, start, stop, text, side):
        """Mark a length above (side=-1) or below y, with a text."""
        ends = [y, y + 4 * side, y + 4 * side, y]
        self.ax.plot([start, start, stop, stop], ends, color=INK, lw=0.8)
        self.text((start + stop) / 2, y + 8 * side, text, va="bottom" if side < 0 else "top")

    def arrow(self, start, stop):
        style = "-|>,head_width=2.5,head_length=4"
        self.ax.add_patch(FancyArrowPatch(start, stop, arrowstyle=style, color=INK, lw=1))


def draw_rows(canvas, left, rows_of_score, chunks):
    """Draw the descriptors of all bags: blocks of score at the left, chunks at the right."""
    canvas.title(left, "Rows", ["Cut for score by the row,", "for moments bag by bag."])
    n, top = sum(LENGTHS), 85
    scale = (BOTTOM - top) / n
    x = left + 60
    ends = np.cumsum(LENGTHS)
    for end, length, color in zip(ends, LENGTHS, BAGS, strict=True):
        canvas.box(x, top + (end - length) * scale, 44, length * scale, facecolor=color,
                   edgecolor="white", lw=1.5)  # fmt: skip
    for row in range(0, n, rows_of_score):
        start, stop = (top + scale * r for r in (row + 7, min(row + rows_of_score, n) - 7))
        canvas.ax.plot([x - 5, x - 9, x - 9, x - 5], [start, start, stop, stop], color=INK, lw=0.9)
    for bag, start, stop in chunks:
        canvas.box(x + 52, top + start * scale + 2, 13, (stop - start) * scale - 4,
                   facecolor="white", edgecolor=BAGS[bag], lw=1.4)  # fmt: skip
    canvas.text(x + 22, top - 19, "descriptors\nof three bags")
    middle = (top + BOTTOM) / 2
    canvas.text(x - 28, middle, f"blocks of score: {rows_of_score} rows each,\nwhatever the bag",
                rotation=90)  # fmt: skip
    canvas.text(x + 84, middle, f"chunks: up to {layout.chunk_rows(K, D)} rows of one bag,\n"
                "a block of moments for each", rotation=90)  # fmt: skip


def draw_score(canvas, left, score):
    """Draw one block of score: rows at the left, the mixture above, their product between."""
    canvas.title(
        left, "score",
        ["$l_{tk}$ = const$_k - \\frac{1}{2} \\, \\Sigma_d \\, (x_{td}/\\sigma_{kd} - "
         "\\mu_{kd}/\\sigma_{kd})^2$",
         "$\\gamma_t$ = softmax of $l_t$, by the threads of a row"],
    )  # fmt: skip
    s = 1.2
    rows, width, height = s * score.rows, s * score.components, s * D
    x, result, above = left + 42, left + 42 + height + 20, TOP - height - 20
    canvas.box(x, TOP, height, rows)
    canvas.tile(x, TOP, s * SLAB, rows)
    canvas.box(result, above, width, height)
    canvas.tile(result, above, width, s * SLAB)
    canvas.box(result, TOP, width, rows, facecolor="white", edgecolor=INK)
    step = score.threads // (score.components // 4)  # threads side by side in a column
    for i in range(score.rows // step):
        y = TOP + s * (5 + i * step)
        canvas.thread(x, y, s * SLAB, 2, result=False)
        canvas.thread(result + s * 24, y, s * 4, 2.4)
    canvas.thread(result + s * 24, above, s * 4, s * SLAB, result=False)
    canvas.along(TOP - 4, x, x + s * SLAB, f"slab of {SLAB}\ndimensions", side=-1)
    canvas.beside(x - 4, TOP, TOP + rows, f"{score.rows}\nrows", side=-1)
    canvas.text(x + s * 48, TOP + rows / 2, "descriptors", rotation=90, color=FAINT)
    canvas.text(result + width / 2, above + s * 48, "mixture", color=FAINT)
    canvas.text(result + s * 48, TOP + rows / 2, "posteriors", rotation=90, color=FAINT)
    canvas.beside(result + width + 4, above, above + s * SLAB, "same\nslab", side=1)
    canvas.along(TOP + rows + 4, result, result + width, f"{score.components} components", side=1)
    canvas.text(result + width + 8, TOP + rows / 2,
                f"a thread:\n{score.rows // step} rows by\n4 components", ha="left",
                color=THREAD)  # fmt: skip


def draw_moments(canvas, left, moments):
    """Draw one block of moments: posteriors at the left, rows above, the sums between."""
    canvas.title(
        left, "moments",
        ["$S_0 = \\Sigma_t \\, \\gamma_{tk}$,  $S_1 = \\Sigma_t \\, \\gamma_{tk} x_{td}$,  "
         "$S_2 = \\Sigma_t \\, \\gamma_{tk} x_{td}^2$",
         "one row $t$ after the other"],
    )  # fmt: skip
    s, piece = 1.2, 25
    steps = layout.chunk_rows(K, D) // ROWS_AT_ONCE
    width, height, length = s * moments.features, s * moments.components, piece * steps
    x, result, above = left + 22, left + 22 + length + 12, TOP - length - 12
    now = 1  # the step shown
    for i in range(steps):
        draw = canvas.tile if i == now else canvas.box
        draw(x + i * piece, TOP, piece, height)
        draw(result, above + i * piece, width, piece)
    canvas.box(result, TOP, width, height, facecolor="white", edgecolor=INK)
    k, d = s * 24, s * 20
    canvas.thread(x + now * piece, TOP + k, piece, s * 8, result=False)
    canvas.thread(result + d, above + now * piece, s * 4, piece, result=False)
    canvas.thread(result + d, TOP + k, s * 4, s * 8)
    canvas.along(TOP - 4, x, x + length, "posteriors\nof a chunk", side=-1)
    canvas.along(TOP + height + 4, x + now * piece, x + (now + 1) * piece,
                 f"{ROWS_AT_ONCE} rows\nat a time", side=1)  # fmt: skip
    canvas.beside(x - 4, TOP, TOP + height, "", side=-1)
    canvas.text(x - 15, TOP + height / 2, f"{moments.components} components", rotation=90)
    canvas.text(result + s * 44, TOP + height / 2, "sums", color=FAINT)
    canvas.text(result + width / 2, above - 10, "its descriptors")
    canvas.along(TOP + height + 4, result, result + width, f"{moments.features} dimensions", side=1)
    canvas.text(result + width / 2, TOP + height + 54, "a thread: $S_1$ and $S_2$ of\n"
                "8 components by\n4 dimensions", color=THREAD)  # fmt: skip


def draw_finish(canvas, left, chunks):
    """Draw the partial sums of every bag's chunks, and the one row they become."""
    canvas.title(left, "finish", ["Sums in float64, in the order", "of the chunks; no atomics."])
    for bag, color in enumerate(BAGS):
        y = 130 + 82 * bag
        parts = [chunk for chunk in chunks if chunk[0] == bag]
        for i in range(len(parts)):
            canvas.box(left + 4 + 24 * i, y, 15, 15, facecolor="white", edgecolor=color, lw=1.4)
            if i:
                canvas.text(left - 0.5 + 24 * i, y + 7, "+", fontsize=9)
        canvas.arrow((left + 72, y + 7), (left + 92, y + 7))
        canvas.box(left + 98, y + 2, 64, 11, facecolor=color, edgecolor="none")
    canvas.text(left + 36, 96, "partial sums\nof its chunks")
    canvas.text(left + 130, 96, "Fisher vector\nof a bag")


def main():
    """Read the sizes, draw and save."""
    mpl.rcParams.update(
        {
            "font.size": 9,
            "text.color": INK,
            "svg.hashsalt": "skfisher",
            "font.family": "DejaVu Sans",
            "mathtext.fontset": "dejavusans",
        }
    )
    stops = np.cumsum(LENGTHS)
    chunks, _ = layout.chunk_table(stops - LENGTHS, stops, K, D)
    score, moments = configurations.score(K), configurations.moments(K, D, centred=False)
    canvas = Canvas(960, 425)
    draw_rows(canvas, 12, score.rows, chunks)
    draw_score(canvas, 205, score)
    draw_moments(canvas, 522, moments)
    draw_finish(canvas, 788, chunks)
    target = Path(__file__).parent / "_static" / "kernels.svg"
    canvas.figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()

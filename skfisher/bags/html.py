"""Bags as notebooks show them: their numbers, and how long they are, in a small picture."""

from html import escape

import numpy as np

from skfisher.arrays.libraries import is_cupy
from skfisher.bags.file_rows import FileRows
from skfisher.bags.mapped import file_of, is_mapped
from skfisher.bags.sharded_values import ShardedValues

__all__ = ["html_of"]

BARS, BAR_WIDTH, HEIGHT = 24, 9, 48


def html_of(bags):
    """Return a table of what bags are, in HTML that takes the colours of the page.

    Parameters
    ----------
    bags : Bags

    Returns
    -------
    html : str
        With a histogram of the lengths as SVG, if there are bags of different lengths.
    """
    lengths, n = bags.lengths, bags.n_descriptors
    width = f"{bags.n_features} {bags.dtype}"
    if bags.feature_names is not None:
        names = [str(name) for name in bags.feature_names[:6]]
        width += f" ({', '.join(names)}{', …' if bags.n_features > 6 else ''})"
    rows = {"bags": f"{len(bags):,}", "descriptors": f"{n:,}"}
    if len(bags):
        few, median, many = int(lengths.min()), float(np.median(lengths)), int(lengths.max())
        spread = f"{few:,} to {many:,}, median {median:,.6g}"
        rows["in a bag"] = f"{few:,}" if few == many else spread
    rows |= {
        "features": width,
        "size": _bytes(n * bags.n_features * bags.dtype.itemsize),
        "kept in": _place(bags),
    }
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    # a page that is in no standard's mode gives tables a colour of their own
    table = f'<table style="color:inherit">{cells}</table>'
    return f"<div><strong>Bags</strong>{table}{_histogram(lengths)}</div>"


def _place(bags):
    values = bags.values
    if isinstance(values, FileRows):
        return f"{len(values.paths):,} files, such as {values.paths[0]}"
    if isinstance(values, ShardedValues):
        return f"{len(values.shards):,} shards, such as {values.shards[0].folder}"
    if is_mapped(values):
        return f"a mapped file{f', {path}' if (path := file_of(values)) else ''}"
    return f"the memory of {values.device}" if is_cupy(values) else "memory"


def _bytes(n):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


def _histogram(lengths):
    """Return bars of how many bags have which length, in the colour of the text around."""
    if len(lengths) == 0 or lengths.min() == lengths.max():
        return ""
    n_bars = min(BARS, int(np.ptp(lengths)) + 1)
    counts, edges = np.histogram(lengths, n_bars)
    bars = []
    for i, count in enumerate(counts.tolist()):
        height = HEIGHT * count / counts.max()
        title = f"{count:,} bags of {np.ceil(edges[i]):.0f} to {np.floor(edges[i + 1]):.0f}"
        bars.append(
            f'<rect x="{i * BAR_WIDTH}" y="{HEIGHT - height:.1f}" width="{BAR_WIDTH - 1}" '
            f'height="{height:.1f}"><title>{title}</title></rect>'
        )
    size = f'width="{n_bars * BAR_WIDTH}" height="{HEIGHT}"'
    return (
        f'<figure style="margin:0.5em 0"><svg xmlns="http://www.w3.org/2000/svg" {size} role="img" '
        f'aria-label="Histogram of lengths" fill="currentColor" fill-opacity="0.6">{"".join(bars)}'
        "</svg><figcaption>lengths of bags</figcaption></figure>"
    )

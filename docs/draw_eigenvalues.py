"""Draw ``_static/eigenvalues.svg``, what second-order pooling makes of eigenvalues.

Run it as ``python docs/draw_eigenvalues.py``. The curves are what the functions of the package
return for diagonal matrices.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from skfisher.ops.matrix_function import eigen, matrix_function
from skfisher.ops.newton_schulz import newton_schulz

INK, LINE = "#22303c", "#d5dce2"
COLORS = ["#2e86ab", "#5aa469", "#d1495b", "#edae49", "#8367c7"]
SHARES = np.logspace(-4, -0.31, 60)  # eigenvalues, as shares of the trace


def of_pairs(function):
    """Return what a function of matrices makes of eigenvalues a, each beside 1 - a."""
    pairs = np.stack([np.diag([a, 1 - a]) for a in SHARES])
    return function(pairs)[:, 0, 0]


def power(p, alpha):
    """Return a power of matrices."""
    return matrix_function(eigen(p, eps=1e-16), function="power", power=alpha)


def logarithm(p):
    """Return the logarithm with the ridge that is the default."""
    return matrix_function(eigen(p, eps=1e-16, ridge=1e-3), function="log")


def axes(figure, place, title, label):
    """Add a panel."""
    ax = figure.add_subplot(1, 2, place)
    ax.set(xscale="log", xlabel="eigenvalue / trace", ylabel=label)
    ax.set_title(title, fontsize=11, color=INK)
    ax.grid(color=LINE, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def main():
    """Write the picture."""
    mpl.rcParams.update({"svg.hashsalt": "skfisher", "font.size": 10, "text.color": INK})
    figure = plt.figure(figsize=(9, 3.6), layout="constrained")
    left = axes(figure, 1, "towards the root", "value")
    left.set_yscale("log")
    left.plot(SHARES, of_pairs(lambda p: power(p, 0.5)), color=INK, label="root")
    left.plot(SHARES, SHARES, color=INK, linestyle=":", label="covariance itself")
    for n, color in zip((3, 5, 7, 10), COLORS, strict=False):
        values = of_pairs(lambda p, n=n: newton_schulz(p, n_iter=n))
        left.plot(SHARES, values, color=color, label=f"Newton-Schulz, {n} steps")
    left.legend(frameon=False, fontsize=8.5)
    right = axes(figure, 2, "from the largest to the smallest", "value, largest 1, smallest 0")
    curves = [("covariance itself", lambda p: p), ("root", lambda p: power(p, 0.5))]
    curves += [("power 0.3", lambda p: power(p, 0.3)), ("logarithm, ridge 1e-3", logarithm)]
    for (name, function), color in zip(curves, COLORS, strict=False):
        values = of_pairs(function)
        right.plot(SHARES, (values - values[0]) / (values[-1] - values[0]), color=color, label=name)
    right.legend(frameon=False, fontsize=8.5)
    path = Path(__file__).parent / "_static" / "eigenvalues.svg"
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

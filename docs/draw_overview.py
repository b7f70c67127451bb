"""Draw ``_static/overview.svg``, the way of the data. Run it as ``python docs/draw_overview.py``.

Nothing in the picture is invented: the bags are sampled, and the mixture, the Fisher
vectors and the support vector machine are fitted to them.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import Bags, FisherVectorEncoder, PowerL2Normalizer

INK, FAINT, LINE = "#22303c", "#8a97a3", "#d5dce2"
CLASSES = ["#d1495b", "#2e86ab"]
COMPONENTS = ["#edae49", "#5aa469", "#8367c7"]
CENTRES = np.array([[-1.6, -0.9], [1.5, -1.0], [0.1, 1.5]])
# How the two kinds of bags share the three centres, and how widely they spread there.
SHARES = np.array([[0.5, 0.3, 0.2], [0.25, 0.35, 0.4]])
SPREADS = np.array([[0.62, 0.40, 0.45], [0.38, 0.60, 0.50]])


def sample_bags(n_bags, rng):
    """Return bags of 25 to 120 descriptors in two dimensions, and their classes."""
    y = np.arange(n_bags) % 2
    bags = []
    for label in y:
        centre = rng.choice(3, size=rng.integers(25, 120), p=SHARES[label])
        noise = rng.normal(size=(len(centre), 2)) * SPREADS[label, centre, None]
        bags.append(CENTRES[centre] + noise)
    return Bags.from_list(bags), y


def frame(figure, left, width, title, below):
    """Add one panel with its title above and the shape of its content below."""
    ax = figure.add_axes([left, 0.185, width, 0.62])
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.text(0.5, 1.115, title, transform=ax.transAxes, ha="center", fontsize=12.5, weight="bold")
    ax.text(0.5, -0.135, below, transform=ax.transAxes, ha="center", va="center", color=FAINT)
    return ax


def arrow(figure, start, stop, text):
    """Draw an arrow between two panels, with the name of the step above it."""
    figure.add_artist(
        FancyArrowPatch(
            (start, 0.5),
            (stop, 0.5),
            arrowstyle="-|>,head_width=3,head_length=5",
            color=INK,
            lw=1.3,
        )
    )
    figure.text((start + stop) / 2, 0.545, text, ha="center", color=INK)


def draw_bags(figure, bags, y, left, width):
    """Draw three bags, one above the other, as many points as they have."""
    frame(figure, left, width, "Bags", "any number of\ndescriptors each")
    by_length = np.argsort(bags.lengths)
    for row, sample in enumerate((by_length[-2], by_length[0], by_length[30])):
        ax = figure.add_axes([left, 0.62 - 0.215 * row, width, 0.19])
        ax.add_patch(
            FancyBboxPatch(
                (0.02, 0.03),
                0.96,
                0.94,
                transform=ax.transAxes,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor="white",
                edgecolor=LINE,
                mutation_aspect=2,
            )
        )
        ax.scatter(*bags[sample].T, s=5, color=CLASSES[y[sample]], alpha=0.85, linewidths=0)
        ax.set(xlim=(-5.0, 4.6), ylim=(-3.2, 3.5))
        ax.axis("off")


def draw_mixture(figure, bags, encoder, left, width):
    """Draw all descriptors, and two ellipses for each component."""
    ax = frame(figure, left, width, "Gaussian mixture", "fitted to the descriptors\nof all bags")
    ax.scatter(*bags.values[::5].T, s=3, color="#b4bec7", linewidths=0)
    for mean, variance, color in zip(encoder.means_, encoder.variances_, COMPONENTS, strict=True):
        for scale, alpha in ((2, 0.20), (4, 0.20)):
            size = scale * np.sqrt(variance)
            ax.add_patch(Ellipse(mean, *size, facecolor=color, alpha=alpha, edgecolor="none"))
            ax.add_patch(Ellipse(mean, *size, facecolor="none", edgecolor=color, lw=1.3))
        ax.plot(*mean, "o", ms=4, color=color)
    ax.set(xlim=(-3.6, 3.4), ylim=(-3.0, 3.4))


def draw_encodings(figure, encodings, y, left, width):
    """Draw the encodings of sixteen bags as rows of a matrix, one class above the other."""
    ax = frame(figure, left, width, "Fisher vectors", "one row of fixed length\nfor every bag")
    rows = np.concatenate([np.flatnonzero(y == label)[:8] for label in (0, 1)])
    ax.imshow(encodings[rows], cmap="PuOr_r", vmin=-0.45, vmax=0.45, aspect="auto")
    ax.set_xticks(np.arange(-0.5, encodings.shape[1]), minor=True)
    ax.set_yticks(np.arange(-0.5, len(rows)), minor=True)
    ax.grid(which="minor", color="white", lw=0.8)
    ax.tick_params(which="both", length=0)
    ax.axhline(7.5, color="white", lw=4)
    for row, label in enumerate(y[rows]):
        ax.plot(-1.0, row, "o", ms=4, color=CLASSES[label], clip_on=False)
    for border, stop, name in ((0, 3, "weights"), (3, 9, "means"), (9, 15, "variances")):
        ax.text((border + stop) / 2 - 0.5, -0.95, name, ha="center", fontsize=8, color=FAINT)
        if border:
            ax.axvline(border - 0.5, color="white", lw=3)


def draw_classes(figure, encodings, y, svm, left, width):
    """Draw the encodings across the separating plane, and along their widest direction in it."""
    ax = frame(figure, left, width, "Linear SVM", "a decision\nfor every bag")
    normal = svm.coef_[0] / np.linalg.norm(svm.coef_)
    across = svm.decision_function(encodings)
    along = PCA(1).fit_transform(encodings - np.outer(encodings @ normal, normal))[:, 0]
    across, along = across / np.abs(across).max(), along / np.abs(along).max()
    tilt = np.deg2rad(-28)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    points = np.column_stack([across, 0.9 * along]) @ turn.T
    margin = 1 / np.abs(svm.decision_function(encodings)).max()
    for offset, style in ((-margin, (0, (4, 3))), (0, "-"), (margin, (0, (4, 3)))):
        ends = np.array([[offset, -1.6], [offset, 1.6]]) @ turn.T
        ax.plot(*ends.T, color=INK, lw=1.4 if offset == 0 else 0.8, ls=style)
    for label, color in enumerate(CLASSES):
        ax.scatter(*points[y == label].T, s=20, color=color, edgecolor="white", lw=0.5, zorder=3)
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))


def main():
    """Fit, draw and save."""
    mpl.rcParams.update(
        {
            "font.size": 9,
            "text.color": INK,
            "svg.hashsalt": "skfisher",
            "font.family": "DejaVu Sans",
        }
    )
    bags, y = sample_bags(60, np.random.default_rng(5))
    encoder = FisherVectorEncoder(3, random_state=0).fit(bags)
    encodings = make_pipeline(encoder, PowerL2Normalizer()).transform(bags)
    svm = LinearSVC().fit(encodings, y)

    figure = plt.figure(figsize=(9.6, 3.2), facecolor="white")
    draw_bags(figure, bags, y, 0.01, 0.135)
    arrow(figure, 0.152, 0.215, "EM")
    draw_mixture(figure, bags, encoder, 0.222, 0.205)
    arrow(figure, 0.430, 0.493, "gradient")
    draw_encodings(figure, encodings, y, 0.512, 0.225)
    arrow(figure, 0.744, 0.807, "classify")
    draw_classes(figure, encodings, y, svm, 0.815, 0.175)
    target = Path(__file__).parent / "_static" / "overview.svg"
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()

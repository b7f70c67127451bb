"""
Joint training for speakers never heard
=======================================

A random part of the recordings would hold voices that the rest has taught. Here two of the six
speakers of the Free Spoken Digit Dataset are the test, and only the other four teach: each pair in
turn, three in all. Does `JointFisherSVC`, whose features and mixture learn from the labels, know
the digits of new voices better than the frozen model it starts from, or does it learn voices by
heart? The data are read from the folder that the environment variable SKFISHER_DATA names.
"""

# sphinx_gallery_thumbnail_path = "_static/examples/plot_joint_spoken_digits-2026-11-29.png"

import sys
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, GroupKFold

from skfisher import Bags, DescriptorTransformer, JointFisherSVC
from skfisher.datasets import load_fsdd

try:
    recordings = load_fsdd()
except FileNotFoundError as error:
    print(error)
    sys.exit()
y, speakers = recordings.target, recordings.groups

# %%
# Thirteen cepstral coefficients and how they change, in at most 64 frames, evenly spaced, reduced
# to 20 principal components. These are not whitened: the model does that, and descriptors that are
# white already would leave its axes to rounding. C is chosen by the frozen model, on speakers held
# out of the training set, and kept.


def thinned(bag):
    """Return at most 64 frames of a recording."""
    return bag[np.unique(np.linspace(0, len(bag) - 1, 64).round().astype(int))]


columns = [*range(13), *range(20, 33)]
X = Bags.from_list([thinned(frames[:, columns]) for frames in recordings.data])
n_components = [4, 16]
pairs, scores = [], np.empty((2, len(n_components), 3))
for split, (train, test) in enumerate(GroupKFold(3).split(X, y, speakers)):
    pairs.append(" and ".join(np.unique(speakers[test])))
    reduce = DescriptorTransformer(PCA(20), random_state=0).fit(X[train])
    known, unseen = reduce.transform(X[train]), reduce.transform(X[test])
    for row, k in enumerate(n_components):
        start = perf_counter()
        model = JointFisherSVC(n_components=k, max_iter=15, random_state=0)
        search = GridSearchCV(
            clone(model).set_params(max_iter=0), {"C": [0.1, 1, 10]}, cv=GroupKFold(2), refit=False
        )
        search.fit(known, y[train], groups=speakers[train])
        model.set_params(**search.best_params_).fit(known, y[train])
        scores[0, row, split] = 100 * model.baseline_.score(unseen, y[test])
        scores[1, row, split] = 100 * model.score(unseen, y[test])
        frozen, joint = scores[:, row, split]
        print(
            f"{pairs[-1]:20s} K = {k:2d}, C = {model.C:g}: frozen {frozen:.1f}, joint {joint:.1f}, "
            f"{joint - frozen:+.1f}   ({perf_counter() - start:.0f} s)"
        )
for row, k in enumerate(n_components):
    frozen, joint = scores[:, row]
    gain = joint - frozen
    print(
        f"K = {k:2d}: frozen {frozen.mean():.1f} ± {frozen.std(ddof=1):.1f}, "
        f"joint {joint.mean():.1f} ± {joint.std(ddof=1):.1f}, "
        f"gain {gain.mean():+.1f} ± {gain.std(ddof=1):.1f}"
    )

# %%
# Coloured points are means over the pairs with standard deviations; each thin line is a pair. All
# pairs gain, the hardest the least: what four speakers taught fits the other two less well.

figure, ax = plt.subplots(figsize=(6.5, 4.4), layout="constrained")
places = np.arange(len(n_components))
for name, values, shift in zip(("frozen", "joint"), scores, (-0.25, 0.25), strict=True):
    ax.errorbar(
        places + shift, values.mean(axis=1), values.std(axis=1, ddof=1), label=name,
        marker="o", markersize=8, linestyle="none", capsize=5, linewidth=2,
    )  # fmt: skip
for row in range(len(n_components)):
    for pair, ends, marker in zip(pairs, scores[:, row].T, "ovs", strict=True):
        ax.plot(
            row + np.array([-0.15, 0.15]), ends, color="0.4", linewidth=1, marker=marker,
            markersize=5, markerfacecolor="white", label=None if row else pair,
        )  # fmt: skip
ax.set_xticks(places, [f"K = {k}" for k in n_components])
ax.set(xlim=(-0.5, len(places) - 0.5), ylabel="accuracy on unseen speakers, per cent")
ax.spines[["top", "right"]].set_visible(False)
figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
plt.show()

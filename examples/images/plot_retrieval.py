"""
Which encoding finds similar images?
====================================

For retrieval nothing is learnt from labels: images are ranked by how near their encodings are to
that of a query, and a good encoding puts images of the same kind first. Six encodings are compared
by their mean average precision, with the handwritten digits that come with scikit-learn: 500 of
them are the queries, and the other 1297 are searched.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import Normalizer, StandardScaler

from skfisher import (
    BagOfWordsEncoder,
    DescriptorTransformer,
    FisherVectorEncoder,
    MeanPooling,
    SecondOrderPooling,
    VLADEncoder,
)
from skfisher.datasets import load_digits_patches

digits = load_digits_patches(patch_size=4)
searched, queries = slice(0, 1297), slice(1297, None)

# %%
# A digit is the bag of its 25 patches of 4 x 4 pixels, each reduced to 12 numbers. Encodings are
# centred: what all have in common tells no image from another.


def chain(encoder):
    """Return descriptors, encoder and what follows it."""
    return make_pipeline(
        DescriptorTransformer(make_pipeline(PCA(12, random_state=0), StandardScaler())),
        encoder,
        StandardScaler(with_std=False),
        Normalizer(),
    )


gaussian = SecondOrderPooling()
fisher = FisherVectorEncoder(16, normalize="power-l2", random_state=0)
encoders = {
    "mean and deviation": MeanPooling("mean_std"),
    "bag of 64 words": BagOfWordsEncoder(64, normalize="power-l2", random_state=0),
    "VLAD, 16 words": VLADEncoder(16, random_state=0),
    "Gaussian": gaussian,
    "Fisher vector, 16 components": fisher,
    "Fisher vector and Gaussian": make_union(fisher, gaussian),
}

# %%
# The average precision of a query is high where images of its kind stand first.

precisions, widths, rankings = {}, {}, {}
for name, encoder in encoders.items():
    model = chain(encoder).fit(digits.data[searched])
    encodings = model.transform(digits.data)
    scores = encodings[queries] @ encodings[searched].T
    same = digits.target[queries][:, None] == digits.target[searched]
    precisions[name] = np.array(
        [average_precision_score(*pair) for pair in zip(same, scores, strict=True)]
    )
    widths[name], rankings[name] = encodings.shape[1], np.argsort(-scores, axis=1)
    print(
        f"{name:30} {widths[name]:5} numbers, mean average precision {precisions[name].mean():.3f}"
    )

# %%
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
means = [p.mean() for p in precisions.values()]
errors = [p.std() / np.sqrt(len(p)) for p in precisions.values()]
bars = ax.barh(list(precisions), means, xerr=errors, color="C0", ecolor="0.4")
ax.bar_label(bars, [f"{m:.3f}" for m in means], padding=8)
ax.set(xlabel="mean average precision", xlim=(0, 1))
ax.invert_yaxis()

# %%
# Queries, and the eight images that the last encoding ranks first. Frames mark other digits.

shown = np.linspace(0, len(precisions["Gaussian"]) - 1, 6).astype(int)
fig, axes = plt.subplots(len(shown), 9, figsize=(7, 5), layout="constrained")
images, labels = digits.images, digits.target
for row, query in zip(axes, shown, strict=True):
    found = rankings["Fisher vector and Gaussian"][query, :8]
    for ax, i in zip(row, [1297 + query, *found], strict=True):
        ax.imshow(images[i], cmap="gray_r")
        ax.set(xticks=[], yticks=[])
        wrong = labels[i] != labels[1297 + query]
        for spine in ax.spines.values():
            spine.set(visible=bool(wrong), color="C3", linewidth=2)
axes[0, 0].set_title("query")
axes[0, 1].set_title("found", loc="left")
plt.show()

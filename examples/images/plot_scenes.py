"""
Fisher vectors or a bag of words for scenes?
============================================

An image of a scene is a bag of some 1600 local descriptors: SIFT on a dense grid, at four scales.
Their order and number say nothing, their distribution says kitchen or coast. A bag of words counts
the descriptors nearest to each of 1000 centres; a Fisher vector asks how they differ from each of
32 Gaussians, in mean and variance.

The data are the 1500 training images of 15-Scene, in the folder that the environment variable
SKFISHER_DATA names; OpenCV computes the descriptors. A few living rooms occur twice, so that
the accuracies below, by cross-validation, are a little too high for both.
"""

# sphinx_gallery_thumbnail_path = "_static/examples/plot_scenes-2026-11-29.png"

import sys
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    DescriptorTransformer,
    FisherVectorEncoder,
    PowerL2Normalizer,
)
from skfisher.datasets import load_scene15
from skfisher.descriptors import dense_sift

try:
    scenes = load_scene15()
except (FileNotFoundError, ImportError) as error:
    print(error)
    sys.exit()
y = scenes.target

# %%
# SIFT is whole numbers from 0 to 255 and is kept as bytes, 0.3 GB for two million descriptors.
# What follows converts them block by block.

start = perf_counter()
X = dense_sift(scenes.images, n_jobs=2)
print(X)
print(f"described in {perf_counter() - start:.0f} s")


# %%
# The same descriptors serve both: normalised as RootSIFT, and reduced to 64 principal components.


def chain(encoder):
    """Return a classifier of bags of SIFT."""
    root_sift_pca = make_pipeline(PowerL2Normalizer(), PCA(64, random_state=0))
    return make_pipeline(
        DescriptorTransformer(root_sift_pca, random_state=0, n_jobs=2),
        encoder,
        PowerL2Normalizer(),
        LinearSVC(C=1),
    )


chains = {
    "bag of 1000 words": chain(
        BagOfWordsEncoder(1000, max_descriptors=100_000, random_state=0, n_jobs=2)
    ),
    "Fisher vector, K = 32": chain(
        FisherVectorEncoder(32, max_descriptors=100_000, random_state=0, n_jobs=2)
    ),
}

# %%
# Each chain is trained five times, on four fifths of the images: components, words and Gaussians
# included.

folds = StratifiedKFold(5, shuffle=True, random_state=0)
guesses = {}
for name, model in chains.items():
    start = perf_counter()
    guesses[name] = cross_val_predict(model, X, y, cv=folds)
    right = np.array([(guesses[name] == y)[test].mean() for _, test in folds.split(X, y)])
    seconds = perf_counter() - start
    print(f"{name:22s} {right.mean():.1%} ± {right.std():.1%} over folds   ({seconds:.0f} s)")

# %%
# One image of each class.

figure, axes = plt.subplots(3, 5, figsize=(9, 5.8), layout="constrained")
for label, ax in enumerate(axes.flat):
    image = scenes.images[np.flatnonzero(y == label)[3]]
    side = min(image.shape)
    ax.imshow(image[:side, :side], cmap="gray")
    ax.set_axis_off()
    ax.set_title(scenes.target_names[label], fontsize=10)
plt.show()

# %%
# What the images of each class were taken for.

name = "Fisher vector, K = 32"
figure, ax = plt.subplots(figsize=(7.5, 7), layout="constrained")
ConfusionMatrixDisplay.from_predictions(
    y,
    guesses[name],
    display_labels=scenes.target_names,
    xticks_rotation="vertical",
    cmap="Blues",
    colorbar=False,
    ax=ax,
    text_kw={"fontsize": 8},
)
ax.set_title(f"{name}: {(guesses[name] == y).mean():.1%}")
plt.show()

"""
Slides: embeddings in float16 on disk, and probabilities
========================================================

A slide of tissue is cut into thousands of tiles, and a pretrained network turns each of them into
a vector. One label belongs to the slide as a whole: is there a tumour somewhere? That is a bag,
and a large one: embeddings are kept in float16 on disk, are read a part at a time, and are
computed with in float32.

The slides here are made up, so that everyone has them: tiles of six kinds of tissue, in shares
that differ from slide to slide; in half of the slides 1 to 6% of the tiles are of a seventh
kind, which lies between two others.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.decomposition import PCA
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import Bags, DescriptorTransformer, FisherVectorEncoder, MeanPooling

rng = np.random.default_rng(0)
n_slides, width = 120, 64
kinds = rng.normal(size=(7, width)).astype(np.float32)
kinds[6] = (kinds[4] + kinds[5]) / 2 + 0.5 * kinds[6]  # between two kinds of healthy tissue
spread = rng.uniform(0.8, 1.6, size=width).astype(np.float32)
y = np.arange(n_slides) % 2


def slide(has_tumour):
    """Return the embeddings of the tiles of a slide, (n_tiles, 64)."""
    n_tiles = rng.integers(200, 800)
    shares = rng.dirichlet(np.full(6, 0.5)) * (1 - (tumour := has_tumour * rng.uniform(0.01, 0.06)))
    kind = rng.choice(7, size=n_tiles, p=np.append(shares, tumour) / (shares.sum() + tumour))
    noise = rng.standard_normal((n_tiles, width), dtype=np.float32)
    return (kinds[kind] + spread * noise).astype(np.float16)


# %%
# Save them once. Opened as a memory map, slides take no memory until they are read, and cross-
# validation copies nothing.
folder = tempfile.TemporaryDirectory()
Bags.from_list([slide(label) for label in y]).save(folder.name)
slides = Bags.load(folder.name, mmap_mode="r")
print(slides)

# %%
# A linear SVM has no probabilities of its own; ``CalibratedClassifierCV`` around the whole
# pipeline finds them on slides that the pipeline has not seen. The mean of all tiles, the usual
# first try, is the comparison.
encoders = {
    "mean of tiles": MeanPooling(),
    "Fisher vectors": FisherVectorEncoder(8, normalize="power-l2", random_state=0),
}
folds = StratifiedKFold(4, shuffle=True, random_state=0)
probabilities = {}
for name, encoder in encoders.items():
    model = make_pipeline(
        DescriptorTransformer(PCA(16, random_state=0)),
        encoder,
        StandardScaler(with_std=False),
        LinearSVC(C=10),
    )
    calibrated = CalibratedClassifierCV(model, cv=3)
    probabilities[name] = cross_val_predict(
        calibrated, slides, y, cv=folds, method="predict_proba"
    )[:, 1]
    print(f"{name}: area under the curve {roc_auc_score(y, probabilities[name]):.3f}")

# %%
# The mean hides a few tiles in a thousand; the Fisher vector says of each kind of tile how many
# there are and how they differ from those of other slides.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, p in probabilities.items():
    RocCurveDisplay.from_predictions(y, p, name=name, ax=left)
    share, predicted = calibration_curve(y, p, n_bins=5, strategy="quantile")
    right.plot(predicted, share, "o-", label=name)
left.set_title("Slides found")
right.plot([0, 1], [0, 1], color="grey", linestyle=":")
right.set(
    title="Are probabilities right?",
    xlabel="predicted probability",
    ylabel="share of slides with a tumour",
)
right.legend()
plt.show()

# sphinx_gallery_start_ignore
slides = None
folder.cleanup()
# sphinx_gallery_end_ignore

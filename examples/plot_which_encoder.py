"""
Which encoder?
==============

Every encoder turns a bag into numbers; they differ in how many, and in what these tell a
classifier. Here all of them meet on one set: the errors of a linear support vector machine on
digits held out, against the length of the encoding.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    CompactBilinearPooling,
    DescriptorTransformer,
    FisherVectorEncoder,
    MeanPooling,
    MixtureSecondOrderPooling,
    SecondOrderPooling,
    VLADEncoder,
)
from skfisher.datasets import load_digits_patches

digits = load_digits_patches(patch_size=4)
splits = StratifiedShuffleSplit(3, train_size=500, random_state=0)

# %%
# What stands before and after is the same for all: 12 principal components of each patch, scaled;
# encodings that are centred, and a linear classifier.


def chain(encoder):
    """Return a classifier of bags of patches."""
    return make_pipeline(
        DescriptorTransformer(make_pipeline(PCA(12, random_state=0), StandardScaler())),
        encoder,
        StandardScaler(with_std=False),
        LinearSVC(C=10, random_state=0),
    )


encoders = {
    "mean": [MeanPooling(), MeanPooling("mean_std")],
    "bag of words": [
        BagOfWordsEncoder(k, assignment="soft", normalize="power-l2", random_state=0)
        for k in (16, 64, 256)
    ],
    "VLAD": [VLADEncoder(k, random_state=0) for k in (2, 8, 32)],
    "Fisher vector": [
        FisherVectorEncoder(k, normalize="power-l2", random_state=0) for k in (2, 8, 32)
    ],
    "covariance, root": [SecondOrderPooling("covariance")],
    "Gaussian, root": [SecondOrderPooling(n_components=k) for k in (4, 8, None)],
    "Gaussians of a mixture": [MixtureSecondOrderPooling(k, random_state=0) for k in (2, 4, 8)],
    "compact bilinear": [
        CompactBilinearPooling(m, normalize="power-l2", random_state=0) for m in (64, 256)
    ],
}
found = {}
for name, family in encoders.items():
    found[name] = []
    for encoder in family:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = cross_val_score(chain(encoder), digits.data, digits.target, cv=splits)
        n_numbers = chain(encoder)[:2].fit_transform(digits.data[:100]).shape[1]
        found[name].append((n_numbers, 100 * np.mean(scores)))
        print(f"{name:24} {n_numbers:5} numbers: {found[name][-1][1]:.1f} %")

# %%
# Errors on a logarithmic scale, as all good encodings come close to 100 %.

fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for (name, points), marker in zip(found.items(), "osv^DPX*", strict=True):
    lengths, accuracy = np.transpose(points)
    ax.plot(lengths, 100 - accuracy, marker=marker, label=name)
ax.set(xscale="log", yscale="log", xlabel="numbers in an encoding", ylabel="errors, %")
ax.set_yticks([2, 5, 10, 20], labels=["2", "5", "10", "20"])
ax.minorticks_off()
ax.grid(alpha=0.3)
ax.legend(fontsize="small")
plt.show()

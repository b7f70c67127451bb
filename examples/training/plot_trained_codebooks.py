"""
When does it pay to train the codebook?
=======================================

A codebook that k-means or EM has found without labels can be trained for them, by descent through
the encoding: the bag of words becomes learned aggregation, VLAD becomes NetVLAD. How much is there
to gain? Much where encodings are short, and little where a large codebook has room for everything.

The digits are those of scikit-learn, 500 to learn from and the others to test with.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skfisher import BagOfWordsEncoder, FisherVectorEncoder, JointClassifier, VLADEncoder
from skfisher.datasets import load_digits_patches

digits = load_digits_patches(patch_size=4)
train, test = train_test_split(
    np.arange(len(digits.target)), train_size=500, stratify=digits.target, random_state=0
)

# %%
# `baseline_` is the frozen model that training starts from: both come from one fit. Descriptors are
# reduced to 12 whitened dimensions and not mapped further, so that what is trained is the codebook.

encoders = {
    "learned aggregation": lambda k: BagOfWordsEncoder(k, assignment="soft", metric="diagonal"),
    "NetVLAD": VLADEncoder,
    "Fisher vector": FisherVectorEncoder,
}
sizes = [4, 8, 16, 32]
scores = {}
for name, encoder in encoders.items():
    for k in sizes:
        model = JointClassifier(
            encoder(k), feature_map="linear", n_features_out=12, train=("codebook", "classifier"),
            max_iter=30, random_state=0,
        )  # fmt: skip
        if name == "Fisher vector":
            model.set_params(train=("mixture", "classifier"))
        model.fit(digits.data[train], digits.target[train])
        found = [m.score(digits.data[test], digits.target[test]) for m in (model.baseline_, model)]
        scores[name, k] = found
        print(f"{name:20} K={k:2}: frozen {found[0]:.3f}, trained {found[1]:.3f}")

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
for ax, name in zip(axes, encoders, strict=True):
    frozen, trained = np.transpose([scores[name, k] for k in sizes])
    ax.plot(sizes, 100 - 100 * frozen, "o--", color="0.5", label="frozen")
    ax.plot(sizes, 100 - 100 * trained, "o-", color="C0", label="trained")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set(title=name, xlabel="components", xticks=sizes, xticklabels=sizes)
axes[0].set(ylabel="errors, %", yticks=[2, 5, 10, 20, 50], yticklabels=[2, 5, 10, 20, 50])
axes[0].minorticks_off()
axes[0].legend()
plt.show()

"""
When does it pay to train the codebook?
=======================================

A codebook that k-means or EM has found without labels can be trained for them, by descent through the
encoding: the bag of words becomes learned aggregation, VLAD becomes NetVLAD. How much is there to
gain? Less, the longer the encodings are: a large codebook has room for what no label asked for.

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
    ax.plot(sizes, frozen, "o--", color="0.5", label="frozen")
    ax.plot(sizes, trained, "o-", color="C0", label="trained")
    ax.set_xscale("log", base=2)
    ax.set(title=name, xlabel="components", xticks=sizes, xticklabels=sizes)
axes[0].set_ylabel("accuracy")
axes[0].legend(loc="lower right")
plt.show()

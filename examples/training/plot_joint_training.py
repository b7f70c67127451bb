"""
What does training features and mixture for the labels gain?
============================================================

A Fisher vector is built on a mixture that has never seen a label. `JointFisherSVC` trains the
mixture, a map of the descriptors and the linear SVM together. Here it does so for 500 handwritten
digits, each a bag of 64 patches of 3 x 3 pixels that do not know where they were, and is scored on
all the others, beside the frozen model that it starts from.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skfisher import ImagePatches, JointFisherSVC, JointTrainingDisplay

images, y = load_digits(return_X_y=True)
images = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)]).astype(np.float32)
X = ImagePatches(3).fit_transform(images)
print(X)

# %%
# Five random splits for each number of components: how good are the frozen encodings, and how good
# do they become? The unseen bags are looked at after every epoch of the first split, and take no
# part in training.

n_components, n_splits = [2, 4, 8, 16], 5
scores = np.empty((2, len(n_components), n_splits))
models = {}
for column, k in enumerate(n_components):
    for seed in range(n_splits):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[:500], order[500:]
        model = JointFisherSVC(n_components=k, max_iter=40, random_state=seed)
        watched = {} if seed else {"X_val": X[test], "y_val": y[test]}
        model.fit(X[train], y[train], **watched)
        scores[0, column, seed] = model.baseline_.score(X[test], y[test])
        scores[1, column, seed] = model.score(X[test], y[test])
        models.setdefault(k, model)
    (frozen, joint), gain = 100 * scores[:, column], 100 * np.diff(scores[:, column], axis=0)
    print(
        f"K = {k:2d}: frozen {frozen.mean():.1f} ± {frozen.std(ddof=1):.1f}, "
        f"joint {joint.mean():.1f} ± {joint.std(ddof=1):.1f}, "
        f"gain {gain.mean():+.1f} ± {gain.std(ddof=1):.1f}, in {(gain > 0).sum()} of {n_splits}"
    )

# %%
# Left, the accuracy on unseen images, mean and standard deviation over splits: the fewer the
# components, the more there is to gain, and with 16 there still is something. Right, how one model
# with four components learns. Its validation score is that of the network, before the last SVM.

figure, (ax_score, ax_epochs) = plt.subplots(
    1, 2, figsize=(10, 4.8), width_ratios=[1.1, 1], layout="constrained"
)
for name, values, marker in zip(("frozen", "joint"), 100 * scores, "os", strict=True):
    ax_score.errorbar(
        n_components, values.mean(axis=1), values.std(axis=1, ddof=1),
        marker=marker, capsize=4, label=name,
    )  # fmt: skip
ax_score.set(xscale="log", xlabel="components", ylabel="accuracy on unseen images, per cent")
ax_score.set_xticks(n_components, n_components)
ax_score.minorticks_off()
ax_score.spines[["top", "right"]].set_visible(False)
ax_score.legend(loc="lower right", frameon=False)
JointTrainingDisplay.from_estimator(models[4], ax=ax_epochs)
plt.show()

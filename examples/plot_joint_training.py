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

from skfisher import ImagePatches, JointFisherSVC

images, y = load_digits(return_X_y=True)
images = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)]).astype(np.float32)
X = ImagePatches(3).fit_transform(images)
print(X)

# %%
# Three random splits for each number of components: how good are the frozen
# encodings, and how good do they become?

n_components = [2, 4, 8]
scores = np.empty((2, len(n_components), 3))
for column, k in enumerate(n_components):
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[:500], order[500:]
        model = JointFisherSVC(n_components=k, max_iter=40, random_state=seed)
        model.fit(X[train], y[train], X_val=X[test], y_val=y[test])
        scores[0, column, seed] = model.baseline_.score(X[test], y[test])
        scores[1, column, seed] = model.score(X[test], y[test])
    frozen, joint = scores[:, column].mean(axis=1)
    print(f"K = {k}: frozen {frozen:.3f}, joint {joint:.3f}")

# %%
# Left, the last run epoch by epoch: the loss of the training bags, and of the bags it never sees,
# which are only looked at here. Right, the accuracy on unseen images; bars span the three splits.
# The fewer components, the more there is to gain: jointly trained, a mixture of half the size is
# nearly as good.

figure, (ax_loss, ax_score) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
epochs = np.arange(1, model.n_iter_ + 1)
ax_loss.plot(epochs, model.history_["loss"], label="training bags")
ax_loss.plot(epochs, model.history_["validation_loss"], label="unseen bags")
ax_loss.set(xlabel="epoch", ylabel="squared hinge loss", title=f"Descent, K = {k}")
ax_loss.legend()

for name, values, marker in zip(("frozen", "joint"), scores, "os", strict=True):
    middle = values.mean(axis=1)
    spread = np.abs(np.stack([values.min(axis=1), values.max(axis=1)]) - middle)
    ax_score.errorbar(n_components, middle, spread, marker=marker, capsize=4, label=name)
ax_score.set(
    xscale="log", xlabel="components", ylabel="accuracy", title="Unseen images", ylim=(0.7, 1)
)
ax_score.set_xticks(n_components, n_components)
ax_score.minorticks_off()
ax_score.legend(loc="lower right")
plt.show()

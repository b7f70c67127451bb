"""
How well do Fisher vectors tell digits apart?
=============================================

Each of scikit-learn's handwritten digits is an image of 8 x 8 pixels. Here an image is a *bag*: the
set of its 36 patches of 3 x 3 pixels, each with its position. A mixture of Gaussians learns what
patches look like, and where. The Fisher vector of an image says how its patches would change that
mixture, and a linear classifier does the rest.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import FisherVectorEncoder, MixtureDisplay, PowerL2Normalizer
from skfisher.datasets import load_digits_patches

# %%
# Positions are scaled so that left and right are as far apart as black and white, which are 0 and
# 16 in these images. A quarter of the images is held out.

digits = load_digits_patches(patch_size=3, positions=16.0)
print(digits.data)
X_train, X_test, y_train, y_test = train_test_split(
    digits.data, digits.target, test_size=0.25, stratify=digits.target, random_state=0
)

# %%
# The search holds the whole chain, so that each fold learns a mixture of its own.

model = make_pipeline(FisherVectorEncoder(random_state=0), PowerL2Normalizer(), LinearSVC(C=10))
grid = {
    "fishervectorencoder__n_components": [16, 64],
    "powerl2normalizer__power": [0.5, 1.0],
}
search = GridSearchCV(model, grid, cv=3, n_jobs=2).fit(X_train, y_train)
accuracy = search.score(X_test, y_test)
print("Best parameters:", search.best_params_)
print(f"Accuracy in cross-validation: {search.best_score_:.4f}")
print(f"Accuracy on {len(y_test)} held-out images: {accuracy:.4f}")

# %%
# Left, the mean patch of each Gaussian, the most used first; ink is dark. In the middle, the
# Gaussians in the plane of the patches' two principal axes. Right, what the held-out images were
# taken for.

encoder = search.best_estimator_[0]
figure, (ax_patches, ax_mixture, ax_confusion) = plt.subplots(
    1, 3, figsize=(15, 4.6), width_ratios=[1, 1.25, 1], layout="constrained"
)

order = encoder.weights_.argsort()[::-1]
patches = np.pad(encoder.means_[order, :9].reshape(-1, 3, 3), ((0, 0), (0, 1), (0, 1)))
patches[:, 3, :] = patches[:, :, 3] = np.nan
rows = patches.reshape(-1, 8, 4, 4).swapaxes(1, 2).reshape(-1, 32)
ax_patches.imshow(rows[:-1, :-1], cmap="Greys", vmin=0, vmax=16)
ax_patches.set(title="mean patch of each Gaussian", xticks=[], yticks=[])
ax_patches.set_facecolor("lightsteelblue")

MixtureDisplay.from_estimator(encoder, X_train, dimensions="principal", ax=ax_mixture)
ax_mixture.set_title("the mixture")

ConfusionMatrixDisplay.from_estimator(
    search, X_test, y_test, ax=ax_confusion, cmap="Blues", colorbar=False
)
ax_confusion.set_title(f"{accuracy:.1%} of held-out images right")

figure.savefig("quickstart.png", dpi=150)
plt.show()

# %%
# This example is also the package's own first test.

if accuracy < 0.98:
    raise SystemExit(f"The accuracy is {accuracy:.4f}, but at least 0.98 was expected.")
print("The picture is in quickstart.png.")

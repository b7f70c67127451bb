"""
Can the probabilities be trusted?
=================================

Of all predictions made with a probability of 0.8, eight in ten should be right. A linear support
vector machine has no probabilities, only distances from its plane. There are two ways to
probabilities: calibrate the distances on bags held back, or train with a loss that has
probabilities of its own.

The task is to tell whether a digit of scikit-learn's is below 5, with so much noise that mistakes
are common.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import FisherVectorEncoder, ImagePatches, JointFisherSVC

images, digits = load_digits(return_X_y=True)
y = digits < 5
noise = np.random.default_rng(0).normal(scale=4, size=images.shape)
noisy = (images + noise).reshape(-1, 8, 8).astype(np.float32)
X = ImagePatches(4, positions=20.0).fit_transform(noisy)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, stratify=y, random_state=0
)

# %%
# ``CalibratedClassifierCV`` goes around the whole pipeline: the encoder is then fitted without the
# bags that are held back. ``ensemble=False`` keeps one model, fitted to all training bags. A
# logistic function of the distances, a common shortcut, is there for comparison.

encoder = FisherVectorEncoder(16, normalize="power-l2", random_state=0)
machine = make_pipeline(encoder, LinearSVC(C=100, random_state=0))
calibrated = CalibratedClassifierCV(machine, cv=5, ensemble=False)
joint = JointFisherSVC(8, loss="log_loss", max_iter=15, random_state=0)
machine.fit(X_train, y_train)
probabilities = {
    "logistic of distances": expit(machine.decision_function(X_test)),
    "calibrated": calibrated.fit(X_train, y_train).predict_proba(X_test)[:, 1],
    "joint, log_loss": joint.fit(X_train, y_train).predict_proba(X_test)[:, 1],
}

# %%
# Left, how many of the images that are given about the same probability are below 5; on the dotted
# line the probabilities are true. Right, how often each probability is given.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for (name, p), marker in zip(probabilities.items(), "sov", strict=True):
    is_right = (p > 0.5) == y_test
    print(f"{name:21s} {is_right.mean():.1%} right, log loss {log_loss(y_test, p):.2f}")
    share, predicted = calibration_curve(y_test, p, n_bins=8, strategy="quantile")
    left.plot(predicted, share, marker=marker, label=name)
    count, edges = np.histogram(p, bins=10, range=(0, 1))
    right.plot((edges[1:] + edges[:-1]) / 2, count, marker=marker)
left.plot([0, 1], [0, 1], color="grey", linestyle=":")
left.set(xlabel="probability", ylabel="share of images below 5")
left.legend(frameon=False)
right.set(xlabel="probability", ylabel="number of images", ylim=(0, None))
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# The calibrated probabilities are close to the line. The joint model is right more often, but too
# cautious: its penalty keeps the weights short. It can be calibrated in the same way.
#
# Draw these curves for your own data before you choose. Here the noise and ``C`` were picked so
# that the curves differ: with more noise and a smaller ``C``, or with all ten classes, the shortcut
# was as close to the line as the calibrated probabilities.

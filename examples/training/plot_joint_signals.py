"""
Which way do descriptors go? Signals of joint training in the plane
===================================================================

`JointFisherSVC` sends the errors of its linear SVM back to the features and to the mixture. Which
errors, its `loss` decides. In two dimensions one can watch what they do.

Each bag has twelve points. Eight of them lie left or right and say nothing. Four are in the middle,
a little higher in one class than in the other. Two Gaussians must describe three groups.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse

from skfisher import JointFisherSVC


def draw(n_bags, seed):
    """Return bags of twelve points, the last four of which tell the class, and classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_bags) % 2
    sides = rng.choice([-2.0, 2.0], size=(n_bags, 8, 1)) * [1, 0]
    idle = sides + rng.normal(size=(n_bags, 8, 2)) * [0.5, 1]
    height = np.where(y == 1, 0.5, -0.5)[:, None, None] * [0, 1]
    telling = height + rng.normal(size=(n_bags, 4, 2)) * 0.3
    return np.concatenate([idle, telling], axis=1), y


X, y = draw(200, seed=0)
X_unseen, y_unseen = draw(2000, seed=1)

# %%
# All start from the same frozen model, and train at the same rate for as many epochs. The table
# gives the accuracy on unseen bags; how far apart the classes are in the middle, in the coordinates
# of the mixture and in standard deviations; and the share of the lightest Gaussian.

signals = ["squared_hinge", "hinge", "quadratic", "log_loss", "linear", "dual"]
models = {}
for signal in signals:
    model = JointFisherSVC(n_components=2, loss=signal, max_iter=60, random_state=0).fit(X, y)
    models.setdefault("start", model.baseline_)
    models[signal] = model


def mapped(model, points):
    """Return points as the mixture sees them: whitened, and mapped by h = tanh(W z + b)."""
    whitened = np.clip((points - model.center_) @ model.axes_, -0.999, 0.999)
    return np.tanh(np.arctanh(whitened) @ model.map_weight_.T + model.map_bias_)


accuracies = {}
for name, model in models.items():
    accuracies[name] = model.score(X_unseen, y_unseen)
    high, low = (mapped(model, X[y == c, 8:]).reshape(-1, 2) for c in (1, 0))
    apart = high.mean(axis=0) - low.mean(axis=0)
    distance = np.linalg.norm(apart)
    spread = np.sqrt(((high @ apart).var() + (low @ apart).var()) / 2) / distance
    print(
        f"{name:14s} {accuracies[name]:.1%}, classes {distance:.2f} apart, "
        f"{distance / spread:.1f} deviations, smallest weight {model.weights_.min():.2f}"
    )

# %%
# Grey points say nothing, coloured ones tell the class. Ellipses of 1.5 standard deviations are the
# Gaussians, and lines lead to their centres from where these were at the start.

figure, axes = plt.subplots(2, 4, figsize=(12, 7), sharex=True, sharey=True, layout="constrained")
axes[1, 3].set_axis_off()
axes[0, 3].tick_params(labelbottom=True)
for ax, (name, model) in zip(axes.flat, models.items(), strict=False):
    ax.scatter(*mapped(model, X[:, :8]).reshape(-1, 2).T, s=3, color="0.8", linewidths=0)
    for c, color in enumerate(("tab:blue", "tab:orange")):
        points = mapped(model, X[y == c, 8:]).reshape(-1, 2)
        ax.scatter(*points.T, s=5, color=color, alpha=0.7, linewidths=0)
    style = {"fill": False, "edgecolor": "black", "linewidth": 1.8}
    for mean, deviation in zip(model.means_, np.sqrt(model.variances_), strict=True):
        ax.add_patch(Ellipse(mean, *(3 * deviation), **style))
    for old, new in zip(models["start"].means_, model.means_, strict=True):
        ax.plot(*np.stack([old, new]).T, color="black", linewidth=1.2)
        ax.plot(*new, "ko", markersize=4)
    ax.set_title(f"{name}: {accuracies[name]:.1%}")
    ax.set_aspect("equal")
    ax.spines[["top", "right"]].set_visible(False)

# %%
# Every signal helps, by 9 to 14 points. None pulls the classes out of each other: in units of their
# own deviation they are as far apart as before, as a map of two dimensions is nearly linear in the
# middle. What changes is how the Gaussians see them. Both hinges and the logistic loss stretch the
# height, while the Gaussian that holds the middle stays about as tall, so that a class moves its
# mean farther. So does the quadratic loss, which also pulls back the bags beyond their margin, and
# stretches a little less than the squared hinge. The linear signal and the dual one stretch less
# and tilt more: idle points slide up on one side and down on the other, and the two Gaussians with
# them, so that one class comes closer to the one and the other class to the other. In all of them
# the weights become more even.
#
# The order of the signals is that of this draw; others give another. On some draws the two
# Gaussians start above one another, which is the better place: then the frozen model gets about 97%
# of the bags right, and most signals 98 or 99%.

plt.show()

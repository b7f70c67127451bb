"""
How many outputs do gradient features need?
===========================================

The error that a network of P outputs sends back to its layers has P - 1 directions. With few
outputs that is a coarse similarity, and the kernel of gradients multiplies the kernel of
activations by it. How many are enough?

One network knows 80 classes: the digits 0 to 4 in sixteen appearances each. We take outputs away
from it, at random, and leave all else as it is; what changes is the gradient alone. The gain is
the difference in accuracy to the activations that enter the same layer, on the same ten splits,
once for new images of the digits 0 to 4 (three training images each) and once for the digits 5 to
9 (ten each).
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import ScalarFormatter
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

from skfisher import DenseHead, GradientFeatureKernel


def appearances(images, digits):
    """Return images in 16 appearances, and a class for each appearance of a digit."""
    turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    turned += [image.swapaxes(1, 2) for image in turned]
    turned += [1 - image for image in turned]
    samples = np.concatenate([image.reshape(len(image), -1) for image in turned])
    return samples, np.concatenate([16 * digits + k for k in range(16)])


X, y = load_digits(return_X_y=True)
X = X / 16
order = np.random.default_rng(0).permutation(len(y))
known, unseen = order[:900], order[900:]
known = known[y[known] < 5]
warnings.filterwarnings("ignore", category=ConvergenceWarning)  # 40 epochs do
network = MLPClassifier((128, 128), max_iter=40, random_state=0)
network.fit(*appearances(X[known].reshape(-1, 8, 8), y[known]))
head = DenseHead.from_sklearn(network)


def with_outputs(kept):
    """Return the network with some of its outputs alone: fewer columns in the last matrix."""
    return DenseHead(
        [*head.weights[:-1], head.weights[-1][:, kept]],
        [*head.biases[:-1], head.biases[-1][kept]],
        activation="relu",
    )


# %%
# Dropping outputs
# ----------------
# Every split has its own random choice of outputs. The temperature is 2, the layer is the one
# between the two hidden layers, and the penalty is chosen by cross-validation.

warnings.filterwarnings("ignore", message="The network has .* outputs", category=UserWarning)
sizes = [2, 5, 10, 20, 40, 80]
tasks = {
    "digits 0 to 4, known to the network": (unseen[y[unseen] < 5], 15),
    "digits 5 to 9, unknown to it": (np.flatnonzero(y >= 5), 50),
}


def accuracy(kernel, y, train, test):
    machine = GridSearchCV(SVC(kernel="precomputed"), {"C": [1, 10, 100]}, cv=3)
    machine.fit(kernel[np.ix_(train, train)], y[train])
    return 100 * machine.score(kernel[np.ix_(test, train)], y[test])


fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
for ax, (title, (index, n_train)) in zip(axes, tasks.items(), strict=True):
    task_X, task_y = X[index], y[index]
    hidden = normalize(np.maximum(task_X @ head.weights[0] + head.biases[0], 0))
    splits = StratifiedShuffleSplit(10, train_size=n_train, random_state=0).split(task_X, task_y)
    gains = {"uniform": [], "jacobian": []}
    for number, (train, test) in enumerate(splits):
        reference = accuracy(hidden @ hidden.T, task_y, train, test)
        shuffled = np.random.default_rng(number).permutation(head.n_outputs)
        for target, rows in gains.items():
            rows.append(
                [
                    accuracy(
                        GradientFeatureKernel(
                            with_outputs(shuffled[:size]), target=target
                        ).fit_transform(task_X),
                        task_y,
                        train,
                        test,
                    )
                    - reference
                    for size in sizes
                ]
            )
    labels = {"uniform": "uniform label", "jacobian": "Jacobian of the outputs"}
    for target, rows in gains.items():
        label = labels[target]
        mean, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / np.sqrt(len(rows))
        ax.errorbar(sizes, mean, error, marker="o", capsize=3, label=label)
        for size, m, e in zip(sizes, mean, error, strict=True):
            print(f"{title:36s} {label:24s} P = {size:2d}   {m:+5.1f} ± {e:.1f}")
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set_xscale("log")
    ax.set_xticks(sizes)
    ax.get_xaxis().set_major_formatter(ScalarFormatter())
    ax.minorticks_off()
    ax.set_title(title)
    ax.set_xlabel("outputs of the network, P")
axes[0].set_ylabel("gain over activations, points")
axes[0].legend(frameon=False)

# %%
# Where the task is one that the network knows, the uniform label turns from a loss of several
# points, up to 20 outputs, into a gain at 80. An output that was taken away is a class that the
# error can no longer point to. Where the task is new, more outputs do not help: what tells the
# digits 5 to 9 apart is not what tells the others apart. (Gordo, Gaidon and Perronnin report a gain
# between natural images, for a network of a thousand classes.) The Jacobian hardly depends on P: it
# stays about a point below the activations, and gains nothing here.

plt.show()

"""
Gradients or activations? Transfer on digits
============================================

A network has learned to tell the digits 0 to 4. How well do its layers describe the digits 5 to 9,
which it has never seen? We compare kernels of

- **activations**: what each layer computes, the plain way to use a pretrained network;
- **gradients**: what each sample would change in a layer's weights, with the uniform label of
  Gordo, Gaidon and Perronnin (2015), or with the Jacobian of all outputs in place of a label;
- **sums and products**: activations plus gradients and, as a control for "any product of two
  kernels would do", the product of two kernels of activations.

Every bar is the mean over ten random splits with 100 training images; its line is the standard
error. The penalty of the support vector machine is chosen for each by cross-validation on the
training images.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

from skfisher import GradientFeatureKernel

X, y = load_digits(return_X_y=True)
X = X / 16
source, target = y < 5, y >= 5
warnings.filterwarnings("ignore", category=ConvergenceWarning)  # 40 epochs do
network = MLPClassifier((128, 128), max_iter=40, random_state=0)
network.fit(X[source], y[source])
frozen = FrozenEstimator(network)
X, y = X[target], y[target]

# %%
# The kernels
# -----------
# The activations of a layer are those of the same network cut off there; the rectifier is its only
# nonlinearity. All vectors are scaled to unit length, as gradients are.

hidden = np.maximum(X @ network.coefs_[0] + network.intercepts_[0], 0)
top = np.maximum(hidden @ network.coefs_[1] + network.intercepts_[1], 0)
layers = {"pixels": X, "hidden 1": hidden, "hidden 2": top}
activations = {name: normalize(x) @ normalize(x).T for name, x in layers.items()}


def gradients(layer, label):
    with warnings.catch_warnings():  # five outputs are few, and this is about to be shown
        warnings.simplefilter("ignore", UserWarning)
        return GradientFeatureKernel(frozen, layer=layer, target=label).fit_transform(X)


names = {0: "pixels to hidden 1", 1: "hidden 1 to 2", 2: "hidden 2 to outputs"}
uniform = {f"{name}, uniform": gradients(layer, "uniform") for layer, name in names.items()}
jacobian = {f"{name}, Jacobian": gradients(layer, "jacobian") for layer, name in names.items()}
combined = {
    "sum: hidden 2 + gradient 1 to 2, uniform": activations["hidden 2"]
    + uniform["hidden 1 to 2, uniform"],
    "sum: hidden 2 + gradient 1 to 2, Jacobian": activations["hidden 2"]
    + jacobian["hidden 1 to 2, Jacobian"],
    "product: pixels * hidden 1": activations["pixels"] * activations["hidden 1"],
    "product: hidden 1 * hidden 2": activations["hidden 1"] * activations["hidden 2"],
}
groups = {
    "activations": activations,
    "gradients, uniform label": uniform,
    "gradients, Jacobian": jacobian,
    "sums and products": combined,
}

# %%
# Ten splits
# ----------

splits = list(StratifiedShuffleSplit(10, train_size=100, random_state=0).split(X, y))


def scores(kernel):
    """Return the accuracy of a support vector machine on each split, in per cent."""
    result = []
    for train, test in splits:
        machine = GridSearchCV(SVC(kernel="precomputed"), {"C": [1, 10, 100]}, cv=3)
        machine.fit(kernel[np.ix_(train, train)], y[train])
        result.append(100 * machine.score(kernel[np.ix_(test, train)], y[test]))
    return np.array(result)


results = {
    group: {name: scores(kernel) for name, kernel in kernels.items()}
    for group, kernels in groups.items()
}
fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
place, ticks = 0, []
for number, (group, rows) in enumerate(results.items()):
    for row, (name, values) in enumerate(rows.items()):
        ax.barh(
            place,
            values.mean(),
            xerr=values.std(ddof=1) / np.sqrt(len(values)),
            color=f"C{number}",
            label=group if row == 0 else None,
        )
        ticks.append((place, name))
        place += 1
    place += 0.6
ax.set_yticks(*zip(*ticks, strict=True))
ax.invert_yaxis()
ax.set_xlim(75, 100)
ax.set_xlabel("accuracy on digits 5 to 9, per cent (mean of 10 splits, standard error)")
ax.set_title("A network that knows five digits, used on five others")
fig.legend(loc="outside lower center", ncols=4, frameon=False)

# %%
# Who wins
# --------
# Splits are the same for all, so the differences are paired.

reference = results["activations"]["hidden 1"]
for group, rows in results.items():
    for name, values in rows.items():
        gain = values - reference
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        print(f"{group:25s} {name:41s} {values.mean():5.1f}   {gain.mean():+5.1f} ± {error:.1f}")

# %%
# The uniform label loses clearly on every layer. Its error has four directions, one less than the
# network has outputs, and tells five known digits apart, not five unknown ones; multiplying a good
# similarity by this one spoils it. The Jacobian asks which hidden units are on, for all outputs at
# once, and gets the loss back. It does not beat the activations that enter the same layer, and on
# these small images nothing beats the pixels by more than the error bars. Gradients are one more
# candidate for the grid, next to activations, not their replacement; the other examples show when
# they do win.

plt.show()

"""
A linear model on explicit gradient features
============================================

A kernel between n samples takes n² numbers, which ends near ten thousand samples. An explicit map
gives a vector for each sample instead, whose inner products are close to the kernel, and leaves
the rest to a linear model trained by stochastic gradient descent. How long must the vector be?
"""

import warnings
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from skfisher import DenseHead, GradientFeatureKernel, GradientFeatureMap


def orientations(images, digits):
    """Return images in 8 orientations, and a class for each orientation of a digit."""
    turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    turned += [image.swapaxes(1, 2) for image in turned]
    samples = np.concatenate([image.reshape(len(image), -1) for image in turned])
    return samples.astype(np.float32), np.concatenate([8 * digits + k for k in range(8)])


# %%
# A network with a hidden layer of 512 units learns the digits 0 to 4 in eight orientations, 40
# classes. The task is to tell the digits 5 to 9, upright, and the gradients are those of the 512 x
# 512 weights between its hidden layers: 262 144 numbers for each image, of which neither the
# kernel nor the maps form any.

X, y = load_digits(return_X_y=True)
X = X / 16
warnings.filterwarnings("ignore", category=ConvergenceWarning)  # 20 epochs do
network = MLPClassifier((512, 512), max_iter=20, random_state=0)
network.fit(*orientations(X[y < 5].reshape(-1, 8, 8), y[y < 5]))
head = DenseHead.from_sklearn(network)
X, y = X[y >= 5].astype(np.float32), y[y >= 5]
splits = list(StratifiedShuffleSplit(10, train_size=600, random_state=0).split(X, y))

# %%
# Exact and approximate
# ---------------------
# "spectral" learns a rotation of each factor from the training images and keeps the pairs of
# directions with most energy; "tensor_sketch" draws random signs and looks at no image.

settings = {"target": "uniform", "temperature": 8.0}
sizes = [16, 32, 64, 128, 256, 512, 1024]
methods = ["spectral", "tensor_sketch"]
error = {method: np.zeros((len(splits), len(sizes))) for method in methods}
accuracy = {method: np.zeros((len(splits), len(sizes))) for method in methods}
exact_accuracy = []
for row, (train, test) in enumerate(splits):
    kernel = GradientFeatureKernel(head, **settings)
    machine = OneVsRestClassifier(SVC(kernel="precomputed", C=10))
    exact = make_pipeline(kernel, machine).fit(X[train], y[train])
    exact_accuracy.append(100 * exact.score(X[test], y[test]))
    K = kernel.fit_transform(X[test])
    for method in methods:
        for column, m in enumerate(sizes):
            model = make_pipeline(
                GradientFeatureMap(
                    head, n_components=m, method=method, random_state=row, **settings
                ),
                SGDClassifier(alpha=1e-4, average=True, random_state=row),
            ).fit(X[train], y[train])
            Z = model[0].transform(X[test])
            error[method][row, column] = 100 * np.linalg.norm(Z @ Z.T - K) / np.linalg.norm(K)
            accuracy[method][row, column] = 100 * model.score(X[test], y[test])

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, layout="constrained")
for method in methods:
    for ax, values in ((left, error[method]), (right, accuracy[method])):
        standard_error = values.std(axis=0, ddof=1) / np.sqrt(len(splits))
        ax.errorbar(sizes, values.mean(axis=0), standard_error, marker="o", capsize=3, label=method)
    for m, e, a in zip(sizes, error[method].mean(0), accuracy[method].mean(0), strict=True):
        print(f"{method:14s} m = {m:4d}   kernel error {e:5.1f} %   accuracy {a:.1f} %")
mean = np.mean(exact_accuracy)
print(f"exact kernel, SVC                               accuracy {mean:.1f} %")
right.axhline(mean, color="0.4", linestyle="--", label="exact kernel, SVC")
left.set_ylabel("error of the kernel, per cent")
left.set_yscale("log")
right.set_ylabel("accuracy, per cent")
for ax in (left, right):
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, sizes)
    ax.set_xlabel("n_components")
right.legend(frameon=False)

# %%
# A few hundred numbers of 262 144 do: the gradients lie in few directions, and a map that may look
# at the data finds them. The linear models come within a point of the exact kernel. The sketch
# needs many times as many numbers for the same error, and is for streams whose first sample must
# already be mapped.
#
# More samples
# ------------
# The cost of the map grows with the number of samples, not with its square. All images of the
# digits 5 to 9, turned and copied with noise, come in parts through ``partial_fit``, and no part
# needs the others.

rng = np.random.default_rng(0)
turned_X, turned_y = orientations(X[splits[0][0]].reshape(-1, 8, 8), y[splits[0][0]])
features = GradientFeatureMap(head, n_components=256, **settings).fit(turned_X)
classifier = SGDClassifier(alpha=1e-5, average=True, random_state=0)
start, n_seen = perf_counter(), 0
for _ in range(5):
    part = (turned_X + 0.1 * rng.normal(size=turned_X.shape)).astype(np.float32)
    order = rng.permutation(len(part))
    classifier.partial_fit(
        features.transform(part[order]), turned_y[order], classes=np.unique(turned_y)
    )
    n_seen += len(part)
seconds = perf_counter() - start
test_X, test_y = orientations(X[splits[0][1]].reshape(-1, 8, 8), y[splits[0][1]])
score = classifier.score(features.transform(test_X), test_y)
print(f"{n_seen} samples in {seconds:.1f} s; accuracy on 40 new classes {100 * score:.1f} %")

plt.show()

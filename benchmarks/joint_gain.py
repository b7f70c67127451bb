"""What joint training gains on bags it has not seen, over the frozen model it starts from.

    python benchmarks/joint_gain.py digits fsdd scenes vowels

Every run chooses C on a fifth of the training bags, by the frozen model alone; fits
JointFisherSVC on all of them; and scores it, its frozen baseline and its last step before the
final SVM on the same unseen bags. Printed are means in per cent over the runs (random splits,
pairs of unseen speakers, or folds), and differences within runs. Options change the model, for
experiments: ``--set feature_map=linear max_iter=40``, ``--em 10`` for so many iterations of EM,
``--choose-floor`` to choose the variance floor as C is chosen, for the frozen and the trained model
alike, ``--seeds 3`` to repeat every split.

FSDD, 15-Scene and Japanese Vowels are read from the folder that SKFISHER_DATA names. Extracted
descriptors are kept in the folder that SKFISHER_CACHE names, if it is set.
"""

import argparse
import ast
import itertools
import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    train_test_split,
)
from sklearn.preprocessing import StandardScaler, label_binarize
from sklearn.svm import LinearSVC

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    ImagePatches,
    JointFisherSVC,
)
from skfisher.datasets import load_fsdd, load_japanese_vowels, load_scene15
from skfisher.descriptors import dense_sift

GRID_OF_C = (0.1, 1.0, 10.0, 100.0)
GRID_OF_FLOORS = (0.01, 0.1, 0.3)


def digits():
    """500 images to train, 1297 to test; bags of 64 patches of 3 x 3 pixels, without positions."""
    images, y = load_digits(return_X_y=True)
    images = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)])
    bags = ImagePatches(3).fit_transform(images.astype(np.float32))
    splits = ShuffleSplit(8, train_size=500, random_state=0).split(y)
    return bags, y, list(splits), {"n_components": [2, 4, 8], "max_iter": 40}


def fsdd():
    """Four speakers to train, two others to test, all 15 pairs; 13 MFCC and deltas, PCA 20."""
    recordings = load_fsdd()
    columns = [*range(13), *range(20, 33)]
    bags = Bags.from_list([thinned(bag[:, columns], 64) for bag in recordings.data])
    speakers = np.unique(recordings.groups)
    splits = []
    for pair in itertools.combinations(speakers, 2):
        unseen = np.isin(recordings.groups, pair)
        splits.append((np.flatnonzero(~unseen), np.flatnonzero(unseen)))
    options = {"n_components": [4, 16], "max_iter": 15, "pca": 20}
    return bags, recordings.target, splits, options


def scenes(n=300, positions=False):
    """Five folds of the 1500 training images; 300 dense SIFT descriptors of each, PCA 32."""
    scenes = load_scene15()
    bags = cached(f"scenes-sift-{n}", lambda: sampled_sift(scenes.images, n))
    splits = StratifiedKFold(5, shuffle=True, random_state=0).split(scenes.target, scenes.target)
    options = {"n_components": [2, 8, 32], "max_iter": 15, "max_descriptors": 100, "pca": 32}
    if not positions:
        bags = Bags(bags.values[:, :-2], bags.starts, bags.stops)
    return bags, scenes.target, list(splits), options


def vowels():
    """Two times five folds of the 270 utterances; 12 LPC cepstrum coefficients a frame."""
    utterances = load_japanese_vowels()
    y = utterances.target
    splits = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0).split(y, y)
    options = {"n_components": [1, 2, 8], "max_iter": 40}
    bags = utterances.data
    bags = Bags(bags.values.astype(np.float32), bags.starts, bags.stops)
    return bags, y, list(splits), options


DATA = {
    "digits": digits,
    "fsdd": fsdd,
    "scenes": scenes,
    "vowels": vowels,
    # what more a bag of descriptors may know
    "scenes-1000": partial(scenes, 1000),
    "scenes-where": partial(scenes, positions=True),
    "scenes-1000-where": partial(scenes, 1000, positions=True),
}
DEFAULT = ("digits", "fsdd", "scenes", "vowels")


def thinned(bag, most):
    """Return at most so many descriptors, evenly spaced."""
    return bag[np.unique(np.linspace(0, len(bag) - 1, min(most, len(bag))).round().astype(int))]


def sampled_sift(images, n):
    """Return `n` dense SIFT descriptors of each image, their square roots as RootSIFT, and places.

    The last two columns are where in the grid of its scale a descriptor is, from -0.5 to 0.5:
    other than in pixels they do not tell how large an image is, which the classes differ in.
    """
    rng = np.random.default_rng(0)
    sampled = []
    for first in range(0, len(images), 100):
        part = images[first : first + 100]
        for image, bag in zip(part, dense_sift(part), strict=True):
            rows = np.sort(rng.choice(len(bag), min(n, len(bag)), replace=False))
            sift = bag[rows].astype(np.float32)
            sift = np.sqrt(sift / np.maximum(sift.sum(axis=1, keepdims=True), 1e-9))
            sampled.append(np.hstack([sift, places(image.shape)[rows]]))
    return Bags.from_list(sampled)


def places(shape, patch_size=24, step=8, scales=(1.0, 0.707, 0.5, 0.354)):
    """Return where the descriptors of an image are, (n, 2), in the order of `dense_sift`."""
    found = []
    for scale in scales:
        n_rows, n_columns = (int((round(side * scale) - patch_size) // step) + 1 for side in shape)
        y, x = np.divmod(np.arange(max(n_rows, 0) * max(n_columns, 0)), max(n_columns, 1))
        found.append(np.column_stack([(y + 0.5) / n_rows - 0.5, (x + 0.5) / n_columns - 0.5]))
    return np.concatenate(found).astype(np.float32)


def cached(name, make):
    """Return the bags that an earlier run kept, or make and keep them."""
    folder = os.environ.get("SKFISHER_CACHE")
    if folder is None:
        return make()
    folder = Path(folder) / name
    if not (folder / "manifest.json").is_file():  # the last that save writes
        make().save(folder)
    return Bags.load(folder, mmap_mode=None)


def scores(y, decision):
    """Return accuracy and mean average precision in per cent."""
    indicators = label_binarize(y, classes=np.unique(y))
    accuracy = accuracy_score(y, np.unique(y)[decision.argmax(axis=1)])
    return 100 * accuracy, 100 * average_precision_score(indicators, decision)


def chosen(bags, y, model, seed, floors):
    """Return the floor and C by which the frozen model is best on a fifth of the bags."""
    part, rest = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=seed)
    accuracies = {}
    for floor in floors:
        frozen = with_floor(model, floor).set_params(max_iter=0, multi_class="shared")
        encodings = frozen.fit(bags[part], y[part]).transform(bags)
        for C in GRID_OF_C:
            svm = LinearSVC(C=C, dual="auto", max_iter=10_000, random_state=0)
            svm.fit(encodings[part], y[part])
            accuracies[floor, C] = svm.score(encodings[rest], y[rest])
    return max(accuracies, key=accuracies.get)


def reduced(n, width):
    """Return a reduction of descriptors to `n` principal components; what follows SIFT stays."""
    parts = [("pca", PCA(n, whiten=True), slice(128))]
    if width > 128:
        parts.append(("where", StandardScaler(), slice(128, None)))
    return DescriptorTransformer(ColumnTransformer(parts), random_state=0)


def with_floor(model, floor):
    """Return a clone with another variance floor, that of its mixture included."""
    model = clone(model).set_params(variance_floor=floor)
    return model if model.mixture is None else model.set_params(mixture__variance_floor=floor)


def run(bags, y, split, seed, *, pca=None, em=None, choose_floor=False, **parameters):
    """Fit on the training bags; return what the frozen and the trained model reach.

    `em` is the number of iterations of EM, if not that of JointFisherSVC.
    """
    (fitted, unseen), (y, y_unseen) = (bags[i] for i in split), (y[i] for i in split)
    if pca is not None:
        reduce = reduced(pca, fitted.n_features)
        fitted, unseen = reduce.fit_transform(fitted), reduce.transform(unseen)
    model = JointFisherSVC(random_state=seed, **parameters)
    if em is not None:
        mixture = DiagonalGaussianMixture(model.n_components, max_iter=em, random_state=seed)
        model.set_params(mixture=mixture)
    floors = GRID_OF_FLOORS if choose_floor else [model.variance_floor]
    floor, C = chosen(fitted, y, model, seed, floors)
    model = with_floor(model, floor).set_params(C=C)
    began = time.perf_counter()
    model.fit(fitted, y)
    seconds = time.perf_counter() - began
    encodings = model.transform(unseen)
    frozen = scores(y_unseen, model.baseline_.decision_function(unseen))
    joint = scores(y_unseen, model.decision_function(unseen))
    direct = joint
    if model.means_.ndim == 2:
        direct = scores(y_unseen, encodings @ model.network_coef_.T + model.network_intercept_)
    return {
        "C": C, "floor": floor, "seconds": seconds,
        "frozen": frozen, "joint": joint, "direct": direct,
        "smallest_weight": min(model.history_.get("smallest_weight", [np.nan])),
    }  # fmt: skip


def summary(name, k, runs):
    """Return a line of the table."""
    frozen, joint, direct = (np.array([r[m] for r in runs]) for m in ("frozen", "joint", "direct"))
    gain = joint - frozen
    won, lost = int((gain[:, 0] > 0).sum()), int((gain[:, 0] < 0).sum())
    sd = gain.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(2)
    f, j = frozen.mean(axis=0), joint.mean(axis=0)
    return (
        f"| {name} | {k} | {len(runs)} | {f[0]:.1f} / {f[1]:.1f} | {j[0]:.1f} / {j[1]:.1f} "
        f"| {gain[:, 0].mean():+.1f} ± {sd[0]:.1f} | {won}/{lost} "
        f"| {gain[:, 1].mean():+.1f} ± {sd[1]:.1f} | {(direct - frozen)[:, 0].mean():+.1f} "
        f"| {min(r['smallest_weight'] for r in runs):.2f} "
        f"| {np.mean([r['seconds'] for r in runs]):.0f} |"
    )


HEAD = """\
| data | K | runs | frozen acc/mAP | joint acc/mAP | gain acc | won/lost | gain mAP | direct | \
min K w | s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="*", choices=[[], *DATA], default=list(DEFAULT))
    parser.add_argument("--components", type=int, nargs="*", help="in place of each set's own")
    parser.add_argument("--runs", type=int, help="only the first so many")
    parser.add_argument("--seeds", type=int, default=1, help="times that each split is run")
    parser.add_argument("--em", type=int, help="iterations of EM")
    parser.add_argument("--choose-floor", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the model")
    parser.add_argument("--log", type=Path, help="append every run to this file, a JSON line each")
    arguments = parser.parse_args()
    changes = {}
    for pair in arguments.set:
        name, _, value = pair.partition("=")
        try:
            changes[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            changes[name] = value
    print(HEAD, flush=True)
    for name in arguments.data:
        bags, y, splits, options = DATA[name]()
        options |= {"em": arguments.em, "choose_floor": arguments.choose_floor} | changes
        components = arguments.components or options["n_components"]
        del options["n_components"]
        for k in components:
            runs = []
            for seed, split in enumerate(splits[: arguments.runs] * arguments.seeds):
                runs.append(run(bags, y, split, seed, n_components=k, **options))
                if arguments.log:
                    line = {"data": name, "K": k, "seed": seed, "set": str(options), **runs[-1]}
                    with arguments.log.open("a") as log:
                        log.write(json.dumps(line) + "\n")
            print(summary(name, k, runs), flush=True)


if __name__ == "__main__":
    main()

"""One Fisher layer, two, and both side by side, at about equal length of code.

    python benchmarks/deep.py spoken scenes --log deep.jsonl
    python benchmarks/deep.py spoken scenes --train --log deep_trained.jsonl
    python benchmarks/deep.py --tables deep.jsonl
    python benchmarks/deep.py --times

Per cent of unseen bags that are classified correctly. Spoken digits: 40 features a frame,
standardised; each of six speakers is left out, and 600 recordings of the others are to train.
Scenes: the 1500 training images of 15-Scene in three folds, 1000 dense RootSIFT descriptors of
each, by PCA 64 dimensions, standardised; positions say which window a descriptor belongs to, and
are encoded by no line.

Encodings are centred, divided by their mean length and classified by LinearSVC. Every line has the
C of four by which it was best on these very bags, so that all lines are equally optimistic, and
differences within splits are fair. They are from one layer of the same length.

With ``--train``, networks and single layers are trained by JointClassifier, and compared with their
own frozen start, ``baseline_``, at one learning rate and the C that is the default.

With ``--times``, milliseconds of CPU time of one thread, the best of five: of the whole, of its
parts one by one, and of Fisher vectors of the windows, encoded as bags of their own.

Recordings and images are read from the folder that SKFISHER_DATA names, and extracted descriptors
kept in the folder that SKFISHER_CACHE names, if it is set.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from codebooks import best, classified, spoken_digits, spread
from joint_gain import cached, sampled_sift
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from skfisher import (
    Bags,
    DeepFisherEncoder,
    DescriptorTransformer,
    FisherVectorEncoder,
    JointClassifier,
)
from skfisher.datasets import load_scene15

GRID = (0.01, 0.1, 1.0, 10.0)


def spoken():
    bags, y, splits, transformer = spoken_digits()
    bags = bags if isinstance(bags, Bags) else Bags.from_list(bags)
    bags = Bags(bags.values.astype(np.float32), bags.starts, bags.stops)
    return bags, y, splits, transformer


def scenes():
    images = load_scene15()
    bags = cached("scenes-sift-1000", lambda: sampled_sift(images.images, 1000))
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(images.target, images.target)
    width = bags.n_features - 2
    reduced = make_pipeline(PCA(64, random_state=0), StandardScaler())
    transformer = make_column_transformer(
        (reduced, slice(0, width)), ("passthrough", slice(width, width + 2))
    )
    return bags, images.target, list(folds), transformer


def one(n_components):
    return FisherVectorEncoder(n_components, normalize="power-l2", random_state=0)


def deep(*n_components, **options):
    return DeepFisherEncoder(n_components, random_state=0, **options)


LDA = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
FRAMES = {"cell": 2, "window": 5}  # windows of ten frames, one every other frame
SPOKEN = [  # lines of one length, the one layer first
    {
        "one layer, 16": one(16),
        "second layer, 16 and 10": deep(16, 10, layers=(2,), **FRAMES),
        "both, 8 and 5": deep(8, 5, **FRAMES),
    },
    {
        "one layer, 32": one(32),
        "second layer, 16 and 20": deep(16, 20, layers=(2,), **FRAMES),
        "both, 16 and 10": deep(16, 10, **FRAMES),
        "both, 16 and 10, windows of 6 frames": deep(16, 10, cell=2, window=3),
        "both, 16 and 10, windows of 16 frames": deep(16, 10, cell=4, window=4),
        "both, 16 and 10, not stacked": deep(16, 10, stack=1, **FRAMES),
        "both, 16 and 35, LDA": deep(16, 35, projection=LDA, **FRAMES),
    },
]
PLANE = {"n_positions": 2}
SCENES = [
    {
        "one layer, 16": one(16),
        "second layer, 16 and 16": deep(16, 16, layers=(2,), **PLANE),
        "both, 8 and 8": deep(8, 8, **PLANE),
    },
    {
        "one layer, 32": one(32),
        "second layer, 16 and 32": deep(16, 32, layers=(2,), **PLANE),
        "both, 16 and 16": deep(16, 16, **PLANE),
        "both, 16 and 18, LDA": deep(16, 18, projection=LDA, **PLANE),
    },
]
DATA = {"spoken": (spoken, SPOKEN), "scenes": (scenes, SCENES)}


RATE = 1e-3
TRAINED = {  # lines, and epochs
    "spoken": (
        {
            "one layer, 32": FisherVectorEncoder(32),
            "second layer, 16 and 20": deep(16, 20, layers=(2,), **FRAMES),
            "both, 16 and 10": deep(16, 10, **FRAMES),
        },
        10,
    ),
    "scenes": (
        {"one layer, 16": FisherVectorEncoder(16), "both, 8 and 8": deep(8, 8, **PLANE)},
        6,
    ),
}


def taken_by(encoder, name, parts):
    """Return bags as an encoder takes them: one layer has no use for positions."""
    if name != "scenes" or isinstance(encoder, DeepFisherEncoder):
        return parts
    return [Bags(b.values[:, :-2], b.starts, b.stops) for b in parts]


def train(log, name):
    """Score frozen and trained models on every split."""
    bags, y, splits, transformer = DATA[name][0]()
    lines, n_epochs = TRAINED[name]
    for split, (fitted, unseen) in enumerate(splits):
        transform = DescriptorTransformer(clone(transformer), random_state=0)
        of_all = transform.fit_transform(bags[fitted], y[fitted]), transform.transform(bags[unseen])
        for label, encoder in lines.items():
            if (name, label, split) in log.runs:
                continue
            parts = taken_by(encoder, name, of_all)
            model = JointClassifier(
                clone(encoder), max_iter=n_epochs, learning_rate=RATE, random_state=0
            ).fit(parts[0], y[fitted])
            right = {
                kind: 100 * m.score(parts[1], y[unseen])
                for kind, m in (("trained", model), ("frozen", model.baseline_))
            }
            log.add(name, label, split, model.coef_.shape[1], right)


def print_trained(log):
    """Print a table of frozen and trained models for each data set."""
    for name, (lines, _) in TRAINED.items():
        if not any(key[0] == name for key in log.runs):
            continue
        print(f"| {name} | numbers | frozen | trained | trained less frozen (won/lost) |")
        print("| --- | --- | --- | --- | --- |")
        for label in lines:
            runs = [value for key, value in sorted(log.runs.items()) if key[:2] == (name, label)]
            trained, frozen = np.transpose([right for _, right in runs])
            means = [f"{r.mean():.1f} ± {r.std(ddof=1):.1f}" for r in (frozen, trained)]
            gain = spread(trained - frozen)
            print(f"| {label} | {runs[0][0]} | {' | '.join(means)} | {gain} |")
        print()


def run(log, name):
    """Score all lines on every split."""
    load, groups = DATA[name]
    bags, y, splits, transformer = load()
    for split, (fitted, unseen) in enumerate(splits):
        transform = DescriptorTransformer(clone(transformer), random_state=0)
        train, test = transform.fit_transform(bags[fitted], y[fitted]), None
        for lines in groups:
            for label, encoder in lines.items():
                if (name, label, split) in log.runs:
                    continue
                test = transform.transform(bags[unseen]) if test is None else test
                parts = taken_by(encoder, name, (train, test))
                encodings = clone(encoder).fit(parts[0], y[fitted])
                encodings, others = map(encodings.transform, parts)
                right = {C: classified(encodings, y[fitted], others, y[unseen], C) for C in GRID}
                log.add(name, label, split, encodings.shape[1], right)


class Log:
    """Lengths and accuracies by data, line and split, a row each in a file."""

    def __init__(self, path):
        self.path = path
        rows = path.read_text().splitlines() if path.exists() else []
        self.runs = {tuple(key): value for key, value in map(json.loads, rows)}

    def add(self, name, label, split, length, right):
        self.runs[name, label, split] = value = length, list(right.values())
        with self.path.open("a") as file:
            file.write(json.dumps([[name, label, split], value]) + "\n")

    def of(self, name, label):
        """Return the mean length, and the accuracy of every split at the best C."""
        runs = {key[2]: value for key, value in self.runs.items() if key[:2] == (name, label)}
        if not runs:
            return None
        lengths, rights = zip(*(runs[split] for split in sorted(runs)), strict=True)
        return round(np.mean(lengths)), best(dict(zip(GRID, np.transpose(rights), strict=True)))


def print_tables(log):
    """Print a table for each data set."""
    for name, (_, groups) in DATA.items():
        if not any(key[0] == name for key in log.runs):
            continue
        print(f"| {name} | numbers | per cent right | less one layer (won/lost) |")
        print("| --- | --- | --- | --- |")
        for lines in groups:
            reference = log.of(name, next(iter(lines)))[1]
            for i, label in enumerate(lines):
                length, right = log.of(name, label)
                gain = spread(right - reference) if i else ""
                mean = f"{right.mean():.1f} ± {right.std(ddof=1):.1f}"
                print(f"| {label} | {length} | {mean} | {gain} |")
        print()


def seconds(function):
    """Return the CPU time of a call, the best of five."""
    found = []
    for _ in range(5):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def print_times():
    """Print what encoding takes, of 300 random series of 24 to 88 rows in 40 dimensions."""
    rng = np.random.default_rng(0)
    lengths = 8 * rng.integers(3, 12, 300)
    bags = Bags.from_lengths(rng.normal(size=(lengths.sum(), 40)).astype(np.float32), lengths)
    encoder = DeepFisherEncoder(random_state=0).fit(bags)
    starts = [np.arange(a, b - 8, 8) for a, b in zip(bags.starts, bags.stops, strict=True)]
    n_windows, starts = [len(s) for s in starts], np.concatenate(starts)
    windows = Bags(bags.values, starts, starts + 16)
    codes = encoder.local_.transform(windows)
    n_stacks = np.subtract(n_windows, 1)
    of_bag = np.split(codes, np.cumsum(n_windows)[:-1])
    rows = [encoder.projection_.transform(c) for c in of_bag]
    rows = normalize(np.concatenate([np.hstack([r[:-1], r[1:]]) for r in rows]))
    second = Bags.from_lengths(encoder.reduction_.transform(rows).astype(np.float32), n_stacks)
    print("| step | ms |\n| --- | --- |")
    for name, call in {
        "first layer, of bags": lambda: encoder.local_.transform(bags),
        "first layer, of windows": lambda: encoder.local_.transform(windows),
        "projection, all at once": lambda: encoder.projection_.transform(codes),
        "reduction, all at once": lambda: encoder.reduction_.transform(rows),
        "second layer": lambda: encoder.global_.transform(second),
        "whole network": lambda: encoder.transform(bags),
    }.items():
        print(f"| {name} | {1e3 * seconds(call):.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="*", choices=[[], *DATA], default=[])
    parser.add_argument("--log", type=Path, default=Path("deep.jsonl"))
    parser.add_argument("--tables", type=Path, help="print the tables of this log")
    parser.add_argument("--train", action="store_true", help="train, and compare with the start")
    parser.add_argument("--times", action="store_true", help="measure what encoding takes")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.times:
        print_times()
    work, show = (train, print_trained) if arguments.train else (run, print_tables)
    for name in arguments.data:
        work(Log(arguments.log), name)
    if arguments.tables or arguments.data:
        show(Log(arguments.tables or arguments.log))


if __name__ == "__main__":
    main()

"""Which variance floor, length and start of EM make the best Fisher vectors, for the defaults.

    python benchmarks/defaults.py frozen joint axes --log defaults.jsonl
    python benchmarks/defaults.py --tables defaults.jsonl

Every run holds bags out: a third of the scenes and of the vowels' utterances, two of six speakers
of the spoken digits, all but 500 of the images of digits. Descriptors go to principal axes of unit
variance.

frozen: accuracy of a linear SVM on Fisher vectors with power and L2 normalisation, over a grid of
    the mixture's parameters.
joint: that of JointFisherSVC from some of these mixtures. Its gain is over the best frozen model
    of the grid, whichever that is.
axes: the frozen accuracy where white descriptors are turned by a random rotation first.

A line of the log is one run; runs that the log has are not repeated. FSDD, 15-Scene and Japanese
Vowels are read from the folder that SKFISHER_DATA names, and extracted descriptors kept in the
folder that SKFISHER_CACHE names, if it is set.
"""

import argparse
import itertools
import json
import warnings
from pathlib import Path

import numpy as np
from joint_gain import digits, fsdd, scenes, vowels
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from skfisher import (
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    JointFisherSVC,
    PowerL2Normalizer,
)

COMPONENTS = (4, 16, 64)
SEEDS = (0, 1, 2)
FLOORS = (1e-3, 1e-2, 0.1, 0.3)
ITERATIONS = (2, 10, 100)
STARTS = {"kmeans": FLOORS, "k-means++": (1e-3, 0.1), "random": (1e-3, 0.1)}
# mixtures to train from: iterations and floor; the components that training is for are few
JOINT = [(2, 1e-2), (2, 0.1), (2, 0.3), (10, 1e-2), (10, 0.1), (10, 0.3), (100, 0.3)]
JOINT_COMPONENTS = (4, 16)
MAX_DESCRIPTORS = 50_000  # that EM sees


def thirds(y):
    """Return three splits, each with a third of every class held out."""
    return list(StratifiedKFold(3, shuffle=True, random_state=0).split(y, y))


def data_of(name):
    """Return bags, labels, a split for each seed, dimensions, C, and options of joint training."""
    bags, y, splits, options = {"digits": digits, "fsdd": fsdd, "scenes": scenes, "vowels": vowels}[
        name
    ]()
    if name in ("scenes", "vowels"):
        splits = thirds(y)
    elif name == "fsdd":  # of the pairs of speakers three that have none in common
        splits = [splits[0], splits[9], splits[14]]
    C = {"digits": 10.0, "fsdd": 1.0, "scenes": 1.0, "vowels": 10.0}[name]
    width = options.pop("pca", bags.n_features)
    del options["n_components"]
    return bags, y, splits, width, C, options


def principal(bags, fitted, width, *, whiten):
    """Return bags in the principal axes of those `fitted`."""
    reduce = DescriptorTransformer(PCA(width, whiten=whiten, random_state=0), random_state=0)
    return reduce.fit(bags[fitted]).transform(bags)


def turned(bags, seed):
    """Return bags whose descriptors are turned by a random rotation."""
    d = bags.n_features
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    return Bags(bags.values @ rotation.astype(bags.dtype), bags.starts, bags.stops)


def mixtures(bags, k, *, start, floor, seed):
    """Yield numbers of iterations, and the mixture after them."""
    mixture = DiagonalGaussianMixture(
        k, variance_floor=floor, max_descriptors=MAX_DESCRIPTORS, random_state=seed
    )
    if start == "random":
        # descriptors as means, with the variances of all
        rng = np.random.default_rng(seed)
        mixture.weights_ = np.full(k, 1 / k)
        mixture.means_ = bags.values[rng.choice(len(bags.values), k, replace=False)].astype(float)
        mixture.variances_ = np.tile(bags.values.var(axis=0, dtype=np.float64), (k, 1))
        mixture.set_params(warm_start=True)
    else:
        mixture.set_params(init_params=start)
    done = 0
    for n in ITERATIONS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.set_params(max_iter=n - done).fit(bags)
        yield n, mixture
        mixture.set_params(warm_start=True)
        done = n


def accuracy(mixture, bags, y, split, C):
    """Return what a linear SVM on Fisher vectors reaches on the bags held out, in per cent."""
    fitted, unseen = split
    encoder = FisherVectorEncoder(mixture=mixture).fit(bags[fitted])
    encodings = PowerL2Normalizer().transform(encoder.transform(bags))
    svm = LinearSVC(C=C, dual=True, tol=1e-3, max_iter=2000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm.fit(encodings[fitted], y[fitted])
    return 100 * svm.score(encodings[unseen], y[unseen])


def frozen(log, name, seed, data):
    """Run the grid of mixtures."""
    bags, y, splits, width, C, _ = data
    fitted, _ = split = splits[seed]
    bags = principal(bags, fitted, width, whiten=True)
    grid = [(k, s, floor) for k in COMPONENTS for s, floors in STARTS.items() for floor in floors]
    for k, start, floor in grid:
        keys = [(name, seed, "frozen", k, start, floor, n) for n in ITERATIONS]
        if not log.has(keys):
            found = mixtures(bags[fitted], k, start=start, floor=floor, seed=seed)
            for key, (_, mixture) in zip(keys, found, strict=True):
                log.add(key, accuracy(mixture, bags, y, split, C))


def joint(log, name, seed, data):
    """Run joint training from some of the mixtures."""
    bags, y, splits, width, C, options = data
    fitted, unseen = splits[seed]
    # to the axes that the model itself goes to: of white descriptors, rounding would choose them
    bags = principal(bags, fitted, width, whiten=False)
    for k, (n, floor) in itertools.product(JOINT_COMPONENTS, JOINT):
        keys = [(name, seed, what, k, "kmeans", floor, n) for what in ("joint", "start")]
        if not log.has(keys):
            mixture = DiagonalGaussianMixture(
                k, max_iter=n, variance_floor=floor, random_state=seed
            )
            model = JointFisherSVC(
                mixture=mixture, variance_floor=floor, C=C, random_state=seed, **options
            ).fit(bags[fitted], y[fitted])
            for key, fit in zip(keys, (model, model.baseline_), strict=True):
                log.add(key, 100 * fit.score(bags[unseen], y[unseen]))


def axes(log, name, seed, data):
    """Run one mixture on descriptors in their principal axes, and turned."""
    bags, y, splits, width, C, _ = data
    fitted, _ = split = splits[seed]
    straight = principal(bags, fitted, width, whiten=True)
    for k, what in itertools.product(COMPONENTS, ("straight", "turned")):
        key = (name, seed, what, k, "kmeans", 0.1, 10)
        if not log.has([key]):
            bags = straight if what == "straight" else turned(straight, seed)
            found = mixtures(bags[fitted], k, start="kmeans", floor=0.1, seed=seed)
            mixture = next(mixture for n, mixture in found if n == 10)
            log.add(key, accuracy(mixture, bags, y, split, C))


PARTS = {"frozen": frozen, "joint": joint, "axes": axes}
NAMES = ("vowels", "digits", "fsdd", "scenes")


class Log:
    """Accuracies by what was run, a line each in a file."""

    def __init__(self, path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.runs = {tuple(key): value for key, value in map(json.loads, lines)}

    def has(self, keys):
        return all(key in self.runs for key in keys)

    def add(self, key, value):
        self.runs[key] = value
        with self.path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")

    def mean(self, name, what, k, start, floor, n):
        """Return the mean over seeds, nan if there is no run."""
        runs = [self.runs.get((name, seed, what, k, start, floor, n)) for seed in SEEDS]
        runs = [run for run in runs if run is not None]
        return np.mean(runs) if runs else np.nan


def print_tables(log):
    """Print a table of each part, mean accuracies over the seeds."""
    settings = [(s, n, f) for s, floors in STARTS.items() for n in ITERATIONS for f in floors]
    columns = list(itertools.product(NAMES, COMPONENTS))

    def row(label, values):
        print(f"| {label} | " + " | ".join(values) + " |")

    def head(label, columns):
        row(label, [f"{name}, K = {k}" for name, k in columns])
        row("---", ["---"] * len(columns))

    print("\nFrozen:\n")
    head("start, iterations, floor", columns)
    for start, n, floor in settings:
        means = [log.mean(name, "frozen", k, start, floor, n) for name, k in columns]
        row(f"{start}, {n}, {floor:g}", [f"{mean:.1f}" for mean in means])
    best = {
        (name, k): max(log.mean(name, "frozen", k, start, f, n) for start, n, f in settings)
        for name, k in columns
    }
    row("best", [f"{mean:.1f}" for mean in best.values()])

    print("\nJoint, and the gain over the best frozen model:\n")
    columns = list(itertools.product(NAMES, JOINT_COMPONENTS))
    head("iterations, floor", columns)
    for n, floor in JOINT:
        means = [log.mean(name, "joint", k, "kmeans", floor, n) for name, k in columns]
        gains = [mean - best[column] for mean, column in zip(means, columns, strict=True)]
        cells = [f"{mean:.1f} ({gain:+.1f})" for mean, gain in zip(means, gains, strict=True)]
        row(f"{n}, {floor:g}", cells)

    print("\nWhite descriptors in their principal axes / turned:\n")
    columns = list(itertools.product(NAMES, COMPONENTS))
    head("", columns)
    pairs = [
        [log.mean(name, what, k, "kmeans", 0.1, 10) for what in ("straight", "turned")]
        for name, k in columns
    ]
    row("", [f"{straight:.1f} / {turned:.1f}" for straight, turned in pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--log", type=Path, default=Path("defaults.jsonl"))
    parser.add_argument("--tables", type=Path, help="print the tables of this log")
    arguments = parser.parse_args()
    if arguments.tables:
        print_tables(Log(arguments.tables))
        return
    log = Log(arguments.log)
    data = {name: data_of(name) for name in NAMES}
    for seed, name, part in itertools.product(SEEDS, NAMES, arguments.parts):
        PARTS[part](log, name, seed, data[name])


if __name__ == "__main__":
    main()

"""How well bags classify by every encoding of theirs: a table of encoders by data sets.

    python benchmarks/pooling_accuracy.py vowels digits spoken scenes --log accuracy.jsonl
    python benchmarks/pooling_accuracy.py --tables accuracy.jsonl

Every encoder is fitted anew on the training bags of every split, and so is what stands before it:
nothing has seen the bags that it is tested on. C is fixed beforehand, for all encoders but Fisher
vectors, which have 1, and a data set; encodings are centred, and on scenes divided by the mean
length of what is left. With ``--only`` and the beginnings of names, others are left out.

vowels: Japanese Vowels, 270 utterances of 7 to 26 frames; 5 folds, 4 times.
digits: 1797 images of digits, 25 patches of 4 x 4 pixels each, PCA 12; 500 to train, 4 times.
spoken: the Free Spoken Digit Dataset, 40 features a frame; each of 6 speakers is left out, 600
    recordings of the others to train.
scenes: 15-Scene, 1500 images of 1000 dense RootSIFT descriptors, PCA 64; 3 folds.

A line of the log is one split; splits that the log has are not repeated. The printed table has the
mean over splits and their standard deviation. A second one has, for each encoder, the mean
difference from a reference within splits, and on how many splits it is better and worse. Data are
read from the folder that SKFISHER_DATA names, and extracted descriptors kept in the folder that
SKFISHER_CACHE names, if it is set.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joint_gain import cached, sampled_sift
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DescriptorTransformer,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    JointClassifier,
    MeanPooling,
    MixtureSecondOrderPooling,
    SecondOrderPooling,
    VLADEncoder,
)
from skfisher.datasets import load_digits_patches, load_fsdd, load_japanese_vowels, load_scene15


class Data(NamedTuple):
    """Bags, labels, splits, what becomes of descriptors, and settings that go with them."""

    bags: Bags
    y: np.ndarray
    splits: list
    before: list  # transformers of descriptors
    C: float  # of centred encodings
    n_components: int  # of Fisher vectors
    scale: bool = False  # whether centred encodings are divided by their mean length


class Centering(TransformerMixin, BaseEstimator):
    """Subtract the mean of encodings, and divide by the mean length of what is left."""

    def __init__(self, scale=False):
        self.scale = scale

    def fit(self, X, y=None):
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        lengths = np.linalg.norm(X - self.mean_, axis=1)
        self.length_ = lengths.mean() if self.scale else 1.0
        return self

    def transform(self, X):
        return (X - self.mean_) / self.length_


def vowels():
    utterances = load_japanese_vowels()
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=4, random_state=0)
    return data(utterances, folds.split(utterances.target, utterances.target), [], 10.0, 4)


def digits():
    patches = load_digits_patches()
    shuffles = StratifiedShuffleSplit(4, train_size=500, random_state=0)
    splits = shuffles.split(patches.target, patches.target)
    return data(patches, splits, [PCA(12, random_state=0)], 10.0, 16)


def spoken():
    recordings = load_fsdd()
    rng, splits = np.random.default_rng(0), []
    for speaker in np.unique(recordings.groups):
        rest = np.flatnonzero(recordings.groups != speaker)
        fitted = np.sort(rng.choice(rest, 600, replace=False))
        splits.append((fitted, np.flatnonzero(recordings.groups == speaker)))
    return data(recordings, splits, [], 0.1, 8)


def scenes():
    images = load_scene15()
    bags = cached("scenes-sift-1000", lambda: sampled_sift(images.images, 1000))
    images.data = Bags(bags.values[:, :-2], bags.starts, bags.stops)
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(images.target, images.target)
    return data(images, folds, [PCA(64, random_state=0)], 1.0, 16)._replace(scale=True)


def data(bunch, splits, before, C, n_components):
    bags = bunch.data if isinstance(bunch.data, Bags) else Bags.from_list(bunch.data)
    bags = Bags(bags.values.astype(np.float32), bags.starts, bags.stops)
    before = [DescriptorTransformer(t, random_state=0) for t in (*before, StandardScaler())]
    return Data(bags, bunch.target, list(splits), before, C, n_components)


DATA = {"vowels": vowels, "digits": digits, "spoken": spoken, "scenes": scenes}


def centered(encoder: Callable[[Data], object]):
    """Return what makes a classifier of data: an encoder, centring and a linear SVM."""

    def model(data):
        svm = LinearSVC(C=data.C, random_state=0)
        return make_pipeline(*data.before, encoder(data), Centering(data.scale), svm)

    return model


def fisher(data):
    encoder = FisherVectorEncoder(data.n_components, normalize="power-l2", random_state=0)
    return make_pipeline(*data.before, encoder, LinearSVC(C=1.0, random_state=0))


def second_order(preset=SecondOrderPooling, **options):
    """Return an encoder of second order; where it is one of the literature, of unit length."""
    return centered(lambda data: preset(**{"norm": "l2", **options}))


def both(data):
    """Return a classifier of Fisher vectors and Gaussian embeddings side by side."""
    encoder = FisherVectorEncoder(data.n_components, normalize="power-l2", random_state=0)
    union = make_union(encoder, SecondOrderPooling())
    svm = LinearSVC(C=data.C, random_state=0)
    return make_pipeline(*data.before, union, Centering(data.scale), svm)


def trained(encoder, **options):
    """Return a joint model, which whitens descriptors and centres encodings by itself."""
    settings = {"C": 1.0, "max_descriptors": 100, "random_state": 0, **options}
    return lambda data: make_pipeline(*data.before, JointClassifier(encoder, **settings))


def frozen(encoder, **options):
    """Return what `trained` starts from."""
    return trained(encoder, max_iter=0, **options)


REFERENCE = "Gaussian, root"
LEARNED = BagOfWordsEncoder(16, assignment="soft", metric="diagonal")
PROJECTED = SecondOrderPooling(n_components=6)
GATED = GatedSecondOrderPooling(4, n_components=6)
AS_IS = {"feature_map": "identity", "whiten": False}
# A classifier, not fitted, for some data. More encoders go here, and joint models as they are.
MODELS = {
    REFERENCE: second_order(),
    "Gaussian, power 0.3": second_order(power=0.3),
    "Gaussian, Newton-Schulz 5": second_order(function="newton_schulz"),
    "Gaussian, logarithm": second_order(function="log"),
    "covariance, root": second_order(statistic="covariance"),
    "covariance, Newton-Schulz 5": second_order(statistic="covariance", function="newton_schulz"),
    "covariance, logarithm": second_order(statistic="covariance", function="log"),
    "covariance": second_order(statistic="covariance", function="identity"),
    "MPN-COV, M-l2": second_order(SecondOrderPooling.mpn_cov, norm="spectral"),
    "O2P": second_order(SecondOrderPooling.o2p),
    "B-CNN": second_order(SecondOrderPooling.bcnn),
    "improved B-CNN": second_order(SecondOrderPooling.improved_bcnn),
    "mean": centered(lambda data: MeanPooling(normalize="l2")),
    "mean and deviation": centered(lambda data: MeanPooling("mean_std", normalize="l2")),
    "Fisher vector": fisher,
    "Fisher vector and Gaussian": both,
    "Gaussians of a mixture, K=4": centered(lambda _: MixtureSecondOrderPooling(4, random_state=0)),
    "bag of 64 words, soft": centered(
        lambda _: BagOfWordsEncoder(64, assignment="soft", normalize="power-l2", random_state=0)
    ),
    "VLAD, 16 words": centered(lambda _: VLADEncoder(16, random_state=0)),
    "VLAD, 16 words, intra": centered(lambda _: VLADEncoder(16, normalize="intra", random_state=0)),
    "compact bilinear, 2048": centered(
        lambda _: CompactBilinearPooling(2048, normalize="power-l2", random_state=0)
    ),
    "learned aggregation, 16 words: frozen": frozen(LEARNED),
    "learned aggregation, 16 words: trained": trained(LEARNED),
    "NetVLAD, 16 words: frozen": frozen(VLADEncoder(16)),
    "NetVLAD, 16 words: trained": trained(VLADEncoder(16)),
    "Fisher vector, K=4: frozen": frozen(FisherVectorEncoder(4)),
    "Fisher vector, K=4: trained": trained(FisherVectorEncoder(4)),
    "Gaussian of 6 dimensions: frozen": frozen(PROJECTED, **AS_IS),
    "Gaussian of 6 dimensions: trained": trained(PROJECTED, **AS_IS),
    "GM-SOP of 6 dimensions: frozen": frozen(GATED, **AS_IS),
    "GM-SOP of 6 dimensions: trained": trained(GATED, **AS_IS),
}


def run(log, name, only):
    """Score every model on every split of some data."""
    found = DATA[name]()
    for label, model in MODELS.items():
        if only and not label.startswith(tuple(only)):
            continue
        for split, (fitted, unseen) in enumerate(found.splits):
            if (name, label, split) in log.runs:
                continue
            classifier = clone(model(found))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                classifier.fit(found.bags[fitted], found.y[fitted])
            log.add(name, label, split, classifier.score(found.bags[unseen], found.y[unseen]))


class Log:
    """Accuracies in per cent by data, model and split, a line each in a file."""

    def __init__(self, path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.runs = {tuple(key): value for key, value in map(json.loads, lines)}

    def add(self, name, label, split, accuracy):
        self.runs[name, label, split] = value = 100 * accuracy
        with self.path.open("a") as file:
            file.write(json.dumps([[name, label, split], value]) + "\n")

    def of(self, name, label):
        """Return the accuracies by split."""
        runs = {key[2]: value for key, value in self.runs.items() if key[:2] == (name, label)}
        return [runs[split] for split in sorted(runs)]


def print_tables(log):
    """Print accuracies, and differences from the reference."""
    names = [name for name in DATA if any(key[0] == name for key in log.runs)]
    labels = list(dict.fromkeys(label for _, label, _ in log.runs))
    head = "| | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1)

    def cells(cell):
        for label in labels:
            print(f"| {label} | " + " | ".join(cell(name, label) for name in names) + " |")

    def accuracy(name, label):
        runs = log.of(name, label)
        return f"{np.mean(runs):.2f} ± {np.std(runs, ddof=1):.1f}" if len(runs) > 1 else ""

    def difference(name, label):
        runs, reference = log.of(name, label), log.of(name, REFERENCE)
        if label == REFERENCE or not runs or len(runs) != len(reference):
            return ""
        gains = np.subtract(runs, reference)
        return f"{gains.mean():+.2f} ({(gains > 0).sum()}-{(gains < 0).sum()})"

    print(f"Accuracy in per cent:\n\n{head}")
    cells(accuracy)
    print(f"\nDifference from {REFERENCE}, and splits won and lost:\n\n{head}")
    cells(difference)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="*", choices=[[], *DATA], default=[])
    parser.add_argument("--only", nargs="*", help="run models whose names begin so")
    parser.add_argument("--log", type=Path, default=Path("accuracy.jsonl"))
    parser.add_argument("--tables", type=Path, help="print the tables of this log")
    arguments = parser.parse_args()
    for name in arguments.data:
        run(Log(arguments.log), name, arguments.only)
    if arguments.tables or arguments.data:
        print_tables(Log(arguments.tables or arguments.log))


if __name__ == "__main__":
    main()

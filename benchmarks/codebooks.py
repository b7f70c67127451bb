"""Bags of words, VLAD and learned aggregation: accuracy frozen and trained, on real data.

    python benchmarks/codebooks.py --save

Per cent of unseen bags that are classified correctly: Japanese vowels in five folds, four times;
digits with 500 images to train, four times; spoken digits of a speaker never heard, with 600
recordings of the other five to train. Descriptors are standardised, or for digits whitened by PCA
to 12 dimensions, on the training bags. Frozen encodings are centred, divided by their mean length
and classified by LinearSVC; trained ones are those of JointClassifier, beside the frozen model it
starts from. Every line has the C by which the frozen encodings were best on these very bags, so
that all lines are equally optimistic, and differences within splits are fair.

Vowels and spoken digits are read from the folder that SKFISHER_DATA names.
"""

import argparse
import datetime
import os
import platform
import warnings
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    DescriptorTransformer,
    FisherVectorEncoder,
    JointClassifier,
    MeanPooling,
    VLADEncoder,
)
from skfisher.datasets import load_digits_patches, load_fsdd, load_japanese_vowels

RESULTS = Path(__file__).parent / "results"


def vowels():
    """270 utterances of nine speakers, 12 coefficients a frame."""
    utterances = load_japanese_vowels()
    y = utterances.target
    splits = RepeatedStratifiedKFold(n_splits=5, n_repeats=4, random_state=0).split(y, y)
    return utterances.data, y, list(splits), StandardScaler()


def digits():
    """1797 images of digits, 25 patches of 4 x 4 pixels each."""
    images = load_digits_patches()
    y = images.target
    splits = StratifiedShuffleSplit(4, train_size=500, random_state=0).split(y, y)
    return images.data, y, list(splits), PCA(12, whiten=True, random_state=0)


def spoken_digits():
    """2700 recordings of six speakers, 20 MFCC and their deltas a frame."""
    recordings = load_fsdd()
    rng, splits = np.random.default_rng(0), []
    for speaker in np.unique(recordings.groups):
        others = np.flatnonzero(recordings.groups != speaker)
        fitted = np.sort(rng.choice(others, 600, replace=False))
        splits.append((fitted, np.flatnonzero(recordings.groups == speaker)))
    return recordings.data, recordings.target, splits, StandardScaler()


# name: (how to load it, words, the values of C)
DATA = {
    "vowels": (vowels, 16, (0.1, 1.0, 10.0, 100.0)),
    "digits": (digits, 32, (0.1, 1.0, 10.0, 100.0)),
    "spoken digits": (spoken_digits, 16, (0.01, 0.1, 1.0, 10.0)),
}


def frozen_encoders(k):
    """Return the encoders of the first table, by name."""
    words = {"random_state": 0}
    soft = {"assignment": "soft"}
    return {
        "mean": MeanPooling(normalize="l2"),
        "mean and deviation": MeanPooling("mean_std", normalize="l2"),
        "bag of words, hard": BagOfWordsEncoder(k, **words),
        "bag of words, soft": BagOfWordsEncoder(k, **soft, **words),
        "VLAD, hard": VLADEncoder(k, assignment="hard", **words),
        "VLAD, hard, intra": VLADEncoder(k, assignment="hard", normalize="intra", **words),
        "VLAD, ratio 100": VLADEncoder(k, ratio=100, **words),
        "VLAD, ratio 100, intra": VLADEncoder(k, ratio=100, normalize="intra", **words),
        "VLAD": VLADEncoder(k, **words),
        "VLAD, intra": VLADEncoder(k, normalize="intra", **words),
        "VLAD and squares": VLADEncoder(k, moments=2, **words),
        "Fisher vector": FisherVectorEncoder(k, normalize="power-l2", **words),
    }


def learned_aggregation(k):
    """Return the encoder of a soft bag of words with metrics of the words' own."""
    return BagOfWordsEncoder(k, assignment="soft", metric="diagonal")


# (data, name, encoder, options of JointClassifier)
PLAIN = {"feature_map": "identity", "whiten": False}
TRAINED = [
    ("digits", "T1, 16 words", learned_aggregation(16), {}),
    ("digits", "T1, 16 words, no map", learned_aggregation(16), PLAIN),
    ("digits", "T1, 64 words", learned_aggregation(64), {}),
    ("digits", "T2, 8 words", VLADEncoder(8, metric="diagonal"), {}),
    ("digits", "NetVLAD, 8 words", VLADEncoder(8), {}),
    ("digits", "NetVLAD, 8 words, intra", VLADEncoder(8, normalize="intra"), {}),
    ("digits", "NetVLAD, 8 words, free", VLADEncoder(8, tied=False), {}),
    ("digits", "NetFV, 8 words", VLADEncoder(8, moments=2), {}),
    ("digits", "Fisher vector, 8 components", FisherVectorEncoder(8), {}),
    ("spoken digits", "T1, 16 words", learned_aggregation(16), {"whiten": False}),
    ("spoken digits", "T1, 16 words, no map", learned_aggregation(16), PLAIN),
    ("spoken digits", "T1, 64 words", learned_aggregation(64), {"whiten": False}),
    ("spoken digits", "NetVLAD, 16 words", VLADEncoder(16), {"whiten": False}),
    ("spoken digits", "NetVLAD, 16 words, no map", VLADEncoder(16), PLAIN),
    ("spoken digits", "NetVLAD, 16 words, free", VLADEncoder(16, tied=False), {"whiten": False}),
    ("spoken digits", "NetVLAD, 16 words, whitened", VLADEncoder(16), {}),
    ("spoken digits", "NetFV, 16 words", VLADEncoder(16, moments=2), {"whiten": False}),
    ("spoken digits", "T2, 16 words", VLADEncoder(16, metric="diagonal"), {"whiten": False}),
    ("spoken digits", "Fisher vector, 8 components", FisherVectorEncoder(8), {"whiten": False}),
]
EPOCHS = {"vowels": 40, "digits": 40, "spoken digits": 20}


def parts(data):
    """Yield training bags, their labels, unseen bags and theirs, descriptors transformed."""
    load, _, _ = DATA[data]
    bags, y, splits, transformer = load()
    for fitted, unseen in splits:
        transform = DescriptorTransformer(clone(transformer), random_state=0)
        yield (
            transform.fit_transform(bags[fitted]), y[fitted],
            transform.transform(bags[unseen]), y[unseen],
        )  # fmt: skip


def classified(encodings, y, others, labels, C):
    """Return the per cent right of a linear classifier of centred encodings."""
    mean = encodings.mean(axis=0)
    length = np.linalg.norm(encodings - mean, axis=1).mean()
    svm = LinearSVC(C=C, random_state=0, max_iter=20_000).fit((encodings - mean) / length, y)
    return 100 * svm.score((others - mean) / length, labels)


def frozen(data):
    """Return by encoder the per cent right of every split, at the best C."""
    _, k, grid = DATA[data]
    found = {}
    for fitted, y, unseen, labels in parts(data):
        for name, encoder in frozen_encoders(k).items():
            encodings = encoder.fit_transform(fitted)
            others = encoder.transform(unseen)
            for C in grid:
                right = classified(encodings, y, others, labels, C)
                found.setdefault(name, {}).setdefault(C, []).append(right)
    return {name: best(of_encoder) for name, of_encoder in found.items()}


def best(by_C):
    """Return the figures of the C whose mean is largest."""
    return np.array(max(by_C.values(), key=np.mean))


def trained(data, encoder, **options):
    """Return the per cent right of every split, of the frozen model and of the trained one."""
    grid, splits = DATA[data][2], list(parts(data))
    options = {"random_state": 0, "max_iter": EPOCHS[data], **options}

    def right(C, **changes):
        models = (
            (JointClassifier(encoder, C=C, **options | changes).fit(fitted, y), unseen, labels)
            for fitted, y, unseen, labels in splits
        )
        return np.array([100 * model.score(unseen, labels) for model, unseen, labels in models])

    before = {C: right(C, max_iter=0) for C in grid}
    C = max(before, key=lambda C: before[C].mean())
    return before[C], right(C)


def spread(difference):
    """Return mean and deviation of differences, and how many are gains and losses."""
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return f"{difference.mean():+.1f} ± {difference.std(ddof=1):.1f} ({won}/{lost})"


def frozen_table():
    """Yield the lines of the first table."""
    figures = {data: frozen(data) for data in DATA}
    yield "| encoding | " + " | ".join(f"{d}, {k} words" for d, (_, k, _) in DATA.items()) + " |"
    yield "| --- |" + " --- |" * len(DATA)
    for name in frozen_encoders(1):
        means = [f"{figures[data][name].mean():.1f}" for data in DATA]
        yield f"| {name} | {' | '.join(means)} |"
    for kind in ("", ", intra"):
        gains = [figures[d][f"VLAD{kind}"] - figures[d][f"VLAD, hard{kind}"] for d in DATA]
        yield f"| soft less hard VLAD{kind} | {' | '.join(map(spread, gains))} |"


def trained_table():
    """Yield the lines of the second table."""
    yield "| data | model | frozen | trained | gain (won/lost) |"
    yield "| --- | --- | --- | --- | --- |"
    for data, name, encoder, options in TRAINED:
        before, after = trained(data, encoder, **options)
        means = f"{before.mean():.1f} | {after.mean():.1f}"
        yield f"| {data} | {name} | {means} | {spread(after - before)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--save", action="store_true", help="keep the tables in results/")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines = []
    for table in (frozen_table(), trained_table()):
        for line in table:
            print(line, flush=True)
            lines.append(line)
        lines.append("")
    if arguments.save:
        today = datetime.date.today().isoformat()
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        head = [f"# Codebooks, {today}", "", *__doc__.split("\n\n", 1)[1].splitlines(), "", machine]
        text = "\n".join([*head, "", *lines])
        (RESULTS / f"codebooks-{today}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()

"""What sampling by loss and natural gradients gain, in equal time.

    python benchmarks/sampling.py [--seeds N] [--save]

On four sets a joint model is trained with uniform batches for 20 epochs, then with batches drawn
by loss for as much CPU time; and with four solvers for 20 epochs each. Compared are the loss on the
training bags and the accuracy on bags held out, within seeds. Sets: the digits; digits of which
nine in ten are easy, as a frozen model finds; spoken digits of two speakers that were not heard;
and the training images of 15-Scene, a third of them held out, 1000 dense RootSIFT descriptors of
each, by PCA 64 dimensions. The last two are read from the folder that SKFISHER_DATA names, and
descriptors of scenes kept in the folder that SKFISHER_CACHE names, if it is set.
"""

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import numpy as np
from joint_gain import cached, sampled_sift
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import (
    Bags,
    DescriptorTransformer,
    FisherVectorEncoder,
    ImagePatches,
    JointClassifier,
    LossSampling,
)
from skfisher.datasets import load_fsdd, load_scene15

RESULTS = Path(__file__).parent / "results"
SAMPLERS = {
    "uniform": "uniform",
    "loss, k=0.5": "loss",
    "loss, k=1": LossSampling(1.0),
    "loss, k=0": LossSampling(0.0),
}
SOLVERS = {"adam": 1e-2, "sgd": 1e-1, "natural": 1e-1, "structured_natural": 1e-2}


def digits():
    """All bags of 5 x 5 patches, and their labels."""
    images, y = load_digits(return_X_y=True)
    return ImagePatches(4).fit_transform(images.reshape(-1, 8, 8).astype(np.float32)), y


def split_digits(seed):
    """500 images to train, 1297 to test."""
    bags, y = digits()
    train, test = train_test_split(np.arange(len(y)), train_size=500, stratify=y, random_state=seed)
    return bags[train], y[train], bags[test], y[test]


def split_easy(seed):
    """1000 images of which nine in ten are far on the right side of a frozen model."""
    bags, y = digits()
    frozen = make_pipeline(
        FisherVectorEncoder(4, normalize="power-l2", random_state=0), LinearSVC(random_state=0)
    )
    decision = cross_val_predict(frozen, bags, y, cv=3, method="decision_function")
    own = decision[np.arange(len(y)), y]
    decision[np.arange(len(y)), y] = -np.inf
    order = np.argsort(own - decision.max(axis=1))
    rng = np.random.default_rng(seed)
    hard, easy = rng.permutation(order[:200]), rng.permutation(order[800:])
    train = np.concatenate([hard[:100], easy[:900]])
    test = np.concatenate([hard[100:], easy[900:]])
    return bags[train], y[train], bags[test], y[test]


def split_fsdd(seed):
    """Four speakers to train, two others to test."""
    data = load_fsdd()
    speakers = np.random.default_rng(seed).permutation(np.unique(data.groups))
    unseen = np.isin(data.groups, speakers[:2])
    bags = Bags.from_list([np.asarray(bag, dtype=np.float32)[:64] for bag in data.data])
    reduce = DescriptorTransformer(PCA(20, random_state=0), random_state=0).fit(bags[~unseen])
    bags = reduce.transform(bags)
    return bags[~unseen], data.target[~unseen], bags[unseen], data.target[unseen]


def split_scenes(seed):
    """1000 images to train, 500 to test."""
    images = load_scene15()
    sift = cached("scenes-sift-1000", lambda: sampled_sift(images.images, 1000))
    sift = Bags(sift.values[:, :-2], sift.starts, sift.stops)  # without places
    train, test = train_test_split(
        np.arange(len(sift)), train_size=1000, stratify=images.target, random_state=seed
    )
    reduce = DescriptorTransformer(PCA(64, random_state=0), random_state=0).fit(sift[train])
    train_bags, test_bags = reduce.transform(sift[train]), reduce.transform(sift[test])
    return train_bags, images.target[train], test_bags, images.target[test]


SETS = {
    "digits": split_digits,
    "nine in ten easy": split_easy,
    "spoken digits": split_fsdd,
    "scenes": split_scenes,
}


def run(data, seed, max_iter=20, **settings):
    """Train, and return what came of it and the seconds of CPU of each epoch."""
    X, y, X_test, y_test = data
    model = JointClassifier(
        FisherVectorEncoder(4), random_state=seed, max_iter=max_iter, **settings
    )
    descend, spent, losses = model._epoch, [], []

    def epoch(*args):
        began = time.process_time()
        result = descend(*args)
        spent.append(time.process_time() - began)
        return result

    model._epoch = epoch
    model.fit(X, y, X_val=X, y_val=y)
    del model._epoch
    losses = model.history_["validation_loss"]
    return {
        "loss": losses[-1], "losses": losses, "seconds": spent, "epochs": len(losses),
        "accuracy": 100 * model.score(X_test, y_test), "history": model.history_,
    }  # fmt: skip


def compare_samplers(name, seeds):
    """Return a row for each sampler."""
    found = {sampler: [] for sampler in SAMPLERS}
    for seed in range(seeds):
        data = SETS[name](seed)
        for sampler, sampling in SAMPLERS.items():
            epochs = 20
            if sampler != "uniform":  # as many as take the time of uniform ones
                seconds = run(data, seed, 4, sampling=sampling)["seconds"]
                epochs = round(sum(found["uniform"][-1]["seconds"]) / np.mean(seconds))
            found[sampler].append(run(data, seed, epochs, sampling=sampling))
    uniform = found["uniform"]
    for sampler, results in found.items():
        gains = [r["accuracy"] - u["accuracy"] for r, u in zip(results, uniform, strict=True)]
        sizes = [np.mean(r["history"].get("effective_sample_size", [32])) for r in results]
        correlations = [np.mean(r["history"].get("loss_correlation", [0])) for r in results]
        yield [
            name, sampler, f"{np.mean([r['epochs'] for r in results]):.0f}",
            f"{np.mean([r['loss'] for r in results]):.4f}",
            f"{np.mean([r['accuracy'] for r in results]):.2f}",
            f"{np.mean(gains):+.2f} ± {np.std(gains):.2f}",
            f"{np.mean(sizes):.1f}", f"{np.mean(correlations):.2f}",
        ]  # fmt: skip


def compare_solvers(name, seeds):
    """Return a row for each solver: what it takes to come within 5 % of the least loss."""
    found = {solver: [] for solver in SOLVERS}
    for seed in range(seeds):
        data = SETS[name](seed)
        for solver, rate in SOLVERS.items():
            found[solver].append(run(data, seed, solver=solver, learning_rate=rate))
    for solver, results in found.items():
        epochs, seconds = [], []
        for seed, result in enumerate(results):
            least = min(min(found[other][seed]["losses"]) for other in SOLVERS)
            there = np.flatnonzero(np.array(result["losses"]) <= 1.05 * least)
            n = there[0] + 1 if len(there) else np.inf
            epochs.append(n)
            seconds.append(sum(result["seconds"][:n]) if len(there) else np.inf)
        yield [
            name, solver, f"{np.mean([r['loss'] for r in results]):.4f}",
            f"{np.median(epochs):.0f}", f"{np.median(seconds):.1f}",
            f"{np.mean([r['accuracy'] for r in results]):.2f}",
        ]  # fmt: skip


def table(columns, rows):
    """Return the lines of a table, printed as they come."""
    lines = [columns, ["---"] * len(columns)]
    for row in lines:
        print("| " + " | ".join(row) + " |", flush=True)
    for row in rows:
        lines.append(row)
        print("| " + " | ".join(row) + " |", flush=True)
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    samplers = table(
        ["set", "batches", "epochs", "training loss", "accuracy", "over uniform", "bags in effect",
         "correlation"],
        (row for name in SETS for row in compare_samplers(name, arguments.seeds)),
    )  # fmt: skip
    solvers = table(
        ["set", "solver", "training loss", "epochs to 1.05 of the least", "seconds", "accuracy"],
        (row for name in SETS for row in compare_solvers(name, arguments.seeds)),
    )
    if arguments.save:
        path = RESULTS / f"sampling-{datetime.date.today()}.md"
        path.write_text(
            "# Sampling by loss, and natural gradients\n\n"
            f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores. Command: "
            f"`python benchmarks/sampling.py --save --seeds {arguments.seeds}`. Means over seeds; "
            "losses are those of the training bags after the last epoch, before the last SVM.\n\n"
            "Batches, in the CPU time that 20 uniform epochs take:\n\n"
            f"{samplers}\n\nSolvers, 20 epochs (a median of inf: not reached):\n\n{solvers}\n"
        )


if __name__ == "__main__":
    main()

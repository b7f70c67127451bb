"""What it is worth to know where descriptors are: appended coordinates, and pyramids of cells.

    python benchmarks/layout.py --log layout.jsonl [--save]

A log is gone on with; ``--save`` keeps the table in ``benchmarks/results/``.

Per cent of unseen bags that are classified correctly, in five folds. The 1500 training images of
15-Scene, 1000 dense RootSIFT descriptors of each, by PCA 64 dimensions, standardised, and where
they are, from -0.5 to 0.5. Fisher vectors of 32 components, power and L2 normalised cell by cell.

Encodings are centred, divided by their mean length and classified by LinearSDCA, the model of
LinearSVC. Every line has the C of three by which it was best on these very bags, so that all lines
are equally optimistic, and differences within folds are fair. They are from the first line, which
knows no place.

Images are read from the folder that SKFISHER_DATA names, and extracted descriptors kept in the
folder that SKFISHER_CACHE names, if it is set.
"""

import argparse
import datetime
import json
import os
from pathlib import Path

import numpy as np
from codebooks import best, spread
from joint_gain import cached, sampled_sift
from pooling import cpu
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfisher import Bags, DescriptorTransformer, FisherVectorEncoder, LinearSDCA, SpatialPyramid
from skfisher.datasets import load_scene15

RESULTS = Path(__file__).parent / "results"
GRID = (0.1, 1.0, 10.0)


def fisher(n_components=32):
    return FisherVectorEncoder(n_components, normalize="power-l2", random_state=0)


def pyramid(*cells, n_components=32):
    return SpatialPyramid(fisher(n_components), cells)


# What encodes, and by what positions are multiplied that are encoded; 0: they are not.
LINES = {
    "Fisher vector": (pyramid((1, 1)), 0),
    "Fisher vector, 64 components": (pyramid((1, 1), n_components=64), 0),
    "Fisher vector, 256 components": (pyramid((1, 1), n_components=256), 0),
    "positions appended, times 1": (fisher(), 1.0),
    "positions appended, times 3.5": (fisher(), 3.5),
    "1 x 1, 2 x 2": (pyramid((1, 1), (2, 2)), 0),
    "1 x 1, 3 rows": (pyramid((1, 1), (3, 1)), 0),
    "1 x 1, 2 x 2, 3 rows": (pyramid((1, 1), (2, 2), (3, 1)), 0),
    "1 x 1, 2 x 2, 3 columns": (pyramid((1, 1), (2, 2), (1, 3)), 0),
    "1 x 1, 2 x 2, 3 rows, 4 components": (pyramid((1, 1), (2, 2), (3, 1), n_components=4), 0),
}


def scenes():
    """Return bags with x and y in the last columns, and labels."""
    images = load_scene15()
    bags = cached("scenes-sift-1000", lambda: sampled_sift(images.images, 1000))
    columns = [*range(bags.n_features - 2), bags.n_features - 1, bags.n_features - 2]
    return Bags(bags.values[:, columns], bags.starts, bags.stops), images.target  # kept as y, x


def scaled(bags, scale):
    """Return bags with positions multiplied."""
    values = bags.values.copy()
    values[:, -2:] *= scale
    return Bags(values, bags.starts, bags.stops)


def right(train, y, test, labels):
    """Return by C the per cent of encodings that are classified correctly."""
    mean = train.mean(axis=0)
    length = np.linalg.norm(train - mean, axis=1).mean()
    train, test = (train - mean) / length, (test - mean) / length
    machines = (LinearSDCA(C=C, random_state=0).fit(train, y) for C in GRID)
    return [100 * machine.score(test, labels) for machine in machines]


def run(path):
    """Score all lines on every fold, and log what the log has not."""
    runs = logged(path)
    if {(line, fold) for line in LINES for fold in range(5)} <= runs.keys():
        return
    bags, y = scenes()
    reduced = make_pipeline(PCA(64, random_state=0), StandardScaler())
    where = slice(bags.n_features - 2, bags.n_features)
    columns = make_column_transformer((reduced, slice(0, where.start)), ("passthrough", where))
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(y, y)
    for fold, (fitted, unseen) in enumerate(folds):
        transform = DescriptorTransformer(clone(columns), random_state=0)
        train, test = transform.fit_transform(bags[fitted]), transform.transform(bags[unseen])
        for line, (encoder, scale) in LINES.items():
            if (line, fold) in runs:
                continue
            parts = [scaled(part, scale) if scale else part for part in (train, test)]
            encoder = clone(encoder).fit(parts[0])
            encodings, others = map(encoder.transform, parts)
            scores = right(encodings, y[fitted], others, y[unseen])
            with path.open("a") as file:
                file.write(json.dumps([line, fold, encodings.shape[1], scores]) + "\n")


def logged(path):
    rows = path.read_text().splitlines() if path.exists() else []
    return {(line, fold): (width, scores) for line, fold, width, scores in map(json.loads, rows)}


def table(path):
    """Yield a line for each way."""
    runs, reference = logged(path), None
    yield "| encoding | numbers | per cent right | more than without place (won/lost) |"
    yield "| --- | --- | --- | --- |"
    for line in LINES:
        found = [runs[line, fold] for fold in range(5)]
        of_line = best(dict(zip(GRID, np.transpose([s for _, s in found]), strict=True)))
        reference = of_line if reference is None else reference
        gain = spread(of_line - reference) if of_line is not reference else ""
        mean = f"{of_line.mean():.1f} ± {of_line.std(ddof=1):.1f}"
        yield f"| {line} | {found[0][0]} | {mean} | {gain} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--log", type=Path, default=Path("layout.jsonl"))
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    arguments = parser.parse_args()
    run(arguments.log)
    lines = list(table(arguments.log))
    print("\n".join(lines))
    if arguments.save:
        today = datetime.date.today().isoformat()
        head = [f"# Layout, {today}", "", *__doc__.split("\n\n", 1)[1].splitlines(), ""]
        text = "\n".join(
            [*head, f"{cpu()}, {os.cpu_count()} cores, beside other work.", "", *lines]
        )
        (RESULTS / f"layout-{today}.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

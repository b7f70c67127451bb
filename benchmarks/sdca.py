"""Dual coordinate ascent for all classes at once against scikit-learn's LinearSVC, on encodings.

    python benchmarks/sdca.py [--samples 5000] [--repeats 3] [--save]

Both minimise the same objective in one thread, by turns, and CPU seconds are measured. LinearSVC
runs at its default tolerance, in its faster form where it has two. `fit_linear_svms` runs
once in float32, in which encoders return their encodings, to its own default tolerance; and once
in float64, in which LIBLINEAR always works, until its objective, summed over classes, is as low as
LinearSVC's.

Encodings of the 15-Scene images are read from the folder that SKFISHER_DATA names. `--samples`
concerns the widest problem, which is synthetic: LinearSVC takes 16 bytes a number there.
"""

import argparse
import datetime
import os
import platform
import time
import warnings
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import skfisher
from skfisher import DescriptorTransformer, FisherVectorEncoder, PowerL2Normalizer
from skfisher.datasets import load_scene15
from skfisher.descriptors import dense_sift
from skfisher.svm.sdca import DualAscent
from skfisher.svm.solver import fit_linear_svms

warnings.simplefilter("ignore")


def scenes():
    """Yield Fisher vectors of the 1500 training images: 520 numbers each, and 4128."""
    data = load_scene15()
    bags = dense_sift(data.images, scales=(1.0, 0.5))
    for n_components, n_features in [(8, 32), (32, 64)]:
        encoder = make_pipeline(
            DescriptorTransformer(PCA(n_features, whiten=True, random_state=0)),
            FisherVectorEncoder(n_components, max_iter=20, max_descriptors=50_000, random_state=0),
            PowerL2Normalizer(),
        )
        yield encoder.fit_transform(bags).astype(np.float32), data.target


def synthetic(n, d=65_664, n_classes=20, seed=0):
    """Draw vectors of 200 latent factors, some of which tell classes, as encodings are made."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = 0.3 * rng.standard_normal((n_classes, 200), dtype=np.float32)
    factors = centres[y] + rng.standard_normal((n, 200), dtype=np.float32)
    scales = np.arange(1, 201, dtype=np.float32)[:, None] ** -0.5
    x = factors @ (scales * rng.standard_normal((200, d), dtype=np.float32))
    for row in x:
        row += 0.5 * rng.standard_normal(d, dtype=np.float32)
        np.copysign(np.sqrt(np.abs(row)), row, out=row)
        row /= np.linalg.norm(row)
    return x, y


def objective(coef, intercept, x, signs, C, loss):
    """Return the primal objective, summed over classes."""
    coef, intercept = coef.astype(np.float64), intercept.astype(np.float64)
    shortfall = np.maximum(0, 1 - signs * (x @ coef.T + intercept))
    losses = shortfall if loss == "hinge" else shortfall**2
    return (np.vdot(coef, coef) + np.vdot(intercept, intercept)) / 2 + C * losses.sum()


def cpu_time(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def liblinear(x, y, C, loss):
    """Fit the faster of LinearSVC's forms."""
    forms = [True] if loss == "hinge" or len(x) < x.shape[1] else [True, False]
    svm = lambda dual: LinearSVC(C=C, loss=loss, dual=dual, random_state=0, max_iter=10_000)
    turns = [cpu_time(lambda dual=dual: svm(dual).fit(x, y)) for dual in forms]
    return min(turns, key=lambda turn: turn[0])


def until_as_low(x, signs, C, loss, target, n_passes=1000):
    """Make passes until the objective is as low as `target`."""
    ascent, rng = DualAscent(x, signs, C, loss=loss), np.random.default_rng(0)
    for n_iter in range(n_passes):
        if ascent.objectives()[0].sum() <= target:
            return n_iter
        ascent.visit_all(rng)
    return None


def spread(values):
    return f"{np.median(values):.2g} ({min(values):.2g} to {max(values):.2g})"


def compare(x, y, C, loss, repeats):
    """Return a row of the table."""
    signs = np.where(y[:, None] == np.unique(y), 1, -1)
    wide = x.astype(np.float64)
    best = fit_linear_svms(wide, signs, C, loss=loss, tol=1e-7, max_iter=500).dual.sum()
    times = []
    for _ in range(repeats):
        theirs, svm = liblinear(wide, y, C, loss)
        ours, solution = cpu_time(lambda: fit_linear_svms(x, signs, C, loss=loss))
        models = (svm.coef_, svm.intercept_), (solution.coef, solution.intercept)
        values = [objective(*model, wide, signs, C, loss) for model in models]
        matched, n_passes = cpu_time(lambda v=values: until_as_low(wide, signs, C, loss, v[0]))
        times.append((theirs, ours, matched if n_passes is not None else np.nan))
    excess = [value / best - 1 for value in values]
    theirs, ours, matched = np.array(times).T
    shape = f"{len(x)} x {x.shape[1]} x {signs.shape[1]}"
    row = (
        f"| {shape} | {loss} | {C:g} | {np.median(theirs):.2f} | {np.median(ours):.2f} | "
        f"{excess[0]:.0e} | {excess[1]:.0e} | {solution.n_iter} | {spread(theirs / ours)} | "
        f"{spread(theirs / matched)} |"
    )
    print(row, flush=True)
    return row


def warm_starts(x, y, C=1.0, share=0.01, repeats=3):
    """Return a row: fits after encodings moved by `share` of their length, from old duals and 0."""
    signs = np.where(y[:, None] == np.unique(y), 1, -1)
    old = fit_linear_svms(x, signs, C)
    noise = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)
    moved = x + np.float32(share) * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    times = []
    for _ in range(repeats):
        theirs, _ = liblinear(moved, y, C, "squared_hinge")
        cold, from_zero = cpu_time(lambda: fit_linear_svms(moved, signs, C))
        warm, from_old = cpu_time(lambda: fit_linear_svms(moved, signs, C, duals=old.duals))
        times.append((theirs, cold, warm))
    theirs, cold, warm = np.array(times).T
    row = (
        f"| {len(x)} x {x.shape[1]} x {signs.shape[1]} | {share:.0%} | {from_zero.n_iter} | "
        f"{from_old.n_iter} | {spread(cold / warm)} | {spread(theirs / warm)} |"
    )
    print(row, flush=True)
    return row


HEADER = """\
| samples x features x classes | loss | C | LinearSVC, s | SDCA, s | excess of LinearSVC | \
excess of SDCA | passes | LinearSVC / SDCA | LinearSVC / SDCA to the same objective |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""
WARM_HEADER = """\
| samples x features x classes | moved by | passes from 0 | passes from old duals | \
from 0 / from old duals | LinearSVC / from old duals |
| --- | --- | --- | --- | --- | --- |"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=5000, help="of the widest problem")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    print(HEADER)
    rows, warm = [], []
    for x, y in scenes():
        rows += [
            compare(x, y, C, loss, options.repeats)
            for loss in ("squared_hinge", "hinge")
            for C in (1.0, 10.0)
        ]
        warm += [warm_starts(x, y, share=share, repeats=options.repeats) for share in (0.01, 0.1)]
    x, y = synthetic(options.samples)
    rows += [compare(x, y, 1.0, loss, 1) for loss in ("squared_hinge", "hinge")]
    if options.save:
        save(rows, warm, options)


def save(rows, warm, options):
    today = datetime.date.today().isoformat()
    command = f"python benchmarks/sdca.py --samples {options.samples} --repeats {options.repeats}"
    text = f"""# Dual coordinate ascent and LinearSVC, {today}

Command: `{command} --save`. Hardware: {cpu()}, {os.cpu_count()} cores, of which one was used. \
Python {platform.python_version()}, NumPy {np.__version__}, scikit-learn {sklearn.__version__}, \
skfisher {skfisher.__version__}. CPU seconds and ratios within a turn of alternating runs: median \
(smallest to largest) of {options.repeats}, and one run of the widest problem. Other work shared \
the machine, so read ratios rather than seconds. Excess: how far the objective is above the best \
dual objective found, as a share.

{chr(10).join([HEADER, *rows])}

## After encodings have moved

Squared hinge, C = 1. The last column is what warm starts save in training that refits the
classifier again and again.

{chr(10).join([WARM_HEADER, *warm])}
"""
    path = Path(__file__).parent / "results" / f"sdca-{today}.md"
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}")


def cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

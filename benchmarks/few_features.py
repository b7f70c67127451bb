"""LinearSDCA against scikit-learn's LinearSVC where samples outnumber features.

    python benchmarks/few_features.py [--repeats 7] [--save]

Both run at their default tolerance, in one thread, by turns, and the least CPU time of each counts.
LinearSVC has `dual="auto"`; where its 1000 iterations do not suffice, its objective is higher.
The 15-Scene images are read from the folder that SKFISHER_DATA names.
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
from sdca import cpu, objective, scenes
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

import skfisher
from skfisher import FisherVectorEncoder, ImagePatches, LinearSDCA

warnings.simplefilter("ignore")


def noisy(n, d, seed=0):
    """Draw samples of two classes, 15 % of which are of the other one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, (x @ rng.normal(size=d) > 0) ^ (rng.random(n) < 0.15)


def problems():
    """Yield a name, samples, labels and C."""
    for n, d, costs in [(300, 40, (1e-6, 1.0, 1e6)), (2000, 1000, (1.0,)), (5000, 100, (1.0,))]:
        for C in costs:
            yield "noise", *noisy(n, d), C
    x, y = load_digits(return_X_y=True)
    yield "digits, pixels", x / 16, y, 1.0
    patches = ImagePatches(4).fit_transform(x.reshape(-1, 8, 8))
    encoder = FisherVectorEncoder(8, normalize="power-l2", random_state=0)
    yield "digits, Fisher vectors", encoder.fit_transform(patches), y, 1.0
    x, y = next(scenes())
    for C in 1.0, 10.0:
        yield "scenes, Fisher vectors", x, y, C


def cpu_time(model, x, y):
    start = time.process_time()
    model.fit(x, y)
    return time.process_time() - start


def compare(name, x, y, C, loss, repeats):
    """Return a row of the table."""
    ours = LinearSDCA(C=C, loss=loss, random_state=0)
    theirs = LinearSVC(C=C, loss=loss, dual="auto", random_state=0)
    times = [[cpu_time(model, x, y) for model in (ours, theirs)] for _ in range(repeats)]
    least, most = np.min(times, axis=0) * 1e3, max(a / b for a, b in times)
    signs = np.where(y[:, None] == ours.classes_, 1, -1)[:, -len(ours.coef_) :]
    values = [objective(m.coef_, m.intercept_, x, signs, C, loss) for m in (ours, theirs)]
    row = (
        f"| {name} | {len(x)} x {x.shape[1]} x {signs.shape[1]} | {x.dtype} | {loss} | {C:g} "
        f"| {ours.n_iter_} | {least[0]:.1f} | {least[1]:.1f} | {least[0] / least[1]:.2f} "
        f"| {most:.2f} | {values[0] / values[1] - 1:.0e} |"
    )
    print(row, flush=True)
    return row


HEADER = """\
| samples | samples x features x classes | dtype | loss | C | passes | LinearSDCA, ms \
| LinearSVC, ms | LinearSDCA / LinearSVC | most of any turn | objective above LinearSVC's |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    print(HEADER)
    rows = [
        compare(*problem, loss, options.repeats)
        for problem in problems()
        for loss in ("squared_hinge", "hinge")
    ]
    if options.save:
        today = datetime.date.today().isoformat()
        path = Path(__file__).parent / "results" / f"few_features-{today}.md"
        path.write_text(report(rows, options.repeats, today), encoding="utf-8")
        print(f"written to {path}")


def report(rows, repeats, today):
    return f"""# LinearSDCA and LinearSVC where samples outnumber features, {today}

Command: `python benchmarks/few_features.py --repeats {repeats} --save`. Hardware: {cpu()}, \
{os.cpu_count()} cores, of which one was used. Python {platform.python_version()}, \
NumPy {np.__version__}, scikit-learn {sklearn.__version__}, skfisher {skfisher.__version__}. The \
least CPU time of {repeats} alternating runs each, at default tolerances, and the ratio of these; \
beside it the largest ratio within a turn. Other work shared the machine, so read ratios rather \
than milliseconds.

{chr(10).join([HEADER, *rows])}
"""


if __name__ == "__main__":
    main()

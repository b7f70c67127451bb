"""How fast Fisher vectors and EM are on this CPU, as ratios to peers of the same run.

    python benchmarks/cpu.py [--save] [--quick]

Peers: scikit-image's ``fisher_vector``, scikit-learn's ``GaussianMixture``, and a plain
NumPy version with the same matrix products. All in float32. Every figure is the best of
several interleaved repeats; one thread each, unless a row says otherwise. ``--save``
writes the table to ``benchmarks/results/``.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import sklearn
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_info, threadpool_limits

import skfisher
from skfisher import Bags, FisherVectorEncoder
from skfisher.codebooks.em import Mixture, expectation, maximization
from skfisher.ops.fisher import fisher_vector, fisher_vector_vjp
from skfisher.parallel.units import Where, row_units

ROWS = []


def problem(n_bags, length, d, k, *, spread, ragged=False, seed=0):
    """Draw bags from a mixture whose means lie `spread` deviations apart, in each dimension."""
    rng = np.random.default_rng(seed)
    lengths = np.full(n_bags, length)
    if ragged:
        lengths = rng.integers(length // 2, 3 * length // 2 + 1, size=n_bags)
    mixture = Mixture(
        rng.dirichlet(np.full(k, 5.0)),
        rng.normal(size=(k, d)) * spread,
        rng.uniform(0.5, 1.5, size=(k, d)),
    )
    component = rng.choice(k, size=lengths.sum(), p=mixture.weights)
    x = rng.standard_normal((lengths.sum(), d), dtype=np.float32)
    x *= np.sqrt(mixture.variances).astype(np.float32)[component]
    x += mixture.means.astype(np.float32)[component]
    return Bags.from_lengths(x, lengths), mixture


def plain_encode(bags, mixture):
    """Fisher vectors the straightforward way: one bag at a time, whole arrays, in float32."""
    weights, means, variances = (p.astype(np.float32) for p in mixture)
    k, d = means.shape
    encodings = np.empty((len(bags), (2 * d + 1) * k), np.float32)
    linear, quadratic = (means / variances).T.copy(), (-0.5 / variances).T.copy()
    constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
    root = np.sqrt(weights)[:, None]
    for i, x in enumerate(bags):
        x2 = x * x
        p = x @ linear + x2 @ quadratic + constant
        p -= p.max(axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        s0, s1, s2 = p.sum(axis=0)[:, None], p.T @ x, p.T @ x2
        n = np.float32(len(x))
        f_w = (s0 - n * weights[:, None]) / (n * root)
        f_means = (s1 - means * s0) / (n * root * np.sqrt(variances))
        f_variances = ((s2 - 2 * means * s1 + means**2 * s0) / variances - s0) / (
            n * np.float32(2**0.5) * root
        )
        encodings[i] = np.concatenate([f_w.ravel(), f_means.ravel(), f_variances.ravel()])
    return encodings


def scikit_learn_mixture(mixture):
    peer = GaussianMixture(len(mixture.weights), covariance_type="diag")
    weights, means, variances = (p.astype(np.float32) for p in mixture)
    peer.weights_, peer.means_, peer.covariances_ = weights, means, variances
    peer.precisions_cholesky_ = 1 / np.sqrt(variances)
    return peer


def encoder_of(mixture, n_jobs=None):
    encoder = FisherVectorEncoder(mixture=None, n_jobs=n_jobs)
    encoder.weights_, encoder.means_, encoder.variances_ = mixture
    encoder.n_features_in_, encoder._fit_on_bags = mixture.means.shape[1], True
    return encoder


def best_of(*functions, repeats):
    """Return the shortest time of each function, in seconds; repeats are interleaved."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return [min(seconds) for seconds in times]


def report(work, ours, peer, name, bar=None, most=None):
    ratio = peer / ours
    verdict = ""
    if bar is not None:
        verdict = "met" if ratio >= bar else "missed"
    elif most is not None:
        bar, verdict = f"at most {most}", "met" if ratio <= most else "missed"
    ROWS.append((work, f"{ours * 1e3:.1f}", name, f"{peer * 1e3:.1f}", f"{ratio:.2f}",
                 "" if bar is None else f"{bar}", verdict))  # fmt: skip
    times = f"{ours * 1e3:9.1f} ms   {name:<28} {peer * 1e3:9.1f} ms"
    print(f"{work:<58} {times}   x{ratio:.2f} {verdict}", flush=True)


def encode(repeats):
    from skimage.feature import fisher_vector as scikit_image_fisher_vector

    with threadpool_limits(1):
        cases = [
            ("24 x 10^4 x 64, K=32, overlapping", (24, 10_000, 64, 32), 0.5, False, 1.3),
            ("the same, ragged", (24, 10_000, 64, 32), 0.5, True, 1.3),
            ("the same, separated", (24, 10_000, 64, 32), 2.0, False, 4),
            ("16 x 10^4 x 768, K=32", (16, 10_000, 768, 32), 0.5, False, None),
            ("8 x 10^4 x 64, K=256", (8, 10_000, 64, 256), 0.5, False, None),
        ]
        for name, shape, spread, ragged, bar in cases:
            bags, mixture = problem(*shape, spread=spread, ragged=ragged)
            encoder = encoder_of(mixture)
            ours, plain = encoder.transform(bags), plain_encode(bags, mixture)
            assert np.abs(ours - plain).max() < 1e-3 * np.abs(plain).max()
            times = best_of(
                lambda e=encoder, b=bags: e.transform(b),
                lambda m=mixture, b=bags: plain_encode(b, m),
                repeats=repeats,
            )
            report(f"encode {name}", *times, "plain NumPy", bar)
        for ragged in (False, True):
            bags, mixture = problem(4000, 50, 24, 64, spread=0.5, ragged=ragged)
            encoder, peer = encoder_of(mixture), scikit_learn_mixture(mixture)
            name = "encode 4000 x 50 x 24, K=64" + (", ragged" if ragged else "")
            ours, theirs, plain = best_of(
                lambda e=encoder, b=bags: e.transform(b),
                lambda b=bags, p=peer: [scikit_image_fisher_vector(x, p) for x in b],
                lambda m=mixture, b=bags: plain_encode(b, m),
                repeats=max(2, repeats // 3),
            )
            report(name, ours, theirs, "scikit-image", 8)
            report(name, ours, plain, "plain NumPy")


def em(repeats):
    for k, bar in ((32, 2.5), (256, 4)):
        bags, mixture = problem(20, 10_000, 64, k, spread=0.5)
        x, peer = bags.values, scikit_learn_mixture(mixture)
        floor = np.full(64, 1e-3)

        def ours(n_jobs=None, bags=bags, mixture=mixture, floor=floor):
            sums, frame, _ = expectation(row_units(bags, Where(n_jobs)), mixture)
            maximization(sums, frame, floor, mixture)

        def theirs(x=x, peer=peer):
            _, log_posteriors = peer._e_step(x)
            peer._m_step(x, log_posteriors)

        with threadpool_limits(1):
            times = best_of(ours, theirs, repeats=max(2, repeats // 2))
        report(f"EM iteration, 200k x 64, K={k}", *times, "scikit-learn", bar)
        times = best_of(lambda f=ours: f(-1), theirs, repeats=max(2, repeats // 2))
        report(f"EM iteration, 200k x 64, K={k}, all cores each", *times, "scikit-learn", bar)


def backward(repeats):
    with threadpool_limits(1):
        for name, shape in (
            ("24 x 10^4 x 64, K=32", (24, 10_000, 64, 32)),
            ("4000 x 50 x 24, K=64", (4000, 50, 24, 64)),
            ("4 x 10^4 x 768, K=32", (4, 10_000, 768, 32)),
        ):
            bags, mixture = problem(*shape, spread=0.5)
            where = bags.values, bags.starts, bags.stops, *mixture
            g = np.random.default_rng(0).standard_normal(
                (len(bags), mixture.means.size * 2 + len(mixture.weights)), dtype=np.float32
            )
            forward, both, parameters = best_of(
                lambda w=where: fisher_vector(*w),
                lambda w=where, g=g: fisher_vector_vjp(g, *w),
                lambda w=where, g=g: fisher_vector_vjp(g, *w, with_x=False),
                repeats=max(3, repeats // 2),
            )
            report(f"forward, {name}", forward, both, "all VJPs", most=3.5)
            report(f"forward, {name}", forward, parameters, "VJPs of parameters")


def threads(repeats):
    bags, mixture = problem(24, 10_000, 64, 32, spread=0.5)
    one, two = best_of(
        lambda: encoder_of(mixture).transform(bags),
        lambda: encoder_of(mixture, n_jobs=2).transform(bags),
        repeats=repeats,
    )
    report("encode 24 x 10^4 x 64, K=32, two threads", two, one, "one thread", 1.6)
    one, two = best_of(
        lambda: expectation(row_units(bags, Where(1)), mixture),
        lambda: expectation(row_units(bags, Where(2)), mixture),
        repeats=repeats,
    )
    report("EM iteration, 240k x 64, K=32, two threads", two, one, "one thread", 1.6)
    alone, together = side_by_side()
    report("two plain processes side by side", together, alone, "one of them alone")


BUSY = """
import time, numpy as np
a = np.random.rand(1000, 64).astype("f4"); b = np.random.rand(64, 32).astype("f4")
for _ in range(2):
    start = time.perf_counter()
    for _ in range(6000): np.exp(a @ b)
print(time.perf_counter() - start)
"""


def side_by_side():
    """Time one process with NumPy work, and two at once: equal where two cores are free."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}

    def run(n):
        processes = [
            subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, env=environment)
            for _ in range(n)
        ]
        return max(float(p.communicate()[0]) for p in processes)

    return run(1), run(2)


def memory():
    """Return lines on the growth of memory beyond input and output, as NumPy reports it."""
    lines = []
    for n_bags, length in ((100, 10_000), (20_000, 50)):
        bags, mixture = problem(n_bags, length, 64, 32, spread=0.5)
        for n_jobs in (1, 2):
            encoder = encoder_of(mixture, n_jobs=n_jobs)
            n_out = 4 * len(bags) * len(encoder.get_feature_names_out())
            encode = peak(lambda e=encoder, b=bags: e.transform(b)) - n_out / 2**20
            units = row_units(bags, Where(n_jobs))
            fit = peak(lambda u=units, m=mixture: expectation(u, m))
            lines.append(
                f"memory of {n_bags} x {length} x 64 (244 MiB), K=32, {n_jobs} thread(s): encoding "
                f"takes {encode:.0f} MiB beyond input and output, an EM iteration {fit:.0f} MiB "
                f"(at most {64 * n_jobs})"
            )
            print(lines[-1], flush=True)
    return lines


def peak(function):
    """Return the most memory that `function` holds at once beyond what is there, in MiB."""
    tracemalloc.start()
    function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def machine(repeats):
    """Return lines on what this machine can do: the floor of every figure above."""
    rng = np.random.default_rng(0)
    y, m = rng.random((2000, 64), np.float32), rng.random((32, 64), np.float32)
    p = rng.random((32, 2000), np.float32)
    small = p * np.float32(1e-40)
    with threadpool_limits(1):
        big = rng.random((2000, 2000), np.float32)
        sgemm, logits, sums, denormal, exponential = best_of(
            lambda: big @ big, lambda: m @ y.T, lambda: p @ y, lambda: small @ y, lambda: np.exp(p),
            repeats=20 * repeats,
        )  # fmt: skip
    floor = (2 * logits + 2 * sums + exponential) / 2000 * 240_000
    ours = min(float(r[1]) for r in ROWS if r[0].startswith("encode 24 x 10^4 x 64, K=32, over"))
    return [
        f"sgemm, one thread: {16 / sgemm:.0f} GFLOP/s",
        f"floor of encoding 24 x 10^4 x 64, K=32 (four products and exponentials, nothing else): "
        f"{floor * 1e3:.1f} ms; ours takes {ours / floor / 1e3:.2f} times that",
        f"a product with denormal numbers takes {denormal / sums:.1f} times one with normal ones "
        "here: where it takes 7 times, plain NumPy falls behind on separated components",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    repeats = 3 if options.quick else 15
    encode(repeats)
    em(repeats)
    backward(repeats)
    threads(3 * repeats)
    notes = machine(repeats) + memory()
    header = ("work", "skfisher, ms", "peer", "peer, ms", "ratio", "bar", "")
    table = ["| " + " | ".join(row) + " |" for row in (header, ("---",) * 7, *ROWS)]
    blas = next(p for p in threadpool_info() if p["user_api"] == "blas")
    about = [
        f"{datetime.date.today()}, {cpu_name()}, {os.cpu_count()} cores; Python "
        f"{platform.python_version()}, NumPy {np.__version__} ({blas['internal_api']} "
        f"{blas['version']}, {blas.get('architecture', '')} kernels), scikit-learn "
        f"{sklearn.__version__}, skfisher {skfisher.__version__}; load before the run "
        f"{os.getloadavg()[0]:.1f}."
    ]
    how = "Best of interleaved repeats, float32. Ratio: peer / skfisher."
    lines = ["# Speed on the CPU", "", *about, "", how, "", *table, "", *(f"- {n}" for n in notes)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.save:
        path = Path(__file__).parent / "results" / f"cpu-{datetime.date.today()}.md"
        path.write_text(text)


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()

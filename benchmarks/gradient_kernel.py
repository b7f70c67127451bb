"""Kernel of per-sample gradients: time, memory, and the explicit map, in one command.

    python benchmarks/gradient_kernel.py [--samples 5000] [--repeats 5] [--save]

Everything runs on one BLAS thread. The machine's own rate, the product being judged and what it
is compared with are run in turn, and each ratio is formed within a turn; the tables show medians
and, for ratios, the range. Times are CPU seconds of the process, so that neighbours on the
machine blur them less. Memory is the growth of the peak resident size of a fresh process, from
the moment its inputs are in place.
"""

import argparse
import datetime
import multiprocessing
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import scipy
import sklearn
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

import skfisher
from skfisher import GradientFeatureKernel, GradientFeatureMap
from skfisher.ops.trace_kernel import trace_kernel

SHAPES = [(4096, 4096), (9216, 4096)]  # fc7 and fc6 of AlexNet: inputs, outputs
GEMM = 4096
MIB = 2**20


def seconds(function, *args):
    """Return the CPU seconds that a call takes."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values, digits=2):
    """Return the median and the range of some ratios."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def products(n, repeats):
    """Time the plain and the symmetric kernel against the machine's matrix product."""
    rng = np.random.default_rng(0)
    left, right = normal(rng, GEMM, GEMM), normal(rng, GEMM, GEMM)
    rows = []
    for d, n_errors in SHAPES:
        a, e, b, v = (normal(rng, n, width) for width in (d, n_errors) * 2)
        work = 2 * n * n * (d + n_errors)
        turns = []
        for _ in range(repeats + 1):
            rate = 2 * GEMM**3 / seconds(np.matmul, left, right)
            plain = seconds(trace_kernel, a, e, b, v)
            symmetric = seconds(trace_kernel, a, e)
            naive = seconds(lambda a=a, e=e, b=b, v=v: (a @ b.T) * (e @ v.T))
            turns.append((rate, plain, symmetric, naive))
        rate, plain, symmetric, naive = np.array(turns[1:]).T  # the first one warms up
        rows.append(
            [
                f"{d} x {n_errors}",
                f"{np.median(plain):.2f}",
                f"{np.median(symmetric):.2f}",
                f"{np.median(rate) / 1e9:.0f}",
                spread(work / plain / rate),
                spread(symmetric / plain),
                spread(plain / naive),
                f"{peak_growth(n, d, n_errors, symmetric=False):.0f}",
                f"{peak_growth(n, d, n_errors, symmetric=True):.0f}",
            ]
        )
    header = ["layer", "plain, s", "symmetric, s", "sgemm, GFLOP/s", "share of sgemm rate"]
    header += ["symmetric / plain", "plain / one expression", "plain, MiB", "symmetric, MiB"]
    return table(header, rows)


def peak_growth(n, d, n_errors, symmetric):
    """Return by how many MiB a kernel raises the peak memory of a fresh process (Linux)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_growth, (n, d, n_errors, symmetric))


def _peak_growth(n, d, n_errors, symmetric):
    rng = np.random.default_rng(0)
    a, e = normal(rng, n, d), normal(rng, n, n_errors)
    b, v = (None, None) if symmetric else (normal(rng, n, d), normal(rng, n, n_errors))
    with threadpool_limits(1, user_api="blas"):
        _ = a[:512] @ a[:512].T  # BLAS makes its own buffers on its first call
        before = resident("VmRSS")
        kernel = trace_kernel(a, e, b, v)
        assert resident("VmRSS") - before > 0.9 * kernel.nbytes / MIB  # it is all there
    return resident("VmHWM") - before


def resident(field):
    """Return a size of this process, now (VmRSS) or at its peak (VmHWM), in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def explicit(repeats, n=256, d=512, n_errors=512):
    """Time explicit per-sample gradients, and their inner products, against factors."""
    rng = np.random.default_rng(0)
    a, e = normal(rng, n, d), normal(rng, n, n_errors)
    outer = np.empty((n, d, n_errors), dtype=np.float32)  # in place, so that no page is made twice
    g = outer.reshape(n, -1)
    turns = []
    for _ in range(repeats + 1):
        formed = seconds(lambda: np.multiply(a[:, :, None], e[:, None, :], out=outer))
        multiplied = seconds(lambda: g @ g.T)
        start = time.process_time()
        for _ in range(100):
            trace_kernel(a, e)
        turns.append((formed, multiplied, (time.process_time() - start) / 100))
    formed, multiplied, factored = np.array(turns[1:]).T
    row = [f"{n} x {d} x {n_errors}", f"{np.median(formed):.3f}", f"{np.median(multiplied):.3f}"]
    row += [f"{np.median(factored):.5f}", spread((formed + multiplied) / factored, 0)]
    row += [f"{n * d * n_errors * 4 / MIB:.0f}", f"{n * (d + n_errors) * 4 / MIB:.1f}"]
    header = ["samples x layer", "gradients, s", "their products, s", "from factors, s", "ratio"]
    return table([*header, "gradients, MiB", "factors, MiB"], [row])


def digits(which, n_orientations):
    """Return images of some digits in up to 8 orientations; a class is a digit in one of them."""
    X, y = load_digits(return_X_y=True)
    images, y = X[np.isin(y, which)].reshape(-1, 8, 8) / 16, y[np.isin(y, which)]
    turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    turned += [image.swapaxes(1, 2) for image in turned]
    samples = [image.reshape(len(image), -1) for image in turned[:n_orientations]]
    labels = [8 * y + k for k in range(n_orientations)]
    return np.concatenate(samples).astype(np.float32), np.concatenate(labels)


def maps():
    """Compare the two maps on a hidden layer of 512 units."""
    rows = []
    for n_orientations, settings in (
        (1, [{"target": "uniform"}]),
        (
            8,
            [
                {"target": "uniform"},
                {"target": "uniform", "temperature": 8.0},
                {"target": "jacobian"},
            ],
        ),
    ):
        network = MLPClassifier((512, 512), max_iter=20, random_state=0)
        frozen = FrozenEstimator(network.fit(*digits(range(5), n_orientations)))
        X, _ = digits(range(5, 10), n_orientations)
        X = X[np.random.default_rng(0).permutation(len(X))]
        n = min(2000, len(X) // 2)
        for params in settings:
            names = ", ".join(f"{name} {value}" for name, value in params.items())
            rows += map_errors(frozen, X[:n], X[n : 2 * n], params, [5 * n_orientations, names])
    header = ["outputs", "setting", "method", "m", "kernel error", "fit, s", "transform, s"]
    return table([*header, "samples"], rows)


def map_errors(frozen, train, test, params, labels):
    """Return a row for each method and size: its error on the test samples, and its times."""
    rows = []
    exact = GradientFeatureKernel(frozen, **params).fit_transform(test)
    for method in ("spectral", "tensor_sketch"):
        for m in (256, 1024, 4096):
            features = GradientFeatureMap(frozen, n_components=m, method=method, **params)
            fit = seconds(features.fit, train)
            transform = seconds(features.transform, test)
            Z = features.transform(test)
            error = np.linalg.norm(Z @ Z.T - exact) / np.linalg.norm(exact)
            row = [*labels, method, m, f"{100 * error:.1f} %", f"{fit:.2f}", f"{transform:.2f}"]
            rows.append([*row, len(test)])
    return rows


def cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(n, repeats):
    today = datetime.date.today().isoformat()
    sections = [
        f"# Kernel of per-sample gradients, {today}",
        f"Command: `python benchmarks/gradient_kernel.py --samples {n} --repeats {repeats}`. "
        f"Hardware: {cpu()}, {multiprocessing.cpu_count()} cores, of which one was used. "
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, skfisher {skfisher.__version__}. CPU seconds, "
        "float32. Ratios are formed within a turn of alternating runs: median (smallest to "
        "largest). Other work shared the machine, so read ratios rather than seconds.",
        f"## Two products of {n} x {n}",
        products(n, repeats),
        f"Memory is beyond the inputs; the result itself takes {n * n * 4 / MIB:.0f} MiB. "
        '"One expression" is `(a @ b.T) * (e @ v.T)`.',
        "## Explicit gradients, at a size where they fit",
        explicit(repeats),
        "## The explicit map",
        maps(),
        "A network of 64-512-512 units and its outputs, trained on the digits 0 to 4 (40 outputs: "
        "in 8 orientations each), describes the digits 5 to 9. Maps of the gradients of the 512 x "
        "512 matrix are fitted on as many samples as they are judged on, and not the same; the "
        "error is that of the kernel in the Frobenius norm, relative.",
        "## GPU",
        "Not measured: no GPU was at hand.",
    ]
    return "\n\n".join(sections) + "\n", today


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5000, help="samples on each side")
    parser.add_argument("--repeats", type=int, default=5, help="turns of alternating runs")
    parser.add_argument("--save", action="store_true", help="keep the report in results/")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with threadpool_limits(1, user_api="blas"):
        text, today = report(args.samples, args.repeats)
    print(text)
    if args.save:
        path = Path(__file__).parent / "results" / f"gradient_kernel-{today}.md"
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Speed of second-order pooling beside pyRiemann, PyTorch and plain loops, one thread.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/pooling.py [--save]

Times are CPU time of this process, the least of several rounds in which all ways of one row take
turns, so that other load hits all of them. pyRiemann and PyTorch are used where they are installed.

roots: square roots of covariances of 4 D descriptors, Newton and Schulz's iteration in float32 and
    roots by eigenvalues in float64.
gradients: what the way back takes, as a multiple of the way forward.
few: roots for bags of half as many descriptors as dimensions, by the products of these.
bags: covariances of ragged bags, a loop of NumPy against sums, and the gradient by descriptors.
encode: `SecondOrderPooling.transform`, microseconds a bag.
sketches: `CompactBilinearPooling` against the means of scikit-learn's sketches of descriptors.
"""

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import numpy as np
from sklearn.kernel_approximation import PolynomialCountSketch

from skfisher import Bags, CompactBilinearPooling, SecondOrderPooling
from skfisher.ops.covariance import bag_moments, second_order_sums, second_order_sums_vjp
from skfisher.ops.gram import function_of_rows
from skfisher.ops.matrix_function import eigen, matrix_function, matrix_function_vjp
from skfisher.ops.newton_schulz import newton_schulz, newton_schulz_vjp

RESULTS = Path(__file__).parent / "results"
ROUNDS = 9
ROOT = {"function": "power", "power": 0.5}
EPS = float(np.finfo(np.float32).eps)
# bags, shortest, longest, dimensions
BAGS = [
    (5000, 7, 26, 12), (20000, 1, 4, 32), (2700, 12, 226, 40), (4000, 50, 50, 24),
    (200, 1000, 1000, 64), (20, 5000, 5000, 128),
]  # fmt: skip


def times(*functions):
    """Return the least CPU time of each function, in seconds."""
    least = [np.inf] * len(functions)
    for _ in range(ROUNDS):
        for i, function in enumerate(functions):
            start = time.process_time()
            function()
            least[i] = min(least[i], time.process_time() - start)
    return least


def optional(name):
    """Return a module, or None where it is not installed."""
    try:
        return __import__(name, fromlist=[""])
    except ImportError:
        return None


def covariances(d, n):
    x = np.random.default_rng(0).normal(size=(n, 4 * d, d))
    return (x.transpose(0, 2, 1) @ x / (4 * d)).astype(np.float32)


def decomposed_root(p):
    return matrix_function(eigen(p, eps=EPS), **ROOT)


def roots():
    yield "D", "Newton-Schulz 5", "pyRiemann sqrtm / it", "by eigenvalues", "PyTorch eigh / it"
    base, torch = optional("pyriemann.geometry.base"), optional("torch")
    for d in (16, 32, 64, 128):
        p = covariances(d, 4000 // d)
        wide = p.astype(np.float64)
        ways = [lambda p=p: newton_schulz(p, n_iter=5), lambda w=wide: decomposed_root(w)]
        ways += [lambda w=wide: base.sqrtm(w)] if base else []
        ways += [lambda w=wide: torch_root(torch, w)] if torch else []
        found = times(*ways)
        iteration, exact, *others = [1e3 * t / len(p) for t in found]
        riemann = f"{others.pop(0) / iteration:.1f}" if base else "not measured"
        autograd = f"{others.pop(0) / exact:.1f}" if torch else "not measured"
        yield d, f"{iteration:.4f} ms", riemann, f"{exact:.4f} ms", autograd


def torch_root(torch, p):
    torch.set_num_threads(1)
    values, vectors = torch.linalg.eigh(torch.from_numpy(p))
    return (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.transpose(1, 2)


def gradients():
    yield "D", "Newton-Schulz 5, back / forward", "by eigenvalues, back / forward"
    for d in (16, 32, 64, 128):
        p = covariances(d, 4000 // d)
        g = np.random.default_rng(1).normal(size=p.shape)
        narrow, e = g.astype(np.float32), eigen(p, eps=EPS)
        a, b, c, f = times(
            lambda p=p: newton_schulz(p, n_iter=5),
            lambda p=p, g=narrow: newton_schulz_vjp(g, p, n_iter=5),
            lambda p=p: decomposed_root(p),
            lambda e=e, g=g: matrix_function_vjp(g, e, **ROOT),
        )
        yield d, f"{b / a:.2f}", f"{f / c:.2f}"


def few():
    yield "D", "T", "of the covariance", "of the products", "ratio"
    for d in (12, 32, 64, 128, 256):
        y = np.random.default_rng(0).normal(size=(max(8, 4000 // d), d // 2, d))
        large, small = times(
            lambda y=y: decomposed_root(y.transpose(0, 2, 1) @ y / y.shape[1]),
            lambda y=y: function_of_rows(y, **ROOT),
        )
        shown = [f"{1e3 * t / len(y):.4f} ms" for t in (large, small)]
        yield d, d // 2, *shown, f"{large / small:.1f}"


def loop(x, starts, stops):
    """Return covariances as one writes them."""
    out = np.empty((len(starts), x.shape[1], x.shape[1]), dtype=x.dtype)
    for i, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        bag = x[start:stop]
        centered = bag - bag.mean(axis=0)
        out[i] = centered.T @ centered / len(bag)
    return out


def ragged(n, shortest, longest, d):
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, n)
    x = rng.normal(size=(lengths.sum(), d)).astype(np.float32)
    return Bags.from_lengths(x, lengths)


def bags():
    yield "bags", "T", "D", "loop", "covariances", "ratio", "gradient by descriptors"
    for case in BAGS:
        found = ragged(*case)
        x, starts, stops = found.values, found.starts, found.stops
        shift = np.zeros(x.shape[1])
        s1, s2 = second_order_sums(x, starts, stops, shift)
        a, b, c = times(
            lambda x=x, a=starts, b=stops: loop(x, a, b),
            lambda x=x, a=starts, b=stops, c=shift: bag_moments(
                *second_order_sums(x, a, b, c), b - a
            ),
            lambda x=x, a=starts, b=stops, c=shift, g=(s1, s2): second_order_sums_vjp(
                *g, x, a, b, c
            ),
        )
        n, shortest, longest, d = case
        shown = [f"{1e6 * t / n:.1f} us" for t in (a, b, c)]
        yield n, f"{shortest}-{longest}", d, *shown[:2], f"{a / b:.1f}", shown[2]


def encode():
    yield "bags", "T", "D", "Gaussian, root", "Gaussian, Newton-Schulz 5", "B-CNN"
    for case in BAGS:
        found = ragged(*case)
        encoders = [
            SecondOrderPooling().fit(found),
            SecondOrderPooling(function="newton_schulz").fit(found),
            SecondOrderPooling.bcnn().fit(found),
        ]
        taken = times(*(lambda e=e, x=found: e.transform(x) for e in encoders))
        n, shortest, longest, d = case
        yield n, f"{shortest}-{longest}", d, *(f"{1e6 * t / n:.1f} us" for t in taken)


def sketches():
    yield "bags", "T", "D", "numbers", "PolynomialCountSketch, means", "sketches", "ratio"
    for case in [(200, 12, 226, 40), (200, 1000, 1000, 64)]:
        found, m = ragged(*case), 2048
        theirs = PolynomialCountSketch(n_components=m, random_state=0).fit(found.values[:10])
        ours = CompactBilinearPooling(m, random_state=0).fit(found)
        a, b = times(
            lambda f=found, s=theirs: [s.transform(bag).mean(axis=0) for bag in f],
            lambda f=found, s=ours: s.transform(f),
        )
        n, shortest, longest, d = case
        shown = [f"{1e6 * t / n:.0f} us" for t in (a, b)]
        yield n, f"{shortest}-{longest}", d, m, *shown, f"{a / b:.1f}"


# A generator of rows, the first of them the head.
TABLES = {
    "roots": roots, "gradients": gradients, "few": few, "bags": bags, "encode": encode,
    "sketches": sketches,
}  # fmt: skip


def page(names):
    """Yield the lines of the page of results."""
    versions = {"NumPy": np, "pyRiemann": optional("pyriemann"), "PyTorch": optional("torch")}
    installed = [f"{name} {m.__version__}" for name, m in versions.items() if m]
    yield f"# Speed of second-order pooling, {datetime.date.today()}\n"
    yield "Command: `python benchmarks/pooling.py`, one thread of BLAS. CPU time, best of"
    yield f"{ROUNDS} rounds. Hardware: {cpu()}, {os.cpu_count()} cores."
    yield f"Python {platform.python_version()}, {', '.join(installed)}."
    for name in names:
        yield f"\n{name}:\n"
        for i, row in enumerate(TABLES[name]()):
            yield "| " + " | ".join(map(str, row)) + " |"
            if i == 0:
                yield "|" + " --- |" * len(row)


def cpu():
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], default=[])
    parser.add_argument("--save", action="store_true", help="keep the page in results/")
    arguments = parser.parse_args()
    lines = []
    for line in page(arguments.tables or TABLES):
        print(line, flush=True)
        lines.append(line)
    if arguments.save:
        path = RESULTS / f"pooling-{datetime.date.today()}.md"
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

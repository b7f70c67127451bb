"""How fast Fisher vectors and EM are on this CPU: native kernels, NumPy, and peers, in one run.

    python benchmarks/cpu.py [--save] [--quick]

The same call is timed with the native kernels and, by ``SKFISHER_NATIVE=0``, with NumPy. Peers are
scikit-image's ``fisher_vector``, scikit-learn's ``GaussianMixture``, plain versions in NumPy and,
where it is installed, PyTorch, with the same matrix products, and VLFeat where the variable
``VLFEAT`` holds the path of its library. The floor is the time of the matrix products at the speed
of a large one, and of the exponentials, both measured in this run. All in float32. Every figure is
the best of several interleaved repeats of CPU time; one thread each, unless a row says otherwise.
``--save`` writes the tables to ``benchmarks/results/``. How joint training compares with PyTorch is
in ``joint.py``.
"""

import argparse
import contextlib
import datetime
import functools
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import sklearn
from cpu_peers import plain_encode, pytorch, scikit_image, scikit_learn_mixture, vlfeat
from threadpoolctl import threadpool_info, threadpool_limits

import skfisher
from skfisher import Bags, DiagonalGaussianMixture, FisherVectorEncoder, PowerL2Normalizer
from skfisher.codebooks.em import Mixture, expectation, maximization
from skfisher.native import library
from skfisher.ops.fisher import fisher_vector, fisher_vector_vjp
from skfisher.parallel.units import Where, row_units

ROWS = []
COLUMNS = ["NumPy", "plain NumPy", "scikit-image", "VLFeat", "PyTorch", "scikit-learn", "floor"]


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


def encoder_of(mixture, n_jobs=None):
    given = DiagonalGaussianMixture()
    given.weights_, given.means_, given.variances_ = mixture
    encoder = FisherVectorEncoder(mixture=given, n_jobs=n_jobs)
    return encoder.fit(np.zeros((1, 1, mixture.means.shape[1])))


@contextlib.contextmanager
def numpy_serves():
    """Switch the native kernels off."""
    before = os.environ.get("SKFISHER_NATIVE")
    os.environ["SKFISHER_NATIVE"] = "0"
    try:
        yield
    finally:
        del os.environ["SKFISHER_NATIVE"]
        if before is not None:
            os.environ["SKFISHER_NATIVE"] = before


def by_numpy(function):
    def call():
        with numpy_serves():
            return function()

    return call


def best_of(*functions, repeats, clock=time.thread_time):
    """Return the shortest time of each function, in seconds; repeats are interleaved."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for function, seconds in zip(functions, times, strict=True):
            start = clock()
            function()
            seconds.append(clock() - start)
    return [min(seconds) for seconds in times]


class Machine:
    """What this machine can do at most, on one thread: products and exponentials a second."""

    def __init__(self, repeats):
        rng = np.random.default_rng(0)
        big, p = rng.random((1024, 1024), np.float32), rng.random(2**16, np.float32)
        with threadpool_limits(1):
            product, exponentials = best_of(lambda: big @ big, lambda: np.exp(p), repeats=repeats)
        self.flops, self.exponentials = 2 * 1024**3 / product, p.size / exponentials

    def floor(self, rows, d, k):
        """Return the seconds that encoding so many descriptors takes at least."""
        return 8 * rows * d * k / self.flops + rows * k / self.exponentials


def report(work, function, peers, *, repeats, floor=None, bars=None, clock=time.thread_time):
    """Time a function with the kernels and with NumPy, and its peers; keep a row of the table."""
    bars = {} if bars is None else bars
    names = ["NumPy", *peers]
    native, *others = best_of(
        function, by_numpy(function), *peers.values(), repeats=repeats, clock=clock
    )
    # Once more without the peers, which are slow: the shortest of many times is that of few rivals.
    again = best_of(function, by_numpy(function), repeats=3 * repeats, clock=clock)
    native, others[0] = min(native, again[0]), min(others[0], again[1])
    ratios = {name: seconds / native for name, seconds in zip(names, others, strict=True)}
    if floor is not None:
        ratios["floor"] = floor / native
    cells = [f"{native * 1e3:.2f}"]
    for name in COLUMNS:
        bar = bars.get(name)
        cell = "" if name not in ratios else f"{ratios[name]:.2f}"
        if bar is not None and name in ratios:
            cell += f" ({'met' if ratios[name] >= bar else 'missed'}: {bar})"
        cells.append(cell)
    ROWS.append((work, *cells))
    print(" | ".join(ROWS[-1]), flush=True)
    return native


def encode(machine, repeats):
    cases = [
        ("24 x 10^4 x 64, K=32, overlapping", (24, 10_000, 64, 32), 0.5, False, 1.7),
        ("the same, separated", (24, 10_000, 64, 32), 2.0, False, 1.7),
        ("24 x 2000 x 64, K=256", (24, 2000, 64, 256), 0.5, False, 1.4),
        ("4000 x 50 x 24, K=64", (4000, 50, 24, 64), 0.5, False, 3.5),
        ("the same, ragged", (4000, 50, 24, 64), 0.5, True, 3.5),
        ("10^5 x 5 x 16, K=8", (100_000, 5, 16, 8), 0.5, False, 8),
        ("16 x 10^4 x 768, K=32", (16, 10_000, 768, 32), 0.5, False, 1.5),
        ("1 x 50 x 64, K=32", (1, 50, 64, 32), 0.5, False, None),
        ("1 x 50 x 64, K=256", (1, 50, 64, 256), 0.5, False, None),
    ]
    normalizer = PowerL2Normalizer()
    for name, shape, spread, ragged, bar in cases:
        bags, mixture = problem(*shape, spread=spread, ragged=ragged)
        encoder = encoder_of(mixture)
        check(encoder.transform(bags[:50]), plain_encode(bags[:50], mixture))
        peers = {"plain NumPy": lambda m=mixture, b=bags: plain_encode(b, m)}
        if len(bags) < 10_000:
            peers |= scikit_image(bags, mixture)
        peers |= vlfeat(bags, mixture) | pytorch(bags, mixture)
        single = len(bags) == 1
        bars = {"NumPy": bar, "VLFeat": 1, "scikit-image": 15 if len(bags) == 4000 else None}
        report(
            f"encode and normalise {name}",
            lambda e=encoder, b=bags: normalizer.transform(e.transform(b)),
            peers,
            repeats=20 * repeats if single else max(2, repeats // 2),
            floor=machine.floor(len(bags.values), *shape[2:]),
            bars=bars | ({"floor": 0.85} if shape[1] >= 2000 and shape[2] == 64 else {}),
        )


def check(ours, theirs):
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def em(machine, repeats):
    for k in (32, 256):
        bags, mixture = problem(20, 10_000, 64, k, spread=0.5)
        x, peer = bags.values, scikit_learn_mixture(mixture)
        floor = np.full(64, 1e-3)

        def ours(bags=bags, mixture=mixture, floor=floor):
            sums, frame, _ = expectation(row_units(bags, Where()), mixture)
            maximization(sums, frame, floor, mixture)

        def theirs(x=x, peer=peer):
            _, log_posteriors = peer._e_step(x)
            peer._m_step(x, log_posteriors)

        report(
            f"EM iteration, 200k x 64, K={k}", ours, {"scikit-learn": theirs},
            repeats=max(2, repeats // 2), floor=machine.floor(len(x), 64, k),
            bars={"scikit-learn": 4.5},
        )  # fmt: skip


def backward(machine, repeats):
    lines = []
    for name, shape in (
        ("24 x 10^4 x 64, K=32", (24, 10_000, 64, 32)),
        ("4000 x 50 x 24, K=64", (4000, 50, 24, 64)),
        ("4 x 10^4 x 768, K=32", (4, 10_000, 768, 32)),
    ):
        bags, mixture = problem(*shape, spread=0.5)
        where = bags.values, bags.starts, bags.stops, *mixture
        width = mixture.means.size * 2 + len(mixture.weights)
        g = np.random.default_rng(0).standard_normal((len(bags), width), dtype=np.float32)
        repeats = max(3, repeats // 2)
        floor = machine.floor(len(bags.values), *shape[2:])
        forward = report(
            f"forward, {name}", lambda w=where: fisher_vector(*w), {}, repeats=repeats, floor=floor
        )
        # 20 products in place of 8
        both = report(
            f"all VJPs, {name}", lambda w=where, g=g: fisher_vector_vjp(g, *w), {},
            repeats=repeats, floor=2.5 * floor,
        )  # fmt: skip
        verdict = "met" if both / forward <= 3.5 else "missed"
        lines.append(f"all VJPs / forward, {name}: {both / forward:.2f} ({verdict}: at most 3.5)")
    return lines


def growth(repeats):
    """Return a table: microseconds of encoding as T, K, D and the number of bags double."""
    base = {"T": 400, "K": 32, "D": 32, "bags": 50}
    rows = []
    for name in base:
        cells = []
        for factor in (1, 2, 4, 8):
            size = base | {name: factor * base[name]}
            bags, mixture = problem(size["bags"], size["T"], size["D"], size["K"], spread=0.5)
            encoder = encoder_of(mixture)
            call = lambda e=encoder, b=bags: e.transform(b)
            native, plain = best_of(call, by_numpy(call), repeats=repeats)
            cells.append(f"{native * 1e3:.2f} / {plain * 1e3:.2f}")
        rows.append((f"{name} = {base[name]} x 1, 2, 4, 8", *cells))
    return rows


def threads(repeats):
    """Return lines on two threads: wall time, and whether two cores are free at all."""
    bags, mixture = problem(24, 10_000, 64, 32, spread=0.5)

    def iterate(n_jobs):
        return expectation(row_units(bags, Where(n_jobs)), mixture)

    lines = []
    for name, one, two in (
        ("encode", encoder_of(mixture).transform, encoder_of(mixture, n_jobs=2).transform),
        ("EM iteration", lambda _: iterate(1), lambda _: iterate(2)),
    ):
        seconds = best_of(
            lambda f=one: f(bags), lambda f=two: f(bags), repeats=repeats, clock=time.perf_counter
        )
        gain = seconds[0] / seconds[1]
        lines.append(f"{name}, 240k x 64, K=32: two threads are {gain:.2f} times as fast as one")
    alone, together = side_by_side()
    lines.append(
        f"two plain processes side by side take {together / alone:.2f} times as long as one"
    )
    return lines


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


def lists(repeats):
    """Return lines on how much longer lists of arrays take than the same bags in one array."""
    lines = []
    for n_bags, length in ((10_000, 5), (4000, 50), (400, 500), (40, 5000)):
        bags, mixture = problem(n_bags, length, 64, 32, spread=0.5)
        slices = list(bags)
        of_own = [array.copy() for array in slices]
        transform = encoder_of(mixture).transform
        calls = [functools.partial(transform, X) for X in (bags, slices, of_own)]
        whole, sliced, own = best_of(*calls, repeats=repeats)
        more = (peak(calls[2]) - peak(calls[0])) / (bags.values.nbytes / 2**20)
        lines.append(
            f"a list of {n_bags} x {length} x 64, K=32: {sliced / whole:.2f} times as long as "
            f"`Bags` if they are slices of one array, {own / whole:.2f} times if each has its own "
            f"memory; it takes {more:.2f} times the input in memory"
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


def as_table(header, rows):
    return ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    options = parser.parse_args()
    repeats = 3 if options.quick else 15
    load = os.getloadavg()[0]
    with threadpool_limits(1):
        machine = Machine(20 * repeats)
        encode(machine, repeats)
        em(machine, repeats)
        notes = backward(machine, repeats)
        grown = growth(repeats)
    notes = [
        f"a large product, one thread: {machine.flops / 1e9:.0f} GFLOP/s; exponentials: "
        f"{machine.exponentials / 1e9:.2f} a nanosecond",
        *notes, *lists(repeats), *threads(3 * repeats), *memory(),
    ]  # fmt: skip
    blas = next(p for p in threadpool_info() if p["user_api"] == "blas")
    about = (
        f"{datetime.date.today()}, {cpu_name()}, {os.cpu_count()} cores; {library.describe()}; "
        f"Python {platform.python_version()}, NumPy {np.__version__} ({blas['internal_api']} "
        f"{blas['version']}, {blas.get('architecture', '')} kernels), scikit-learn "
        f"{sklearn.__version__}, skfisher {skfisher.__version__}; load before the run {load:.1f}."
    )
    lines = [
        "# Speed on the CPU", "", about, "",
        "CPU time, best of interleaved repeats, float32, one thread. Columns: milliseconds with "
        "the native kernels; how many times longer the same call with NumPy and peers take; and "
        "the share of the time that the floor is, matrix products at the speed of a large one and "
        "exponentials.", "",
        *as_table(("work", "native, ms", *COLUMNS), ROWS), "",
        "Growth: encoding of 50 bags of T = 400, D = 32, K = 32, milliseconds, native / NumPy.", "",
        *as_table(("doubled", "1", "2", "4", "8"), grown), "", *(f"- {n}" for n in notes),
    ]  # fmt: skip
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

"""How close Fisher vectors, their gradients and EM come to what this GPU can do.

    python benchmarks/gpu.py [--save] [--quick] [--cases PATTERN] [--device INDEX] [--dry-run]

First the ceilings are measured, by a large copy and a large float32 matrix product; they set
the floor of every pass. Then every pass over every case of `gpu_work.py` is timed: the kernels
of this package alone, the whole call with the data on the device, the same without our kernels
(``SKFISHER_FUSED=0``), the same with tensor cores allowed to round to TF32, from host memory and
back, on the CPU of the same machine, and scikit-learn's GaussianMixture on CuPy. Results are
compared before anything is timed. ``--save`` writes the page to ``benchmarks/results/``;
``--cases`` takes a regular expression, such as "K=32$".

``--dry-run`` runs every pass once over tiny data in NumPy, times nothing and says so: that the
benchmark works is tested where there is no GPU.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Read when SciPy is imported; scikit-learn's dispatch to CuPy asks for it.
os.environ["SCIPY_ARRAY_API"] = "1"

import numpy as np
import sklearn
from gpu_page import Times, page, show
from gpu_work import CASES, Case, Ceilings, Problem

import skfisher
from skfisher.arrays.devices import cuda_usable, to_device
from skfisher.cuda import module

RESULTS = Path(__file__).parent / "results"
CALLS = 20  # between two events
PATIENCE = 2  # seconds for the repeats of one measurement
SIDE = 8192  # of the matrices that show the ceiling, 256 MiB each
# The whole call must agree with the array code to this share of the largest entry.
TOLERANCE = 1e-4


@contextlib.contextmanager
def array_code():
    """Close the way to our kernels."""
    before = os.environ.get("SKFISHER_FUSED")
    os.environ["SKFISHER_FUSED"] = "0"
    try:
        yield
    finally:
        del os.environ["SKFISHER_FUSED"]
        if before is not None:
            os.environ["SKFISHER_FUSED"] = before


class Launches:
    """Launches of our kernels, to be repeated without the call that they came from."""

    def __init__(self):
        self._launches = []

    def append(self, name, launch):
        self._launches.append((name, launch))

    def __bool__(self):
        return bool(self._launches)

    def __call__(self):
        for _, launch in self._launches:
            launch()

    def names(self):
        return dict.fromkeys(name for name, _ in self._launches)

    def of(self, wanted):
        """Return those of one kernel."""
        some = Launches()
        some._launches = [(name, launch) for name, launch in self._launches if name == wanted]
        return some


def launches_of(call):
    """Return the launches of our kernels in a call."""
    launches, loaded = Launches(), module.kernel

    def kernel(name, *args, **kwargs):
        function = loaded(name, *args, **kwargs)

        def launch(*args, **kwargs):
            launches.append(name, lambda: function(*args, **kwargs))
            return function(*args, **kwargs)

        return launch

    module.kernel = kernel
    try:
        call()
    finally:
        module.kernel = loaded
    return launches


class Gpu:
    """Times on a GPU, by CUDA events."""

    def __init__(self, index, quick):
        import cupy

        self.xp, self.index, self.device = cupy, index, f"cuda:{index}"
        self.repeats = 3 if quick else 15
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        self.name, self.cache = properties["name"].decode(), properties["l2CacheSize"]

    def place(self, x):
        return to_device(x, self.device)

    def copies(self, x, case):
        """Return copies of `x`; a pass over each of them sweeps the cache."""
        n = min(64, -(-2 * self.cache // case.nbytes) + 1)
        return [self.place(x) for _ in range(n)]

    def time(self, calls):
        """Return the seconds of a call, the median of several, by events on the GPU."""
        calls = itertools.cycle(calls)
        start, stop = self.xp.cuda.Event(), self.xp.cuda.Event()

        def seconds(n):
            start.record()
            for _ in range(n):
                next(calls)()
            stop.record()
            stop.synchronize()
            return self.xp.cuda.get_elapsed_time(start, stop) / 1e3 / n

        seconds(1)  # compiles, and takes memory
        n = min(CALLS, max(1, round(0.1 / seconds(1))))  # what takes long needs no twenty
        seconds(min(n, 5))
        return self.median(lambda: seconds(n))

    def wall(self, call):
        """Return the seconds of a call that ends on the host, the median of several."""

        def seconds():
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

        call()
        return self.median(seconds)

    def median(self, measure):
        """Return the median of several measurements; of fewer where they take longer."""
        seconds, end = [], time.perf_counter() + PATIENCE
        while len(seconds) < 3 or (len(seconds) < self.repeats and time.perf_counter() < end):
            seconds.append(measure())
        return statistics.median(seconds)

    def ceilings(self):
        n = SIDE
        a, b, c = (self.xp.ones((n, n), np.float32) for _ in range(3))
        product = self.time([lambda: self.xp.matmul(a, b, out=c)])
        source = self.xp.ones(4 * n * n, np.float32)
        target = self.xp.empty_like(source)
        copy = self.time([lambda: self.xp.copyto(target, source)])
        return Ceilings(n**3 / product, 2 * source.nbytes / copy)

    def free(self):
        self.xp.get_default_memory_pool().free_all_blocks()

    def about(self, ceilings):
        """Return lines on the machine, and how it was measured."""
        runtime = self.xp.cuda.runtime
        driver, cuda = (
            f"{number // 1000}.{number % 1000 // 10}"
            for number in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
        )
        return [
            f"{datetime.date.today()}, {self.name}; driver for CUDA {driver}, CUDA {cuda}, CuPy "
            f"{self.xp.__version__}, Python {platform.python_version()}, NumPy {np.__version__}, "
            f"scikit-learn {sklearn.__version__}, skfisher {skfisher.__version__}; "
            f"{os.cpu_count()} CPU cores.",
            "",
            f"Ceilings: {2 * ceilings.multiply_adds / 1e12:.1f} TFLOP/s in a float32 matrix "
            f"product, {ceilings.bandwidth / 1e9:.0f} GB/s read and written by a copy.",
            "",
            f"Medians of {self.repeats} times {CALLS} calls (fewer of long ones) by CUDA events, "
            "over copies of the descriptors that exceed the cache; float32 throughout.",
        ]


class Nothing:
    """A stand-in for a GPU: runs what is to be timed once, in NumPy, and measures nothing."""

    xp, device = np, "cpu"

    def place(self, x):
        return x

    def copies(self, x, case):
        return [x.copy(), x.copy()]

    def time(self, calls):
        for call in calls:
            call()

    def wall(self, call):
        call()

    def ceilings(self):
        return Ceilings()

    def free(self):
        pass

    def about(self, ceilings):
        return [
            "No figure of a GPU was measured for this page: it holds the targets, and room for",
            "figures. `make gpu`, on a machine with an NVIDIA GPU, measures, and writes",
            "`gpu-<device>-<date>.md` beside this page.",
        ]


def fits_the_host(case):
    """Tell whether host memory holds a case with room to spare."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 5 * case.nbytes < physical


def check(case, ours, theirs):
    """Compare the results of a pass with those of the array code."""
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a is not None:
            error = float(abs(a - b).max() / abs(b).max())
            assert error < TOLERANCE, f"{case}, result {number}: off by {error:.1e}"


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def kernel_times(machine, calls):
    """Return the times of our kernels alone, if any serve these calls."""
    launches = [launches_of(call) for call in calls]
    if not all(launches):
        return {}
    twice = [machine.time(launches) for _ in range(2)]
    names = launches[0].names()
    return {
        "kernels": min(twice),
        "noise": max(twice) / min(twice) - 1,
        "each": {name: machine.time([some.of(name) for some in launches]) for name in names},
    }


def measure(machine, case, quick):
    """Yield every pass over a case, with its `Times`."""
    problem = Problem(case)
    copies = machine.copies(problem.bags.values, case)
    g = machine.place(problem.g)
    passes = [problem.passes(x, g) for x in copies]
    peers = [problem.scikit_learn(x, machine.xp) for x in copies]
    with_host = fits_the_host(case)
    on_host = problem.passes_from_host(None)
    from_host = problem.passes_from_host(machine.device)
    for work in passes[0]:
        calls, is_em = [p[work] for p in passes], work == "EM iteration"
        with array_code():
            expected = () if is_em else as_tuple(calls[0]())
            array = machine.time(calls)
        if not is_em:  # whose every call is another iteration
            check(case, as_tuple(calls[0]()), expected)
        times = Times(
            **kernel_times(machine, calls),
            call=machine.time(calls),
            array=array,
            host=machine.wall(from_host[work]) if with_host else None,
            cpu=machine.wall(on_host[work]) if with_host and not quick else None,
            peer=machine.time(peers) if is_em and all(peers) else None,
        )
        yield work, times
        del expected
        machine.free()


def in_tf32(case, arguments):
    """Return the seconds of array code in TF32, which CuPy chooses when it starts."""
    command = [sys.executable, __file__, "--tf32", json.dumps(case), "--device"]
    command += [str(arguments.device), *(["--quick"] if arguments.quick else [])]
    done = subprocess.run(
        command, env=os.environ | {"CUPY_TF32": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def tf32_worker(machine, case):
    problem = Problem(case)
    copies = machine.copies(problem.bags.values, case)
    g = machine.place(problem.g)
    passes = [problem.passes(x, g) for x in copies]
    with array_code():
        return {work: machine.time([p[work] for p in passes]) for work in passes[0]}


def run(machine, arguments):
    """Measure all cases asked for; return the results, the ceilings, and notes."""
    results, notes = {}, []
    ceilings = machine.ceilings()
    machine.free()
    for case in CASES:
        if not re.search(arguments.cases, str(case)):
            continue
        size = case.tiny() if arguments.dry_run else case
        try:
            tf32 = {} if arguments.dry_run else in_tf32(size, arguments)
            for work, times in measure(machine, size, arguments.quick):
                results[case, work] = times._replace(tf32=tf32.get(work))
                shown = [f"{n} {show(t)} us" for n, t in results[case, work].in_seconds().items()]
                print(f"{case}, {work}:", ", ".join(shown) or "nothing timed", flush=True)
        except (MemoryError, subprocess.CalledProcessError) as error:
            notes.append(f"{case}: stopped, {type(error).__name__}: {error}")
            print(notes[-1], flush=True)
        machine.free()
    return results, ceilings, notes


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no CPU")
    parser.add_argument("--cases", default="", metavar="PATTERN", help="only those that match")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument("--dry-run", action="store_true", help="tiny data, NumPy, no times")
    parser.add_argument("--tf32", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments=None):
    arguments = parse(arguments)
    if arguments.dry_run:
        machine, name = Nothing(), "gpu"
    else:
        n_devices, reason = cuda_usable()
        if arguments.device >= n_devices:
            reason = reason or f"there is no device {arguments.device}, {n_devices} are visible."
            sys.exit(f"benchmarks/gpu.py needs CuPy and a visible NVIDIA GPU; {reason}")
        machine = Gpu(arguments.device, arguments.quick)
        machine.xp.cuda.Device(arguments.device).use()
        slug = re.sub(r"[^a-z0-9]+", "-", machine.name.lower()).strip("-")
        name = f"gpu-{slug}-{datetime.date.today()}"
    if arguments.tf32:
        print(json.dumps(tf32_worker(machine, Case(*arguments.tf32))))
        return
    results, ceilings, notes = run(machine, arguments)
    text = page("Speed on a GPU", machine.about(ceilings), results, ceilings, notes)
    print(text)
    if arguments.save:
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Shards: fits and encodings by threads and by the workers of a Dask cluster on one machine.

    python benchmarks/shards.py --save

32 shards of 65 536 descriptors, 64 numbers of float32 each, in bags of 512; Fisher vectors of
256 components. Seconds are the least of three iterations of EM, and of one run of encodings, which
are written, a file a shard; those of the CPU are added up over all processes, and tell more where
other programs run beside, as they did here. Workers have one thread each. Memory is the largest
that the process of a worker ever had, after a fit and encodings of so many shards, with 32
components. With as many, a worker is killed (SIGKILL) in the second of three iterations, and while
it encodes.
"""

import argparse
import datetime
import itertools
import os
import platform
import signal
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
from distributed import Client, LocalCluster

from skfisher import Bags, FisherVectorEncoder, ShardedBags
from skfisher.codebooks import em
from skfisher.dask import fit, transform
from skfisher.dask.workers import Workers

RESULTS = Path(__file__).parent / "results"
N_SHARDS, ROWS, WIDTH, BAG, K = 32, 2**16, 64, 2**9, 256
# What the guide projects: images, descriptors of each.
IMAGES, DESCRIPTORS = 10**8, 1000


def make_shards(folder):
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 2, size=(50, WIDTH)).astype(np.float32)
    for i in range(N_SHARDS):
        x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32) + centers[rng.integers(50, size=ROWS)]
        Bags.from_lengths(x, [BAG] * (ROWS // BAG)).save(folder / f"shard-{i:02d}")
    return ShardedBags.open(str(folder / "shard-*"))


def seconds(function, n_tries=1):
    times = []
    for _ in range(n_tries):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def encoder(n_iter, n_jobs=None, k=K):
    return FisherVectorEncoder(k, max_iter=n_iter, n_jobs=n_jobs, random_state=0)


class Clock:
    """Seconds on the wall, and of the CPU in this process and in workers."""

    def __init__(self, client=None):
        self._client = client

    def __call__(self):
        cpu = time.process_time()
        if self._client is not None:
            cpu += sum(self._client.run(time.process_time).values())
        return np.array([time.perf_counter(), cpu])


def iteration(clock, fit_):
    """Return the seconds of an iteration of EM: the least of three."""
    original, marks = em.maximization, []

    def marking(*args):
        marks.append(clock())
        return original(*args)

    em.maximization = marking
    try:
        fit_(encoder(4))
    finally:
        em.maximization = original
    return np.diff(marks, axis=0).min(axis=0)


def timed(clock, function):
    """Return the seconds of a call."""
    before = clock()
    function()
    return clock() - before


def cluster(n_workers):
    return LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0")


def peak():
    import re
    from pathlib import Path

    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


def times_of_threads(shards, model, out):
    rows, clock = [], Clock()
    for n_jobs in (1, 2):
        of_em = iteration(clock, lambda e, n=n_jobs: e.set_params(n_jobs=n).fit(shards))
        model.set_params(n_jobs=n_jobs)

        def encode():
            for i, shard in enumerate(shards.iter_shards()):
                np.save(out / f"{i}.npy", model.transform(shard))

        rows.append((f"threads, {n_jobs}", *of_em, *timed(clock, encode)))
        print(rows[-1], flush=True)
    return rows


def times_of_workers(shards, model, folder):
    rows = []
    for n_workers in (1, 2, 4):
        with cluster(n_workers) as workers, Client(workers) as client:
            clock, tries = Clock(client), itertools.count()
            fit(encoder(1, k=2), shards, client=client)  # which imports what is needed
            of_em = iteration(clock, lambda e, client=client: fit(e, shards, client=client))

            def encode(client=client, n_workers=n_workers, tries=tries):
                transform(model, shards, folder / f"{n_workers}-{next(tries)}", client=client)

            rows.append((f"Dask, {n_workers} workers", *of_em, *timed(clock, encode)))
            print(rows[-1], flush=True)
    return rows


def memory(shards, folder):
    rows = []
    for n_shards in (8, 32):
        some = ShardedBags.open(shards.paths[:n_shards])
        with cluster(2) as workers, Client(workers) as client:
            model = fit(encoder(2, k=32), some, client=client)
            transform(model, some, folder / f"memory-{n_shards}", client=client)
            rows.append((n_shards, max(client.run(peak).values())))
        print(rows[-1], flush=True)
    return rows


def killing(client, pass_number):
    """Return `Workers.map` that kills a worker in a pass over the data, after its first result."""
    original, passes = Workers.map, []

    def map_(self, function, tasks):
        passes.append(1)
        for i, result in enumerate(original(self, function, tasks)):
            if len(passes) == pass_number and i == 0:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            yield result

    return map_


def kills(shards, folder):
    local = encoder(3, 2, k=32).fit(shards)
    found, original = [], Workers.map
    with cluster(2) as workers, Client(workers) as client:
        try:
            calm = seconds(lambda: fit(encoder(3, k=32), shards, client=client))
            Workers.map = killing(client, 3)
            began = time.perf_counter()
            model = fit(encoder(3, k=32), shards, client=client)
            after = time.perf_counter() - began
            same = np.array_equal(model.means_, local.means_)
            found.append(f"fit of 3 iterations: {calm:.1f} s, with a kill {after:.1f} s")
            found.append(f"the mixture is that of local threads, bit for bit: {same}")
            client.wait_for_workers(1, timeout=60)
            Workers.map = killing(client, 1)
            paths = transform(model, shards, folder / "killed", client=client)
            Workers.map = original
            encodings = np.concatenate([np.load(path) for path in paths])
            same = np.array_equal(encodings, local.transform(shards))
            found.append(f"encodings with a kill are those of local threads, bit for bit: {same}")
            before = {path: os.stat(path).st_mtime_ns for path in paths}
            again = seconds(lambda: transform(model, shards, folder / "killed", client=client))
            kept = before == {path: os.stat(path).st_mtime_ns for path in paths}
            found.append(f"run again: {again:.2f} s, finished files untouched: {kept}")
        finally:
            Workers.map = original
    return found


def by_joblib(shards, folder):
    """Return seconds of fit and transform by backends, of two shards in one folder."""
    x = ShardedBags.open(shards.paths[:2]).pack()
    x.save(folder / "one")
    given = {
        "in memory": x,
        "mapped": Bags.load(folder / "one"),
        "shard": ShardedBags.open(folder / "one"),
    }
    model, rows = FisherVectorEncoder(32, max_iter=3, n_jobs=2, random_state=0), []
    with cluster(2) as workers, Client(workers):
        for backend in ("threading", "dask"):
            for name, bags in given.items():
                with joblib.parallel_config(backend, n_jobs=2):
                    of_fit = seconds(lambda bags=bags: model.fit(bags), 3)
                    encode = seconds(lambda bags=bags: model.transform(bags), 3)
                rows.append((f"{backend}, {name}", of_fit, encode))
                print(rows[-1], flush=True)
    return rows


def projection(em_cpu, encode):
    """Return lines of a table: what the guide projects, from seconds a descriptor on one core."""
    n, image = IMAGES * DESCRIPTORS, (2 * WIDTH + 1) * K * 4
    return [
        f"| one iteration of EM on all {n:.0e} descriptors | {n * em_cpu / 3600:.0f} core-hours, "
        f"{n * WIDTH * 4 / 1e12:.1f} TB read |",
        f"| one iteration on 1e+08 sampled descriptors | {1e8 * em_cpu / 3600:.2f} core-hours |",
        f"| encodings of all images | {n * encode / 3600:.0f} core-hours, "
        f"{n * WIDTH * 4 / 1e12:.1f} TB read, {IMAGES * image / 1e12:.1f} TB written |",
        f"| encoding of an image | {image / 1e3:.0f} kB |",
    ]


def table(head, rows, form):
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    return lines + [
        f"| {' | '.join([str(row[0]), *(form % x for x in row[1:])])} |" for row in rows
    ]


def overhead(of_workers, of_threads):
    share = 100 * (of_workers / of_threads - 1)
    return f"{share:+.0f} %"


def main(folder):
    shards = make_shards(folder)
    print(shards)
    (folder / "local").mkdir()
    model = encoder(2, 2).fit(shards)
    rows = times_of_threads(shards, model, folder / "local")
    rows += times_of_workers(shards, model, folder)
    (_, *one_thread), (_, *two_threads), (_, *one_worker), (_, *two_workers), _ = rows
    em_cpu, encode_cpu = (one_worker[i] / (N_SHARDS * ROWS) for i in (1, 3))
    columns = ["", "iteration, s", "CPU", "encodings, s", "CPU"]
    return [
        *table(columns, rows, "%.2f"), "",
        "CPU seconds of one worker against one thread: "
        f"{overhead(one_worker[1], one_thread[1])} in an iteration, "
        f"{overhead(one_worker[3], one_thread[3])} in encodings; of two against two: "
        f"{overhead(two_workers[1], two_threads[1])} and "
        f"{overhead(two_workers[3], two_threads[3])}.",
        "",
        f"One worker takes {em_cpu * 1e6:.2f} us of its CPU a descriptor in an iteration, and "
        f"{encode_cpu * 1e6:.2f} us to encode it and write the encodings.", "",
        "## Memory", "",
        *table(["shards", "largest memory of a worker, MiB"], memory(shards, folder), "%.0f"),
        "", "## Killed workers", "", *(f"- {line}" for line in kills(shards, folder)), "",
        f"## joblib's backends, {2 * ROWS} descriptors, 32 components, 3 iterations", "",
        *table(["", "fit, s", "transform, s"], by_joblib(shards, folder), "%.2f"), "",
        f"## Projection: {IMAGES:.0e} images of {DESCRIPTORS} descriptors, {K} components", "",
        "| | |", "| --- | --- |", *projection(em_cpu, encode_cpu),
    ]  # fmt: skip


def save(lines):
    today = datetime.date.today().isoformat()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    head = [f"# Shards and workers, {today}", "", *__doc__.split("\n\n", 1)[1].splitlines()]
    text = "\n".join([*head, "", machine, "", *lines]) + "\n"
    (RESULTS / f"shards-{today}.md").write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write a file of results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        lines = main(Path(temporary))
    print("\n".join(lines))
    if arguments.save:
        save(lines)

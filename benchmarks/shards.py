"""Shards: fits and encodings by threads and by the workers of a Dask cluster on one machine.

    python benchmarks/shards.py --save

128 shards of 65 536 descriptors, 64 numbers of float32 each, in bags of 512; Fisher vectors of
256 components. Seconds are the least of three iterations of EM, and of one run of encodings, which
are written to new files, one a shard, until the disk holds them; those of the CPU are added up over
all processes, and tell more where other programs run beside. Threads and as many workers, of one
thread each, take turns. Memory is the largest that the process of a worker ever had, after a fit
and encodings of so many shards, with 32 components. With as many, and 32 shards, a worker is killed
(SIGKILL) in the second of three iterations, and while it encodes.
"""

import argparse
import datetime
import os
import platform
import shutil
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
N_SHARDS, ROWS, WIDTH, BAG, K = 128, 2**16, 64, 2**9, 256
N_TOGETHER = 16  # shards in one folder
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


def times(shards, model, folder):
    """Return the seconds of threads and of as many workers, who take turns."""
    rows = []
    for n in (1, 2):
        with cluster(n) as workers, Client(workers) as client:
            here, there = Clock(), Clock(client)
            fit(encoder(1, k=2), shards[:2000], client=client)  # which imports what is needed
            of_em = iteration(here, lambda e, n=n: e.set_params(n_jobs=n).fit(shards))
            by_workers = iteration(there, lambda e, client=client: fit(e, shards, client=client))
            model.set_params(n_jobs=n)
            out = folder / f"threads-{n}"
            encode = timed(here, lambda out=out: write(model, shards, out))
            shutil.rmtree(out)
            out = folder / f"workers-{n}"
            written = timed(
                there, lambda out=out, client=client: transform(model, shards, out, client=client)
            )
            shutil.rmtree(out)
        rows.append((f"threads, {n}", *of_em, *encode))
        rows.append((f"Dask, {n} workers", *by_workers, *written))
        print(*rows[-2:], sep="\n", flush=True)
    return rows


def write(model, shards, out):
    """Write encodings, a file a shard."""
    out.mkdir()
    for i, shard in enumerate(shards.iter_shards()):
        with open(out / f"{i}.npy", "xb") as file:
            np.save(file, model.transform(shard))
            file.flush()
            os.fsync(file.fileno())


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
    """Return seconds of fit and transform by backends, of some shards in one folder.

    They are the least of several tries, as other programs run beside.
    """
    x = ShardedBags.open(shards.paths[:N_TOGETHER]).pack()
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
                    of_fit = seconds(lambda bags=bags: model.fit(bags), 4)
                    encode = seconds(lambda bags=bags: model.transform(bags), 12)
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
    all_shards = make_shards(folder)
    print(all_shards)
    model = encoder(2, 2).fit(all_shards)
    rows = times(all_shards, model, folder)
    (_, *one_thread), (_, *one_worker), (_, *two_threads), (_, *two_workers) = rows
    em_cpu, encode_cpu = (one_worker[i] / (N_SHARDS * ROWS) for i in (1, 3))
    columns = ["", "iteration, s", "CPU", "encodings, s", "CPU"]
    more = [
        ("1", *map(overhead, one_worker, one_thread)),
        ("2", *map(overhead, two_workers, two_threads)),
    ]
    shards = ShardedBags.open(all_shards.paths[:32])
    return [
        *table(columns, rows, "%.2f"), "",
        "What workers take more than as many threads:", "",
        *table(["workers", *columns[1:]], more, "%s"), "",
        f"One worker takes {em_cpu * 1e6:.2f} us of its CPU a descriptor in an iteration, and "
        f"{encode_cpu * 1e6:.2f} us to encode it and write the encodings.", "",
        "## Memory", "",
        *table(["shards", "largest memory of a worker, MiB"], memory(shards, folder), "%.0f"),
        "", "## Killed workers", "", *(f"- {line}" for line in kills(shards, folder)), "",
        f"## joblib's backends, {N_TOGETHER * ROWS} descriptors, 32 components, 3 iterations", "",
        *table(["", "fit, s", "transform, s"], by_joblib(shards, folder), "%.3f"), "",
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

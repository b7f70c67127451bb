"""One cluster of two processes for all tests; nothing waits for it without end."""

import numpy as np
import pytest

from skfisher import Bags, ShardedBags

# Eight shards: one is empty, and one is of several units of rows.
LENGTHS = [1500, 40, 60_000, 0, 900, 3000, 1, 2500]


@pytest.fixture(scope="session")
def cluster():
    distributed = pytest.importorskip("distributed")
    import dask

    # A worker that was killed may be slow to come back on a busy machine. After 15 s Dask would
    # give it up for ever.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with patience, cluster:
        yield cluster


@pytest.fixture(scope="session")
def connected(cluster):
    from distributed import Client

    with Client(cluster) as client:
        yield client


@pytest.fixture
def client(connected):
    """Wait until both workers run, and return the client."""
    connected.wait_for_workers(2, timeout=120)
    return connected


def save_shards(folder, seed=0):
    """Write eight shards, whose bags have 1 to 100 descriptors, and return their folders."""
    rng = np.random.default_rng(seed)
    folders = []
    for i, n in enumerate(LENGTHS):
        borders = np.unique(np.append([0, n], rng.integers(0, n + 1, size=n // 50)))
        x = (
            rng.normal(size=(n, 5)) * [1, 2, 3, 4, 5] + rng.integers(0, 3, size=(n, 1)) * 4
        ).astype("f4")
        folders.append(folder / f"shard-{i}")
        Bags.from_lengths(x, np.diff(borders)).save(folders[-1])
    return folders


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    return ShardedBags.open(save_shards(tmp_path_factory.mktemp("shards")))


@pytest.fixture
def small_tasks(monkeypatch):
    """Make a task of each shard."""
    monkeypatch.setattr("skfisher.dask.workers.ROWS_PER_TASK", 1)

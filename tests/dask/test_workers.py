"""Fits and results where workers die, or the user interrupts."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.base import clone

pytest.importorskip("distributed")

from distributed import Client, LocalCluster

from skfisher.dask import LostWorkersError, fit, transform
from skfisher.dask.workers import Workers

from .models import ENCODER, POSIX, at, digest, interrupt, mixture


def kill(client, which=slice(0, 1)):
    for pid in list(client.run(os.getpid).values())[which]:
        os.kill(pid, signal.SIGKILL)


@POSIX
@pytest.mark.parametrize("which", [slice(0, 1), slice(0, 2)], ids=["one", "all"])
def test_a_fit_survives_its_workers(which, client, shards, monkeypatch, small_tasks):
    local = digest(clone(ENCODER).fit(shards))
    at(monkeypatch, 3, lambda: kill(client, which))  # in the second iteration
    assert digest(fit(clone(ENCODER), shards, client=client)) == local


@POSIX
def test_results_survive_a_worker(client, shards, tmp_path, monkeypatch, small_tasks):
    encoder = clone(ENCODER).fit(shards)
    at(monkeypatch, 1, lambda: kill(client))
    paths = transform(encoder, shards, tmp_path, client=client)
    found = np.concatenate([np.load(path) for path in paths])
    assert np.array_equal(found, encoder.transform(shards))


@pytest.fixture(scope="module")
def mortal():
    """Return a client of a cluster whose one worker nobody starts again, and that worker."""
    with (
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp", dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        command += ["--no-nanny", "--nthreads", "1", "--no-dashboard"]
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client.wait_for_workers(1, timeout=60)
            yield client, worker
        finally:
            worker.kill()
            worker.wait()


@POSIX
def test_when_all_workers_are_gone_the_last_iteration_is_kept(mortal, shards, monkeypatch):
    client, worker = mortal
    model = mixture()
    at(monkeypatch, 3, worker.kill)
    began = time.monotonic()
    with pytest.raises(LostWorkersError, match=r"there has been no worker for 1 s.* last whole"):
        fit(model, shards, client=client, timeout=1)
    assert time.monotonic() - began < 30
    with pytest.warns(match="EM did not gain less"):
        first = mixture(max_iter=1).fit(shards)
    assert np.array_equal(model.means_, first.means_)
    assert model.score_samples(shards).shape == (shards.n_descriptors,)
    with pytest.raises(LostWorkersError, match="the cluster has had no worker for 1 s"):
        fit(model, shards, client=client, timeout=1)


def test_an_interrupt_keeps_the_last_iteration_and_leaves_no_tasks(
    client, shards, monkeypatch, small_tasks
):
    model, calls, wait = mixture(), [], Workers._result
    before = set(client.futures)  # of failures that pytest remembers

    def interrupted(self, future, name):  # while it waits, as it mostly does
        calls.append(name)
        if len(calls) == 16:  # of seven a pass: in the second iteration
            interrupt()
        return wait(self, future, name)

    monkeypatch.setattr(Workers, "_result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(model, shards, client=client)
    with pytest.warns(match="EM did not gain less"):
        first = mixture(max_iter=1).fit(shards)
    assert np.array_equal(model.means_, first.means_)
    deadline = time.monotonic() + 30
    while any(client.processing().values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(client.futures) <= before


@POSIX
def test_a_task_that_kills_its_workers_is_named(client, cluster, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    workers = Workers(client, 30, False)
    with pytest.raises(LostWorkersError, match="the task of the shard /data/7, and maybe others"):
        list(workers.map(os._exit, [((1,), "/data/7")]))

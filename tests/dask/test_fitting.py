"""Fits of shards by workers: the bits of a local fit, in bounded memory."""

import functools
import os
import pickle
import re
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

pytest.importorskip("distributed")

import skfisher.dask.workers as workers_module
from skfisher import (
    Bags,
    PowerL2Normalizer,
    SecondOrderPooling,
    ShardedBags,
)
from skfisher.dask import fit, transform
from skfisher.dask.workers import Workers
from skfisher.parallel.host import call

from .models import ENCODER, MODELS, digest, mixture


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_by_two_workers_is_the_local_one_bit_for_bit(name, client, shards):
    local = clone(MODELS[name]).fit(shards)
    assert digest(fit(clone(MODELS[name]), shards, client=client)) == digest(local)


def test_one_worker_two_workers_and_any_cut_into_tasks_give_the_same_bits(
    client, shards, monkeypatch
):
    local = digest(clone(ENCODER).fit(shards))
    address = next(iter(client.nthreads()))
    submit = client.submit
    for n_rows in (1, 5000, 10**9):
        monkeypatch.setattr(workers_module, "ROWS_PER_TASK", n_rows)
        assert digest(fit(clone(ENCODER), shards, client=client)) == local
    monkeypatch.setattr(client, "submit", functools.partial(submit, workers=[address]))
    assert digest(fit(clone(ENCODER), shards, client=client)) == local


def test_some_bags_of_shards(client, shards, rng, small_tasks):
    some = shards[rng.permutation(len(shards))[:80]]
    for model in (ENCODER, mixture(batch_size=40, max_iter=9, tol=0.1)):
        assert digest(fit(clone(model), some, client=client)) == digest(clone(model).fit(some))
    with pytest.raises(TypeError, match="shards is a Bags, but workers read ShardedBags"):
        transform(clone(ENCODER).fit(some), some, "out", client=client)


def test_a_fitted_model_is_a_local_one(client, shards):
    encoder = fit(clone(ENCODER), shards)  # by the client made last
    assert encoder.transform([np.zeros((3, 5), np.float32)]).shape == (1, 44)
    assert len(pickle.dumps(encoder)) < 5000


def test_labels_reach_a_classifier(client, shards):
    y = np.arange(len(shards)) % 3
    model = make_pipeline(clone(ENCODER), PowerL2Normalizer(), SGDClassifier(random_state=0))
    local = clone(model).fit(shards, y)
    assert digest(fit(clone(model), shards, y, client=client)) == digest(local)


def test_a_line_after_each_pass(client, shards, capsys):
    fit(clone(ENCODER), shards, client=client, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"skfisher.dask: pass {i}" for i in range(1, 5)
    ]


def test_what_is_sent_does_not_grow_with_the_data(client, shards, monkeypatch):
    sizes, submit = [], client.submit

    def measured(function, version, data, **options):
        sizes.append(len(data))
        return submit(function, version, data, **options)

    monkeypatch.setattr(client, "submit", measured)

    def largest(n_times):
        sizes.clear()
        many = ShardedBags.open([*shards.paths[4:6]] * n_times)
        monkeypatch.setattr(workers_module, "ROWS_PER_TASK", 10_000)
        fit(SecondOrderPooling(), many, client=client)
        assert len(sizes) == -(-3900 * n_times // 11_700)
        return max(sizes)

    assert largest(48) <= 1.01 * largest(24) < 10_000


PEAK = r"VmHWM:\s+(\d+)"


def peak():
    import pathlib

    return int(re.search(PEAK, pathlib.Path("/proc/self/status").read_text())[1]) / 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_workers_does_not_grow_with_the_number_of_shards(client, tmp_path, rng):
    Bags.from_lengths(rng.normal(size=(2**16, 16)).astype(np.float32), [2**16]).save(tmp_path)
    peaks = []
    for n_shards in (8, 32):  # of 4 MiB
        fit(SecondOrderPooling(), ShardedBags.open([tmp_path] * n_shards), client=client)
        peaks.append(max(client.run(peak).values()))
    assert peaks[1] - peaks[0] < 12


def faults_of_arrays():
    """Return how often the system gave memory for 2**23 bytes, taken and freed ten times."""
    import resource

    def once(*unit):
        np.ones(2**20)

    x, start, stop = np.zeros((1, 1)), np.array([0]), np.array([1])
    call(once, x, start, stop, None, None)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        once()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_of_a_unit_serves_the_next_in_workers_too(client):
    (found,) = Workers(client, 60, False).map(faults_of_arrays, [((), "")])
    assert found < 2**23 / os.sysconf("SC_PAGE_SIZE")  # once, at most

"""Fits and results of shards by workers: the same bits, whatever happens to the workers."""

import functools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("distributed")

from distributed import Client, LocalCluster

import skfisher
import skfisher.dask.workers as workers_module
from skfisher import (
    BagOfWordsEncoder,
    Bags,
    DeepFisherEncoder,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    JointFisherSVC,
    PowerL2Normalizer,
    SecondOrderPooling,
    ShardedBags,
    SpatialPyramid,
    VLADEncoder,
)
from skfisher.dask import LostWorkersError, fit, transform
from skfisher.dask.workers import Workers
from skfisher.parallel.host import call

from .conftest import save_shards

POSIX = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
ENCODER = FisherVectorEncoder(4, max_iter=3, random_state=0)


def mixture(**parameters):
    settings = {"max_iter": 3, "tol": 0.0, "random_state": 0, **parameters}
    return DiagonalGaussianMixture(3, **settings)


DEEP = {"max_windows": 100, "max_iter": 1, "random_state": 0}
MODELS = {
    "Fisher vectors": ENCODER,
    "mixture": mixture(max_iter=30, tol=1e-2),
    "drawn": FisherVectorEncoder(4, max_descriptors=5000, random_state=0),
    "online": mixture(max_iter=30, tol=0.05, batch_size=300),
    "VLAD": VLADEncoder(4, random_state=0),
    "words": BagOfWordsEncoder(4, random_state=0),
    "second order": SecondOrderPooling(n_components=3),
    "pyramid": SpatialPyramid(ENCODER, cells=((1, 1), (2, 2))),
    "deep, of series": DeepFisherEncoder((3, 2), **DEEP),
    "deep, in the plane": DeepFisherEncoder((3, 2), n_positions=2, **DEEP),
    "whitening": DescriptorTransformer(PCA(3, whiten=True), max_descriptors=None),
    "sample": DescriptorTransformer(PCA(3), max_descriptors=1000, random_state=0),
    "pipeline": make_pipeline(
        DescriptorTransformer(StandardScaler(), max_descriptors=None),
        DescriptorTransformer(PCA(3), max_descriptors=None),
        ENCODER,
    ),
}


def digest(model):
    """Return a hash of all that a fit sets, to the last bit."""
    return joblib.hash(pickle.loads(pickle.dumps(model)))


def at(monkeypatch, pass_number, act, *, after=0):
    """Let something happen in a pass over the data, after so many of its results."""
    original, passes = Workers.map, []

    def map_(self, function, tasks):
        passes.append(1)
        for i, result in enumerate(original(self, function, tasks)):
            if len(passes) == pass_number and i == after:
                act()
            yield result

    monkeypatch.setattr(Workers, "map", map_)


@pytest.fixture
def small_tasks(monkeypatch):
    """Make a task of each shard."""
    monkeypatch.setattr(workers_module, "ROWS_PER_TASK", 1)


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
    import re

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


# Results


@pytest.mark.parametrize("name", ["Fisher vectors", "pyramid", "deep, in the plane"])
def test_results_are_the_local_ones_bit_for_bit(name, client, shards, tmp_path, small_tasks):
    encoder = clone(MODELS[name]).fit(shards)
    paths = transform(encoder, shards, tmp_path / "encodings", client=client)
    assert [Path(path).name for path in paths] == [f"shard-{i}.npy" for i in range(8)]
    found = np.concatenate([np.load(path) for path in paths])
    assert found.dtype == np.float32
    assert np.array_equal(found, encoder.transform(shards))


def test_results_that_are_bags_are_shards_again(client, shards, tmp_path):
    whitening = clone(MODELS["whitening"]).fit(shards)
    paths = transform(whitening, shards, tmp_path / "white", client=client)
    written = ShardedBags.open(paths)
    assert np.array_equal(written.lengths, shards.lengths)
    mapped = whitening.transform(shards)
    by_shard = [shard.pack().values for shard in mapped.iter_shards()]
    assert np.array_equal(written.pack().values, np.concatenate(by_shard))
    before = times(tmp_path)
    transform(whitening, shards, tmp_path / "white", client=client)
    assert times(tmp_path) == before
    encoder = clone(ENCODER).fit(written)
    paths = transform(encoder, mapped, tmp_path / "encodings", client=client)
    found = np.concatenate([np.load(path) for path in paths])
    assert np.array_equal(found, encoder.transform(mapped))


def test_predictions(client, shards, tmp_path):
    y = np.arange(len(shards)) % 2
    model = make_pipeline(clone(ENCODER), PowerL2Normalizer(), SGDClassifier(random_state=0))
    model.fit(shards, y)
    for method in ("predict", "decision_function"):
        paths = transform(model, shards, tmp_path / method, client=client, method=method)
        found = np.concatenate([np.load(path) for path in paths])
        local = [getattr(model, method)(shard) for shard in shards.iter_shards() if len(shard)]
        assert np.array_equal(found, np.concatenate(local))


def test_predictions_of_joint_models(client, shards, tmp_path):
    model = JointFisherSVC(2, max_iter=1, random_state=0).fit(shards, np.arange(len(shards)) % 2)
    paths = transform(model, shards, tmp_path, client=client, method="decision_function")
    for path, shard in zip(paths, shards.iter_shards(), strict=True):
        wanted = model.decision_function(shard) if len(shard) else []
        assert np.array_equal(np.load(path), wanted)


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on(client, shards, tmp_path, monkeypatch, small_tasks):
    encoder = clone(ENCODER).fit(shards)
    with monkeypatch.context() as patch:
        at(patch, 1, interrupt, after=2)
        with pytest.raises(KeyboardInterrupt):
            transform(encoder, shards, tmp_path, client=client)
    records = {path for path in tmp_path.glob("*.json") if (path.with_suffix(".npy")).exists()}
    assert len(records) >= 3
    kept = {
        path.with_suffix(".npy"): path.with_suffix(".npy").stat().st_mtime_ns for path in records
    }
    encoder = pickle.loads(pickle.dumps(encoder.set_params(n_jobs=2)))  # as from another program
    paths = transform(encoder, shards, tmp_path, client=client)
    assert kept.items() <= times(tmp_path).items()
    found = np.concatenate([np.load(path) for path in paths])
    assert np.array_equal(found, encoder.transform(shards))
    assert not list(tmp_path.glob("*.partial"))


def test_results_of_another_program_are_taken_up(client, shards, tmp_path):
    joblib.dump(clone(ENCODER).fit(shards), tmp_path / "model")
    transform(joblib.load(tmp_path / "model"), shards, tmp_path / "out", client=client)
    code = """
import sys, joblib
from pathlib import Path
from distributed import Client
from skfisher import ShardedBags
from skfisher.dask import transform
folder, address, *paths = sys.argv[1:]
before = {path: path.stat().st_mtime_ns for path in Path(folder, "out").iterdir()}
with Client(address, timeout=30) as client:
    model = joblib.load(folder + "/model")
    transform(model, ShardedBags.open(paths), folder + "/out", client=client)
print(before == {path: path.stat().st_mtime_ns for path in Path(folder, "out").iterdir()})
"""
    command = [sys.executable, "-c", code, str(tmp_path), client.scheduler.address, *shards.paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True"]


def test_a_folder_of_another_model_is_refused(client, shards, tmp_path):
    encoder = clone(ENCODER).fit(shards)
    transform(encoder, shards, tmp_path / "out", client=client)
    before = times(tmp_path)
    others = {
        "parameter": clone(encoder.set_params(normalize="power-l2")).fit(shards),
        "fit": FisherVectorEncoder(4, max_iter=3, random_state=1).fit(shards),
    }
    for other in others.values():
        with pytest.raises(ValueError, match="out holds results of another model"):
            transform(other, shards, tmp_path / "out", client=client)
    assert times(tmp_path) == before
    with pytest.raises(ValueError, match=r"holds .*, but no model\.json"):
        transform(encoder, shards, tmp_path, client=client)


def test_results_that_do_not_fit_any_more_are_made_again(client, tmp_path):
    folders = save_shards(tmp_path)
    shards = ShardedBags.open(folders)
    encoder, out = clone(ENCODER).fit(shards), tmp_path / "out"
    paths = transform(encoder, shards, out, client=client)
    before = times(out)
    shards[:7].pack().save(folders[0])  # another shard
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:-1])  # torn
    (out / "shard-2.json").unlink()
    (out / "shard-4.json").write_text("{}")
    shards = ShardedBags.open(folders)
    transform(encoder, shards, out, client=client)
    changed = {path.stem for path, time_ in times(out).items() if before[path] != time_}
    assert changed == {"shard-0", "shard-1", "shard-2", "shard-4"}
    found = np.concatenate([np.load(path) for path in paths])
    assert np.array_equal(found, encoder.transform(shards))


def test_shards_of_one_name_are_refused(client, shards, tmp_path):
    encoder, folders = clone(ENCODER).fit(shards), save_shards(tmp_path)
    with pytest.raises(ValueError, match="have one name, but results are named as shards"):
        transform(encoder, ShardedBags.open([*shards.paths, folders[2]]), tmp_path, client=client)


# Workers die


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


# What is wrong


def test_a_closed_client_and_none(client, shards):
    closed = Client(client.scheduler.address, timeout=30, set_as_default=False)
    closed.close()
    with pytest.raises(ValueError, match=r"client is closed: pass one that is connected"):
        fit(clone(ENCODER), shards, client=closed)
    with pytest.raises(TypeError, match=r"client is 'tcp', but a distributed\.Client"):
        fit(clone(ENCODER), shards, client="tcp")


def test_bags_in_memory_are_refused(client):
    with pytest.raises(TypeError, match="shards is a Bags, but workers read ShardedBags"):
        fit(clone(ENCODER), Bags.from_list([np.zeros((3, 2))]), client=client)


def set_version(version):
    import sys

    import skfisher

    if version is None:
        sys.modules["skfisher.kept"] = sys.modules["skfisher"]
        sys.modules["skfisher"] = None
    else:
        skfisher.__version__ = version


def reset_version(version):
    import sys

    if "skfisher.kept" in sys.modules:
        sys.modules["skfisher"] = sys.modules.pop("skfisher.kept")
    sys.modules["skfisher"].__version__ = version


@pytest.mark.parametrize(
    ("version", "found"), [("0.0.1", r"skfisher 0\.0\.1"), (None, r"no skfisher \(")]
)
def test_a_worker_with_another_version_or_none_is_named(version, found, client, shards):
    address = sorted(client.nthreads())[1]
    client.run(set_version, version, workers=[address])
    try:
        with pytest.raises(RuntimeError, match=rf"the worker {re.escape(address)} has {found}"):
            fit(clone(ENCODER), shards, client=client)
    finally:
        client.run(reset_version, skfisher.__version__, workers=[address])
    fit(SecondOrderPooling(), shards, client=client)


def test_a_worker_that_came_later_with_another_version_is_named(client, shards, monkeypatch):
    monkeypatch.setattr(workers_module, "__version__", "0.0.1")
    monkeypatch.setattr(Workers, "_check_versions", lambda self: None)
    with pytest.raises(
        RuntimeError, match=r"the worker tcp://.*, but the client has skfisher 0\.0\.1"
    ):
        fit(clone(ENCODER), shards, client=client)


def test_a_missing_shard_is_named_with_the_worker(client, tmp_path):
    folders = save_shards(tmp_path)
    shards = ShardedBags.open(folders)
    encoder = clone(ENCODER).fit(shards)
    for path in folders[5].iterdir():
        path.unlink()
    folders[5].rmdir()
    message = r"on the worker tcp://.* \(.*\): the shard .*shard-5 does not exist"
    with pytest.raises(FileNotFoundError, match=message):
        fit(SecondOrderPooling(), shards, client=client)
    with pytest.raises(FileNotFoundError, match=message):
        transform(encoder, shards, tmp_path / "out", client=client)


def test_a_shard_that_changes_between_iterations_is_named(client, tmp_path, monkeypatch):
    folders = save_shards(tmp_path)
    shards = ShardedBags.open(folders)
    at(monkeypatch, 2, lambda: shards[:9].pack().save(folders[5]))
    model = mixture()
    with pytest.raises(ValueError, match=r"the shard .*shard-5 was changed after it was opened"):
        fit(model, shards, client=client)
    assert not hasattr(model, "means_")


def test_what_is_not_finite_is_named(client, tmp_path):
    folders = save_shards(tmp_path)
    Bags.from_list([np.array([[1, 2, 3, 4, np.nan]], np.float32)]).save(folders[5])
    with pytest.raises(ValueError, match=r"the shard .*shard-5 contains NaN in descriptor 0"):
        fit(clone(ENCODER), ShardedBags.open(folders), client=client)


def test_joint_training_is_refused(client, shards):
    y = np.arange(len(shards)) % 2
    white = DescriptorTransformer(StandardScaler(), max_descriptors=None)
    for model in (JointFisherSVC(2), make_pipeline(white, JointFisherSVC(2))):
        with pytest.raises(TypeError, match=r"JointFisherSVC is not trained by .* its own fit"):
            fit(model, shards, y, client=client)


def test_devices_are_refused(client, shards, stand_in):
    with pytest.raises(ValueError, match="device='cuda', but the workers of a cluster"):
        fit(SecondOrderPooling(device="cuda"), shards, client=client)


def test_records_are_plain(client, shards, tmp_path):
    transform(clone(MODELS["second order"]).fit(shards), shards, tmp_path, client=client)
    record = json.loads((tmp_path / "shard-2.json").read_text())
    assert sorted(record) == ["bytes", "digest"]

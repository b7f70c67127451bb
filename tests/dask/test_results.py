"""Results of shards by workers: the local ones, kept, and gone on with."""

import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

pytest.importorskip("distributed")

from skfisher import (
    FisherVectorEncoder,
    JointFisherSVC,
    PowerL2Normalizer,
    ShardedBags,
)
from skfisher.dask import transform

from .conftest import save_shards
from .models import ENCODER, MODELS, at, interrupt


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

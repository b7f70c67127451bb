"""What is wrong with shards, workers or models is named."""

import json
import re
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("distributed")

from distributed import Client

import skfisher
import skfisher.dask.workers as workers_module
from skfisher import (
    Bags,
    DescriptorTransformer,
    JointFisherSVC,
    SecondOrderPooling,
    ShardedBags,
)
from skfisher.dask import fit, transform
from skfisher.dask.workers import Workers

from .conftest import save_shards
from .models import ENCODER, MODELS, at, mixture


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

    import skfisher

    if version is None:
        sys.modules["skfisher.kept"] = sys.modules["skfisher"]
        sys.modules["skfisher"] = None
    else:
        skfisher.__version__ = version


def reset_version(version):

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

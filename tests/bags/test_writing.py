"""A stream of bags becomes shards, also if it is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from skfisher import ShardedBags

LENGTHS = [5, 1, 8, 3, 9, 2, 7]


def stream(first=0, n_bags=7, dtype=np.float32):
    for i in range(first, n_bags):
        yield np.random.default_rng(i).normal(size=(LENGTHS[i], 3)).astype(dtype)


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("shard-*/*")}


def test_a_stream_becomes_shards_of_so_many_bags(tmp_path):
    shards = ShardedBags.write(stream(), tmp_path, bags_per_shard=3)
    assert [len(shard) for shard in shards.iter_shards()] == [3, 3, 1]
    assert [os.path.basename(path) for path in shards.paths] == [f"shard-0000{i}" for i in range(3)]
    for found, wanted in zip(shards, stream(), strict=True):
        assert np.array_equal(found, wanted)


def test_one_shard_is_held_at_a_time(tmp_path):
    made = []

    def counted():
        for bag in stream():
            finished = len(list(tmp_path.glob("shard-*/manifest.json")))
            made.append(len(made) // 2 == finished)
            yield bag

    ShardedBags.write(counted(), tmp_path, bags_per_shard=2)
    assert all(made)


class KilledError(Exception):
    pass


def killed(n_bags, first=0):
    yield from stream(first, n_bags)
    raise KilledError


@pytest.mark.parametrize("n_bags", [0, 1, 3, 5])
def test_finished_shards_are_kept_and_the_stream_goes_on(tmp_path, n_bags):
    with pytest.raises(KilledError):
        ShardedBags.write(killed(n_bags), tmp_path, bags_per_shard=2)
    kept = times(tmp_path)
    assert len(kept) == 3 * (n_bags // 2)
    shards = ShardedBags.write(stream(), tmp_path, bags_per_shard=2)
    assert kept.items() <= times(tmp_path).items()
    for found, wanted in zip(shards, stream(), strict=True):
        assert np.array_equal(found, wanted)
    before = times(tmp_path)
    ShardedBags.write(stream(), tmp_path, bags_per_shard=2)
    assert times(tmp_path) == before


def test_a_function_need_not_make_bags_again(tmp_path):
    asked = []

    def made(first):
        asked.append(first)
        return killed(5, first) if first == 0 else stream(first)

    with pytest.raises(KilledError):
        ShardedBags.write(made, tmp_path, bags_per_shard=2)
    shards = ShardedBags.write(made, tmp_path, bags_per_shard=2)
    assert asked == [0, 4]
    assert shards.lengths.tolist() == LENGTHS


WRITER = """
import sys, time
import numpy as np
from skfisher import ShardedBags

def stream():
    for i in range(1000):
        time.sleep(0.002)
        yield np.full((1000, 8), i, dtype=np.float32)

ShardedBags.write(stream(), sys.argv[1], bags_per_shard=5)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_writer_that_is_killed_leaves_whole_shards(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("shard-*/manifest.json"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    n_whole = len(list(tmp_path.glob("shard-*/manifest.json")))
    bags = (np.full((1000, 8), i, dtype=np.float32) for i in range(5 * n_whole + 3))
    shards = ShardedBags.write(bags, tmp_path, bags_per_shard=5)
    assert len(shards) == 5 * n_whole + 3
    assert all((bag == i).all() for i, bag in enumerate(shards))


@pytest.mark.parametrize(
    ("bag", "error", "message"),
    [
        (np.zeros((2, 4), np.float32), ValueError, "bag 3 .* 4 features of float32, .* have 3"),
        (np.zeros((2, 3)), ValueError, "bag 3 .* 3 features of float64, .* of float32"),
        (np.zeros(3, np.float32), ValueError, r"bag 3 of the stream has shape \(3,\)"),
        (np.zeros((0, 3), np.float32), ValueError, r"bag 3 of the stream has shape \(0, 3\)"),
        ([["a", "b", "c"]], TypeError, "bag 3 of the stream"),
        (np.zeros((2, 3), np.longdouble), ValueError, "bag 3 .* wider than float64"),
    ],
)
def test_a_bad_bag_is_named_and_finished_shards_stay(tmp_path, bag, error, message):
    bags = [*stream(0, 3), bag, *stream(3)]
    with pytest.raises(error, match=message):
        ShardedBags.write(bags, tmp_path, bags_per_shard=2)
    assert len(ShardedBags.open(str(tmp_path / "*"))) == 2


def test_another_stream_is_refused(tmp_path):
    ShardedBags.write(stream(), tmp_path, bags_per_shard=2)
    before = times(tmp_path)
    with pytest.raises(ValueError, match=r"ends after 6 bags, but the shards in .* hold 7"):
        ShardedBags.write(stream(0, 6), tmp_path, bags_per_shard=2)
    with pytest.raises(ValueError, match=r"bag 0 of the stream has 1 descriptors, but .* has 5"):
        ShardedBags.write(stream(1), tmp_path, bags_per_shard=2)
    with pytest.raises(ValueError, match="bag 0 of the stream has 3 features of float64"):
        ShardedBags.write(stream(dtype=np.float64), tmp_path, bags_per_shard=2)
    assert times(tmp_path) == before


def test_a_damaged_shard_is_named(tmp_path):
    ShardedBags.write(stream(), tmp_path, bags_per_shard=2)
    folder = tmp_path / "shard-00001"
    entry = json.loads((folder / "manifest.json").read_text())["arrays"]["values"]
    path = folder / entry["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"shard-00001.* was changed after it was saved"):
        ShardedBags.write(stream(), tmp_path, bags_per_shard=2)


def test_a_gap_is_named(tmp_path):
    ShardedBags.write(stream(), tmp_path, bags_per_shard=2)
    (tmp_path / "shard-00001" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds shard-00002, but shard-00001 is missing"):
        ShardedBags.write(stream(), tmp_path, bags_per_shard=2)


def test_an_empty_stream_and_no_bags_a_shard_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the stream holds no bags"):
        ShardedBags.write([], tmp_path)
    with pytest.raises(ValueError, match="bags_per_shard=0"):
        ShardedBags.write(stream(), tmp_path, bags_per_shard=0)


def test_what_is_no_stream_is_named(tmp_path):
    for stream_or_function in (None, lambda n_bags: None):
        with pytest.raises(TypeError, match="stream is None, but bags"):
            ShardedBags.write(stream_or_function, tmp_path)


def test_the_size_of_a_shard_may_be_an_integer_of_numpy(tmp_path):
    assert ShardedBags.write(stream(), tmp_path, bags_per_shard=np.int64(3)).n_shards == 3

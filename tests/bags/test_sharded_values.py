"""Rows of shards as if they were one array: what is read of files, and what of them is kept."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    ShardedBags,
)
from skfisher.bags.shards import Shard

LENGTHS = [135, 0, 1, 184]  # of each shard; one is empty


@pytest.fixture
def x(rng):
    return rng.normal(size=(sum(LENGTHS), 4)).astype(np.float32)


@pytest.fixture
def values(x, tmp_path):
    for i, part in enumerate(np.split(x, np.cumsum(LENGTHS)[:-1])):
        Bags.from_lengths(part, [len(part)] if len(part) else []).save(tmp_path / f"{i}")
    return ShardedBags.open(str(tmp_path / "*")).values


def test_rows_are_read_in_any_order(values, x):
    rows = np.array([319, 0, 135, 134, 319])
    assert np.array_equal(values[rows], x[rows])
    assert np.array_equal(values[130:140], x[130:140])
    assert np.array_equal(values[136], x[136])
    assert values[5:5].shape == (0, 4)


@pytest.mark.parametrize(
    "key",
    [-1, [-1, 0, -320], slice(None, None, 2), slice(None, None, -1), slice(200, 100, -3), "mask",
     [[0, 319], [-1, 5]], [], np.array([3, 200], dtype=np.uint8)],
)  # fmt: skip
def test_rows_are_named_as_those_of_an_array(values, x, key):
    key = np.arange(len(x)) % 3 == 1 if isinstance(key, str) else key
    assert np.array_equal(values[key], x[key])


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (320, "out of bounds: there are 320"),
        ([0, -321], "out of bounds: there are 320"),
        ([True, False], r"mask of shape \(320,\), not by a list of dtype bool and shape \(2,\)"),
        (1.5, "named by integers"),
        (None, "named by integers"),
    ],
)
def test_rows_that_do_not_exist_are_refused(values, key, words):
    with pytest.raises(IndexError, match=words):
        values[key]


@pytest.fixture
def reads(monkeypatch):
    """Return the sizes of all reads of files, in bytes, which the system cuts short."""
    sizes, opened = [], Shard._open

    class Counted:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def seek(self, place):
            self.file.seek(place)

        def readinto(self, buffer):
            sizes.append(self.file.readinto(buffer[: 2**14]))
            return sizes[-1]

    monkeypatch.setattr(Shard, "_open", lambda shard: Counted(opened(shard)))
    return sizes


@pytest.mark.parametrize("order", ["drawn", "sorted", "repeated"])
def test_rows_that_are_not_asked_for_are_not_read(order, reads, tmp_path, rng):
    x = rng.normal(size=(40_000, 8)).astype(np.float32)
    Bags.from_lengths(x, [100] * 400).save(tmp_path)
    rows = rng.choice(len(x), 20, replace=False)
    rows = {"drawn": rows, "sorted": np.sort(rows), "repeated": np.repeat(rows, 2)}[order]
    values = ShardedBags.open(tmp_path).values
    assert np.array_equal(values[rows], x[rows])
    assert sum(reads) <= 20 * 2**12 < x.nbytes / 10
    reads.clear()
    assert np.array_equal(values[np.arange(100, 20_000)], x[100:20_000])
    assert sum(reads) == x[100:20_000].nbytes


@pytest.mark.parametrize(
    "model",
    [
        DescriptorTransformer(PCA(2), max_descriptors=20, random_state=0),
        DiagonalGaussianMixture(2, max_descriptors=20, max_iter=50, random_state=0),
        FisherVectorEncoder(2, max_descriptors=20, random_state=0),
        BagOfWordsEncoder(2, max_descriptors=20, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_fits_to_drawn_descriptors_read_no_others(model, reads, tmp_path, rng):
    x = rng.normal(size=(2, 20_000, 8)).astype(np.float32)
    for i in range(2):
        Bags.from_lengths(x[i], [100] * 200).save(tmp_path / f"{i}")
    clone(model).fit(ShardedBags.open(str(tmp_path / "*")))
    assert 0 < sum(reads) <= 20 * 2**12 < x.nbytes / 10


def test_columns_are_cut_when_rows_are_read(values, x):
    some = values[:, 1:-1]
    assert some.shape == (320, 2)
    assert some.dtype == np.float32
    assert np.array_equal(some[130:140], x[130:140, 1:-1])
    assert np.array_equal(some[:, 1:][[300, 5]], x[[300, 5], 2:3])
    assert np.array_equal(pickle.loads(pickle.dumps(some))[0], x[0, 1:-1])
    assert values[:, 3:1].shape == (320, 0)
    for key in ((slice(0, 3), slice(0, 2)), (slice(None), [0, 2]), (slice(None), slice(0, 4, 2))):
        with pytest.raises(IndexError, match="or cut as"):
            values[key]

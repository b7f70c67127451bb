"""joblib's backend for Dask: what is mapped travels as the path of its file."""

import joblib
import numpy as np
import pytest

pytest.importorskip("distributed")

from distributed.comm.tcp import TCP
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import Bags, FisherVectorEncoder, ShardedBags
from skfisher.bags.mapped import MappedFile
from skfisher.parallel.threads import map_in_order


@pytest.fixture
def saved(tmp_path, rng):
    Bags.from_lengths(rng.normal(size=(90_000, 4)).astype(np.float32), [300] * 300).save(tmp_path)
    return tmp_path


def kind(x):
    return (
        type(x).__name__,
        getattr(x, "filename", None),
        float(x[::100].sum(dtype=np.float64).round(3)),
    )


def test_mapped_descriptors_are_opened_by_workers(client, saved):
    bags = Bags.load(saved)
    with joblib.parallel_config("dask", n_jobs=2):
        tasks = [(bags.values,), (bags.values[7:50],), (bags.values[::-1],)]
        whole, rows, reversed_rows = map_in_order(kind, tasks, n_jobs=2)
    path = bags.values.filename
    assert whole == ("memmap", path, float(bags.values[::100].sum(dtype=np.float64).round(3)))
    assert rows == ("memmap", path, float(bags.values[7:50:100].sum(dtype=np.float64).round(3)))
    assert reversed_rows[0] == "ndarray"


@pytest.mark.parametrize("open_bags", [Bags.load, ShardedBags.open], ids=["mapped", "shards"])
def test_fits_and_encodings_are_those_of_threads(client, saved, open_bags):
    bags = open_bags(saved)
    encoder = FisherVectorEncoder(4, n_jobs=2, random_state=0)
    local = encoder.fit(bags).transform(bags)
    with joblib.parallel_config("dask", n_jobs=2):
        assert np.array_equal(encoder.fit(bags).transform(bags), local)


@pytest.fixture
def sent(monkeypatch):
    """Return a list of the sizes of all messages that this process and its scheduler send."""
    sizes, write = [], TCP.write

    async def counted(*args, **kwargs):
        sizes.append(await write(*args, **kwargs))
        return sizes[-1]

    monkeypatch.setattr(TCP, "write", counted)
    return sizes


MODEL = make_pipeline(FisherVectorEncoder(2, max_iter=2, random_state=0), LinearSVC())


@pytest.mark.parametrize("open_bags", [Bags.load, ShardedBags.open], ids=["mapped", "shards"])
@pytest.mark.parametrize("part", [slice(None), slice(9, 69)], ids=["all", "some"])
def test_searches_send_paths(client, saved, sent, open_bags, part):
    bags, y = open_bags(saved)[part], np.arange(300)[part] % 2
    wanted = cross_val_score(MODEL, bags, y, cv=2)
    sent.clear()
    with joblib.parallel_config("dask"):
        assert np.array_equal(cross_val_score(MODEL, bags, y, cv=2), wanted)
    assert 10_000 < sum(sent) < bags.n_descriptors * 16 / 5  # of the bytes in the file


def test_bags_in_memory_are_counted_when_they_are_sent(client, saved, sent):
    bags, y = Bags.load(saved, mmap_mode=None), np.arange(300) % 2
    with joblib.parallel_config("dask"):
        cross_val_score(MODEL, bags, y, cv=2)
    assert sum(sent) > bags.values.nbytes


def test_a_search_where_workers_lack_the_file_says_so(client, saved):
    bags, y = Bags.load(saved), np.arange(300) % 2
    hidden = saved / "hidden"
    original = MappedFile.of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MappedFile, "of", lambda x: original(x)._replace(path=str(hidden)))
        with (
            joblib.parallel_config("dask"),
            pytest.raises(
                FileNotFoundError, match=f"{hidden}, which these bags are mapped from, is not here"
            ),
        ):
            cross_val_score(MODEL, bags, y, cv=2, error_score="raise")


def test_what_only_this_process_has_is_sent_with_a_warning(client, saved, monkeypatch):
    bags = Bags.load(saved, mmap_mode="c")
    bags.values[0, 0] = 1000
    monkeypatch.setattr("skfisher.bags.mapped.LARGE", 1000)
    with (
        joblib.parallel_config("dask", n_jobs=2),
        pytest.warns(
            UserWarning, match=r"1 MiB of mapped descriptors are copied .* save these bags"
        ),
    ):
        found = list(map_in_order(kind, [(bags.values,)] * 2, n_jobs=2))
    assert found[0][2] == float(bags.values[::100].sum(dtype=np.float64).round(3))

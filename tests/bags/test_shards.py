"""Bags in many folders: opened, read, divided, changed behind their back."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    PowerL2Normalizer,
    SecondOrderPooling,
    ShardedBags,
    VLADEncoder,
)

LENGTHS = [3, 40, 7, 25, 60, 1, 9, 30, 80, 2, 45, 18]
CUTS = [slice(0, 5), slice(5, 5), slice(5, 6), slice(6, 12)]  # the second shard is empty

ENCODERS = [
    FisherVectorEncoder(3, random_state=0),
    MixtureSecondOrderPooling(2, random_state=0),
    VLADEncoder(3, random_state=0),
    BagOfWordsEncoder(4, random_state=0),
    SecondOrderPooling(n_components=2),
    GatedSecondOrderPooling(2, random_state=0),
    LowRankBilinearPooling(2, random_state=0),
    CompactBilinearPooling(16, random_state=0),
    MeanPooling("mean_std"),
]


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Several units a shard."""
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)


@pytest.fixture
def bags(rng):
    x = rng.normal(2, [1, 2, 3, 4], size=(sum(LENGTHS), 4))
    return Bags.from_lengths(x.astype(np.float32), LENGTHS)


@pytest.fixture
def folders(bags, tmp_path):
    for i, cut in enumerate(CUTS):
        bags[cut].save(tmp_path / f"{i}")
    return [tmp_path / f"{i}" for i in range(len(CUTS))]


@pytest.fixture
def shards(folders):
    return ShardedBags.open(folders)


def test_shards_are_the_bags_in_order(shards, bags):
    assert len(shards) == shards.shape[0] == len(bags)
    assert shards.lengths.tolist() == LENGTHS
    assert (shards.n_shards, shards.n_descriptors, shards.n_features) == (4, sum(LENGTHS), 4)
    assert shards.dtype == np.float32
    for found, wanted in zip(shards, bags, strict=True):
        assert np.array_equal(found, wanted)
    assert repr(shards) == (
        "<ShardedBags: n_shards=4, n_bags=12, n_descriptors=320, n_features=4, float32>"
    )


def test_a_notebook_shows_where_they_are(shards):
    assert f"4 shards, such as {shards.paths[0]}" in shards._repr_html_()


def test_a_pattern_takes_the_folders_in_the_order_of_names(shards, tmp_path):
    (tmp_path / "labels.npy").touch()
    assert ShardedBags.open(str(tmp_path / "*")).paths == shards.paths
    assert ShardedBags.open(tmp_path / "3").n_shards == 1


def test_shards_one_by_one(shards, bags):
    parts = list(shards.iter_shards())
    assert [len(part) for part in parts] == [5, 0, 1, 6]
    assert all(isinstance(part, ShardedBags) for part in parts)
    assert np.array_equal(parts[3].pack().values, bags[CUTS[3]].pack().values)


@pytest.mark.parametrize("key", [slice(3, 9), [11, 0, 5, 0], np.arange(12) % 2 == 0])
def test_subsets_are_views_of_the_shards(shards, bags, key):
    some = shards[key]
    assert some.values is shards.values
    for found, wanted in zip(some, bags[key], strict=True):
        assert np.array_equal(found, wanted)
    packed = some.pack()
    assert isinstance(packed.values, np.ndarray)
    assert np.array_equal(packed.values, bags[key].pack().values)


def test_pickles_are_paths_whatever_the_size_of_the_data(tmp_path, rng):
    Bags.from_list([rng.normal(size=(50_000, 8))]).save(tmp_path / "large")
    shards = ShardedBags.open(tmp_path / "large")
    for some in (shards, shards[:1]):
        data = pickle.dumps(some)
        assert len(data) < 2000
        assert np.array_equal(pickle.loads(data)[0], shards[0])


def test_shards_become_one_folder(shards, bags, tmp_path):
    shards.save(tmp_path / "one")
    one = Bags.load(tmp_path / "one")
    assert np.array_equal(one.values, bags.values)
    assert np.array_equal(one.lengths, bags.lengths)


def test_bags_of_other_forms_are_no_shards():
    assert type(ShardedBags.from_list([np.zeros((2, 3))])) is Bags
    with pytest.raises(TypeError, match=r"made by ShardedBags\.open or ShardedBags\.write"):
        ShardedBags(np.zeros((2, 3)), [0], [2])


# Estimators


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_encodings_are_those_of_one_array_bit_for_bit(encoder, shards, bags):
    encoder = clone(encoder).fit(shards)
    assert np.array_equal(encoder.transform(shards), encoder.transform(bags))
    assert np.array_equal(encoder.transform(shards[2:9]), encoder.transform(bags[2:9]))


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_a_fit_is_that_of_one_array_but_for_rounding(encoder, shards, bags):
    found, wanted = clone(encoder).fit(shards), clone(encoder).fit(bags)
    assert np.allclose(found.transform(bags), wanted.transform(bags), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_mixture_does_not_depend_on_threads(shards, batch_size):
    mixtures = [
        DiagonalGaussianMixture(
            3, max_iter=5, tol=0, batch_size=batch_size, n_jobs=n_jobs, random_state=0
        )
        for n_jobs in (None, 3)
    ]
    with pytest.warns(match="EM did not gain less"):
        one, three = [mixture.fit(shards) for mixture in mixtures]
    assert np.array_equal(one.means_, three.means_)
    assert np.array_equal(one.score_samples(shards), three.score_samples(shards))


def test_sums_are_those_of_each_shard_added_in_order(shards, bags):
    # the rule, written out: what a fit over shards sums, for any way of working on them
    from skfisher.codebooks.moments import second_moments

    origin = bags.values[0].astype(np.float64)
    total = 0
    for cut in CUTS:
        of_shard = None
        x = bags[cut].pack().values
        for first in range(0, len(x), 50):
            part = (x[first : first + 50] - origin).sum(axis=0)
            of_shard = part if of_shard is None else of_shard + part
        total = total if of_shard is None else total + of_shard
    assert np.array_equal(second_moments(shards).total, total)


def test_draws_are_those_of_one_array(shards, bags):
    settings = {"max_descriptors": 100, "max_iter": 3, "random_state": 0}
    found = FisherVectorEncoder(2, **settings).fit(shards)
    assert np.array_equal(found.means_, FisherVectorEncoder(2, **settings).fit(bags).means_)


def test_scikit_learn_divides_shards(shards):
    y = np.arange(len(shards)) % 2
    pipe = make_pipeline(FisherVectorEncoder(2, random_state=0), PowerL2Normalizer(), LinearSVC())
    assert cross_val_score(pipe, shards, y, cv=3).shape == (3,)


@pytest.mark.parametrize(
    "transformer", [StandardScaler(), PCA(2, whiten=True), PCA(0.7), PCA()], ids=str
)
@pytest.mark.parametrize("max_descriptors", [None, 200])
def test_descriptors_are_transformed_when_they_are_read(transformer, max_descriptors, shards, bags):
    settings = {"max_descriptors": max_descriptors, "random_state": 0}
    found = DescriptorTransformer(transformer, **settings).fit(shards)
    # scikit-learn rounds a covariance to float32 where it is given that
    double = Bags(bags.values.astype(np.float64), bags.starts, bags.stops)
    wanted = DescriptorTransformer(transformer, **settings).fit(double)
    mapped = found.transform(shards)
    assert isinstance(mapped, ShardedBags)
    assert mapped.dtype == np.float32
    reference = wanted.transform(double)
    assert mapped.n_features == reference.n_features
    assert np.allclose(mapped.pack().values, reference.values, rtol=0, atol=1e-4)
    view = found.transform(shards[[4, 11]])
    assert np.allclose(view[1], reference[11], rtol=0, atol=1e-4)
    assert np.array_equal(pickle.loads(pickle.dumps(mapped))[3], mapped[3])


@pytest.mark.parametrize("settings", [{}, {"with_mean": False}, {"with_std": False}])
def test_moments_fit_a_scaler_as_scikit_learn_does(settings, tmp_path, rng):
    x = np.column_stack([rng.normal(1e4, 1e-3, size=50), np.full(50, 0.1), rng.normal(size=50)])
    Bags.from_list([x]).save(tmp_path / "0")
    found = DescriptorTransformer(StandardScaler(**settings), max_descriptors=None)
    found = found.fit(ShardedBags.open(tmp_path / "0")).transformer_
    wanted = StandardScaler(**settings).fit(x)
    for name in ("mean_", "var_", "scale_"):
        if getattr(wanted, name) is None:
            assert getattr(found, name) is None
        else:
            assert np.allclose(getattr(found, name), getattr(wanted, name), rtol=1e-6, atol=1e-20)


@pytest.mark.parametrize("n_components", [-1, 5, 1.5])
def test_impossible_numbers_of_components(n_components, shards):
    with pytest.raises(ValueError, match=f"n_components={n_components}"):
        DescriptorTransformer(PCA(n_components), max_descriptors=None).fit(shards)


def test_pipelines_read_shards(shards, bags):
    pipe = make_pipeline(
        DescriptorTransformer(StandardScaler(), max_descriptors=None),
        DescriptorTransformer(PCA(2), max_descriptors=None),
        FisherVectorEncoder(2, random_state=0),
        PowerL2Normalizer(),
    )
    encodings = pipe.fit_transform(shards)
    assert np.allclose(encodings, clone(pipe).fit_transform(bags), rtol=0, atol=1e-4)


def test_a_transformer_that_overflows_is_named(shards):
    scale = StandardScaler().fit(np.array([[0.0] * 4, [1e-45] * 4]))
    scale.scale_ = np.full(4, 1e-45)
    transformer = DescriptorTransformer(scale).fit(shards)
    transformer.transformer_ = scale
    with pytest.raises(ValueError, match=r"StandardScaler\(\) made NaN or infinity"):
        transformer.transform(shards).pack()


PEAK = """
import pathlib, re, sys
from sklearn import set_config
from skfisher import DeepFisherEncoder, FisherVectorEncoder, JointFisherSVC, ShardedBags
from skfisher import SpatialPyramid
from skfisher.encoders import pyramid
set_config(working_memory=1)  # MiB, in which joint training may keep what it has whitened
pyramid.NUMBERS_AT_ONCE = 2**18
shards = ShardedBags.open([sys.argv[1]] * int(sys.argv[2]))
encoder = FisherVectorEncoder(2, random_state=0)
for model in (
    encoder,
    SpatialPyramid(encoder, cells=((1, 1), (2, 2))),
    DeepFisherEncoder((2, 2), n_positions=2, max_windows=100, random_state=0),
    JointFisherSVC(2, max_iter=1, batch_size=4, random_state=0),
):
    model.fit(shards, [i % 2 for i in range(len(shards))]).transform(shards)
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path, rng):
    Bags.from_lengths(rng.normal(size=(2**16, 16)).astype(np.float32), [2**12] * 16).save(tmp_path)

    def peak(n_shards):
        command = [sys.executable, "-c", PEAK, str(tmp_path), str(n_shards)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) / 2**10

    # 16 and 64 MiB of descriptors, of which some MiB are read at a time
    assert peak(16) - peak(4) < 16


# What is wrong, and what changes


def test_shards_that_are_not_alike_are_named(folders, bags):
    Bags(bags.values[:, :3], bags.starts, bags.stops).save(folders[2])
    with pytest.raises(ValueError, match=r"2 has 3 features per descriptor, but .*0 has 4"):
        ShardedBags.open(folders)
    Bags(bags.values.astype(float), bags.starts, bags.stops).save(folders[2])
    with pytest.raises(ValueError, match=r"2 has float64 as its dtype, but .*0 has float32"):
        ShardedBags.open(folders)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (b"shards", "paths is b'shards': pass a list of paths, one per shard"),
        (None, "paths is None"),
        (3, "paths is 3"),
        ([b"shards"], r"paths\[0\] is b'shards', but a path"),
        (["a", None], r"paths\[1\] is None"),
        ({"a", "b"}, "paths is a set"),  # whose order differs from run to run
    ],
)
def test_what_is_no_list_of_paths_is_refused(paths, words):
    with pytest.raises(TypeError, match=words):
        ShardedBags.open(paths)


@pytest.mark.parametrize("kind", [iter, tuple, np.array])
def test_paths_come_in_any_sequence(folders, kind):
    paths = [str(folder) for folder in folders[::-1]]
    assert ShardedBags.open(kind(paths)).paths == tuple(paths)


def test_bags_of_other_forms_are_ordinary_bags(shards, bags, folders):
    made = [
        ShardedBags.load(folders[0]),
        ShardedBags.from_lengths(np.ones((3, 2)), [1, 2]),
        ShardedBags.from_padded(np.ones((3, 4, 2)), [1, 2, 4]),
        ShardedBags.from_groups(np.ones((3, 2)), [0, 1, 1])[0],
        ShardedBags.concatenate([shards, bags]),
    ]
    assert [type(some) for some in made] == 5 * [Bags]
    np.testing.assert_array_equal(made[-1].values, np.concatenate([bags.values, bags.values]))


def test_missing_shards_are_named(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other does not exist: a shard is what"):
        ShardedBags.open([*folders, tmp_path / "other"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds no manifest"):
        ShardedBags.open(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"nothing\*/\* matches no folder"):
        ShardedBags.open(str(tmp_path / "nothing*" / "*"))
    with pytest.raises(FileNotFoundError, match="paths is empty"):
        ShardedBags.open([])


def test_addresses_are_refused(folders):
    address = "s3://bucket/descriptors/*"
    for paths in (address, [*folders, address]):
        with pytest.raises(ValueError, match=r"s3://bucket/descriptors/\* is an address"):
            ShardedBags.open(paths)


def values_of(folder):
    return folder / json.loads((folder / "manifest.json").read_text())["arrays"]["values"]["file"]


def test_torn_shards_are_named(folders):
    path = values_of(folders[3])
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"3/values-.* bytes follow"):
        ShardedBags.open(folders)
    path.write_bytes(content[:-4] + b"\0\0\0\0")
    ShardedBags.open(folders)
    with pytest.raises(ValueError, match=r"3/values-.* was changed after it was saved"):
        ShardedBags.open(folders, verify=True)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"3/values-.* does not exist"):
        ShardedBags.open(folders)


def test_tables_that_are_no_bags_are_refused(folders):
    from skfisher.bags.files import write_arrays

    x, lengths = np.zeros((4, 2)), np.array([3])
    arrays = {"values": ([x], x.dtype, x.shape), "lengths": ([lengths], lengths.dtype, (1,))}
    write_arrays(folders[1], arrays)
    with pytest.raises(ValueError, match=r"1 holds 4 descriptors, which is not what the lengths"):
        ShardedBags.open(folders)


CHANGES = {
    "saved again": lambda folder, bags: bags.save(folder),
    "written to": lambda folder, bags: values_of(folder).write_bytes(
        values_of(folder).read_bytes()[:-4] + b"\0\0\0\0"
    ),
    "cut short": lambda folder, bags: values_of(folder).write_bytes(
        values_of(folder).read_bytes()[:-4]
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_changes_during_a_fit_is_named(change, shards, folders, bags, monkeypatch):
    from skfisher.codebooks import em

    calls, maximization = [], em.maximization

    def changing(*args):
        calls.append(1)
        if len(calls) == 2:
            CHANGES[change](folders[3], bags[CUTS[3]])
        return maximization(*args)

    monkeypatch.setattr(em, "maximization", changing)
    mixture = DiagonalGaussianMixture(2, max_iter=5, tol=0, random_state=0)
    with pytest.raises(ValueError, match=r"the shard .*3 was changed after it was opened"):
        mixture.fit(shards)
    assert len(calls) == 2
    assert not hasattr(mixture, "means_")  # an error leaves nothing


def test_a_shard_that_is_deleted_is_named(shards, folders):
    for path in folders[3].iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"the shard .*3 does not exist any more"):
        MeanPooling().fit(shards)
    assert np.isfinite(shards[0]).all()


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_what_is_not_finite_is_named_when_it_is_read(value, what, bags, tmp_path):
    x = bags.values.copy()
    x[200, 2] = value
    bad = Bags(x, bags.starts, bags.stops)
    for i in range(2):
        bad[6 * i : 6 * i + 6].save(tmp_path / f"{i}")
    shards = ShardedBags.open([tmp_path / "0", tmp_path / "1"])
    row = 200 - sum(LENGTHS[:6])
    for model in (MeanPooling(), FisherVectorEncoder(2), VLADEncoder(2)):
        with pytest.raises(ValueError, match=rf"1 contains {what} in descriptor {row}\."):
            model.fit(shards)


def test_integers_that_would_be_rounded_are_named(tmp_path):
    Bags.from_list([np.array([[1, 2], [3, 2**53 + 1]])]).save(tmp_path)
    with pytest.raises(ValueError, match=r"feature 1 of descriptor 1 of the shard .* is 9007"):
        MeanPooling().fit(ShardedBags.open(tmp_path))


def test_sums_that_overflow_are_no_infinity(tmp_path):
    x = np.full((100, 2), 6e4, dtype=np.float16)
    Bags.from_list([x, x.astype(np.float16)]).save(tmp_path)
    assert MeanPooling().fit(ShardedBags.open(tmp_path)).mean_ == pytest.approx(float(x[0, 0]))

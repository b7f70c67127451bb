"""Every estimator and every method of bags: it takes shards, or says what to do instead.

What is made of shards by a fitted model has the bits that it has of the same bags in one array.
"""

import inspect
import re

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

import skfisher
from skfisher import (
    MFCC,
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DeepFisherEncoder,
    DenseHead,
    DenseSIFT,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    GradientFeatureKernel,
    GradientFeatureMap,
    ImagePatches,
    JointClassifier,
    JointFisherSVC,
    JointRegressor,
    LinearSDCA,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    PositionAppender,
    PowerL2Normalizer,
    SecondOrderPooling,
    ShardedBags,
    SpatialPyramid,
    VLADEncoder,
    Windows,
)

LENGTHS = [3, 40, 7, 25, 60, 1, 9, 30, 80, 2, 45, 18]
CUTS = [slice(0, 5), slice(5, 5), slice(5, 6), slice(6, 12)]  # the second shard is empty
Y = np.arange(len(LENGTHS)) % 2

FISHER = FisherVectorEncoder(2, random_state=0)
PYRAMID = SpatialPyramid(FISHER, cells=((1, 1), (2, 3)))
STRETCHES = SpatialPyramid(FISHER, cells=(1, 3), n_positions=0)
DEEP = DeepFisherEncoder((2, 2), cell=3, max_windows=30, random_state=0)
DEEP_IN_PLANE = DeepFisherEncoder((2, 2), n_positions=2, max_windows=30, random_state=0)
JOINT = {"max_iter": 2, "batch_size": 5, "random_state": 0}

TAKING = {
    "BagOfWordsEncoder": [BagOfWordsEncoder(3, random_state=0)],
    "CompactBilinearPooling": [CompactBilinearPooling(8, random_state=0)],
    "DeepFisherEncoder": [DEEP, DEEP_IN_PLANE],
    "DescriptorTransformer": [DescriptorTransformer(StandardScaler())],
    "DiagonalGaussianMixture": [DiagonalGaussianMixture(2, max_iter=50, random_state=0)],
    "FisherVectorEncoder": [FISHER],
    "GatedSecondOrderPooling": [GatedSecondOrderPooling(2, random_state=0)],
    "JointClassifier": [JointClassifier(MeanPooling(), loss="log_loss", **JOINT)],
    "JointFisherSVC": [JointFisherSVC(2, loss="log_loss", **JOINT)],
    "JointRegressor": [JointRegressor(MeanPooling(), **JOINT)],
    "LowRankBilinearPooling": [LowRankBilinearPooling(2, random_state=0)],
    "MeanPooling": [MeanPooling("mean_std")],
    "MixtureSecondOrderPooling": [MixtureSecondOrderPooling(2, random_state=0)],
    "SecondOrderPooling": [SecondOrderPooling(n_components=2)],
    "SpatialPyramid": [PYRAMID, STRETCHES],
    "VLADEncoder": [VLADEncoder(2, random_state=0)],
}
PACKED = r"of shards, which {} does not read: pass X\.pack\(\), or some .*X\.iter_shards\(\)"
NO_TABLE = "X is a ShardedBags, but {} takes a table .*: put it after the encoder"
HEAD = DenseHead([np.ones((4, 3)), np.ones((3, 2))])
REFUSING = {  # what they are, and what they say
    "DenseHead": (HEAD, "X is a ShardedBags, which is not an array"),
    "DenseSIFT": (DenseSIFT(), "X is Bags already: {} takes images"),
    "GradientFeatureKernel": (GradientFeatureKernel(HEAD), NO_TABLE),
    "GradientFeatureMap": (GradientFeatureMap(HEAD, n_components=8), NO_TABLE),
    "ImagePatches": (ImagePatches(2), "X is Bags already: {} takes images"),
    "LinearSDCA": (LinearSDCA(), NO_TABLE),
    "MFCC": (
        MFCC(16_000),
        "X is a ShardedBags, but a list of arrays of shape .*, one per recording",
    ),
    "PositionAppender": (PositionAppender(), PACKED),
    "PowerL2Normalizer": (PowerL2Normalizer(), NO_TABLE),
    "Windows": (Windows(1), PACKED),
}
DRAWING = {"EncodingDisplay", "FisherVectorDisplay", "MixtureDisplay", "SpectrumDisplay"}


def methods_of(name):
    """Return the methods of a public class that take samples."""
    return [
        method
        for method, function in inspect.getmembers(getattr(skfisher, name), callable)
        if not method.startswith("_") and "X" in inspect.signature(function).parameters
    ]


OF_SAMPLES = {
    name
    for name in skfisher.__all__
    if isinstance(getattr(skfisher, name), type) and methods_of(name)
}
TAKEN = [
    pytest.param(model, method, id=f"{name}-{i}-{method}")
    for name, models in TAKING.items()
    for i, model in enumerate(models)
    for method in methods_of(name)
]
REFUSED = [(name, method) for name in REFUSING for method in methods_of(name)]


@pytest.fixture(autouse=True)
def several_units(monkeypatch):
    """Cut what is worked on at a time within shards and across their borders."""
    monkeypatch.setattr("skfisher.parallel.units.ROWS_PER_UNIT", 50)
    monkeypatch.setattr("skfisher.encoders.pyramid.NUMBERS_AT_ONCE", 4 * 100)
    monkeypatch.setattr("skfisher.encoders.window_codes.GROUP_ROWS", 50)


@pytest.fixture
def bags(rng):
    x = rng.normal(2, [1, 2, 3, 4], size=(sum(LENGTHS), 4))
    return Bags.from_lengths(x.astype(np.float32), LENGTHS)


@pytest.fixture
def shards(bags, tmp_path):
    for i, cut in enumerate(CUTS):
        bags[cut].save(tmp_path / f"{i}")
    return ShardedBags.open(str(tmp_path / "*"))


def called(model, method, bags):
    """Return what a method makes of bags, and of their labels if it takes some."""
    method = getattr(model, method)
    parameters = inspect.signature(method).parameters
    options = {"classes": [0, 1]} if "classes" in parameters else {}
    found = method(bags, *([Y] if "y" in parameters else []), **options)
    return found.pack().values if isinstance(found, Bags) else found


def test_every_name_is_listed():
    assert sorted(OF_SAMPLES) == sorted([*TAKING, *REFUSING, *DRAWING])


@pytest.mark.parametrize(("model", "method"), TAKEN)
def test_what_is_made_of_shards_is_what_is_made_of_one_array(model, method, shards, bags):
    if method in ("fit", "partial_fit"):
        fitted = called(clone(model), method, shards)
        result = getattr(fitted, "transform", getattr(fitted, "predict", None))(bags)
        assert len(result) in (len(bags), bags.n_descriptors)
        return
    if method == "fit_transform":
        found = called(clone(model), method, shards)
        wanted = called(clone(model).fit(shards, Y), "transform", bags)
    else:
        fitted = clone(model).fit(bags, Y)
        found, wanted = called(fitted, method, shards), called(fitted, method, bags)
    np.testing.assert_array_equal(found, wanted)
    assert np.asarray(found).dtype == np.asarray(wanted).dtype


@pytest.mark.parametrize(("name", "method"), REFUSED)
def test_what_takes_no_shards_says_what_to_do(name, method, shards, rng):
    model, message = REFUSING[name]
    model = clone(model) if hasattr(model, "get_params") else model
    if method not in ("fit", "fit_transform"):
        if name in ("DenseSIFT", "ImagePatches"):
            model.fit(rng.uniform(size=(2, 24, 24)))
        elif name == "MFCC":
            model.fit([rng.normal(size=8000)])
        elif hasattr(model, "fit"):
            model.fit(rng.uniform(size=(12, 4)), Y)
    with pytest.raises(TypeError, match=message.format(name)):
        called(model, method, shards)


@pytest.mark.parametrize("name", sorted(DRAWING))
def test_pictures_are_those_of_one_array(name, shards, bags):
    model = SecondOrderPooling() if name == "SpectrumDisplay" else clone(FISHER)
    draw = getattr(skfisher, name).from_estimator
    found, wanted = (vars(draw(model.fit(bags), some)) for some in (shards, bags))
    arrays = [
        key
        for key, value in wanted.items()
        if isinstance(value, np.ndarray) and value.dtype != object  # such as of axes
    ]
    assert arrays
    for key in arrays:
        np.testing.assert_array_equal(found[key], wanted[key])


# What has more to it than that


@pytest.mark.parametrize("model", [PYRAMID, STRETCHES, DEEP, DEEP_IN_PLANE])
def test_subsets_and_fits_to_them(model, shards, bags):
    some = [11, 4, 8, 1, 10, 3]  # in no order, of two shards
    found, wanted = clone(model).fit(shards[some]), clone(model).fit(bags[some])
    np.testing.assert_array_equal(found.transform(shards[some]), found.transform(bags[some]))
    np.testing.assert_allclose(found.transform(bags), wanted.transform(bags), rtol=0, atol=1e-5)


JOINT_MODELS = {
    "Fisher vectors": JointFisherSVC(2, **JOINT),
    "held back": JointFisherSVC(2, early_stopping=True, **JOINT),
    "drawn": JointClassifier(
        VLADEncoder(2), sampling="loss", max_descriptors=8, multi_class="ovr", **JOINT
    ),
    "in the plane": JointClassifier(DEEP_IN_PLANE, **JOINT),
}


@pytest.mark.parametrize("working_memory", [1024, 1e-3], ids=["whitened once", "batch by batch"])
@pytest.mark.parametrize("name", JOINT_MODELS)
def test_joint_models_are_those_of_one_array_bit_for_bit(name, working_memory, shards, bags):
    models = []
    with config_context(working_memory=working_memory):
        for some in (shards, bags):
            model = clone(JOINT_MODELS[name]).fit(some, Y)
            models.append(model.partial_fit(some, Y))
    found, wanted = (
        {key: value for key, value in vars(model).items() if isinstance(value, np.ndarray)}
        for model in models
    )
    assert "coef_" in found
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_joint_models_validate_with_shards(shards, bags):
    found, wanted = (
        JointFisherSVC(2, early_stopping=True, **JOINT).fit(bags, Y, X_val=some, y_val=Y)
        for some in (shards, bags)
    )
    assert found.history_["validation_loss"] == wanted.history_["validation_loss"]


def test_a_shard_that_is_not_finite_is_named_by_joint_training(bags, tmp_path):
    bags.values[200, 2] = np.nan
    bags.save(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} contains NaN in descriptor 200")):
        JointFisherSVC(2, **JOINT).fit(ShardedBags.open(tmp_path), Y)

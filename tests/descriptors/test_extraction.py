"""What transformers of images, recordings and series have in common."""

import os
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy.io import wavfile
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_checks

from skfisher import MFCC, Bags, DenseSIFT, FisherVectorEncoder, ImagePatches, Windows

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, size=(28 + i, 30, 3), dtype=np.uint8) for i in range(6)]
SOUNDS = [RNG.integers(-9999, 9999, size=900 + 50 * i).astype(np.int16) for i in range(6)]
SERIES = [RNG.normal(size=(9 + i, 3)).astype(np.float32) for i in range(6)]


def write_image(path, image):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(path, image[..., ::-1])


# name: (estimator, samples, ending of their files, what writes one)
CASES = {
    "ImagePatches": (ImagePatches(8, step=4, positions=2.0), IMAGES, ".png", write_image),
    "DenseSIFT": (DenseSIFT(positions=2.0), IMAGES, ".png", write_image),
    "MFCC": (
        MFCC(8000, deltas=2),
        SOUNDS,
        ".wav",
        lambda path, sound: wavfile.write(path, 8000, sound),
    ),
    "Windows": (Windows(4, step=2), SERIES, ".npy", np.save),
}


@pytest.fixture(params=CASES)
def case(request):
    if "Image" in request.param or "SIFT" in request.param:
        pytest.importorskip("cv2")
    return CASES[request.param]


@pytest.fixture
def samples(case):
    return case[1]


@pytest.fixture
def extractor(case):
    return clone(case[0])


@pytest.fixture
def paths(case, tmp_path):
    _, samples, ending, write = case
    paths = [str(tmp_path / f"sample{i}{ending}") for i in range(len(samples))]
    for path, sample in zip(paths, samples, strict=True):
        write(path, sample)
    return paths


def assert_same(bags, expected):
    assert isinstance(bags, Bags)
    assert_array_equal(bags.lengths, expected.lengths)
    assert_array_equal(bags.values, expected.values)
    assert bags.dtype == expected.dtype


def test_files_give_what_their_arrays_give(extractor, samples, paths):
    expected = extractor.fit_transform(samples)
    assert len(expected) == len(samples)
    assert_same(extractor.fit_transform(paths), expected)
    assert_same(extractor.fit(paths).transform(paths), expected)
    as_objects = np.array(paths, dtype=object)
    for form in (tuple(paths), np.array(paths), as_objects, pd.Series(paths), map_paths(paths)):
        assert_same(extractor.transform(form), expected)
    assert_same(extractor.transform(paths[2:3]), expected[2:3].pack())


def map_paths(paths):
    from pathlib import Path

    return [Path(path) for path in paths]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_do_not_change_the_result(extractor, samples, paths, backend):
    expected = extractor.fit_transform(samples)
    with joblib.parallel_config(backend, n_jobs=2):
        for form in (samples, paths):
            assert_same(extractor.fit_transform(form), expected)
    assert_same(extractor.set_params(n_jobs=2).transform(samples), expected)


def test_readers_are_called_with_paths(extractor, samples, paths):
    expected = extractor.fit_transform(samples)
    rate = getattr(extractor, "sample_rate", None)

    def read(path):
        sample = samples[paths.index(path)]
        return sample if rate is None else (sample, rate)

    assert_same(extractor.set_params(reader=read).fit_transform(paths), expected)


def test_clones_pickles_and_searches(extractor, samples, paths):
    extractor.fit(samples)
    expected = extractor.transform(samples)
    assert_same(clone(extractor).fit_transform(samples), expected)
    assert_same(pickle.loads(pickle.dumps(extractor)).transform(samples), expected)
    model = make_pipeline(
        clone(extractor), FisherVectorEncoder(1, random_state=0), LinearSVC(random_state=0)
    )
    y = np.arange(len(samples)) % 2
    assert_array_equal(
        cross_val_score(model, paths, y, cv=2, n_jobs=2), cross_val_score(model, samples, y, cv=2)
    )


def test_pipelines_with_a_memory_describe_once(extractor, paths, tmp_path):
    def model(memory):
        return make_pipeline(
            clone(extractor),
            FisherVectorEncoder(1, random_state=0),
            LinearSVC(random_state=0),
            memory=memory,
        )

    y = np.arange(len(paths)) % 2
    expected = model(None).fit(paths, y).decision_function(paths[1:])
    search = GridSearchCV(
        model(str(tmp_path / "memory")), {"linearsvc__C": [0.1, 1.0]}, cv=2, refit=False
    )
    search.fit(paths, y)
    again = model(str(tmp_path / "memory")).fit(paths, y)
    assert_array_equal(again.decision_function(paths[1:]), expected)
    os.remove(paths[0])
    cached = model(str(tmp_path / "memory")).fit(paths, y)  # without the file
    assert_array_equal(cached.decision_function(paths[1:]), expected)


def test_a_file_that_is_missing_is_named_before_any_is_read(extractor, paths):
    read = []
    missing = [*paths[:3], "missing.file", *paths[4:]]
    extractor.set_params(reader=read.append)
    for method in (extractor.fit, extractor.fit_transform):
        with pytest.raises(FileNotFoundError, match=r"X\[3\] is 'missing.file'"):
            method(missing)
    assert read == []
    with pytest.raises(TypeError, match=r"X\[3\] is 7, but others are paths"):
        extractor.fit([*paths[:3], 7])


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("content", [b"", b"no such file", "cut"])
def test_a_broken_file_in_the_middle_is_named(extractor, paths, content, n_jobs):
    with open(paths[3], "rb") as file:
        whole = file.read()
    with open(paths[3], "wb") as file:
        file.write(whole[: len(whole) // 2] if content == "cut" else content)
    extractor.set_params(n_jobs=n_jobs)
    before = dict(vars(extractor))
    with pytest.raises(ValueError, match=r"sample3.* cannot be read"):
        extractor.fit_transform(paths)
    assert vars(extractor) == before


def test_inputs_may_be_read_only(extractor, samples):
    frozen = [sample.copy() for sample in samples]
    for sample in frozen:
        sample.flags.writeable = False
    assert_same(extractor.fit_transform(frozen), extractor.fit_transform(samples))
    for sample, original in zip(frozen, samples, strict=True):
        assert_array_equal(sample, original)


def test_names_of_features(extractor, samples):
    bags = extractor.set_output(transform="pandas").fit_transform(samples)
    assert isinstance(bags, Bags)
    assert bags.feature_names.tolist() == extractor.get_feature_names_out().tolist()
    assert len(set(bags.feature_names)) == bags.n_features


def test_callbacks_are_told_of_every_sample(extractor, samples):
    callback = pytest.importorskip("sklearn.callback")
    del callback
    told = []

    class Counter:
        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, **_):
            pass

        def on_fit_task_end(self, estimator, context, **_):
            told.append((context.task_name, context.max_subtasks))

        def teardown(self, estimator, context):
            told.append("end")

    extractor.set_callbacks(Counter()).fit_transform(samples)
    assert told == [("sample", 0)] * len(samples) + [("fit", len(samples)), "end"]


DATA_FREE = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_mixin_order,
]


@pytest.mark.parametrize("check", DATA_FREE, ids=lambda check: check.__name__)
def test_checks_of_scikit_learn_that_need_no_table(extractor, check):
    # the others are in tests/contract for whatever takes tables
    check(type(extractor).__name__, extractor)
    estimator_checks.check_parameters_default_constructible(
        type(extractor).__name__, type(extractor)()
    )

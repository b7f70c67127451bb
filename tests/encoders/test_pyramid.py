"""SpatialPyramid."""

import itertools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import skfisher.encoders.pyramid
from skfisher import (
    BagOfWordsEncoder,
    Bags,
    CompactBilinearPooling,
    DescriptorTransformer,
    FisherVectorEncoder,
    GatedSecondOrderPooling,
    ImagePatches,
    LowRankBilinearPooling,
    MeanPooling,
    MixtureSecondOrderPooling,
    SecondOrderPooling,
    SpatialPyramid,
    VLADEncoder,
)

ENCODERS = [
    FisherVectorEncoder(2, normalize="power-l2", random_state=0),
    VLADEncoder(2, random_state=0),
    BagOfWordsEncoder(3, random_state=0),
    MeanPooling("mean_std"),
    SecondOrderPooling(),
    CompactBilinearPooling(8, random_state=0),
    MixtureSecondOrderPooling(2, random_state=0),
    GatedSecondOrderPooling(2, random_state=0),
    LowRankBilinearPooling(3, random_state=0),
    make_pipeline(
        DescriptorTransformer(PCA(2, random_state=0)), FisherVectorEncoder(2, random_state=0)
    ),
]


@parametrize_with_checks([SpatialPyramid(MeanPooling(), (1, 2), n_positions=0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def placed(rng):
    """Return bags of three features, the third of which is large on the right, and positions."""
    bags = []
    for n in (30, 17, 1, 44, 25):
        xy = rng.uniform(-3, 5, size=(n, 2))
        bags.append(np.hstack([rng.normal(size=(n, 2)), xy[:, :1] + rng.normal(size=(n, 1)), xy]))
    return bags


def by_loops(encoder, bags, grids):
    """Return codes by a loop over bags, grids and cells."""
    encodings = []
    for bag in bags:
        codes = []
        x, y = bag[:, -2], bag[:, -1]
        for n_rows, n_columns in grids:
            for i in range(n_rows):
                for j in range(n_columns):
                    inside = np.zeros(len(bag), bool)
                    for t in range(len(bag)):
                        width, height = np.ptp(x) or 1, np.ptp(y) or 1
                        column = min(int((x[t] - x.min()) / width * n_columns), n_columns - 1)
                        row = min(int((y[t] - y.min()) / height * n_rows), n_rows - 1)
                        inside[t] = (row, column) == (i, j)
                    if inside.any():
                        codes.append(encoder.transform([bag[inside, :-2]])[0])
                    else:
                        codes.append(np.zeros(encoder.transform([bag[:, :-2]]).shape[1]))
        encodings.append(np.concatenate(codes))
    return np.array(encodings)


@pytest.mark.filterwarnings("ignore")  # of few descriptors
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_codes_are_those_of_cells_one_by_one(placed, encoder):
    grids = ((1, 1), (2, 2), (3, 1), (1, 4))
    pyramid = SpatialPyramid(encoder, grids).fit(placed)
    expected = by_loops(pyramid.encoder_, placed, grids)
    found = pyramid.transform(placed)
    assert (expected[2] == 0).any()  # one descriptor leaves cells empty
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    names = pyramid.get_feature_names_out()
    assert len(set(names)) == found.shape[1]


@pytest.mark.parametrize("numbers", [1, 200])
def test_bits_depend_on_no_other_bag(placed, monkeypatch, numbers):
    pyramid = SpatialPyramid(FisherVectorEncoder(2, random_state=0)).fit(placed)
    expected = pyramid.transform(placed)
    monkeypatch.setattr(skfisher.encoders.pyramid, "NUMBERS_AT_ONCE", numbers)
    assert_array_equal(pyramid.transform(placed), expected)
    assert_array_equal(pyramid.transform(placed[3:4]), expected[3:4])
    bags = Bags.from_list(placed)
    assert_array_equal(pyramid.transform(bags[[4, 0, 0]]), expected[[4, 0, 0]])


def test_the_encoder_is_fitted_to_whole_bags_without_positions(placed):
    pyramid = SpatialPyramid(FisherVectorEncoder(2, random_state=0), ((1, 1),)).fit(placed)
    alone = FisherVectorEncoder(2, random_state=0).fit([bag[:, :-2] for bag in placed])
    assert_array_equal(pyramid.encoder_.means_, alone.means_)
    assert_array_equal(pyramid.transform(placed), alone.transform([b[:, :-2] for b in placed]))


def test_units_and_order_of_descriptors_do_not_matter(placed, rng):
    pyramid = SpatialPyramid(MeanPooling(), ((2, 3),)).fit(placed)
    expected = pyramid.transform(placed)
    other = [
        np.hstack([bag[:, :-2], 7 * bag[:, -2:-1] + 3, 0.1 * bag[:, -1:]])[
            rng.permutation(len(bag))
        ]
        for bag in placed
    ]
    assert_allclose(pyramid.transform(other), expected, rtol=1e-9)


def test_cells_of_a_regular_grid_have_equally_many():
    # 6 x 6 patches, whose positions are rounded
    bags = ImagePatches(3, positions=0.3).fit_transform(np.zeros((1, 8, 8), np.float32))
    bags.values[:, 0] = np.arange(36)  # row by row
    codes = SpatialPyramid(MeanPooling(), ((2, 3), (3, 2))).fit(bags).transform(bags)
    codes = codes.reshape(12, 9)[:, 0]
    image = np.arange(36).reshape(6, 6)
    blocks = [image[3 * i : 3 * i + 3, 2 * j : 2 * j + 2] for i in range(2) for j in range(3)]
    blocks += [image[2 * i : 2 * i + 2, 3 * j : 3 * j + 3] for i in range(3) for j in range(2)]
    assert_allclose(codes, [block.mean() for block in blocks])


@pytest.mark.parametrize("cells", [(1, 2, 5), ((1, 1), (2, 1), 5)])
def test_stretches_of_a_series(rng, cells):
    series = [rng.normal(size=(n, 3)) for n in (10, 3, 23)]
    pyramid = SpatialPyramid(MeanPooling(), cells, n_positions=0).fit(series)
    found = pyramid.transform(series).reshape(3, 8, 3)
    for of_series, codes in zip(series, found, strict=True):
        expected = []
        for n in (1, 2, 5):
            borders = [len(of_series) * i // n for i in range(n + 1)]
            parts = [of_series[a:b] for a, b in itertools.pairwise(borders)]
            expected += [part.mean(axis=0) if len(part) else np.zeros(3) for part in parts]
        assert_allclose(codes, expected)
    assert (found[1] == 0).all(axis=1).sum() == 2  # of five stretches of three steps
    assert pyramid.get_feature_names_out()[6] == "2x1_r1_c0_mean_d0"


def test_positions_have_names_that_codes_do_not(placed):
    frames = [pd.DataFrame(bag, columns=["a", "b", "c", "x", "y"]) for bag in placed]
    pyramid = SpatialPyramid(MeanPooling(), ((1, 2),)).fit(frames)
    assert pyramid.get_feature_names_out().tolist() == [
        f"1x2_r0_c{j}_mean_{name}" for j in range(2) for name in "abc"
    ]
    frame = pyramid.set_output(transform="pandas").transform(frames)
    assert frame.columns.tolist() == pyramid.get_feature_names_out().tolist()
    inner = MeanPooling().set_output(transform="pandas")
    assert_array_equal(SpatialPyramid(inner, ((1, 2),)).fit(frames).transform(frames), frame)


def test_parameters_of_the_pyramid_are_searched(placed):
    model = make_pipeline(
        SpatialPyramid(FisherVectorEncoder(1, normalize="power-l2", random_state=0)),
        LinearSVC(random_state=0),
    )
    grid = {
        "spatialpyramid__cells": [((1, 1),), ((1, 1), (1, 2))],
        "spatialpyramid__encoder__n_components": [1, 2],
    }
    search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(placed * 2, np.arange(10) % 2)
    assert len(search.cv_results_["params"]) == 4


def test_bags_in_files(placed, tmp_path):
    paths = [tmp_path / f"{i}.npy" for i in range(len(placed))]
    for path, bag in zip(paths, placed, strict=True):
        np.save(path, bag)
    pyramid = SpatialPyramid(FisherVectorEncoder(2, random_state=0))
    found = pyramid.fit(Bags.from_files(paths)).transform(Bags.from_files(paths))
    assert_array_equal(found, pyramid.fit(placed).transform(placed))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"cells": ()}, r"cells=\(\) must be pairs of rows and columns, such as"),
        ({"cells": (2, 2)}, r"cells=\(2, 2\) must be pairs"),
        ({"cells": ((1, 0),)}, r"cells=\(\(1, 0\),\) must be pairs"),
        ({"n_positions": 0}, r"must be numbers of stretches, such as \(1, 2, 4\)"),
        ({"n_positions": 1}, "n_positions=1 must be 0"),
        ({"encoder": 3}, "'encoder' parameter of SpatialPyramid"),
    ],
)
def test_bad_parameters_are_named(placed, params, words):
    with pytest.raises(ValueError, match=words):
        SpatialPyramid(**{"encoder": MeanPooling(), **params}).fit(placed)


def test_what_changed_to_no_grids_after_fit_is_named(placed):
    pyramid = SpatialPyramid(MeanPooling()).fit(placed)
    with pytest.raises(ValueError, match="cells=5 must be pairs"):
        pyramid.set_params(cells=5).transform(placed)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (DescriptorTransformer(StandardScaler()), "returned Bags for 5 bags"),
        (make_pipeline(MeanPooling(), KBinsDiscretizer(2)), "returned a csr_matrix for 5 bags"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of bins
def test_what_encodes_no_bags_as_vectors_is_named(placed, step, words):
    with pytest.raises(TypeError, match=words):
        SpatialPyramid(step).fit(placed).transform(placed)


def test_positions_may_lie_as_far_apart_as_numbers_go(placed):
    near = [bag - [0, 0, 0, 1, 1] for bag in placed]  # from -4 to 4
    far = [bag * [1, 1, 1, 2.0**1021, 2.0**1021] for bag in near]
    far[0][:2, -1] = near[0][:2, -1] = -7, 7
    far[0][:2, -1] *= 2.0**1021  # which are further apart than the largest number
    pyramid = SpatialPyramid(MeanPooling()).fit(near)
    assert_array_equal(pyramid.transform(far), pyramid.transform(near))


def test_descriptors_without_positions_are_refused(placed):
    with pytest.raises(ValueError, match="the last two are positions, and there must be others"):
        SpatialPyramid(MeanPooling()).fit([bag[:, :2] for bag in placed])

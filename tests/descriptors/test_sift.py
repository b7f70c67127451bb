"""Dense SIFT."""

import sys

import numpy as np
import pytest

from skfisher import Bags, DenseSIFT
from skfisher.descriptors import dense_sift


def test_dense_sift_agrees_with_opencv_on_a_grid(rng):
    cv2 = pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(40, 56), dtype=np.uint8)
    (found,) = dense_sift([image], patch_size=24, step=8, scales=[1.0])
    # patches start at 0, 8, 16 and 0, 8, ..., 32, and are described around their centres
    points = [
        cv2.KeyPoint(x + 11.5, y + 11.5, 4.0, 0.0) for y in (0, 8, 16) for x in range(0, 33, 8)
    ]
    expected = cv2.SIFT_create().compute(image, points)[1]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_patch_reaches_as_far_as_its_size(rng):
    image = rng.integers(0, 256, size=(120, 120), dtype=np.uint8)
    (whole,) = dense_sift([image], patch_size=120, step=1, scales=[1.0])
    changed = image.copy()
    changed[:20] = 128
    (other,) = dense_sift([changed], patch_size=120, step=1, scales=[1.0])
    # histograms of 8 orientations in 4 x 4 cells of 30 pixels: the top row changes most
    change = np.abs(whole.astype(int) - other).reshape(4, 4, 8).sum(axis=(1, 2))
    assert change[0] > 3 * change[2:].max()


def test_scales_add_up_and_patches_must_fit(rng):
    image = rng.integers(0, 256, size=(48, 48), dtype=np.uint8)
    bags = dense_sift([image, image[:30, :24]], scales=[1.0, 0.5, 0.25])
    # 4 x 4 patches in 48 x 48, one in 24 x 24, none in 12 x 12; one in 30 x 24
    assert bags.lengths.tolist() == [17, 1]


def test_scales_at_which_nothing_fits_are_left_out(rng):
    pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(30, 40), dtype=np.uint8)
    (found,) = dense_sift([image], scales=[1.0, 0.5, 1e-4])
    np.testing.assert_array_equal(found, dense_sift([image], scales=(1.0,))[0])
    # 31 x 41 are shrunk to 24 x 32 (23.87 is rounded), 30 x 40 to 23 x 31
    scale = 0.77
    assert dense_sift([np.pad(image, ((0, 1), (0, 1)))], scales=[scale]).lengths.tolist() == [2]
    with pytest.raises(ValueError, match=r"smaller than a patch of 24 at the largest scale, 0.77"):
        dense_sift([image], scales=[0.5, scale])


def test_images_may_come_from_a_generator(rng):
    pytest.importorskip("cv2")
    images = [rng.integers(0, 256, size=(30, 30), dtype=np.uint8) for _ in range(3)]
    np.testing.assert_array_equal(
        dense_sift(image for image in images).values, dense_sift(images).values
    )


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"step": 0}, "'step' parameter of dense_sift must be an int in the range"),
        ({"step": 1.5}, "'step' parameter of dense_sift must be an int in the range"),
        ({"patch_size": -1.0}, "'patch_size' parameter of dense_sift must be a float in"),
        ({"patch_size": np.nan}, "'patch_size' parameter of dense_sift must be a float in"),
        ({"scales": 1.0}, "'scales' parameter of dense_sift must be an array-like"),
        ({"n_jobs": 1.5}, "'n_jobs' parameter of dense_sift"),
        ({"scales": [1.0, np.inf]}, "must be at least one number, and all above 0"),
        ({"scales": ["1"]}, "must be at least one number, and all above 0"),
        ({"scales": [[1.0]]}, "must be at least one number, and all above 0"),
        ({"scales": []}, r"scales=\[\] must be at least one number"),
        ({"scales": [1.0, 0.0]}, r"scales=\[1.0, 0.0\] must be .* above 0"),
    ],
)
def test_parameters_of_the_grid_are_above_zero(params, words):
    with pytest.raises(ValueError, match=words):
        dense_sift([np.zeros((64, 80), np.uint8)], **params)


def test_threads_do_not_change_descriptors(rng):
    pytest.importorskip("cv2")
    images = [rng.integers(0, 256, size=(40, 30 + n), dtype=np.uint8) for n in range(6)]
    one, two = dense_sift(images), dense_sift(images, n_jobs=2)
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.lengths, two.lengths)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([np.zeros((30, 30), np.uint8), np.zeros((30, 20), np.uint8)], r"images\[1\] is 30 x 20"),
        ([np.zeros((30, 30))], r"images\[0\] has dtype float64, .* np.uint8\(255 \* images\[0\]\)"),
        ([np.zeros((30, 30), np.uint16)], r"images\[0\] has dtype uint16, whose scale"),
        ([np.zeros((30, 30, 3), np.uint8)], r"images\[0\] has shape \(30, 30, 3\).* grey"),
        ([np.zeros((30, 30, 1), np.uint8)], r"images\[0\] has .* write images\[0\]\[:, :, 0\]"),
        ([np.zeros((1, 30, 30), np.uint8)], r"images\[0\] has .* write images\[0\]\[0\]"),
        ([np.zeros((30, 30), np.uint8), np.nan], r"images\[1\] is nan, .* Drop it"),
        (["image.jpg"], r"images\[0\] is 'image.jpg'"),
        ([np.zeros((30, 30), np.uint8), None], r"images\[1\] is None"),
        ([np.zeros((0, 0), np.uint8)], r"images\[0\] is empty, of shape \(0, 0\)"),
        ([[]], r"images\[0\] is empty"),
        ([np.ma.masked_less(np.zeros((30, 30), np.uint8), 1)], r"images\[0\] is masked"),
        (np.zeros((30, 30), np.uint8), r"images is two-dimensional: write \[images\]"),
        ("image.jpg", "images is 'image.jpg'"),
        (None, "images is None"),
        ([], "images holds no images"),
        ({"a": np.zeros((30, 30), np.uint8)}, r"images is a dict: .* list\(images.values\(\)\)"),
        (Bags.from_list([np.zeros((30, 30))]), "images is Bags"),
    ],
)
def test_bad_images_are_named(images, words):
    pytest.importorskip("cv2")
    with pytest.raises((TypeError, ValueError), match=words):
        dense_sift(images)


@pytest.mark.parametrize(
    "form",
    [np.array, tuple, iter, lambda images: dict(enumerate(images)).values()],
    ids=["array", "tuple", "iterator", "values"],
)
def test_containers_of_images(rng, form):
    pytest.importorskip("cv2")
    images = [rng.integers(0, 256, size=(30, 30), dtype=np.uint8) for _ in range(3)]
    np.testing.assert_array_equal(dense_sift(form(images)).values, dense_sift(images).values)


def test_views_of_images(rng):
    pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(60, 60, 3), dtype=np.uint8)
    image.flags.writeable = False
    for view in (image[::-1, :, 0], image[::2, ::2, 1], image[:, :, 2].T):
        expected = dense_sift([np.ascontiguousarray(view)]).values
        np.testing.assert_array_equal(dense_sift([view]).values, expected)


def test_opencv_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"Install skfisher\[images\]"):
        dense_sift([np.zeros((30, 30), np.uint8)])


def test_the_transformer_gives_what_the_function_gives(rng):
    pytest.importorskip("cv2")
    images = [rng.integers(0, 256, size=(40, 30 + n), dtype=np.uint8) for n in range(3)]
    options = {"patch_size": 20, "step": 5, "scales": (1.0, 0.6)}
    expected = dense_sift(images, **options)
    for form in (images, [image[..., None] for image in images]):
        found = DenseSIFT(**options).transform(form)  # nothing is learned
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.lengths, expected.lengths)


def test_colours_floats_and_integers_are_turned_into_grey(rng):
    cv2 = pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(30, 40, 3), dtype=np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    expected = dense_sift([grey]).values
    same = [image, image / 255, np.float32(image / 255), image.astype(np.uint16) * 257]
    found = DenseSIFT().fit_transform([*same, grey, grey / 255])
    for bag in found:
        np.testing.assert_array_equal(bag, expected)
    # green counts most: ITU-R BT.601
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - image @ weights).max() < 1


def test_positions_are_the_centres_of_patches(rng):
    pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(48, 64), dtype=np.uint8)
    (bag,) = DenseSIFT(patch_size=24, step=8, scales=(1.0, 0.5), positions=2.0).fit_transform(
        [image]
    )
    np.testing.assert_array_equal(
        bag[:, :-2], dense_sift([image], patch_size=24, step=8, scales=(1.0, 0.5))[0]
    )
    assert bag.dtype == np.float32
    # at full size patches begin at 0, 8, ... of 64 and 48; at half size at 0 and 8 of 32 and 24
    expected = [(x, y) for y in range(12, 37, 8) for x in range(12, 53, 8)]
    x, y = np.array(expected, float).T
    np.testing.assert_allclose(
        bag[:24, -2:], np.c_[2 * (x / 64 - 0.5), 2 * (y / 48 - 0.5)], atol=1e-6
    )
    np.testing.assert_allclose(bag[24:, -2:], [[-0.25, 0], [0.25, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (
            [np.zeros((30, 30)), np.full((30, 30), 200.0)],
            ValueError,
            r"X\[1\] holds floats from 200",
        ),
        (
            [np.zeros((30, 30)), np.zeros((30, 20))],
            ValueError,
            r"X\[1\] is 30 x 20 pixels, smaller",
        ),
        ([np.zeros((30, 30, 4))], ValueError, r"X\[0\] has 4 channels, .* by X\[0\]\[\.\.\., :3\]"),
        ([np.zeros((30, 30, 2))], ValueError, r"X\[0\] has 2 channels, .* by X\[0\]\[\.\.\., :1\]"),
        (
            [np.zeros((3, 30, 30))],
            ValueError,
            r"if channels come first, write np\.moveaxis\(X\[0\]",
        ),
        ([np.ones((30, 30, 5))], ValueError, r"has 5 channels, .* blue\) are needed\.$"),
        ([np.ones((30, 30), bool)], ValueError, r"write 255 \* np\.uint8\(X\[0\]\) if True is"),
        ([np.zeros((30, 30), int)], ValueError, r"X\[0\] has dtype int64, whose scale cannot"),
        ([np.full((30, 30), np.nan)], ValueError, r"X\[0\] contains NaN or infinity at row 0"),
        (np.zeros((30, 30)), ValueError, r"X is two-dimensional, .* write \[X\] for a single"),
        ([], ValueError, "X holds no images"),
        ("image.jpg", TypeError, "X is 'image.jpg'"),
        ([np.zeros((30, 30)), "image.jpg"], TypeError, r"X\[1\] is 'image.jpg', but an image is"),
    ],
)
def test_bad_images_of_the_transformer_are_named(images, error, words):
    pytest.importorskip("cv2")
    for method in (DenseSIFT().fit, DenseSIFT().transform):
        with pytest.raises(error, match=words):
            method(images)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"scales": []}, r"scales=\[\] must be at least one number"),
        ({"step": 0}, "'step' parameter of DenseSIFT"),
        ({"positions": -1.0}, "'positions' parameter of DenseSIFT"),
    ],
)
def test_bad_parameters_of_the_transformer_are_named(params, words):
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match=words):
        DenseSIFT(**params).fit([np.zeros((30, 30))])


def test_names_of_features():
    names = DenseSIFT(positions=1.0).get_feature_names_out()
    assert len(names) == 130
    assert names[[0, 8, 127, 128]].tolist() == ["r0_c0_o0", "r0_c1_o0", "r3_c3_o7", "position_x"]

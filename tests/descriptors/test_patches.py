"""ImagePatches."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfisher.bags.bags import Bags
from skfisher.descriptors.patches import ImagePatches


@parametrize_with_checks([ImagePatches(patch_size=1), ImagePatches(patch_size=1, positions=2.0)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_all_patches_agree_with_scikit_learn(rng, shape):
    image = rng.normal(size=shape)
    expected = extract_patches_2d(image, (3, 4)).reshape(5 * 6, -1)
    bags = ImagePatches((3, 4)).fit_transform([image])
    np.testing.assert_array_equal(bags[0], expected)


def test_steps_and_images_of_different_sizes_agree_with_a_plain_loop(rng):
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in [(9, 12), (5, 6), (20, 7)]]
    bags = ImagePatches((4, 5), step=(2, 3)).fit_transform(images)
    assert len(bags) == 3
    for image, bag in zip(images, bags, strict=True):
        height, width = image.shape
        expected = [
            image[i : i + 4, j : j + 5].ravel()
            for i in range(0, height - 3, 2)
            for j in range(0, width - 4, 3)
        ]
        np.testing.assert_array_equal(bag, expected)


def test_stack_list_and_explicit_channel_are_read_alike(rng):
    stack = rng.normal(size=(3, 6, 7))
    expected = ImagePatches(4).fit_transform(stack)
    as_objects = np.empty(3, dtype=object)
    as_objects[:] = list(stack)
    for images in (list(stack), tuple(stack), stack[..., None], stack.tolist(), as_objects):
        found = ImagePatches(4).fit_transform(images)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.lengths, expected.lengths)


def test_positions_are_the_centres_of_patches_in_the_image():
    bag = ImagePatches(2, step=2, positions=10.0).fit_transform(np.zeros((1, 4, 8)))[0]
    x = [-3.75, -1.25, 1.25, 3.75]
    np.testing.assert_allclose(bag[:, -2], x + x)
    np.testing.assert_allclose(bag[:, -1], [-2.5] * 4 + [2.5] * 4)
    assert not bag[:, :-2].any()


def test_positions_of_mirrored_images_are_mirrored(rng):
    image = rng.normal(size=(6, 6))
    bag, mirrored = ImagePatches(3, positions=1.0).fit_transform([image, image[:, ::-1]])
    np.testing.assert_allclose(bag[:, -2].reshape(4, 4), -mirrored[:, -2].reshape(4, 4)[:, ::-1])
    np.testing.assert_array_equal(bag[:, -1], mirrored[:, -1])


@pytest.mark.parametrize(
    ("dtype", "plain", "placed"),
    [
        (np.uint8, np.uint8, np.float32),
        (np.float32, np.float32, np.float32),
        (np.float64, np.float64, np.float64),
        (np.int64, np.int64, np.float64),
    ],
)
def test_dtype_is_kept_unless_positions_need_floats(dtype, plain, placed):
    images = np.full((2, 4, 4), 200, dtype=np.uint8).astype(dtype)
    assert ImagePatches(2).fit_transform(images).dtype == plain
    bags = ImagePatches(2, positions=1.0).fit_transform(images)
    assert bags.dtype == placed
    assert (bags.values[:, :4] == 200).all()


def test_a_table_is_images_of_one_pixel(rng):
    X = rng.normal(size=(5, 3))
    np.testing.assert_array_equal(ImagePatches(1).fit_transform(X), X)
    patches = ImagePatches(1).fit(X)
    found = patches.transform(X.reshape(5, 1, 1, 3))
    assert isinstance(found, Bags)
    np.testing.assert_array_equal(found.values, X)


def test_feature_names():
    patches = ImagePatches((1, 2), positions=1.0).fit(np.zeros((1, 3, 3, 2)))
    expected = ["x0_r0_c0", "x1_r0_c0", "x0_r0_c1", "x1_r0_c1", "position_x", "position_y"]
    assert patches.get_feature_names_out().tolist() == expected
    assert patches.get_feature_names_out(["red", "green"])[1] == "green_r0_c0"
    assert len(expected) == patches.transform(np.zeros((1, 3, 3, 2))).n_features


def test_data_frames_are_asked_for_and_bags_pass(rng):
    images = rng.normal(size=(2, 4, 4))
    patches = ImagePatches(2).set_output(transform="pandas")
    for bags in (patches.fit_transform(images), patches.fit(images).transform(images)):
        assert isinstance(bags, Bags)


def test_clone_and_pickle(rng):
    images = rng.normal(size=(2, 4, 4))
    patches = ImagePatches(2, step=2, positions=0.5)
    expected = patches.fit_transform(images).values
    np.testing.assert_array_equal(clone(patches).fit_transform(images).values, expected)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(patches)).transform(images).values, expected
    )


def test_the_input_is_not_written_to_and_may_be_read_only(rng):
    images = rng.normal(size=(2, 4, 4))
    images.flags.writeable = False
    ImagePatches(2, positions=1.0).fit_transform(images)


BIG, SMALL = np.zeros((8, 8)), np.zeros((3, 8))
WITH_NAN = BIG.copy()
WITH_NAN[2, 5] = np.nan


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ([BIG, SMALL], ValueError, r"X\[1\] is 3 x 8 pixels, smaller than a patch of 4 x 4"),
        (np.zeros((5, 64)), ValueError, r"A table \(2-D\) is read as images of one pixel"),
        ([BIG, np.zeros((8, 8, 3))], ValueError, r"X\[1\] has 3 channels, but X\[0\] has 1"),
        ([BIG, WITH_NAN], ValueError, r"X\[1\] contains NaN or infinity at row 2, column 5"),
        ([BIG, BIG[0]], ValueError, r"X\[1\] has shape \(8,\): \(height, width\)"),
        (np.zeros((2, 8, 8, 3, 1)), ValueError, r"X has shape .*\(n_images, height, width\)"),
        (np.zeros((0, 8, 8)), ValueError, "X holds no images"),
        ([], ValueError, "X holds no images"),
        ([None], TypeError, r"X\[0\] is None, but an image is an array of shape .* Drop it"),
        ([BIG, "a.png"], TypeError, r"X\[1\] is 'a.png', but an image is"),
        ([BIG.astype(complex)], ValueError, r"Complex data not supported: X\[0\]"),
        ([BIG.astype(str)], TypeError, r"X\[0\] has dtype .*real numbers are needed"),
        ([np.full((8, 8), "a", object)], TypeError, r"X\[0\] has dtype object"),
        (Bags.from_list([BIG]), TypeError, "X is Bags already"),
        (None, TypeError, "X is None, but a list of arrays of shape"),
        ("a.png", TypeError, "X is 'a.png', but a list of arrays of shape"),
        ({"a": BIG}, TypeError, r"X is a dict: .* per image, such as list\(X\.values\(\)\)"),
        ((image for image in [BIG]), TypeError, r"per image, such as list\(X\)"),
        ([[], []], ValueError, r"X\[0\] is empty"),
        ([BIG, [[]]], ValueError, r"X\[1\] is empty"),
        (np.zeros((3, 0, 0)), ValueError, r"X\[0\] is empty, of shape \(0, 0\)"),
        (pd.DataFrame({"a": [BIG, BIG]}), ValueError, r"ImagePatches takes images: .* X\['a'\]"),
        ([np.zeros((3, 8, 8))], ValueError, r"X\[0\] is 3 x 8 .* np\.moveaxis\(X\[0\], 0, -1\)"),
    ],
)
def test_bad_images_are_named(images, error, words):
    with pytest.raises(error, match=words):
        ImagePatches(4).fit(images)


def test_images_unlike_those_of_fit_are_refused():
    patches = ImagePatches(4).fit([BIG])
    with pytest.raises(ValueError, match="3 channels, but ImagePatches was fitted on images of 1"):
        patches.transform([np.zeros((8, 8, 3))])
    with pytest.raises(ValueError, match=r"write \[X\] for a single image"):
        patches.transform(BIG)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"patch_size": (4,)}, r"patch_size=\(4,\) must be a whole number above 0, or a pair"),
        ({"patch_size": (4, 0)}, "patch_size"),
        ({"step": (1, 1.5)}, "step"),
        ({"step": 0}, "'step' parameter"),
        ({"positions": -1.0}, "'positions' parameter"),
    ],
)
def test_bad_parameters_are_named(params, words):
    with pytest.raises(ValueError, match=words):
        ImagePatches(**params).fit([BIG])


@pytest.mark.parametrize(
    ("other", "usual"), [("uint8", "float64"), ("float32", "uint8"), ("uint16", "uint8")]
)
def test_images_of_different_scales_are_refused_in_one_list(other, usual):
    images = [BIG.astype(usual), BIG.astype(usual), BIG.astype(other)]
    with pytest.raises(ValueError, match=rf"X\[2\] has dtype {other}, but X\[0\] has {usual}"):
        ImagePatches(4).fit(images)
    assert len(ImagePatches(4).fit_transform([BIG, BIG.astype(np.float32)])) == 2


def test_images_of_another_scale_than_in_fit_are_warned_of():
    patches = ImagePatches(4).fit([BIG.astype(np.uint8)])
    with pytest.warns(UserWarning, match="fitted on images of uint8, and these are of floats") as w:
        patches.transform([BIG])
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patches.transform([BIG.astype(np.uint8)])


@pytest.mark.parametrize("positions", [np.inf, np.nan, 1e300])
def test_positions_stay_finite(positions):
    with pytest.raises(ValueError, match="'positions' parameter of ImagePatches"):
        ImagePatches(4, positions=positions).fit([BIG])

"""Components on an image, drawn without a screen."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    ComponentDisplay,
    DenseSIFT,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    ImagePatches,
    MeanPooling,
    VLADEncoder,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def image():
    """Return an image that is dark on the left and light on the right."""
    return np.repeat(np.repeat([[0.0, 1.0]], 8, axis=0), 6, axis=1)


ENCODERS = [
    FisherVectorEncoder(2, random_state=0),
    VLADEncoder(2, random_state=0),
    BagOfWordsEncoder(2, random_state=0),
    DiagonalGaussianMixture(2, random_state=0),
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: type(e).__name__)
def test_patches_are_where_they_were_cut(image, encoder):
    model = make_pipeline(ImagePatches(2, step=2), encoder).fit([image] * 3)
    display = ComponentDisplay.from_estimator(model, image)
    # pixels are drawn around whole numbers, so the first patch is centred between 0 and 1
    x, y = display.positions.T
    assert_allclose(x.reshape(4, 6), np.tile(np.arange(0.5, 12, 2), (4, 1)), atol=1e-6)
    assert_allclose(y.reshape(4, 6), np.repeat(np.arange(0.5, 8, 2), 6).reshape(4, 6), atol=1e-6)
    of_left = display.components[x < 5.5]
    of_right = display.components[x > 5.5]
    assert len(set(of_left)) == len(set(of_right)) == 1
    assert set(of_left) != set(of_right)
    assert_allclose(display.points_.get_offsets(), display.positions)
    assert_array_equal(display.points_.get_array(), display.components)
    assert_array_equal(display.image_.get_array(), image)


def test_descriptors_are_transformed_first(image, rng):
    model = make_pipeline(
        ImagePatches(2),
        DescriptorTransformer(PCA(2, random_state=0)),
        FisherVectorEncoder(3, random_state=0),
        LinearSVC(),
    )
    images = [image + 0.1 * rng.normal(size=image.shape) for _ in range(4)]
    model.fit(images, [0, 1, 0, 1])
    _, ax = plt.subplots()
    display = ComponentDisplay.from_estimator(model, images[1], ax=ax, colorbar=False)
    expected = model[2].mixture_.predict(model[:2].transform(images[1:2]))
    assert_array_equal(display.components, expected)
    assert display.n_components == 3
    assert display.ax_ is ax


def test_images_in_files_and_colours(tmp_path, rng):
    cv2 = pytest.importorskip("cv2")
    image = rng.integers(0, 256, size=(40, 50, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image[..., ::-1])
    model = make_pipeline(DenseSIFT(step=4), FisherVectorEncoder(12, random_state=0)).fit([image])
    display = ComponentDisplay.from_estimator(model, path)
    assert_array_equal(display.image, image)
    assert_array_equal(display.components, ComponentDisplay.from_estimator(model, image).components)


@pytest.mark.parametrize("k", [1, 10, 11, 30])
def test_every_component_has_a_colour_of_its_own(k):
    display = ComponentDisplay(
        image=np.zeros((4, 4)), positions=np.zeros((k, 2)), components=np.arange(k), n_components=k
    ).plot()
    display.figure_.canvas.draw()
    assert len({tuple(color) for color in display.points_.get_facecolors()}) == k


@pytest.mark.parametrize(
    "model",
    [
        FisherVectorEncoder(2),
        make_pipeline(MeanPooling(), LinearSVC()),
        make_pipeline(ImagePatches(2), MeanPooling()),
    ],
)
def test_other_estimators_are_refused(model, image):
    with pytest.raises(TypeError, match="pass a fitted pipeline that begins with ImagePatches"):
        ComponentDisplay.from_estimator(model, image)

"""What the tests of joint training share."""

import numpy as np

from skfisher import (
    ImagePatches,
)
from skfisher.training.epochs import run_epoch

LINE_SEARCH = {"solver": "line_search", "train": "mixture"}


SMALL = {"n_components": 2, "max_iter": 3, "batch_size": 8, "random_state": 0}


def state_of(model):
    """Return the fitted arrays of a model, by name."""
    names = ("weights_", "means_", "variances_", "coef_", "intercept_", "map_weight_", "map_bias_")
    return {name: getattr(model, name) for name in names if getattr(model, name) is not None}


def assert_equal_models(one, other):
    for name, values in state_of(one).items():
        np.testing.assert_array_equal(values, state_of(other)[name], err_msg=name)


def digits(dtype=np.float32):
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    images = np.pad(images.reshape(-1, 8, 8), [(0, 0), (1, 1), (1, 1)])
    return ImagePatches(3).fit_transform(images.astype(dtype)), y


def stop_after(n, error=KeyboardInterrupt):
    """Return a stand-in for `run_epoch` that fails in epoch `n`, counted from 0."""

    def run(chain, recipe, model, problem, epoch):
        if epoch == n:
            raise error
        return run_epoch(chain, recipe, model, problem, epoch)

    return run

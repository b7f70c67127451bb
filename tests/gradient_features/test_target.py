"""The target of gradient features: by default it follows the number of outputs."""

import warnings

import numpy as np
import pytest

from skfisher import GradientFeatureKernel
from tests.gradient_features.test_kernel import make_head


def test_few_outputs_with_uniform_target_warn():
    X = np.random.default_rng(0).normal(size=(5, 6))
    with pytest.warns(UserWarning, match="3 outputs.*only 2 directions; target='jacobian'"):
        GradientFeatureKernel(make_head(), target="uniform").fit(X)
    with pytest.warns(UserWarning, match="1 output, .*only 1 direction;"):
        GradientFeatureKernel(
            make_head(widths=(6, 1), output="logistic"), layer=-1, target="uniform"
        ).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientFeatureKernel(make_head(), target="jacobian").fit(X)
        GradientFeatureKernel(make_head(widths=(6, 4, 15)), target="uniform").fit(X)


@pytest.mark.parametrize("output", ["softmax", "logistic", "identity"])
@pytest.mark.parametrize(("n_outputs", "few"), [(1, True), (14, True), (15, False)])
def test_the_default_target_follows_the_number_of_outputs(rng, output, n_outputs, few):
    X, head = rng.normal(size=(5, 6)), make_head(widths=(6, 4, n_outputs), output=output)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel = GradientFeatureKernel(head).fit(X)
        found = kernel.transform(X)
    named = "jacobian" if few or output == "identity" else "uniform"
    assert kernel.target_ == named
    expected = GradientFeatureKernel(head, target=named).fit_transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_logistic_outputs_have_a_direction_each():
    with pytest.warns(UserWarning, match="3 outputs, .*only 3 directions;"):
        GradientFeatureKernel(make_head(output="logistic"), target="uniform").fit(np.eye(6))

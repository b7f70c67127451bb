import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from skfisher import DiagonalGaussianMixture, FisherVectorEncoder, GradientFeatureMap, LinearSDCA

BAGS = [np.random.default_rng(i).normal(size=(30, 2)) for i in range(12)]
LABELS = [0, 1] * 6


def in_a_pipeline():
    make_pipeline(FisherVectorEncoder(3), LinearSDCA(max_iter=1)).fit(BAGS, LABELS)


def in_cross_validation():
    pipe = make_pipeline(FisherVectorEncoder(3), LinearSDCA(max_iter=1))
    cross_val_score(pipe, BAGS, LABELS, cv=2)


def of_a_fit():
    DiagonalGaussianMixture(3, max_iter=1).fit(BAGS)


def of_a_classifier():
    X, y = load_digits(return_X_y=True)
    LinearSDCA(C=100.0, max_iter=1).fit(X, y)


def of_a_transform():
    X, y = np.random.default_rng(0).uniform(size=(40, 3)), [0, 1, 2, 3] * 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = MLPClassifier((4,), max_iter=5, random_state=0).fit(X, y)
        network.coefs_[0][:] = 1
        network.intercepts_[0][:] = 0
        features = GradientFeatureMap(FrozenEstimator(network), n_components=4).fit(X, y)
    features.transform(-X)  # which no unit lets through


@pytest.mark.parametrize(
    "work",
    [in_a_pipeline, in_cross_validation, of_a_fit, of_a_classifier],
    ids=lambda f: f.__name__,
)
def test_warnings_point_at_the_line_of_the_user(work):
    with pytest.warns(ConvergenceWarning) as record:
        work()
    assert {warning.filename for warning in record} == {__file__}


def test_warnings_of_transforms_point_at_the_line_of_the_user():
    with pytest.warns(UserWarning, match="gradient factor of zero") as record:
        of_a_transform()
    assert {warning.filename for warning in record} == {__file__}

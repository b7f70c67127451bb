"""scikit-learn's own checks, on instances that suit its tiny data; none waived."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from skfisher import DiagonalGaussianMixture, FisherVectorEncoder

ESTIMATORS = [
    DiagonalGaussianMixture(n_components=3),
    DiagonalGaussianMixture(n_components=2, batch_size=4),
    FisherVectorEncoder(n_components=3),
    FisherVectorEncoder(mixture=DiagonalGaussianMixture(n_components=2, random_state=0)),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)

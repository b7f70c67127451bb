"""Masked entries are missing values wherever arrays are taken, beside the samples too."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.frozen import FrozenEstimator

from skfisher import (
    Bags,
    DenseHead,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    GradientFeatureKernel,
    LinearSDCA,
    PowerL2Normalizer,
)

RNG = np.random.default_rng(0)
BAGS = Bags.from_lengths(RNG.normal(size=(24, 3)), [6] * 4)
TABLE = RNG.normal(size=(8, 6))
Y = np.arange(8) % 2
HEAD = DenseHead([RNG.normal(size=(6, 4)), RNG.normal(size=(4, 20))])


def masked(array, at):
    mask = np.zeros(np.shape(array), bool)
    mask[at] = True
    return np.ma.array(array, mask=mask)


def mixture(**attributes):
    fitted = DiagonalGaussianMixture(2, random_state=0).fit(BAGS)
    vars(fitted).update(attributes)
    return fitted


class Masking(TransformerMixin, BaseEstimator):
    """Return masked descriptors."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return masked(X, (2, 1))


CASES = {
    "values": (lambda: Bags.from_lengths(masked(BAGS.values, (3, 1)), [24]), r"values\[3\]"),
    "lengths": (lambda: Bags.from_lengths(BAGS.values, masked([12, 12], 1)), r"lengths\[1\]"),
    "starts": (lambda: Bags(BAGS.values, masked([0, 6], 1), [6, 9]), r"starts\[1\]"),
    "index": (lambda: BAGS[masked([0, 1, 2], 1)], r"index\[1\]"),
    "list of indices": (lambda: BAGS[[0, np.ma.masked]], r"index\[1\]"),
    "mask of bags": (lambda: BAGS[masked([True] * 4, 3)], r"index\[3\]"),
    "indices": (lambda: BAGS.take(masked([0, 1], 1)), r"indices\[1\]"),
    "blocks": (
        lambda: PowerL2Normalizer(blocks=masked([0, 0, 0, 1, 1, 1], 2)).fit(TABLE),
        r"blocks\[2\]",
    ),
    "weights": (
        lambda: FisherVectorEncoder(
            mixture=FrozenEstimator(mixture(weights_=masked([0.5, 0.5], 1)))
        ).fit(BAGS),
        r"mixture\.weights_\[1\]",
    ),
    "means": (
        lambda: mixture(means_=masked(np.zeros((2, 3)), (1, 2))).score_samples(BAGS),
        r"means_\[1\]",
    ),
    "variances": (
        lambda: mixture(variances_=masked(np.ones((2, 3)), (1, 2))).score_samples(BAGS),
        r"variances_\[1\]",
    ),
    "a network": (lambda: DenseHead([masked(HEAD.weights[0], (2, 1))]), r"weights\[0\]"),
    "target": (
        lambda: GradientFeatureKernel(HEAD, target=masked(np.full(20, 0.05), 7)).fit(TABLE),
        r"target\[7\]",
    ),
    "target function": (
        lambda: GradientFeatureKernel(
            HEAD, target=lambda logits: masked(np.full(logits.shape, 0.05), (1, 7))
        ).fit(TABLE),
        r"what the target function returned\[1\]",
    ),
    "inner transformer": (
        lambda: DescriptorTransformer(Masking()).fit_transform(BAGS),
        r"the output of Masking\(\)\[2\]",
    ),
    "sample weights": (
        lambda: LinearSDCA().fit(TABLE, Y, sample_weight=masked(np.ones(8), 3)),
        r"sample_weight\[3\]",
    ),
    "labels to score": (lambda: LinearSDCA().fit(TABLE, Y).score(TABLE, masked(Y, 3)), r"y\[3\]"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_masked_is_refused(case):
    call, name = CASES[case]
    with pytest.raises(ValueError, match=f"{name} is masked.*missing values"):
        call()

"""Gated second-order pooling without labels, and what it refuses."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skfisher import GatedSecondOrderPooling, JointClassifier, SecondOrderPooling


@pytest.fixture
def bags(rng):
    return [rng.normal(size=(t, 4)) * [1, 2, 3, 4] + 5 for t in (1, 2, 9, 30, 30, 300)]


@pytest.mark.parametrize("n_components", [None, 2])
def test_one_projection_is_that_of_second_order_pooling(bags, n_components):
    one = GatedSecondOrderPooling(1, n_components=n_components, n_active=1).fit(bags)
    width = 4 if n_components is None else n_components
    plain = SecondOrderPooling(function="newton_schulz", n_components=width).fit(bags)
    assert_allclose(one.transform(bags), plain.transform(bags), atol=1e-12)
    assert list(one.get_feature_names_out())[:2] == (
        ["second_d0_d0", "second_d0_d1"] if width == 4 else ["second_p0_p0", "second_p0_p1"]
    )


def test_without_labels_it_is_the_mean_of_its_projections(bags):
    encoder = GatedSecondOrderPooling(
        3, n_components=2, function="power", normalize=None, random_state=0
    ).fit(bags)
    assert encoder.projections_.shape == (3, 2, 4)
    expected = 0
    for projection in encoder.projections_:
        found = []
        for bag in bags:
            z = (bag - encoder.mean_) / encoder.scale_ @ projection.T
            z = np.column_stack([z, np.ones(len(z))])
            values, vectors = np.linalg.eigh(z.T @ z / len(z))
            values = np.where(values > 1e-12 * values[-1], values, 0)
            root = (vectors * np.sqrt(values)) @ vectors.T
            root = root * np.where(np.eye(3), 1, np.sqrt(2))
            found.append(root[np.triu_indices(3)])
        expected = expected + np.stack(found) / 3
    assert_allclose(encoder.transform(bags), expected, atol=1e-7)


def test_what_cannot_be_is_refused(bags):
    with pytest.raises(ValueError, match=r"n_active=3 is more than n_projections=2"):
        GatedSecondOrderPooling(2, n_active=3).fit(bags)
    with pytest.raises(ValueError, match="a projection can only reduce them, so take 4 or fewer"):
        GatedSecondOrderPooling(n_components=5).fit(bags)
    with pytest.raises(ValueError, match="a projection can only reduce them, so take 4 or fewer"):
        JointClassifier(GatedSecondOrderPooling(n_components=5)).fit(bags, [0, 1] * 3)

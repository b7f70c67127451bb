"""Bags that joint training learns in no time."""

import numpy as np
import pytest

from skfisher import (
    Bags,
)


@pytest.fixture(scope="package")
def problem():
    """Bags of three classes that differ in the spread of single features."""
    rng = np.random.default_rng(0)
    y = np.arange(36) % 3
    scale = np.ones((3, 4))
    scale[1, 0] = scale[2, 1] = 1.6
    bags = [rng.normal(scale=scale[c], size=(rng.integers(8, 25), 4)) for c in y]
    return Bags.from_list(bags), np.array(["a", "b", "c"])[y]

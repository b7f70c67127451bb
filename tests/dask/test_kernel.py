"""The gradient kernel, block by block."""

import numpy as np
import pytest

da = pytest.importorskip("dask.array")

from skfisher import DenseHead, GradientFeatureKernel  # noqa: E402
from skfisher.dask import kernel_blocks  # noqa: E402


@pytest.fixture
def kernel(rng):
    # whose units are never off
    head = DenseHead([rng.uniform(size=(5, 4)), rng.normal(size=(4, 3))])
    return GradientFeatureKernel(head)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunked", [False, True])
def test_blocks_are_those_of_the_kernel(kernel, rng, dtype, chunked):
    x, y = rng.uniform(size=(25, 5)).astype(dtype), rng.uniform(size=(13, 5)).astype(dtype)
    given = da.from_array(x, chunks=(10, 2)) if chunked else x
    blocks = kernel_blocks(kernel, given, y, block_size=10)
    assert (blocks.shape, blocks.numblocks, blocks.dtype) == ((25, 13), (3, 2), dtype)
    found = blocks.compute(scheduler="threads")
    assert found.dtype == dtype
    assert np.allclose(found, kernel(x, y), atol=10 * np.finfo(dtype).eps)


def test_one_set_of_samples(kernel, rng):
    x = rng.uniform(size=(25, 5))
    blocks = kernel_blocks(kernel, x, block_size=10)
    assert np.allclose(blocks.compute(scheduler="sync"), kernel(x))
    part = blocks[:10, 20:].compute(scheduler="sync")  # one block alone
    assert np.allclose(part, kernel(x[:10], x[20:]))


def test_other_kernels_are_refused(rng):
    with pytest.raises(TypeError, match="kernel is a str, but a GradientFeatureKernel is needed"):
        kernel_blocks("rbf", rng.normal(size=(4, 5)))

"""The gradient kernel of many samples, block by block."""

import numpy as np

from skfisher.gradient_features.kernel import GradientFeatureKernel

__all__ = ["kernel_blocks"]


def kernel_blocks(kernel, X, Y=None, *, block_size=2048):
    """Return the gradient kernel between samples as a Dask array, a block a task.

    Nothing is computed before the array is asked for: compute it, reduce it, or store it by
    ``dask.array.to_zarr`` or ``to_npy_stack``. Each block computes the factors of its rows and
    columns anew, which pays where a product of `block_size` factors takes longer than they do;
    a network with wide input is better turned to factors first, by ``network="precomputed"``.

    Parameters
    ----------
    kernel : GradientFeatureKernel
        Fitted, or of a pretrained network.
    X : array-like or dask.array.Array of shape (n_samples, n_features)
    Y : array-like or dask.array.Array of shape (n_samples_y, n_features), default=None
        None means `X`.
    block_size : int, default=2048
        Rows and columns of a block. A Dask array keeps its chunks of rows.

    Returns
    -------
    blocks : dask.array.Array of shape (n_samples, n_samples_y)
        float32 if `X` is, else float64.

    Raises
    ------
    TypeError
        If `kernel` is no GradientFeatureKernel.

    See Also
    --------
    GradientFeatureKernel : The kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import DenseHead, GradientFeatureKernel
    >>> from skfisher.dask import kernel_blocks
    >>> rng = np.random.default_rng(0)
    >>> head = DenseHead([rng.normal(size=(5, 4)), rng.normal(size=(4, 3))])
    >>> blocks = kernel_blocks(GradientFeatureKernel(head), rng.normal(size=(6, 5)), block_size=4)
    >>> blocks.numblocks
    (2, 2)
    >>> blocks.compute().shape
    (6, 6)
    """
    import dask.array as da

    if not isinstance(kernel, GradientFeatureKernel):
        raise TypeError(
            f"kernel is a {type(kernel).__name__}, but a GradientFeatureKernel is needed."
        )

    def rows(x):
        if isinstance(x, da.Array):
            return x.rechunk({1: -1})
        x = np.asarray(x)
        return da.from_array(x, chunks=(block_size, x.shape[1]))

    X = rows(X)
    Y = X if Y is None else rows(Y)
    dtype = np.float32 if X.dtype == np.float32 else np.float64
    return da.blockwise(
        _block, "ij", X, "ik", Y, "jk", kernel=kernel, concatenate=True, dtype=dtype,
        meta=np.empty((0, 0), dtype),
    )  # fmt: skip


def _block(x, y, kernel):
    return kernel(x, y)

r"""The trace kernel of outer products, from their factors.

.. math:: \mathrm{Tr}\big((a u^\top)^\top (b v^\top)\big) = \langle a, b\rangle \langle u, v\rangle

For n and m samples that is two matrix products and one element-wise product; the outer
products, d D numbers for each sample, are never formed.
"""

from skfisher.arrays.libraries import array_module, empty

__all__ = ["jacobian_trace_kernel", "linear_kernel", "trace_kernel"]

# Matrix products reach nearly their full rate with so many rows, and the block that waits to be
# multiplied into the result, as large as this, is small beside it. The cut follows from the shape
# of the result alone, and so do its bits.
ROWS_PER_BLOCK = 256
NUMBERS_PER_BLOCK = 2**22


def in_turn(function, tasks):
    """Call ``function(*task)`` for every task."""
    for task in tasks:
        function(*task)


def trace_kernel(activations, errors, activations_b=None, errors_b=None, *, each=in_turn):
    r"""Return the inner products of rank-one gradients, given as factors.

    .. math:: K_{ij} = \langle a_i, b_j \rangle \langle u_i, v_j \rangle

    Source: Gordo, Gaidon and Perronnin (2015), equation 12.

    Parameters
    ----------
    activations : array of shape (n, d), float32 or float64
    errors : array of shape (n, D)
    activations_b, errors_b : arrays of shape (m, d) and (m, D), optional
        The other side. Left out, the kernel is that of the first side with itself and takes half
        the work.
    each : callable
        ``each(function, tasks)`` calls the function for all tasks, each of which writes to a block
        of its own: one after the other, by default, or side by side.

    Returns
    -------
    kernel : array of shape (n, m)
    """
    a, b = activations, activations_b
    kernel = empty((len(a), len(a if b is None else b)), like=a)
    _fold_product(kernel, a, b, _put, each)
    _fold_product(kernel, errors, errors_b, _multiply, each)
    return _mirrored(kernel) if b is None else kernel


def jacobian_trace_kernel(activations, passes, activations_b=None, passes_b=None, *, each=in_turn):
    r"""Return the inner products of gradients summed over several backward passes.

    .. math:: K_{ij} = \langle a_i, b_j \rangle \sum_q \langle u_{qi}, v_{qj} \rangle

    With one pass for each output of a network this is the empirical neural tangent kernel of
    one layer (Jacot, Gabriel and Hongler 2018).

    Parameters
    ----------
    activations, activations_b, each
        As in `trace_kernel`.
    passes, passes_b : iterables of arrays of shape (n, D) and (m, D)
        The errors, one pass after the other, so that one pair is held at a time.

    Returns
    -------
    kernel : array of shape (n, m)
    """
    a, b = activations, activations_b
    kernel = empty((len(a), len(a if b is None else b)), like=a)
    fold = _put
    for errors, errors_b in _pairs(passes, passes_b):
        _fold_product(kernel, errors, errors_b, fold, each)
        fold = _add
    _fold_product(kernel, a, b, _multiply, each)
    return _mirrored(kernel) if b is None else kernel


def linear_kernel(x, y=None, *, each=in_turn):
    """Return ``x @ y.T``, or ``x @ x.T`` at half the work."""
    kernel = empty((len(x), len(x if y is None else y)), like=x)
    _fold_product(kernel, x, y, _put, each)
    return _mirrored(kernel) if y is None else kernel


def _pairs(passes, passes_b):
    if passes_b is None:
        return ((errors, None) for errors in passes)
    return zip(passes, passes_b, strict=True)


def _fold_product(kernel, x, y, fold, each):
    """Fold ``x @ y.T`` into `kernel`, some rows at a time.

    Without `y` the product is ``x @ x.T`` and only the lower triangle of `kernel`, and what lies
    in the blocks on its diagonal, is valid.
    """
    tasks = []
    for rows in _blocks(kernel):
        if y is None:
            tasks.append((kernel[rows, : rows.start], x[rows], x[: rows.start]))
            tasks.append((kernel[rows, rows], x[rows], x[rows]))  # NumPy sees its symmetry
        else:
            tasks.append((kernel[rows], x[rows], y))
    each(fold, tasks)


def _blocks(kernel):
    """Yield slices of rows of the result."""
    n, n_columns = kernel.shape
    return _chunks(n, min(ROWS_PER_BLOCK, NUMBERS_PER_BLOCK // max(1, n_columns)))


def _chunks(n, n_rows):
    n_rows = max(1, int(n_rows))
    for start in range(0, n, n_rows):
        yield slice(start, start + n_rows)


def _put(block, x, y):
    array_module(x).matmul(x, y.T, out=block)


def _add(block, x, y):
    block += x @ y.T


def _multiply(block, x, y):
    block *= x @ y.T


def _mirrored(kernel):
    """Copy what lies below the diagonal blocks of `_fold_product` to above them."""
    for rows in _blocks(kernel):
        kernel[: rows.start, rows] = kernel[rows, : rows.start].T
    return kernel

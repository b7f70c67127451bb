"""Windows over grids, as operations with their references."""

import numpy as np

from skfisher.ops import windows

from .operation import Op


def sums_by_loops(cells, size):
    rows, columns = (max(1, n - s + 1) for n, s in zip(cells.shape, size, strict=False))
    out = np.zeros((rows, columns, *cells.shape[2:]))
    for i, j in np.ndindex(rows, columns):
        for a, b in np.ndindex(*size):
            if i + a < cells.shape[0] and j + b < cells.shape[1]:
                out[i, j] += cells[i + a, j + b]
    return out


def stacks_by_loops(codes, size):
    rows, columns = (max(1, n - s + 1) for n, s in zip(codes.shape, size, strict=False))
    out = np.zeros((rows, columns, size[0] * size[1] * codes.shape[2]))
    last = np.subtract(codes.shape[:2], 1)
    for i, j in np.ndindex(rows, columns):
        parts = [codes[tuple(np.minimum((i + a, j + b), last))] for a, b in np.ndindex(*size)]
        out[i, j] = np.concatenate(parts)
    return out


def window_op(name, reference, shape, size):
    f, f_vjp = getattr(windows, name), getattr(windows, name + "_vjp")
    return Op(
        f"{name}-{'x'.join(map(str, shape))}-{size[0]}-{size[1]}",
        lambda x: f(x, size),
        lambda g, x: (f_vjp(g, x, size),),
        lambda rng: (rng.normal(size=shape),),
        lambda x: reference(x, size),
    )


def indexed_op(name, reference, shape, index):
    f, f_vjp = getattr(windows, name), getattr(windows, name + "_vjp")
    return Op(
        f"{name}-{'x'.join(map(str, shape))}",
        lambda x: f(x, index),
        lambda g, x: (f_vjp(g, x, index),),
        lambda rng: (rng.normal(size=shape),),
        reference,
    )


# the last row is in none, and a place is empty
INDEX = np.array([[0, 1, 2], [2, -1, 1], [3, 2, -1]])


def sums_by_index(x):
    return np.stack([x[[0, 1, 2]].sum(axis=0), x[2] + x[1], x[3] + x[2]])


def beside_by_index(x):
    nothing = np.zeros(x.shape[1])
    rows = [[x[0], x[1], x[2]], [x[2], nothing, x[1]], [x[3], x[2], nothing]]
    return np.stack([np.concatenate(row) for row in rows])


SHAPES = [((7, 1, 3), (2, 1)), ((5, 4, 3), (2, 2)), ((4, 6, 2), (3, 1)), ((2, 1, 3), (3, 2))]
WINDOW_OPS = [
    *(window_op("window_sums", sums_by_loops, *case) for case in SHAPES),
    window_op("window_sums", sums_by_loops, (4, 3, 2, 2), (2, 2)),
    *(window_op("stack_windows", stacks_by_loops, *case) for case in SHAPES),
    indexed_op("sums_of_rows", sums_by_index, (5, 4), INDEX),
    indexed_op("sums_of_rows", sums_by_index, (5, 2, 3), INDEX),
    indexed_op("rows_beside", beside_by_index, (5, 4), INDEX),
]

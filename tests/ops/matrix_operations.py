"""Operations of second-order pooling, for `test_all`."""

import numpy as np

from skfisher.arrays.libraries import array_module
from skfisher.ops import (
    covariance,
    gaussian_embedding,
    matrix_function,
    matrix_norm,
    newton_schulz,
    triangle,
)

from . import references
from .operation import STARTS, STOPS, Op

SHIFT = np.array([0.3, -1.0, 2.0])


def concatenated(arrays):
    return array_module(*arrays).concatenate(arrays, axis=1)


def flat_sums(x):
    s1, s2 = covariance.second_order_sums(x, STARTS, STOPS, SHIFT)
    return concatenated([s1, s2.reshape(len(s2), -1)])


def flat_sums_vjp(g, x):
    g2 = g[:, 3:].reshape(-1, 3, 3)
    return (covariance.second_order_sums_vjp(g[:, :3], g2, x, STARTS, STOPS, SHIFT),)


def flat_moments(s1, s2):
    means, covariances = covariance.bag_moments(s1, s2, COUNTS)
    return concatenated([means, covariances.reshape(len(s2), -1)])


def flat_moments_vjp(g, s1, s2):
    d = covariance.bag_moments_vjp(g[:, :3], g[:, 3:].reshape(-1, 3, 3), s1, COUNTS)
    return tuple(a.astype(s1.dtype) for a in d)


COUNTS = np.array([4, 1, 9])


def matrices(rng, n=3, d=4):
    """Return symmetric matrices of different sizes, positive definite."""
    factors = rng.normal(size=(n, 2 * d, d))
    return factors.transpose(0, 2, 1) @ factors * np.array([0.1, 1, 3])[:n, None, None]


def symmetric(p):
    return (p + p.transpose(0, 2, 1)) / 2


def matrix_op(name, forward, vjp, reference, wide=False):
    """Return an operation of symmetric matrices, which any matrices are made by their means."""
    return Op(
        name,
        lambda p: forward(symmetric(p)),
        lambda g, p: (symmetric(vjp(g, symmetric(p))).astype(p.dtype),),
        lambda rng: (matrices(rng),),
        lambda p: np.stack([reference(m) for m in symmetric(p.astype(np.float64))]),
        wide=wide,
    )


def function_op(name, **options):
    options = {"function": name.split("-")[0], **options}

    def decomposed(p):
        return matrix_function.eigen(p, eps=float(np.finfo(p.dtype).eps), ridge=0.01)

    return matrix_op(
        name,
        lambda p: matrix_function.matrix_function(decomposed(p), **options),
        lambda g, p: matrix_function.matrix_function_vjp(g, decomposed(p), **options),
        lambda m: references.matrix_function(m + 0.01 * np.eye(len(m)), **options),
        wide=True,
    )


def iteration_op(n_iter, scaling):
    options = {"n_iter": n_iter, "scaling": scaling}
    return matrix_op(
        f"newton_schulz-{n_iter}-{scaling}",
        lambda p: newton_schulz.newton_schulz(p, **options),
        lambda g, p: newton_schulz.newton_schulz_vjp(g, p, **options),
        lambda m: references.newton_schulz(m, **options),
    )


def norm_op(norm):
    return matrix_op(
        f"normalize_matrices-{norm}",
        lambda q: matrix_norm.normalize_matrices(q, norm=norm),
        lambda g, q: matrix_norm.normalize_matrices_vjp(g, q, norm=norm),
        lambda m: m / references.matrix_norm(m, norm),
    )


MATRIX_OPS = [
    Op(
        "second_order_sums",
        flat_sums,
        flat_sums_vjp,
        lambda rng: (rng.normal(size=(STOPS[-1], 3)),),
        lambda x: references.second_order_sums(x, STARTS, STOPS, SHIFT),
        per_bag=True,
        wide=True,
    ),
    Op(
        "bag_moments",
        flat_moments,
        flat_moments_vjp,
        lambda rng: (rng.normal(size=(3, 3)), rng.normal(size=(3, 3, 3))),
        lambda s1, s2: references.bag_moments(s1, s2, COUNTS),
        wide=True,
    ),
    function_op("power", power=0.5),
    function_op("power-0.3", power=0.3),
    function_op("power-1", power=1.0),
    function_op("power-1.6", power=1.6),
    function_op("log"),
    *(iteration_op(n, scaling) for n in (1, 2, 3, 5) for scaling in ("trace", "frobenius")),
    *map(norm_op, ("frobenius", "spectral", "trace")),
    Op(
        "gaussian_embedding",
        gaussian_embedding.gaussian_embedding,
        lambda g, means, _: gaussian_embedding.gaussian_embedding_vjp(g, means),
        lambda rng: (rng.normal(size=(3, 4)), matrices(rng)),
        references.gaussian_embedding,
    ),
    matrix_op(
        "triangle",
        triangle.triangle,
        lambda g, p: triangle.triangle_vjp(g, p.shape[1]),
        references.triangle,
    ),
]

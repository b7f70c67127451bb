"""Sketches, gates and moments under a mixture, as operations with their references."""

import math

import numpy as np
from scipy.special import softmax

from skfisher.arrays.libraries import array_module, asarray
from skfisher.ops import bilinear, gate, gated_moments, sketch
from skfisher.ops.chunks import Frame

from .operation import STARTS, STOPS, Op

D, K = 3, 4
HASHES = np.random.default_rng(5)
FRAME = Frame(np.array([0.3, -0.2, 0.1]), np.array([0.8, 1.5, 1.1]))


def sketch_op(degree, n_buckets):
    buckets = HASHES.integers(n_buckets, size=(degree, D))
    signs = HASHES.choice([-1, 1], size=(degree, D))
    hashes = STARTS, STOPS, buckets, signs, n_buckets

    def reference(x):
        out = np.zeros((len(STARTS), n_buckets))
        for bag, (start, stop) in enumerate(zip(STARTS, STOPS, strict=True)):
            for row in x[start:stop]:
                for index in np.ndindex(*(D,) * degree):
                    bucket = sum(buckets[j, i] for j, i in enumerate(index)) % n_buckets
                    out[bag, bucket] += math.prod(signs[j, i] * row[i] for j, i in enumerate(index))
        return out

    return Op(
        f"sketch_sums-{degree}-{n_buckets}",
        lambda x: sketch.sketch_sums(x, *hashes),
        lambda g, x: (sketch.sketch_sums_vjp(g, x, *hashes),),
        lambda rng: (rng.normal(size=(STOPS[-1], D)),),
        reference,
        per_bag=True,
        wide=True,
    )


def frame_like(x):
    return Frame(*(asarray(part, like=x) for part in FRAME))


def flat_moments(x, *coefficients):
    sums = gated_moments.gated_moments(x, STARTS, STOPS, coefficients, frame=frame_like(x))
    return sums.reshape(len(STARTS), -1)


def flat_moments_vjp(g, x, *coefficients):
    g = g.reshape(len(STARTS), K, D + 1, D + 1)
    d_x, d_coefficients = gated_moments.gated_moments_vjp(
        g, x, STARTS, STOPS, coefficients, frame=frame_like(x)
    )
    return d_x, *(d.astype(x.dtype) for d in d_coefficients)


def moments_of_rows(x, linear, quadratic, constant):
    y = (x - FRAME.shift) / FRAME.scale
    out = np.zeros((len(STARTS), K, D + 1, D + 1))
    for bag, (start, stop) in enumerate(zip(STARTS, STOPS, strict=True)):
        for row in y[start:stop]:
            shares = softmax(linear @ row + quadratic @ row**2 + constant)
            out[bag] += shares[:, None, None] * np.outer(np.append(row, 1), np.append(row, 1))
    return out.reshape(len(STARTS), -1)


NOISE = np.array([0.7, -1.2, 0.1, 2.0, -0.4])


def gate_op(name, n_active, noise):
    def options(f):
        given = None if noise is None else array_module(f).asarray(noise, dtype=f.dtype)
        return {"n_active": n_active, "noise": given}

    def reference(f, weights, spread):
        out = np.zeros((len(f), K))
        for i, row in enumerate(f):
            h = weights @ row
            if noise is not None:
                h = h + noise[i] * np.log1p(np.exp(spread @ row))
            kept = sorted(range(K), key=lambda k: -h[k])[:n_active]
            out[i, kept] = softmax(h[kept])
        return out

    return Op(
        name,
        lambda f, *weights: gate.gate_shares(f, *weights, **options(f)),
        lambda g, f, *weights: gate.gate_shares_vjp(g, f, *weights, **options(f)),
        lambda rng: (rng.normal(size=(5, D)), rng.normal(size=(K, D)), rng.normal(size=(K, D))),
        reference,
    )


def balance(usage):
    return gate.balance_loss(usage, weight=0.7)


def energies_vjp(g, x, directions):
    d_x, d_directions = bilinear.energy_sums_vjp(g, x, STARTS, STOPS, directions)
    return d_x, d_directions.astype(x.dtype)


def energies(x, directions):
    # by second moments
    return np.array(
        [
            [u @ (x[start:stop].T @ x[start:stop]) @ u for u in directions]
            for start, stop in zip(STARTS, STOPS, strict=True)
        ]
    )


POOLING_OPS = [
    sketch_op(2, 5),
    sketch_op(2, 2),  # so few buckets that short bags go row by row
    sketch_op(3, 8),
    Op(
        "gated_moments",
        flat_moments,
        flat_moments_vjp,
        lambda rng: (
            rng.normal(size=(STOPS[-1], D)),
            rng.normal(size=(K, D)),
            -rng.uniform(0.3, 1, size=(K, D)),
            rng.normal(size=K),
        ),
        moments_of_rows,
        per_bag=True,
        wide=True,
    ),
    Op(
        "energy_sums",
        lambda x, u: bilinear.energy_sums(x, STARTS, STOPS, u),
        energies_vjp,
        lambda rng: (rng.normal(size=(STOPS[-1], D)), rng.normal(size=(K, D))),
        energies,
        per_bag=True,
        wide=True,
    ),
    gate_op("gate_shares", K, None),
    gate_op("gate_shares-noise", K, NOISE),
    gate_op("gate_shares-two", 2, NOISE),
    Op(
        "balance_loss",
        balance,
        lambda g, usage: (gate.balance_loss_vjp(g, usage, weight=0.7),),
        lambda rng: (rng.uniform(1, 3, size=K),),
        lambda usage: np.array(0.7 * (usage.std(ddof=1) / usage.mean()) ** 2),
    ),
]

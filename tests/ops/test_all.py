"""What every operation promises: its gradient, its dtype, and no side effects."""

import numpy as np
import pytest

from skfisher.arrays.libraries import array_module, to_host
from skfisher.ops import (
    assignment,
    average,
    constraints,
    feature_map,
    fisher,
    gaussian,
    learned_aggregation,
    losses,
    normalization,
    regression_losses,
    soft_assignment,
    vlad,
)

from . import references
from .matrix_operations import MATRIX_OPS
from .operation import STARTS, STOPS, Op
from .pooling_operations import POOLING_OPS
from .window_operations import WINDOW_OPS


def mixture(rng, k=4, d=3):
    return rng.dirichlet(np.ones(k)), rng.normal(size=(k, d)), rng.uniform(0.5, 2, size=(k, d))


def offset_mixture(rng):
    # far enough out that the operation moves to coordinates of its own
    weights, means, variances = mixture(rng)
    return weights, means + 20, variances


def descriptors(rng, offset=0.0):
    return rng.normal(size=(STOPS[-1], 3)) + offset


def coefficients(rng):
    return gaussian.logit_coefficients(*mixture(rng))


def flat_statistics(x, linear, quadratic, constant):
    sums = soft_assignment.soft_statistics(x, STARTS, STOPS, (linear, quadratic, constant))
    return np_concatenate([s.reshape(len(STARTS), -1) for s in sums])


def flat_statistics_vjp(g, x, linear, quadratic, constant):
    k, d = linear.shape
    shapes = (len(STARTS), k), (len(STARTS), k, d), (len(STARTS), k, d)
    blocks = (g[:, :k], g[:, k : k + k * d], g[:, k + k * d :])
    g = soft_assignment.Sums(*(b.reshape(s) for b, s in zip(blocks, shapes, strict=True)))
    d_x, d_coefficients = soft_assignment.soft_statistics_vjp(
        g, x, STARTS, STOPS, (linear, quadratic, constant)
    )
    return d_x, *(d.astype(x.dtype) for d in d_coefficients)


def np_concatenate(arrays):
    return array_module(*arrays).concatenate(arrays, axis=1)


def on_bags(op, **options):
    def call(x, *parameters):
        return op(x, STARTS, STOPS, *parameters, **options)

    return call


def on_bags_vjp(op, **options):
    def call(g, x, *parameters):
        return op(g, x, STARTS, STOPS, *parameters, **options)

    return call


def signed_away_from_zero(rng, shape):
    # none within a finite-difference step of the kink at 0
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.2, 2, size=shape)


BLOCKS = np.array([0, 1, 0, 1, 1, 2])


def normalize(power, blocks=None, eps=None):
    options = {"power": power, "blocks": blocks, "eps": eps}

    def vjp(g, x):
        return (normalization.power_l2_normalize_vjp(g, x, derivative_floor=0, **options),)

    def arguments(rng):
        x = signed_away_from_zero(rng, (5, 6))
        if eps is not None:  # the smooth power has no kink
            x[0, 0] = 0
        return (x,)

    return Op(
        f"power_l2_normalize-{power}"
        + ("" if blocks is None else "-blocks")
        + ("" if eps is None else "-smooth"),
        lambda x: normalization.power_l2_normalize(x, **options),
        vjp,
        arguments,
        lambda x: references.power_l2_normalize(x, **options),
    )


def map_op(name, reuse):
    f, f_vjp = getattr(feature_map, name), getattr(feature_map, name + "_vjp")
    return Op(
        name + ("-reused" if reuse else ""),
        f,
        lambda g, *a: f_vjp(g, *a, y=f(*a)) if reuse else f_vjp(g, *a),
        lambda rng: (rng.normal(size=(7, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)),
        getattr(references, name),
    )


SIGNS = np.where(np.eye(4)[[0, 2, 1, 3, 0, 2]] > 0, 1, -1)  # integers, as labels may be
WEIGHTS, DUALS = np.random.default_rng(3).uniform(0.2, 2, size=(2, *SIGNS.shape))


def loss_op(name, *constants):
    f = getattr(losses, name)

    def decision(rng):
        # margins well away from the kink at 1
        return (SIGNS * (1 + signed_away_from_zero(rng, SIGNS.shape)),)

    def on(decision):
        xp = array_module(decision)
        fixed = [xp.asarray(c) for c in (SIGNS, *constants)]
        return f(decision, *fixed, weights=xp.asarray(WEIGHTS))

    return Op(
        name,
        lambda decision: on(decision)[0],
        lambda g, decision: (g[:, None] * on(decision)[1],),
        decision,
        lambda decision: references.loss(name, decision, SIGNS, WEIGHTS, *constants),
    )


TARGETS = np.random.default_rng(4).normal(size=SIGNS.shape)
EPSILON = np.array([0.0, 0.2, 0.5, 1.0])  # of each column


def regression_loss_op(name, *constants):
    f = getattr(regression_losses, name)

    def decision(rng):
        # on both sides of the tube, and inside, well away from its walls and its middle
        offsets = rng.choice([-1.7, -0.6, -0.1, 0.1, 0.6, 1.7], size=TARGETS.shape)
        return (TARGETS + offsets,)

    def on(decision):
        xp = array_module(decision)
        fixed = [xp.asarray(c) for c in (TARGETS, *constants)]
        return f(decision, *fixed, weights=xp.asarray(WEIGHTS))

    return Op(
        name,
        lambda decision: on(decision)[0],
        lambda g, decision: (g[:, None] * on(decision)[1],),
        decision,
        lambda decision: references.regression_loss(name, decision, TARGETS, WEIGHTS, *constants),
    )


def parameter_map(name, **options):
    f, f_vjp = getattr(constraints, name), getattr(constraints, name + "_vjp")
    return Op(
        name,
        lambda z: f(z, **options),
        lambda g, z: (f_vjp(g, z, **options),),
        lambda rng: (rng.normal(size=6),),
        lambda z: getattr(references, name)(z, **options),
    )


def fisher_op(name, arguments, **options):
    return Op(
        name,
        on_bags(fisher.fisher_vector, **options),
        on_bags_vjp(fisher.fisher_vector_vjp, **options),
        arguments,
        lambda *a: references.fisher_vector(a[0], STARTS, STOPS, *a[1:], **options),
        per_bag=True,
    )


def fisher_by_sums(x, *mixture):
    sums = fisher.fisher_sums(x, STARTS, STOPS, *mixture)
    _, *framed, _ = gaussian.to_frame(x, *mixture)
    return fisher.fisher_from_statistics(sums, STOPS - STARTS, *framed).astype(x.dtype)


def fisher_by_sums_vjp(g, x, *mixture):
    # with the frame held fixed: the vectors do not depend on it
    frame, coordinates, _ = gaussian.framed_logits(x, *mixture)
    sums = fisher.fisher_sums(x, STARTS, STOPS, *mixture)
    d_sums, *direct = fisher.fisher_from_statistics_vjp(g, sums, STOPS - STARTS, *coordinates)
    d_x, d_coefficients = fisher.fisher_sums_vjp(d_sums, x, STARTS, STOPS, *mixture)
    via = gaussian.logit_coefficients_vjp(d_coefficients, *coordinates)
    scale = gaussian.scale_of(frame)
    d_weights, d_means, d_variances = (a + b for a, b in zip(direct, via, strict=True))
    d_mixture = d_weights, d_means / scale, d_variances / scale**2
    return d_x, *(d.astype(x.dtype) for d in d_mixture)


def flat(arrays):
    """Return arrays as one row each, so that an operation has one result."""
    return np_concatenate([a.reshape(1, -1) for a in arrays])


def split(g, shapes):
    """Return the gradients at the arrays that `flat` was given."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    g = g.reshape(-1)
    return [
        g[end - np.prod(s, dtype=int) : end].reshape(s) for end, s in zip(ends, shapes, strict=True)
    ]


def logits_op(f, f_vjp, metric_shape):
    k, d = 4, 3
    shapes = [(k, d), (k, d), (k,)] if len(metric_shape) == 2 else [(k, d), (k,)]
    return Op(
        f.__name__,
        lambda *a: flat(f(*a)),
        lambda g, *a: f_vjp(split(g, shapes), *a),
        lambda rng: (rng.normal(size=(k, d)), rng.uniform(0.3, 2, size=metric_shape)),
        lambda *a: flat(getattr(references, f.__name__)(*a)),
    )


def vlad_op(name, *, moments=1, hard=False, metrics=False):
    """Return NetVLAD, VLAD or NetFV from descriptors to encodings."""
    options = {"hard": hard, "order": moments}

    def coefficients(centers, metric):
        if metrics:
            return learned_aggregation.metric_logits(centers, metric)
        linear, constant = vlad.distance_logits(centers, metric)
        return linear, None, constant

    def forward(x, centers, metric):
        sums = assignment.assignment_sums(
            x, STARTS, STOPS, coefficients(centers, metric), **options
        )
        return vlad.vlad(sums, centers, moments=moments).astype(x.dtype)

    def vjp(g, x, centers, metric):
        logits = coefficients(centers, metric)
        sums = assignment.assignment_sums(x, STARTS, STOPS, logits, **options)
        d_sums, d_centers = vlad.vlad_vjp(g, sums, centers, moments=moments)
        d_x, (d_linear, d_quadratic, d_constant) = assignment.assignment_sums_vjp(
            d_sums, x, STARTS, STOPS, logits, hard=hard
        )
        if metrics:
            arriving = d_linear, d_quadratic, d_constant
            via, d_metric = learned_aggregation.metric_logits_vjp(arriving, centers, metric)
        else:
            via, d_metric = vlad.distance_logits_vjp((d_linear, d_constant), centers, metric)
        return d_x, (d_centers + via).astype(x.dtype), d_metric.astype(x.dtype)

    return Op(
        name,
        forward,
        vjp,
        lambda rng: (
            descriptors(rng),
            rng.normal(size=(4, 3)),
            rng.uniform(0.3, 2, size=(4, 3) if metrics else 3),
        ),
        lambda *a: references.vlad(a[0], STARTS, STOPS, *a[1:], moments=moments, hard=hard),
        per_bag=True,
    )


ORIGIN = np.array([0.3, -1.0, 2.0])


def moments(x):
    """Return the sums over bags of ``x - ORIGIN`` and of its square."""
    xp = array_module(x)
    y = x.astype(np.float64) - xp.asarray(ORIGIN)
    bags = [y[start:stop] for start, stop in zip(STARTS, STOPS, strict=True)]
    return [xp.stack([(bag**power).sum(axis=0) for bag in bags]) for power in (1, 2)]


def mean_and_deviation(x):
    origin = array_module(x).asarray(ORIGIN)
    return average.mean_and_deviation(*moments(x), STOPS - STARTS, origin).astype(x.dtype)


def mean_and_deviation_vjp(g, x):
    xp = array_module(x)
    d_s1, d_s2 = average.mean_and_deviation_vjp(g, *moments(x), STOPS - STARTS)
    owners = xp.asarray(np.repeat(np.arange(len(STARTS)), STOPS - STARTS))
    y = x.astype(np.float64) - xp.asarray(ORIGIN)
    return ((d_s1[owners] + 2 * y * d_s2[owners]).astype(x.dtype),)


OPS = [
    Op(
        "log_joint",
        gaussian.log_joint,
        None,
        lambda rng: (descriptors(rng), *mixture(rng)),
        references.log_joint,
    ),
    Op(
        "log_joint-offset",
        gaussian.log_joint,
        None,
        lambda rng: (descriptors(rng, 20), *offset_mixture(rng)),
        references.log_joint,
    ),
    Op(
        "soft_statistics",
        flat_statistics,
        flat_statistics_vjp,
        lambda rng: (descriptors(rng), *coefficients(rng)),
        lambda *a: references.soft_statistics(a[0], STARTS, STOPS, *a[1:]),
        per_bag=True,
        wide=True,
    ),
    fisher_op("fisher_vector", lambda rng: (descriptors(rng), *mixture(rng))),
    fisher_op("fisher_vector-offset", lambda rng: (descriptors(rng, 20), *offset_mixture(rng))),
    fisher_op(
        "fisher_vector-no-weights",
        lambda rng: (descriptors(rng), *mixture(rng)),
        include_weights=False,
    ),
    *(
        Op(
            "fisher_sums" + name,
            fisher_by_sums,
            fisher_by_sums_vjp,
            arguments,
            lambda *a: references.fisher_vector(a[0], STARTS, STOPS, *a[1:]),
            per_bag=True,
        )
        for name, arguments in [
            ("", lambda rng: (descriptors(rng), *mixture(rng))),
            ("-offset", lambda rng: (descriptors(rng, 20), *offset_mixture(rng))),
        ]
    ),
    logits_op(vlad.distance_logits, vlad.distance_logits_vjp, (3,)),
    logits_op(learned_aggregation.metric_logits, learned_aggregation.metric_logits_vjp, (4, 3)),
    Op(
        "mean_and_deviation",
        mean_and_deviation,
        mean_and_deviation_vjp,
        lambda rng: (descriptors(rng),),
        lambda x: references.mean_and_deviation(x, STARTS, STOPS),
        per_bag=True,
    ),
    vlad_op("vlad", hard=True),
    vlad_op("vlad-soft"),
    vlad_op("vlad-soft-two-moments", moments=2),
    vlad_op("vlad-hard-two-moments", moments=2, hard=True),
    vlad_op("learned_aggregation", metrics=True),
    normalize(0.5),
    normalize(0.3),
    normalize(1.0),
    normalize(0.5, BLOCKS),
    normalize(0.5, eps=0.1),
    normalize(0.3, BLOCKS, eps=0.1),
    map_op("linear_map", reuse=False),
    map_op("tanh_map", reuse=False),
    map_op("tanh_map", reuse=True),
    loss_op("hinge"),
    loss_op("squared_hinge"),
    loss_op("quadratic"),
    loss_op("linear"),
    loss_op("dual", DUALS),
    loss_op("logistic"),
    loss_op("log_loss"),
    regression_loss_op("squared_error"),
    regression_loss_op("epsilon_insensitive", EPSILON),
    regression_loss_op("squared_epsilon_insensitive", EPSILON),
    *MATRIX_OPS,
    *POOLING_OPS,
    *WINDOW_OPS,
    parameter_map("softmax"),
    parameter_map("normalized_sigmoid"),
    parameter_map("floored_exp", floor=0.1),
]
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def arguments_of(op, xp, dtype=np.float64, seed=0):
    return tuple(xp.asarray(a, dtype=dtype) for a in op.arguments(np.random.default_rng(seed)))


@every_op
def test_agrees_with_a_plain_loop(op, xp):
    arguments = arguments_of(op, xp)
    expected = op.reference(*(to_host(a) for a in arguments))
    np.testing.assert_allclose(to_host(op.forward(*arguments)), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("op", [op for op in OPS if op.vjp], ids=lambda op: op.name)
def test_vjp_agrees_with_central_differences(op, xp):
    arguments = arguments_of(op, xp)
    rng = np.random.default_rng(1)
    y = op.forward(*arguments)
    g = xp.asarray(rng.normal(size=y.shape))
    gradients = op.vjp(g, *arguments)
    assert len(gradients) == len(arguments)
    for position, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        assert gradient.shape == argument.shape
        for _ in range(5):
            direction = xp.asarray(rng.normal(size=argument.shape))
            h = 1e-5
            moved = [
                op.forward(
                    *arguments[:position], argument + s * direction, *arguments[position + 1 :]
                )
                for s in (h, -h)
            ]
            difference = float((g * (moved[0] - moved[1])).sum()) / (2 * h)
            # third derivatives times h^2, and rounding over h
            assert float((gradient * direction).sum()) == pytest.approx(
                difference, rel=1e-6, abs=1e-6
            )


@every_op
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_dtype_and_inputs(op, dtype, xp):
    arguments = arguments_of(op, xp, dtype)
    copies = [a.copy() for a in arguments]
    y = op.forward(*arguments)
    assert y.dtype == (np.float64 if op.wide else dtype)
    g = xp.ones_like(y)
    for gradient in op.vjp(g, *arguments) if op.vjp else ():
        assert gradient.dtype == dtype
    assert (g == 1).all()
    for argument, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(to_host(argument), to_host(copy))


@every_op
def test_float32_is_close_to_float64(op, xp):
    wide = arguments_of(op, xp)
    narrow = arguments_of(op, xp, np.float32)
    wide = tuple(n.astype(np.float64) for n in narrow)
    y32, y64 = to_host(op.forward(*narrow)), to_host(op.forward(*wide))
    scale = np.abs(y64).max()
    np.testing.assert_allclose(y32, y64, atol=2e-5 * scale, rtol=0)


per_bag_op = pytest.mark.parametrize("op", [op for op in OPS if op.per_bag], ids=lambda op: op.name)


@per_bag_op
def test_order_inside_a_bag_does_not_matter(op, xp):
    x, *rest = arguments_of(op, xp)
    rng = np.random.default_rng(2)
    order = np.concatenate([a + rng.permutation(b - a) for a, b in zip(STARTS, STOPS, strict=True)])
    y = to_host(op.forward(x, *rest))
    np.testing.assert_allclose(to_host(op.forward(x[order], *rest)), y, rtol=1e-10, atol=1e-12)
    g = xp.asarray(rng.normal(size=y.shape))
    d_x, d_permuted = op.vjp(g, x, *rest)[0], op.vjp(g, x[order], *rest)[0]
    np.testing.assert_allclose(to_host(d_permuted), to_host(d_x)[order], rtol=1e-9, atol=1e-11)


@per_bag_op
def test_neighbours_do_not_matter(op, xp):
    x, *rest = arguments_of(op, xp)
    y = to_host(op.forward(x, *rest))
    moved = x.copy()
    moved[: STARTS[-1]] *= 3  # every bag but the last
    changed = to_host(op.forward(moved, *rest))
    np.testing.assert_allclose(changed[-1], y[-1], rtol=1e-7, atol=1e-12)
    assert np.abs(changed[:-1] - y[:-1]).max() > 1e-3

"""Gradients of the whole chain, from descriptors to the loss, against a reference in plain loops.

The reference knows nothing of gradients: it computes the objective with complex numbers, one
after the other, and the imaginary part of f(p + ih) / h is the derivative, exact to rounding as
nothing is subtracted (Squire and Trapp, 1998). Some results are frozen below, so that library and
reference cannot change together unnoticed.
"""

import cmath

import numpy as np
import pytest

from skfisher import Bags
from skfisher.layers.chain import Chain
from skfisher.layers.feature_map import FeatureMap
from skfisher.layers.fisher import FisherPooling
from skfisher.layers.normalization import PowerL2
from skfisher.training.classification import Classification
from skfisher.training.objective import Problem, batch_gradient
from skfisher.training.recipe import Recipe

K, D_IN, D_OUT = 2, 3, 2
LENGTHS = [1, 4, 6]
SIGNS = np.array([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1]])
FLOOR = np.array([0.02, 0.05])
EPS, ALPHA, STEP = 0.05, 0.1, 1e-30


def wave(shape, *, frequency, phase, size):
    """Return numbers that look random, and are the same with every library."""
    n = int(np.prod(shape))
    return size * np.sin(frequency * np.arange(n) + phase).reshape(shape)


BAGS = Bags.from_lengths(wave((sum(LENGTHS), D_IN), frequency=2.3, phase=0.4, size=0.9), LENGTHS)
PARAMETERS = {
    "map_weight": np.eye(D_OUT, D_IN) + wave((D_OUT, D_IN), frequency=1.7, phase=0.2, size=0.4),
    "map_bias": np.array([0.1, -0.2]),
    "weight_logits": np.array([0.3, -0.5]),
    "means": np.array([[0.3, -0.4], [-0.2, 0.5]]),
    "log_variances": np.log([[0.2, 0.3], [0.15, 0.25]]),
    "coef": wave((3, K * (2 * D_OUT + 1)), frequency=2.9, phase=1.1, size=0.6),
    "intercept": np.array([-0.3, 0.2, 0.1]),
}

HINGES = {
    "squared_hinge": lambda m: (1 - m) ** 2 if m.real < 1 else 0,
    "hinge": lambda m: 1 - m if m.real < 1 else 0,
    "quadratic": lambda m: (1 - m) ** 2,
    "linear": lambda m: -m,
}


def reference(parameters, *, feature_map, weights, loss):
    """Return the objective of all bags, by loops over complex numbers."""
    p = {name: values.tolist() for name, values in parameters.items()}
    if weights == "softmax":
        raw = [cmath.exp(nu) for nu in p["weight_logits"]]
    else:
        raw = [1 / (1 + cmath.exp(-nu)) for nu in p["weight_logits"]]
    shares = [r / sum(raw) for r in raw]
    variances = [
        [floor + cmath.exp(zeta) for floor, zeta in zip(FLOOR.tolist(), row, strict=True)]
        for row in p["log_variances"]
    ]
    total = 0
    for bag, signs in zip(BAGS, SIGNS.tolist(), strict=True):
        mapped = []
        for x in bag.tolist():
            h = [
                sum(w * c for w, c in zip(row, x, strict=True)) + b
                for row, b in zip(p["map_weight"], p["map_bias"], strict=True)
            ]
            mapped.append([cmath.tanh(v) for v in h] if feature_map == "tanh" else h)
        encoding = fisher_vector(mapped, shares, p["means"], variances)
        encoding = [f / (f * f + EPS**2) ** 0.25 for f in encoding]
        length = cmath.sqrt(sum(f * f for f in encoding))
        decision = [
            sum(t * f / length for t, f in zip(row, encoding, strict=True)) + b
            for row, b in zip(p["coef"], p["intercept"], strict=True)
        ]
        if loss == "log_loss":
            own = decision[signs.index(1)]
            total += cmath.log(sum(cmath.exp(f - own) for f in decision))
        else:
            total += sum(HINGES[loss](y * f) for y, f in zip(signs, decision, strict=True))
    return total / len(LENGTHS) + ALPHA * sum(t * t for row in p["coef"] for t in row)


def fisher_vector(bag, shares, means, variances):
    """Sánchez, Perronnin, Mensink and Verbeek (2013), equations (16)-(18), term by term."""
    (k, d), t = (len(means), len(means[0])), len(bag)
    posteriors = []
    for h in bag:
        densities = [shares[i] for i in range(k)]
        for i in range(k):
            for j in range(d):
                v = variances[i][j]
                densities[i] *= cmath.exp(-((h[j] - means[i][j]) ** 2) / (2 * v)) / cmath.sqrt(v)
        posteriors.append([density / sum(densities) for density in densities])
    by_weight, by_mean, by_variance = [], [], []
    for i in range(k):
        root = t * cmath.sqrt(shares[i])
        by_weight.append(sum(q[i] - shares[i] for q in posteriors) / root)
        for j in range(d):
            z = [(h[j] - means[i][j]) / cmath.sqrt(variances[i][j]) for h in bag]
            pairs = list(zip(posteriors, z, strict=True))
            by_mean.append(sum(q[i] * a for q, a in pairs) / root)
            by_variance.append(sum(q[i] * (a * a - 1) for q, a in pairs) / (root * 2**0.5))
    return by_weight + by_mean + by_variance


def complex_step(parameters, **options):
    """Return the objective, and its gradients, one number after the other."""
    gradients = {}
    for name, values in parameters.items():
        gradients[name] = np.empty(values.shape)
        for place in np.ndindex(values.shape):
            moved = values.astype(complex)
            moved[place] += 1j * STEP
            objective = reference({**parameters, name: moved}, **options)
            gradients[name][place] = objective.imag / STEP
    return objective.real, gradients


def library(*, feature_map, weights, loss):
    pooling = FisherPooling(K, weight_map=weights)
    chain = Chain((FeatureMap(feature_map),), pooling, (PowerL2(0.5, EPS),))
    groups = "features", "mixture", "classifier"
    constants = {"variance_floor": FLOOR, "global_variance": np.ones(D_OUT)}
    recipe = Recipe(
        train=groups, task=Classification(loss), solver="adam",
        learning_rate=dict.fromkeys(groups, 1.0),
        schedule="constant", clip_norm=None, batch_size=3, max_iter=1, max_descriptors=None,
        alpha=ALPHA, seed=0,
    )  # fmt: skip
    problem = Problem(BAGS, SIGNS, None)
    return batch_gradient(chain, recipe, PARAMETERS | constants, problem)[:2]


@pytest.mark.parametrize("weights", ["softmax", "sigmoid"])
@pytest.mark.parametrize("feature_map", ["tanh", "linear"])
@pytest.mark.parametrize("loss", [*HINGES, "log_loss"])
def test_gradients_agree_with_complex_steps_through_plain_loops(loss, feature_map, weights):
    options = {"feature_map": feature_map, "weights": weights, "loss": loss}
    objective, expected = complex_step(PARAMETERS, **options)
    found_objective, found = library(**options)
    if loss == "linear":  # its classifier is fitted, not descended on, but has its penalty
        objective -= ALPHA * (PARAMETERS["coef"] ** 2).sum()
        del expected["coef"], expected["intercept"]
    assert found_objective == pytest.approx(objective, rel=1e-13)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            gradient, expected[name], rtol=0, atol=1e-13 * scale, err_msg=name
        )


# Computed once by `complex_step`, rounded to twelve digits; rows of matrices follow each other.
FROZEN = {
    ("squared_hinge", "tanh", "softmax"): {
        "objective": 2.64601541984,
        "map_weight": [
            0.114008469267, 0.180213150071, -0.35415187049, 0.179716322182, 0.0509140183926,
            -0.247561901386,
        ],
        "map_bias": [
            0.164630630737, -0.0298955010765,
        ],
        "weight_logits": [
            -0.118573672103, 0.118573672103,
        ],
        "means": [
            -1.00810060225, 0.803632990453, 0.66478059559, -0.364173361191,
        ],
        "log_variances": [
            -0.117009034454, 0.102951755092, 0.136912941115, 0.0991368445239,
        ],
        "coef": [
            0.20590427233, -0.211799322259, 0.0337403433408, -0.810129161656, -0.0989544974485,
            -0.00839444038228, -0.124269552478, 0.00436901751968, -0.262688895251,
            0.266699050412, 0.0538706734759, -0.0883522792056, 0.138937819021, 0.222850443416,
            0.0211395027535, -0.0210719865972, -0.22416535687, -0.20052788976, 0.12381314942,
            -0.013139616786, 0.326762913552, -0.407465066084, 0.593083614479, 0.430636787829,
            0.329621480881, -0.286917521054, -0.196486732482, -0.489330020941, 0.319309713511,
            -0.102490405953,
        ],
        "intercept": [
            0.175535147886, 0.569116397022, 1.24962605171,
        ],
    },
    ("log_loss", "linear", "sigmoid"): {
        "objective": 1.31731409416,
        "map_weight": [
            -0.113537651949, 0.511120703642, -0.567557285684, -0.055342070351, 0.115050917558,
            -0.0979692648399,
        ],
        "map_bias": [
            0.370759498753, -0.0899348857783,
        ],
        "weight_logits": [
            -0.00365322837236, 0.00534354624044,
        ],
        "means": [
            -0.598242243138, 0.213788536395, 0.227482744385, -0.123853650616,
        ],
        "log_variances": [
            -0.0305210919984, -0.0189321544174, 0.0369124405979, 0.0149587873421,
        ],
        "coef": [
            0.056726250341, -0.0349640908812, -0.0287135441526, -0.222221167292,
            -0.0491334101013, 0.044995260308, -0.0436927682889, 0.219650734095, -0.152390153899,
            0.113042498943, -0.0661789930398, 0.0644485224603, -0.0625419436858,
            0.0861758689969, -0.0534015924855, 0.0422250726682, -0.0561831590621,
            0.0049663454745, 0.0162904881183, -0.018998012436, 0.0670633775852,
            -0.0890129914011, 0.14924433539, 0.0829643680826, 0.147624880243, -0.121700172516,
            0.121743013163, -0.232601291063, 0.129737250654, -0.0737049971781,
        ],
        "intercept": [
            -0.107108866787, 0.0255597762941, 0.0815490904933,
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("case", FROZEN, ids="-".join)
def test_gradients_are_those_of_before(case):
    loss, feature_map, weights = case
    expected = FROZEN[case]
    objective, found = library(loss=loss, feature_map=feature_map, weights=weights)
    assert objective == pytest.approx(expected["objective"], rel=1e-11)
    assert found.keys() == expected.keys() - {"objective"}
    for name, gradient in found.items():
        np.testing.assert_allclose(
            gradient.ravel(), expected[name], rtol=1e-10, atol=1e-11, err_msg=name
        )

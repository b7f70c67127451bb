"""The operations once more as plain loops over samples and components."""

import math
import statistics

import numpy as np
import scipy.linalg
from scipy.special import expit, logsumexp
from scipy.stats import norm


def log_joint(x, weights, means, variances):
    return np.array(
        [
            [
                math.log(w) + norm.logpdf(row, m, np.sqrt(v)).sum()
                for w, m, v in zip(weights, means, variances, strict=True)
            ]
            for row in np.asarray(x, dtype=np.float64)
        ]
    )


def posteriors(x, weights, means, variances):
    logits = log_joint(x, weights, means, variances)
    return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))


def soft_statistics(x, starts, stops, linear, quadratic, constant):
    out = []
    for start, stop in zip(starts, stops, strict=True):
        s0, s1, s2 = np.zeros(len(constant)), np.zeros(linear.shape), np.zeros(linear.shape)
        for row in x[start:stop]:
            logits = linear @ row + quadratic @ row**2 + constant
            g = np.exp(logits - logsumexp(logits))
            s0 += g
            s1 += np.outer(g, row)
            s2 += np.outer(g, row**2)
        out.append(np.concatenate([s0, s1.ravel(), s2.ravel()]))
    return np.array(out)


def fisher_vector(x, starts, stops, weights, means, variances, *, include_weights=True):
    deviations = np.sqrt(variances)
    out = []
    for start, stop in zip(starts, stops, strict=True):
        bag = np.asarray(x[start:stop], dtype=np.float64)
        gamma = posteriors(bag, weights, means, variances)
        f_w, f_means, f_variances = [], [], []
        for k, w in enumerate(weights):
            z = (bag - means[k]) / deviations[k]
            f_w.append(np.mean(gamma[:, k] - w) / math.sqrt(w))
            f_means.append(np.mean(gamma[:, [k]] * z, axis=0) / math.sqrt(w))
            f_variances.append(np.mean(gamma[:, [k]] * (z**2 - 1), axis=0) / math.sqrt(2 * w))
        blocks = [*f_means, *f_variances]
        out.append(np.concatenate([f_w, *blocks] if include_weights else blocks))
    return np.array(out)


def mean_and_deviation(x, starts, stops):
    out = []
    for start, stop in zip(starts, stops, strict=True):
        columns = x[start:stop].T.tolist()
        out.append([*map(statistics.fmean, columns), *map(statistics.pstdev, columns)])
    return np.array(out)


def distances(row, centers, metric):
    metrics = np.broadcast_to(metric, centers.shape)
    return np.array([math.fsum(p * (row - c) ** 2) for c, p in zip(centers, metrics, strict=True)])


def distance_logits(centers, metric):
    """Return linear and constant by the values of the square at 0 and along the axes."""
    d = centers.shape[1]
    at_zero = -distances(np.zeros(d), centers, metric)
    along = np.stack([-distances(axis, centers, metric) for axis in np.eye(d)], axis=1)
    return along - at_zero[:, None] + metric, at_zero


def metric_logits(centers, metrics):
    linear, constant = distance_logits(centers, metrics)
    return linear, -metrics, constant


def vlad(x, starts, stops, centers, metric, *, moments=1, hard=False):
    out = []
    for start, stop in zip(starts, stops, strict=True):
        blocks = np.zeros((moments, *centers.shape))
        for row in np.asarray(x[start:stop], dtype=np.float64):
            logits = -distances(row, centers, metric)
            a = softmax(logits)
            if hard:
                a = np.arange(len(centers)) == logits.argmax()
            for k, c in enumerate(centers):
                for m in range(moments):
                    blocks[m, k] += a[k] * (row - c) ** (m + 1)
        out.append(blocks.ravel())
    return np.array(out)


def power_l2_normalize(x, power, blocks=None, eps=None):
    out = []
    for row in x:
        if eps is None:
            u = np.sign(row) * np.abs(row) ** power
        else:
            u = np.array([value / math.hypot(value, eps) ** (1 - power) for value in row])
        if blocks is not None:
            for label in np.unique(blocks):
                u[blocks == label] /= np.linalg.norm(u[blocks == label])
        out.append(u / np.linalg.norm(u))
    return np.array(out)


def softmax(z):
    return np.exp(z - logsumexp(z))


def normalized_sigmoid(z):
    return expit(z) / expit(z).sum()


def floored_exp(z, *, floor):
    return np.array([floor + math.exp(value) for value in z])


def linear_map(x, weight, bias):
    return np.array([[math.fsum(w * row) + b for w, b in zip(weight, bias, strict=True)]
                     for row in x])  # fmt: skip


def tanh_map(x, weight, bias):
    return np.vectorize(math.tanh)(linear_map(x, weight, bias))


PHI = {
    "hinge": lambda m: max(0.0, 1 - m),
    "squared_hinge": lambda m: max(0.0, 1 - m) ** 2,
    "quadratic": lambda m: (1 - m) ** 2,
    "linear": lambda m: -m,
    "logistic": lambda m: math.log(1 + math.exp(-m)),
}


def loss(name, decision, signs, weights, duals=None):
    if name == "dual":
        return loss("linear", decision, signs, weights * duals)
    out = []
    for row, y, w in zip(decision, signs, weights, strict=True):
        if name == "log_loss":
            truth = np.flatnonzero(y > 0)[0]
            out.append(w[truth] * (logsumexp(row) - row[truth]))
        else:
            out.append(sum(w[c] * PHI[name](y[c] * row[c]) for c in range(len(row))))
    return np.array(out)


def regression_loss(name, decision, targets, weights, epsilon=None):
    n, k = decision.shape
    out = np.zeros(n)
    for i in range(n):
        for j in range(k):
            error = abs(decision[i, j] - targets[i, j])
            if epsilon is not None:
                error = max(0.0, error - epsilon[j])
            out[i] += weights[i, j] * (error if name == "epsilon_insensitive" else error * error)
    return out


def second_order_sums(x, starts, stops, shift):
    out = []
    for start, stop in zip(starts, stops, strict=True):
        bag = np.asarray(x[start:stop], dtype=np.float64) - shift
        s2 = sum(np.outer(row, row) for row in bag)
        out.append(np.concatenate([bag.sum(axis=0), s2.ravel()]))
    return np.array(out)


def bag_moments(s1, s2, counts):
    means = [s / n for s, n in zip(s1, counts, strict=True)]
    covariances = [s / n - np.outer(m, m) for s, n, m in zip(s2, counts, means, strict=True)]
    return np.array(
        [np.append(m, c.ravel()) for m, c in zip(means, covariances, strict=True)]
    )  # fmt: skip


def matrix_function(p, *, function, power=None):
    if function == "log":
        return scipy.linalg.funm(p, np.log)
    return scipy.linalg.fractional_matrix_power(p, power)


def newton_schulz(p, *, n_iter, scaling):
    c = np.trace(p) if scaling == "trace" else np.linalg.norm(p)
    y, z = p / c, np.eye(len(p))
    for _ in range(n_iter):
        m = (3 * np.eye(len(p)) - z @ y) / 2
        y, z = y @ m, m @ z
    return math.sqrt(c) * y


def matrix_norm(p, norm):
    if norm == "trace":
        return np.trace(p)
    return np.linalg.norm(p, {"frobenius": "fro", "spectral": 2}[norm])


def gaussian_embedding(means, covariances):
    out = []
    for mean, covariance in zip(means, covariances, strict=True):
        top = np.hstack([covariance + np.outer(mean, mean), mean[:, None]])
        out.append(np.vstack([top, np.append(mean, 1)]))
    return np.array(out)


def triangle(p):
    return np.array(
        [p[i, j] * (1 if i == j else math.sqrt(2)) for i in range(len(p)) for j in range(i, len(p))]
    )

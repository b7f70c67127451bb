"""Fisher vectors and EM against what others publish and implement, and against plain loops."""

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from skfisher import (
    Bags,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    PowerL2Normalizer,
)
from skfisher.datasets import load_digits_patches, load_fsdd


def plain_posteriors(descriptor, weights, means, variances):
    """Bayes' rule, in logarithms, one component and one dimension after the other."""
    logs = []
    for k in range(len(weights)):
        terms = [math.log(weights[k])]
        for x, mean, variance in zip(descriptor, means[k], variances[k], strict=True):
            terms.append(-0.5 * math.log(2 * math.pi * variance))
            terms.append(-((x - mean) ** 2) / (2 * variance))
        logs.append(math.fsum(terms))
    shares = [math.exp(log - max(logs)) for log in logs]
    return [share / math.fsum(shares) for share in shares]


def plain_fisher_vector(bag, weights, means, variances):
    """Sánchez, Perronnin, Mensink and Verbeek (2013), equations (16)-(18), term by term."""
    bag = np.asarray(bag, dtype=np.float64)
    (k, d), t = means.shape, len(bag)
    posteriors = [plain_posteriors(x, weights, means, variances) for x in bag]
    by_weight, by_mean, by_variance = [], [], []
    for i in range(k):
        root = math.sqrt(weights[i])
        by_weight.append(math.fsum(p[i] - weights[i] for p in posteriors) / (t * root))
        for j in range(d):
            sigma = math.sqrt(variances[i, j])
            z = [(x[j] - means[i, j]) / sigma for x in bag]
            pairs = list(zip(posteriors, z, strict=True))
            by_mean.append(math.fsum(p[i] * a for p, a in pairs) / (t * root))
            by_variance.append(
                math.fsum(p[i] * (a * a - 1) for p, a in pairs) / (t * root * math.sqrt(2))
            )
    return np.array(by_weight + by_mean + by_variance)


def vlfeat_fisher_vector(bag, weights, means, variances):
    """Write u and v as VLFeat 0.9.21 documents them: all u_k, then all v_k, no weights."""
    bag = np.asarray(bag, dtype=np.float64)
    z = (bag[:, None, :] - means) / np.sqrt(variances)
    q = np.array([plain_posteriors(x, weights, means, variances) for x in bag])
    n = len(bag)
    u = [q[:, k] @ z[:, k] / (n * np.sqrt(weights[k])) for k in range(len(weights))]
    v = [q[:, k] @ (z[:, k] ** 2 - 1) / (n * np.sqrt(2 * weights[k])) for k in range(len(weights))]
    return np.concatenate(u + v)


def made_up():
    """Overlapping clusters off the origin, dimensions of different scales, bags of all sizes."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 5)) * 2
    bags = [
        (centers[rng.integers(4, size=n)] + rng.normal(size=(n, 5))) * [1, 10, 0.1, 3, 1] + 7
        for n in (1, 2, 40, 17, 150, 3, 60)
    ]
    return Bags.from_list(bags)


def digits():
    """Patches of images: bounded, full of zeros and of repeated values."""
    return load_digits_patches(patch_size=3, step=2).data[:200]


CASES = {"made up": (made_up, 4), "digits": (digits, 6)}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    load, n_components = CASES[request.param]
    bags = load()
    mixture = GaussianMixture(
        n_components, covariance_type="diag", random_state=0, reg_covar=1e-3, max_iter=20, tol=0.1
    ).fit(bags.pack().values)
    return bags, mixture


def encode(bags, mixture, **parameters):
    return FisherVectorEncoder(mixture=mixture, **parameters).fit_transform(bags)


def parameters_of(mixture):
    return mixture.weights_, mixture.means_, mixture.covariances_


def test_float64_agrees_with_plain_loops(case):
    bags, mixture = case
    bags = bags[:20]
    expected = [plain_fisher_vector(bag, *parameters_of(mixture)) for bag in bags]
    np.testing.assert_allclose(encode(bags, mixture), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("power", [1, 0.5])
def test_float32_agrees_with_plain_loops_once_normalised(case, power):
    bags, mixture = case
    # rounding the input is no error of the encoder, so the loops get the rounded input
    bags = Bags(bags.values.astype(np.float32), bags.starts, bags.stops)[:20]
    expected = np.array([plain_fisher_vector(bag, *parameters_of(mixture)) for bag in bags])
    normalizer = PowerL2Normalizer(power)
    found = normalizer.fit_transform(encode(bags, mixture))
    assert found.dtype == np.float32
    expected = np.sign(expected) * np.abs(expected) ** power
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_agrees_with_scikit_image(case):
    feature = pytest.importorskip("skimage.feature")
    bags, mixture = case
    found = encode(bags, mixture)
    k, d = mixture.means_.shape
    # Its last block is minus the gradient by the standard deviations, hence the sign.
    sign = np.repeat([1, 1, -1], [k, k * d, k * d])
    expected = np.array([feature.fisher_vector(bag, mixture) for bag in bags])
    np.testing.assert_allclose(found, sign * expected, rtol=1e-10, atol=1e-10)
    improved = np.array([feature.fisher_vector(bag, mixture, improved=True) for bag in bags])
    # The square root makes 1e-8 of a rounding error of 1e-16 in an entry that should be 0.
    normalised = PowerL2Normalizer().fit_transform(found)
    np.testing.assert_allclose(normalised, sign * improved, rtol=1e-8, atol=1e-7)


def test_agrees_with_the_formula_and_order_of_vlfeat(case):
    bags, mixture = case
    bags = bags[:20]
    found = encode(bags, mixture, include_weights=False)
    expected = [vlfeat_fisher_vector(bag, *parameters_of(mixture)) for bag in bags]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_is_the_gradient_of_the_mean_log_likelihood(case):
    # Perronnin and Dance (2007): the gradient of scikit-learn's score by means and deviations,
    # by central differences, times the root of the inverse diagonal Fisher information
    bags, mixture = case
    bag = next(bag for bag in bags if len(bag) > 1)
    found = encode([bag], mixture, include_weights=False)[0]
    weights, means, variances = parameters_of(mixture)
    sigmas, (k, d) = np.sqrt(variances), means.shape

    def score(means, sigmas):
        copy = GaussianMixture(k, covariance_type="diag")
        copy.weights_, copy.means_, copy.covariances_ = weights, means, sigmas**2
        copy.precisions_cholesky_ = 1 / sigmas
        return copy.score(bag)

    slopes = np.empty((2, k, d))
    for i, j in np.ndindex(k, d):
        step = np.zeros((k, d))
        step[i, j] = 1e-5 * sigmas[i, j]
        width = 2 * step[i, j]
        slopes[0, i, j] = (score(means + step, sigmas) - score(means - step, sigmas)) / width
        slopes[1, i, j] = (score(means, sigmas + step) - score(means, sigmas - step)) / width
    slopes *= sigmas / np.sqrt(weights)[:, None]
    slopes[1] /= np.sqrt(2)
    np.testing.assert_allclose(found, slopes.ravel(), atol=1e-7 * np.abs(slopes).max())


def test_spoken_digits_agree_with_plain_loops(data_folder):
    bags = load_fsdd(data_home=data_folder).data[::270]
    encoder = FisherVectorEncoder(n_components=4, random_state=0).fit(bags)
    parameters = encoder.weights_, encoder.means_, encoder.variances_
    some = bags[:3]
    expected = np.array([plain_fisher_vector(bag, *parameters) for bag in some])
    exact = encoder.transform(Bags(some.values.astype(np.float64), some.starts, some.stops))
    np.testing.assert_allclose(exact, expected, rtol=1e-10, atol=1e-10)
    length = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.transform(some) / length, expected / length, atol=1e-5)


@pytest.mark.parametrize("load", [made_up, digits])
@pytest.mark.parametrize("n_iterations", [1, 7, 25])
def test_em_agrees_with_scikit_learn_from_the_same_start(load, n_iterations):
    bags = load()
    # principal axes, so that no component collapses onto a plane of equal values
    x = PCA(3).fit_transform(bags.pack().values)
    bags = Bags.from_lengths(x, bags.lengths)
    k = 3
    start = {
        "weights_init": np.array([0.2, 0.3, 0.5]),
        "means_init": np.random.default_rng(0).choice(x, k, replace=False),
        "precisions_init": np.tile(1 / x.var(axis=0), (k, 1)),
    }
    peer = GaussianMixture(
        k, covariance_type="diag", reg_covar=0, tol=0, max_iter=n_iterations, **start
    )
    with pytest.warns(UserWarning, match="did not converge"):
        peer.fit(x)

    beginning = GaussianMixture(k, covariance_type="diag")
    beginning.weights_, beginning.means_ = start["weights_init"], start["means_init"]
    beginning.covariances_ = 1 / start["precisions_init"]
    beginning.converged_, beginning.n_iter_, beginning.lower_bound_ = False, 0, -np.inf
    ours = DiagonalGaussianMixture.from_sklearn(beginning).set_params(
        max_iter=n_iterations, tol=0, variance_floor=1e-12, warm_start=True
    )
    with pytest.warns(UserWarning, match="raise max_iter"):
        ours.fit(bags)
    assert ours.n_iter_ == peer.n_iter_ == n_iterations
    np.testing.assert_allclose(ours.weights_, peer.weights_, rtol=1e-8)
    np.testing.assert_allclose(ours.means_, peer.means_, rtol=1e-8, atol=1e-8 * x.std())
    np.testing.assert_allclose(ours.variances_, peer.covariances_, rtol=1e-8)
    np.testing.assert_allclose(ours.score_samples(bags), peer.score_samples(x), rtol=1e-8)
    # theirs too is of the parameters before the last M-step
    assert ours.lower_bound_ == pytest.approx(peer.lower_bound_, rel=1e-8)

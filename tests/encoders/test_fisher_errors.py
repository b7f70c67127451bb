"""What FisherVectorEncoder says of bad input and parameters, before any work."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skfisher import (
    Bags,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
)


def encoder(n_components=3, **parameters):
    return FisherVectorEncoder(n_components, random_state=0, **parameters)


GOOD = [np.random.default_rng(i).normal(size=(5, 3)) for i in range(4)]


def among_good(position, bag):
    return [*GOOD[:position], bag, *GOOD[position:]]


def spoiled(value, descriptor):
    bag = GOOD[0].copy()
    bag[descriptor, 1] = value
    return bag


BAD = {
    "no bags": ([], ValueError, "X holds 0 sample"),
    "no bags, 3-D": (np.empty((0, 5, 3)), ValueError, "X holds 0 sample"),
    "no bags, Bags": (Bags(np.ones((2, 3)), [], []), ValueError, "X holds 0 sample"),
    "an empty bag": (among_good(2, np.empty((0, 3))), ValueError, r"X\[2\] is empty.*Drop it"),
    "an empty list": (among_good(1, []), ValueError, r"X\[1\] is empty.*Drop it"),
    "an empty bag, Bags": (
        Bags(np.ones((3, 3)), [0, 1, 1], [1, 1, 3]),
        ValueError,
        r"X\[1\] is empty",
    ),
    "a vector": (
        among_good(1, np.ones(3)),
        ValueError,
        r"X\[1\] has shape \(3,\), but a bag is a two-dimensional.*write X\[1\]\[None, :\]",
    ),
    "a cube": (
        among_good(3, np.ones((2, 2, 3))),
        ValueError,
        r"X\[3\] has shape \(2, 2, 3\), but a bag is a two-dimensional",
    ),
    "4-D": (np.ones((2, 2, 2, 3)), ValueError, "X has 4 dimensions"),
    "another width": (
        among_good(2, np.ones((5, 4))),
        ValueError,
        r"X\[2\] has 4 features per descriptor, but X\[0\] has 3: all bags must have the same",
    ),
    "NaN": (
        among_good(2, spoiled(np.nan, 3)),
        ValueError,
        r"X\[2\] contains NaN in descriptor 3",
    ),
    "infinity": (
        among_good(1, spoiled(-np.inf, 4)),
        ValueError,
        r"X\[1\] contains infinity in descriptor 4",
    ),
    "NaN, 3-D": (
        np.array([GOOD[0], spoiled(np.nan, 2)]),
        ValueError,
        r"X\[1\] contains NaN in descriptor 2",
    ),
    "infinity, float16": (
        [GOOD[0].astype(np.float16), spoiled(np.inf, 0).astype(np.float16)],
        ValueError,
        r"X\[1\] contains infinity in descriptor 0",
    ),
    "complex": (
        among_good(1, 1j * GOOD[0]),
        ValueError,
        r"Complex data not supported: X\[1\] has dtype complex128",
    ),
    "complex, 3-D": (1j * np.array(GOOD), ValueError, "Complex data not supported: X has dtype"),
    "strings": (
        among_good(1, np.full((2, 3), "a")),
        TypeError,
        r"X\[1\] has dtype <U1, but real numbers are needed",
    ),
    "strings, 3-D": (np.full((2, 2, 3), "a"), TypeError, "X has dtype <U1"),
    "objects": (
        among_good(1, np.full((2, 3), "a", object)),
        TypeError,
        r"X\[1\] has dtype object and is not all numbers: it holds 'a' at \[0, 0\]",
    ),
    "dates": (among_good(1, np.zeros((2, 3), "M8[s]")), TypeError, r"X\[1\] has dtype datetime64"),
    "sparse": (
        among_good(2, sparse.csr_array(GOOD[0])),
        TypeError,
        r"X\[2\] is sparse, but a dense array is needed. Write X\[2\].toarray\(\)",
    ),
    "all sparse": (
        sparse.csr_matrix(GOOD[0]),
        TypeError,
        r"X is sparse, .* X.toarray\(\)",
    ),
    "a dict": ({"a": GOOD[0]}, TypeError, "X is a dict: pass a list of 2-D arrays"),
    "an iterator": (iter(GOOD), TypeError, "X is a list_iterator: pass a list of 2-D arrays"),
}


@pytest.fixture
def fitted():
    return encoder(2).fit(GOOD)


@pytest.fixture
def no_work(fitted, monkeypatch):
    """Fail where clusters, EM or encoding begin."""

    def reached(*args, **kwargs):
        raise AssertionError("work was begun")

    for name in ("global_moments", "draw_rows", "initial_mixture", "em_iterations"):
        monkeypatch.setattr(f"skfisher.codebooks.fitting.{name}", reached)
    monkeypatch.setattr("skfisher.codebooks.fitting.stepwise_update", reached)
    monkeypatch.setattr("skfisher.encoders.encoder.encode_bags", reached)
    for X in (GOOD, np.array(GOOD)):  # the traps are where good input goes
        for method in (encoder(2).fit, encoder(2).partial_fit, fitted.transform):
            with pytest.raises(AssertionError, match="work was begun"):
                method(X)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_any_work(case, fitted):
    X, error, words = BAD[case]
    for method in (encoder(2).fit, encoder(2).partial_fit, fitted.partial_fit, fitted.transform):
        with pytest.raises(error, match=words):
            method(X)


@pytest.mark.usefixtures("no_work")
def test_bad_input_to_an_encoder_with_a_mixture():
    mixture = GaussianMixture(2, covariance_type="diag").fit(np.vstack(GOOD))
    for X, error, words in BAD.values():
        with pytest.raises(error, match=words):
            FisherVectorEncoder(mixture=mixture).fit(X)


@pytest.mark.usefixtures("no_work")
def test_another_width_at_transform(fitted):
    words = r"X\[0\] has 4 features per descriptor, but FisherVectorEncoder is expecting 3"
    for X in ([np.ones((2, 4))], np.ones((2, 2, 4))):
        for method in (fitted.transform, fitted.partial_fit):
            with pytest.raises(ValueError, match=words):
                method(X)


@pytest.mark.usefixtures("no_work")
def test_a_table_after_bags(fitted):
    words = r"X is two-dimensional, but FisherVectorEncoder was fitted on bags: write \[X\] if"
    for X in (GOOD[0], GOOD[0].tolist(), np.ones((2, 4))):
        with pytest.raises(ValueError, match=words):
            fitted.transform(X)


@pytest.mark.usefixtures("no_work")
def test_too_few_descriptors():
    words = (
        "n_components=21 needs at least 21 descriptors to fit, got 20 in n_samples=4 bags: lower"
    )
    for method in (encoder(21).fit, encoder(21).partial_fit):
        with pytest.raises(ValueError, match=words):
            method(GOOD)
    with pytest.raises(ValueError, match=words):
        FisherVectorEncoder(mixture=DiagonalGaussianMixture(21)).fit(GOOD)


@pytest.mark.usefixtures("no_work")
def test_not_fitted():
    with pytest.raises(NotFittedError):
        encoder().transform(GOOD)
    with pytest.raises(NotFittedError):
        encoder().get_feature_names_out()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "values"),
    {
        "n_components": [0, -1, 2.5, "2", None],
        "max_iter": [0, 1.5, "a", None],
        "variance_floor": [0, 1, -1, np.nan, "x"],
        "max_descriptors": [0, 1.5, "all"],
        "normalize": ["l2", True],
        "n_jobs": [1.5, "two"],
        "random_state": [-1, "s"],
        "include_weights": ["no", None],
        "mixture": [3, "gmm"],
        "device": [0, "gpu", "cuda:x"],
    }.items(),
)
def test_bad_parameters_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name}(' parameter of Fisher|={value!r} is not)"):
            encoder(2).set_params(**{name: value}).fit(GOOD)


def test_fewer_descriptors_asked_for_than_components():
    words = "max_descriptors=2 leaves fewer descriptors than n_components=3: raise it"
    with pytest.raises(ValueError, match=words):
        encoder(3, max_descriptors=2).fit(GOOD)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("mixture", "error", "words"),
    [
        (KMeans(2), TypeError, "mixture is a KMeans: pass a DiagonalGaussianMixture or a sklearn"),
        (FrozenEstimator(KMeans(2)), TypeError, "mixture is a KMeans"),
        (GaussianMixture(2), ValueError, "covariance_type='full': Fisher vectors need diagonal"),
        (FrozenEstimator(DiagonalGaussianMixture(2)), NotFittedError, "not fitted yet"),
        (DiagonalGaussianMixture(0), ValueError, "'n_components' parameter of DiagonalGauss"),
        (DiagonalGaussianMixture(2, tol=-1), ValueError, "'tol' parameter of DiagonalGaussianM"),
        (
            DiagonalGaussianMixture(2, init_params="random"),
            ValueError,
            "'init_params' parameter of DiagonalGaussianM",
        ),
        (
            GaussianMixture(2, covariance_type="diag").fit(np.eye(4)),
            ValueError,
            r"X\[0\] has 3 features per descriptor, but mixture was fitted on 4",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_mixture_is_named(mixture, error, words):
    with pytest.raises(error, match=words):
        FisherVectorEncoder(mixture=mixture).fit(GOOD)


def test_not_converging_says_what_to_do():
    with pytest.warns(match="EM did not gain less than tol=0 within max_iter=2.*raise max_iter"):
        DiagonalGaussianMixture(2, tol=0, max_iter=2, random_state=0).fit(GOOD)


def test_an_encoder_asks_for_no_convergence(recwarn):
    encoder(2, max_iter=1).fit(GOOD)
    assert not recwarn

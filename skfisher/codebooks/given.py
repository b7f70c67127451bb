"""Mixtures and clusterers that are given to an estimator, ours or scikit-learn's."""

from numbers import Integral

from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import check_is_fitted

from skfisher.codebooks.em import Mixture
from skfisher.codebooks.fitting import MixtureFitter
from skfisher.codebooks.parameters import parameters_of

__all__ = ["is_fitted_mixture", "mixture_of", "number_to_fit", "unfrozen"]


def unfrozen(estimator):
    """Return an estimator that is wrapped to survive clones, or any other as it is."""
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def is_fitted_mixture(estimator):
    """Tell whether a diagonal mixture, ours or scikit-learn's, is fitted; it may be frozen.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If its covariances are not diagonal.
    sklearn.exceptions.NotFittedError
        If it is frozen, but not fitted.
    """
    is_frozen, estimator = isinstance(estimator, FrozenEstimator), unfrozen(estimator)
    if not isinstance(estimator, MixtureFitter | GaussianMixture):
        raise TypeError(
            f"mixture is a {type(estimator).__name__}: pass a DiagonalGaussianMixture or a "
            "sklearn.mixture.GaussianMixture(covariance_type='diag')."
        )
    if isinstance(estimator, GaussianMixture) and estimator.covariance_type != "diag":
        raise ValueError(
            f"mixture has covariance_type={estimator.covariance_type!r}: Fisher vectors need "
            "diagonal covariances, GaussianMixture(covariance_type='diag')."
        )
    is_fitted = any(hasattr(estimator, name) for name in ("weights_", "means_"))
    if is_frozen and not is_fitted:
        check_is_fitted(estimator)
    return is_fitted


def mixture_of(estimator):
    """Return the parameters of a fitted diagonal mixture, ours or scikit-learn's.

    Raises
    ------
    TypeError, ValueError
        If it is no diagonal mixture, or its parameters are none of a mixture.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """
    is_fitted, estimator = is_fitted_mixture(estimator), unfrozen(estimator)
    if not is_fitted:
        check_is_fitted(estimator)
    return Mixture(*(p.copy() for p in parameters_of(estimator, "mixture.")))


def number_to_fit(estimator, name):
    """Return the parameter `name` of an estimator, or 1 where it is no number of components."""
    number = getattr(estimator, name, None)
    return number if isinstance(number, Integral) else 1

r"""Transformers of scikit-learn that moments of descriptors determine, fitted by one pass.

With the mean :math:`\mu` and the covariance :math:`C` of N descriptors, ``StandardScaler`` holds
:math:`\mu` and the diagonal of :math:`C`; ``PCA`` holds :math:`\mu`, the eigenvectors of
:math:`C`, and its eigenvalues times :math:`N / (N - 1)`.
"""

from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from skfisher.arrays.libraries import float_dtype
from skfisher.codebooks.moments import second_moments
from skfisher.process_state import one_blas_thread

__all__ = ["fitted_to_moments"]


def fitted_to_moments(transformer, bags, where):
    """Return a clone of a transformer, fitted to all descriptors by their moments.

    Parameters
    ----------
    transformer : transformer of scikit-learn
    bags : Bags
    where : Where

    Returns
    -------
    fitted : transformer, or None if moments do not determine it
    """
    dtype = float_dtype(bags.dtype)
    if type(transformer) is StandardScaler:
        return _scaler(clone(transformer), second_moments(bags, where))
    if type(transformer) is PCA and transformer.n_components != "mle":
        pca = clone(transformer)
        pca.n_components_ = _n_components(pca, bags)
        return _pca(pca, second_moments(bags, where, products=True), dtype)
    return None


def _scaler(scaler, moments):
    variance = moments.variance
    constant = variance == 0  # exactly, as sums are about one of the descriptors
    scaler.n_features_in_, scaler.n_samples_seen_ = len(moments.mean), moments.count
    scaler.mean_ = moments.mean if scaler.with_mean or scaler.with_std else None
    scaler.var_ = variance if scaler.with_std else None
    scaler.scale_ = np.where(constant, 1.0, np.sqrt(variance)) if scaler.with_std else None
    return scaler


@one_blas_thread
def _pca(pca, moments, dtype):
    n, d = moments.count, len(moments.mean)
    variances, vectors = np.linalg.eigh(moments.covariance * (n / max(n - 1, 1)))
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1].T
    largest = np.abs(vectors).argmax(axis=1)
    vectors = vectors * np.sign(vectors[np.arange(d), largest])[:, None]  # as scikit-learn has it
    shares = variances / (variances.sum() or 1.0)
    k = pca.n_components_
    if isinstance(k, Real) and not isinstance(k, Integral):  # a share of the variance
        k = int(np.searchsorted(np.cumsum(shares), k, side="right")) + 1
    k = min(k, d)
    pca.n_samples_, pca.n_features_in_, pca.n_components_ = n, d, k
    pca.noise_variance_ = dtype.type(variances[k:].mean() if k < d else 0.0)
    found = {
        "mean_": moments.mean,
        "components_": np.ascontiguousarray(vectors[:k]),
        "explained_variance_": variances[:k],
        "explained_variance_ratio_": shares[:k],
        "singular_values_": np.sqrt(variances[:k] * (n - 1)),
    }
    vars(pca).update({name: values.astype(dtype) for name, values in found.items()})
    return pca


def _n_components(pca, bags):
    """Return how many components are asked for, or which share of the variance."""
    most = min(bags.n_descriptors, bags.n_features)
    k = most if pca.n_components is None else pca.n_components
    if not (0 <= k <= most if isinstance(k, Integral) else 0 < k < 1):
        raise ValueError(
            f"n_components={k} must be an integer between 0 and {most}, the smaller of "
            f"n_descriptors={bags.n_descriptors} and n_features={bags.n_features}, or a share of "
            "the variance between 0 and 1."
        )
    return k

"""Ridge regression of encodings, by scikit-learn's closed form."""

import numpy as np
from sklearn.linear_model import Ridge

from skfisher.process_state import configured

__all__ = ["fit_ridge"]


@configured(array_api_dispatch=False, assume_finite=True)
def fit_ridge(encodings, targets, weights, *, C):
    r"""Fit a ridge regression to every column of targets.

    .. math:: \tfrac{1}{2} \lVert \theta \rVert^2 + C \sum_i \omega_i (\theta^\top x_i + b - t_i)^2

    The intercept is not regularised.

    Parameters
    ----------
    encodings : array of shape (n, n_features)
    targets : array of shape (n, n_targets)
    weights : array of shape (n, n_targets) or None
        Weight of each sample, the same in every column.
    C : float
        Inverse strength of regularisation; ``alpha`` of scikit-learn's ``Ridge`` is ``1 / (2 C)``.

    Returns
    -------
    coef : float64 array of shape (n_targets, n_features)
    intercept : float64 array of shape (n_targets,)
    """
    model = Ridge(alpha=1 / (2 * C), solver="cholesky")
    weights = None if weights is None else weights[:, 0]
    model.fit(encodings.astype(np.float64, copy=False), targets, sample_weight=weights)
    return np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)

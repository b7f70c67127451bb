"""Logistic regression of encodings, by scikit-learn's solver L-BFGS."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from skfisher.parallel.threads import map_in_order
from skfisher.process_state import configured

__all__ = ["fit_logistic"]


def fit_logistic(encodings, signs, weights, *, joint, C, n_jobs=None):
    """Fit a logistic regression to the columns of signs.

    Parameters
    ----------
    encodings : array of shape (n, n_features)
    signs : array of shape (n, n_columns)
        1 and -1.
    weights : array of shape (n, n_columns) or None
        Weight of each sample in each column; if `joint`, that in the column of its class counts.
    joint : bool
        Whether the columns are classes of which a sample has one, with one softmax over all; if
        not, each is a regression of its own.
    C : float
        Inverse strength of regularisation.
    n_jobs : int or None
        Number of threads; it does not change the result.

    Returns
    -------
    coef : float64 array of shape (n_columns, n_features)
    intercept : float64 array of shape (n_columns,)
        A column of one sign has coefficients 0 and that sign as its intercept.
    """
    if joint:
        owner = signs.argmax(axis=1)
        own = None if weights is None else weights[np.arange(len(signs)), owner]
        coef, intercept = np.zeros((signs.shape[1], encodings.shape[1])), np.zeros(signs.shape[1])
        found, parts = _fit(encodings, owner, own, C)
        if len(found) == 2:  # of more classes, the others without a sample
            halves = parts[0] / 2, parts[1] / 2
            parts = np.vstack([-halves[0], halves[0]]), np.hstack([-halves[1], halves[1]])
        coef[found], intercept[found] = parts
        return coef, intercept
    tasks = [
        (encodings, signs[:, c], None if weights is None else weights[:, c], C)
        for c in range(signs.shape[1])
    ]
    coef, intercept = zip(*map_in_order(_fit_column, tasks, n_jobs=n_jobs), strict=True)
    return np.array(coef), np.array(intercept)


def _fit_column(encodings, signs, weights, C):
    if (signs == signs[0]).all():
        return np.zeros(encodings.shape[1]), float(signs[0])
    _, (coef, intercept) = _fit(encodings, signs, weights, C)
    return coef[0], float(intercept[0])


@configured(array_api_dispatch=False, assume_finite=True)
def _fit(encodings, labels, weights, C):
    model = LogisticRegression(C=C, max_iter=1000)
    model.fit(encodings, labels, sample_weight=weights)
    coef, intercept = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    return model.classes_, (coef, intercept)

"""Linear SVMs of encodings, one for each column of signs, by scikit-learn's LIBLINEAR."""

import numpy as np
from sklearn import config_context
from sklearn.svm import LinearSVC

from skfisher.parallel.threads import map_in_order

__all__ = ["fit_columns"]


def fit_columns(encodings, signs, weights, *, C, loss, seed, n_jobs=None):
    """Fit a linear SVM to every column of signs.

    Parameters
    ----------
    encodings : array of shape (n, n_features)
    signs : array of shape (n, n_columns)
        1 and -1.
    weights : array of shape (n, n_columns) or None
        Weight of each sample in each column.
    C : float
        Inverse strength of regularisation.
    loss : {"squared_hinge", "hinge"}
    seed : int
        Of LIBLINEAR's order of samples.
    n_jobs : int or None
        Number of threads; it does not change the result.

    Returns
    -------
    coef : float64 array of shape (n_columns, n_features)
    intercept : float64 array of shape (n_columns,)
        A column of one sign has coefficients 0 and that sign as its intercept.
    """
    tasks = [
        (encodings, signs[:, c], None if weights is None else weights[:, c], C, loss, seed)
        for c in range(signs.shape[1])
    ]
    coef, intercept = zip(*map_in_order(_fit_column, tasks, n_jobs=n_jobs), strict=True)
    return np.array(coef), np.array(intercept)


def _fit_column(encodings, signs, weights, C, loss, seed):
    if (signs == signs[0]).all():
        return np.zeros(encodings.shape[1]), float(signs[0])
    # the dual is the only form of the hinge, and the faster one where features outnumber samples
    dual = loss == "hinge" or len(encodings) < encodings.shape[1]
    svm = LinearSVC(C=C, loss=loss, dual=dual, max_iter=10_000, random_state=seed)
    with config_context(array_api_dispatch=False, assume_finite=True):
        svm.fit(encodings, signs, sample_weight=weights)
    return svm.coef_[0], float(svm.intercept_[0])

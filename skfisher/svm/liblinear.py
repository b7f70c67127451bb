"""Linear SVMs of encodings, one for each column of signs, the same bits whatever else runs.

LIBLINEAR's Newton method draws no random numbers. Its dual coordinate descent shuffles samples by
one generator for the whole process, from which every fit in any other thread draws as well: where
the dual is the only form or the faster one, it is maximised by our own ascent.
"""

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from skfisher.parallel.threads import map_in_order
from skfisher.process_state import configured
from skfisher.svm.sdca import dual_coordinate_ascent
from skfisher.warning import warn_caller

__all__ = ["fit_columns"]

TOLERANCE = 1e-4
MAX_PASSES = 1000


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
        Of the order of samples.
    n_jobs : int or None
        Number of threads; it does not change the result.

    Returns
    -------
    coef : float64 array of shape (n_columns, n_features)
    intercept : float64 array of shape (n_columns,)
        A column of one sign has coefficients 0 and that sign as its intercept.
    """
    coef = np.zeros((signs.shape[1], encodings.shape[1]))
    intercept = signs[0].astype(np.float64)
    mixed = np.flatnonzero((signs != signs[0]).any(axis=0))
    if len(mixed) == 0:
        return coef, intercept
    costs = np.full(signs.shape, C) if weights is None else C * weights
    problem = encodings.astype(np.float64, copy=False), signs[:, mixed], costs[:, mixed]
    # the dual is the only form of the hinge, and the faster one where features outnumber samples
    solution = None
    if loss == "hinge" or len(encodings) < encodings.shape[1]:
        solution = _ascend(*problem, loss, seed)
    if solution is None:
        solution = _descend(*problem, n_jobs)
    coef[mixed], intercept[mixed] = solution
    return coef, intercept


def _ascend(encodings, signs, costs, loss, seed):
    """Return coefficients and intercepts, or None if another solver should be asked."""
    solution = dual_coordinate_ascent(
        encodings, signs, costs, loss=loss, tol=TOLERANCE, max_iter=MAX_PASSES, seed=seed
    )
    if solution.gap > TOLERANCE:
        if loss == "squared_hinge":
            return None
        warn_caller(
            f"The support vector machine stopped after {MAX_PASSES} passes, up to "
            f"{100 * solution.gap:.2g} % above its optimum: lower C, or take the squared hinge.",
            ConvergenceWarning,
        )
    return solution.coef, solution.intercept


def _descend(encodings, signs, costs, n_jobs):
    """Return coefficients and intercepts for the squared hinge, columns side by side."""
    tasks = [(encodings, *column) for column in zip(signs.T, costs.T, strict=True)]
    coef, intercept = zip(*map_in_order(_descend_column, tasks, n_jobs=n_jobs), strict=True)
    return np.array(coef), np.array(intercept)


@configured(array_api_dispatch=False, assume_finite=True)
def _descend_column(encodings, signs, costs):
    svm = LinearSVC(dual=False, max_iter=10_000)
    svm.fit(encodings, signs, sample_weight=costs)
    return svm.coef_[0], float(svm.intercept_[0])

"""Linear SVMs of encodings, one for each column of signs, the same bits whatever else runs.

LIBLINEAR's dual coordinate descent shuffles samples by one generator for the whole process, from
which every fit in any other thread draws as well. Our own solver draws from none but its own.
"""

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skfisher.svm.solver import fit_linear_svms
from skfisher.warning import warn_caller

__all__ = ["fit_columns"]

TOLERANCE = 1e-5
MAX_PASSES = 1000


def fit_columns(encodings, signs, weights, *, C, loss, seed):
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
    solution = fit_linear_svms(
        encodings.astype(np.float64, copy=False), signs[:, mixed], costs[:, mixed],
        loss=loss, tol=TOLERANCE, max_iter=MAX_PASSES, seed=seed,
    )  # fmt: skip
    if not solution.gap <= TOLERANCE:
        warn_caller(
            f"The support vector machine stopped after {solution.n_iter} passes, up to "
            f"{100 * solution.gap:.2g} % above its optimum: lower C.",
            ConvergenceWarning,
        )
    coef[mixed], intercept[mixed] = solution.coef, solution.intercept
    return coef, intercept

r"""Linear support vector regression of encodings, the same bits whatever else runs.

For each column of targets ``t``, with costs ``c`` of the samples and ``x`` augmented by a constant
whose weight is the intercept,

.. math:: P(\theta) = \tfrac{1}{2} \lVert \theta \rVert^2
                      + \sum_i c_i \, \phi(\lvert \theta^\top x_i - t_i \rvert - \varepsilon),

with :math:`\phi(r) = \max(0, r)` or its square. A sample is two of a support vector machine, for it
may lie on either side of the tube: one whose sign is 1 and whose margin is to reach
:math:`t_i - \varepsilon`, one whose sign is -1 and whose margin is to reach
:math:`-t_i - \varepsilon`.

LIBLINEAR's coordinate descent for these losses draws from one generator for the whole process, from
which fits in other threads draw as well; the interior point method draws nothing.

Source: Drucker et al. (1997); Ho and Lin (2012), equations 1 to 3.
"""

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skfisher.process_state import one_blas_thread
from skfisher.svm.interior_point import InteriorPoint
from skfisher.svm.sdca import relative_gap
from skfisher.svm.systems import reduced
from skfisher.warning import warn_caller

__all__ = ["fit_support_vector_regressions"]

HINGES = {"epsilon_insensitive": "hinge", "squared_epsilon_insensitive": "squared_hinge"}
TOLERANCE = 1e-5
MAX_STEPS = 200


@one_blas_thread
def fit_support_vector_regressions(encodings, targets, weights, *, C, epsilon, loss):
    """Fit a linear support vector regression to every column of targets.

    Parameters
    ----------
    encodings : array of shape (n, n_features)
    targets : array of shape (n, n_targets)
    weights : array of shape (n, n_targets) or None
        Weight of each sample in each column.
    C : float
        Inverse strength of regularisation.
    epsilon : float array of shape (n_targets,)
        Half the width of the tube of each column.
    loss : {"epsilon_insensitive", "squared_epsilon_insensitive"}

    Returns
    -------
    coef : float64 array of shape (n_targets, n_features)
    intercept : float64 array of shape (n_targets,)
    """
    rotation, x = reduced(encodings.astype(np.float64, copy=False))
    above = np.ones_like(targets)
    costs = C * (above if weights is None else weights)
    method = InteriorPoint(
        np.concatenate([x, x]), np.concatenate([above, -above]), np.concatenate([costs, costs]),
        loss=HINGES[loss], required=np.concatenate([targets - epsilon, -targets - epsilon]),
    )  # fmt: skip
    for _ in range(MAX_STEPS):
        gap = relative_gap(*method.objectives())
        if gap < TOLERANCE or method.stuck:
            break
        method.advance(TOLERANCE)
    if not gap <= TOLERANCE:
        warn_caller(
            f"The support vector regression stopped up to {100 * gap:.2g} % above its optimum: "
            "lower C.",
            ConvergenceWarning,
        )
    coef, intercept = method.model()
    return coef if rotation is None else coef @ rotation.T, intercept

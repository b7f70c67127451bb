"""Warnings that point at the user's own line, however many decorators lie between."""

import sys
import warnings

__all__ = ["warn_caller"]

PASSED_OVER = {"skfisher", "sklearn", "joblib"}


def warn_caller(message, category=UserWarning):
    """Warn as if from the first line up the stack that is neither ours nor scikit-learn's."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in PASSED_OVER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

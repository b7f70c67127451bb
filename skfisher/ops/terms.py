"""What all losses have in common: terms that are weighted and summed over the columns."""

from skfisher.arrays.libraries import array_module

__all__ = ["cast", "weighed"]


def cast(values, decision):
    """Return targets or weights in the dtype of the decision values, which they must not widen."""
    return array_module(decision).asarray(values, dtype=decision.dtype)


def weighed(terms, slopes, weights):
    """Return the losses of samples and their gradient by the decision values.

    Parameters
    ----------
    terms : array of shape (n, n_columns)
    slopes : array of shape (n, n_columns)
        Derivatives of the terms by the decision values.
    weights : array that broadcasts to (n, n_columns), or None
        Factors of the terms.

    Returns
    -------
    losses : array of shape (n,)
    d_decision : array of shape (n, n_columns)
    """
    if weights is not None:
        weights = cast(weights, terms)
        terms, slopes = terms * weights, slopes * weights
    return terms.sum(axis=1), slopes

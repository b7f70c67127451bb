"""Errors about numbers, or squares of numbers, that floating point does not hold."""

import numpy as np

__all__ = ["check_encodings", "check_spread", "place_of"]


def check_spread(origin, total, squares, count, name="X"):
    """Refuse descriptors whose squares are not finite, or nothing although they differ.

    Parameters
    ----------
    origin : float64 array of shape (n_features,)
        One of the descriptors.
    total, squares : float64 arrays of shape (n_features,)
        Sums over descriptors, of their differences from `origin` and of the squares of these.
    count : int
        Number of descriptors.
    name : str, default="X"
        What messages call the bags.

    Raises
    ------
    ValueError
        Naming the feature.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        variance = squares / count - (total / count) ** 2
        far = ~np.isfinite(origin**2)
    wrong = ~np.isfinite(variance) | ((squares < np.finfo(np.float64).tiny) & (total != 0))
    if wrong.any():
        j = int(wrong.argmax())
        size = np.nan_to_num(abs(total[j] / count), nan=np.inf)
        raise ValueError(
            f"{name} varies by about {size:.0e} in feature {j}: its square is out of the "
            "range of float64. Rescale the descriptors."
        )
    if far.any():
        j = int(far.argmax())
        raise ValueError(
            f"{name} lies at about {origin[j]:.0e} in feature {j}: its square is out of the "
            "range of float64. Subtract what the descriptors have in common."
        )


def place_of(row, bags):
    """Return the bag and the descriptor in it of a row, counted over all bags."""
    stops = np.cumsum(bags.lengths)
    i = int(np.searchsorted(stops, row, side="right"))
    return i, row - int(stops[i] - bags.lengths[i])


def check_encodings(encodings, name="X"):
    """Refuse encodings that are not finite, of bags with a descriptor far from all others.

    Parameters
    ----------
    encodings : array of shape (n_bags, n_features_out)
    name : str, default="X"
        What messages call the bags.

    Returns
    -------
    encodings : array
        As given.

    Raises
    ------
    ValueError
        Naming the bag.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = encodings.sum()  # finite only if all are
    if not np.isfinite(total):
        finite = np.isfinite(encodings).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{name}[{int(finite.argmin())}] has a descriptor so far from those of the fit "
                f"that its encoding overflows {encodings.dtype}. Is it a fill value? Drop it, "
                "or pass float64."
            )
    return encodings

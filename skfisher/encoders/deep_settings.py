"""What the parameters of a deep Fisher network have to be, beyond their types."""

from numbers import Integral

from sklearn.utils import get_tags

__all__ = ["check_settings", "check_stacks", "check_trainable", "check_unchanged", "form_of"]

# Windows in a stack. Each adds some dozens of numbers to its rows, whose covariance is found.
MOST_BESIDE = 256


def check_settings(encoder):
    """Return the components of both mixtures; raise ValueError for what makes no sense.

    Parameters
    ----------
    encoder : DeepFisherEncoder

    Returns
    -------
    n_local, n_global : int
    """
    pair = encoder.n_components
    pair = (pair, pair) if isinstance(pair, Integral) else tuple(pair)
    if len(pair) != 2 or not all(isinstance(n, Integral) and n >= 1 for n in pair):
        raise ValueError(
            f"n_components={encoder.n_components!r}: give the components of the mixture of "
            "descriptors and of that of windows, such as (16, 16)."
        )
    if encoder.n_positions == 1:
        raise ValueError(
            "n_positions=1: it is 0 for series, whose descriptors are in order, or 2 where the "
            "last two columns of a descriptor are its x and y."
        )
    if tuple(encoder.layers) not in ((1,), (2,), (1, 2)):
        raise ValueError(f"layers={encoder.layers!r}: take (1,), (2,) or (1, 2).")
    n_beside = encoder.stack ** (2 if encoder.n_positions else 1)
    if n_beside > MOST_BESIDE:
        raise ValueError(
            f"stack={encoder.stack} puts {n_beside} windows side by side, but {MOST_BESIDE} is the "
            "most: lower it."
        )
    cell = encoder.cell
    if cell is not None and not encoder.n_positions and cell != int(cell):
        raise ValueError(
            f"cell={cell!r}: a cell of a series is a number of descriptors. Give a whole number, "
            "or n_positions=2 if descriptors have positions."
        )
    return pair


def form_of(encoder):
    """Return the parameters that what was fitted depends on, by name.

    Parameters
    ----------
    encoder : DeepFisherEncoder
    """
    return {"n_positions": encoder.n_positions, "stack": encoder.stack}


def check_unchanged(encoder):
    """Raise ValueError if a fitted encoder has parameters that what was fitted does not allow.

    Parameters
    ----------
    encoder : DeepFisherEncoder
    """
    encoder._validate_params()
    check_settings(encoder)
    if 2 not in encoder.layers:
        return
    if encoder.global_ is None:
        raise ValueError(f"layers={encoder.layers!r}, but fit was for (1,) alone: fit again.")
    for name, value in form_of(encoder).items():
        fitted = encoder._form[name]
        if value != fitted:
            raise ValueError(f"{name}={value!r}, but fit was with {name}={fitted!r}: fit again.")


def check_trainable(encoder):
    """Return the components of both mixtures; raise ValueError for what cannot be trained.

    Parameters
    ----------
    encoder : DeepFisherEncoder

    Returns
    -------
    n_local, n_global : int
    """
    n_components = check_settings(encoder)
    if 2 not in encoder.layers:
        raise ValueError(
            f"layers={encoder.layers!r} has no second layer to train: take (2,) or (1, 2), or a "
            "FisherVectorEncoder."
        )
    for name in ("projection", "reduction"):
        transformer = getattr(encoder, name)
        if transformer is not None and get_tags(transformer).target_tags.required:
            raise ValueError(
                f"{name}={transformer!r} learns from labels, but joint training starts without "
                "them: leave it None for PCA, which training goes on from."
            )
    return n_components


def check_stacks(encoder, n_components, n_stacks):
    """Raise ValueError if there are fewer stacks of windows than a second mixture needs.

    Parameters
    ----------
    encoder : DeepFisherEncoder
    n_components : int
        Of the second mixture.
    n_stacks : int array of shape (n_bags,)
    """
    n_least, n_found = max(2, n_components), int(n_stacks.sum())
    if min(n_found, encoder.max_windows) >= n_least:
        return
    found, remedy = f"max_windows={encoder.max_windows}", "raise max_windows"
    if n_found < n_least:
        found = f"{n_found} in n_samples={len(n_stacks)} bags"
        remedy = "take layers=(1,), or pass more data"
    raise ValueError(
        f"n_components={encoder.n_components!r} needs at least {n_least} stacks of windows to fit "
        f"its second mixture, got {found}: lower n_components, or {remedy}."
    )

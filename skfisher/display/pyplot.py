"""matplotlib, where it is installed, and how pictures show the texts of users."""

__all__ = ["PLAIN_TEXT", "axes_of", "import_pyplot"]

# Names that users give are shown as they are: a dollar sign begins no formula.
PLAIN_TEXT = {"parse_math": False, "usetex": False}


def import_pyplot(display):
    """Return ``matplotlib.pyplot``, or say what a display needs.

    Parameters
    ----------
    display : type
        The class that draws.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{display.__name__} needs matplotlib, which is not installed. Install skfisher[plot]."
        ) from error
    return plt


def axes_of(display, ax=None, **figure):
    """Return the axes to draw on: those given, or those of a new figure.

    Parameters
    ----------
    display : object
        What draws.
    ax : matplotlib Axes or None
    **figure
        Passed to matplotlib's ``subplots``, if a figure is made.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    plt = import_pyplot(type(display))
    return plt.subplots(layout="constrained", **figure)[1] if ax is None else ax

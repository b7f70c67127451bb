"""matplotlib, where it is installed, and how pictures show the texts of users."""

__all__ = ["PLAIN_TEXT", "import_pyplot"]

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

"""Paths that users give, and errors that name the file."""

import contextlib
import os
from collections.abc import Iterator

from skfisher.arrays.dense import describe, listed

__all__ = ["are_paths", "naming", "read_paths"]


@contextlib.contextmanager
def naming(path):
    """Name the file in whatever error its reader raises."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path} cannot be read: {kind}{error}") from error


def are_paths(x):
    """Tell whether most members of a list of samples are paths."""
    if not isinstance(x, list | tuple):
        return False
    return 2 * sum(isinstance(member, str | os.PathLike) for member in x) > len(x)


def read_paths(paths, name="paths"):
    """Return paths as a list of strings, each of a file that is there.

    Parameters
    ----------
    paths : iterable of str or path-like
    name : str, default="paths"
        What messages call them.

    Raises
    ------
    TypeError
        If it is one path, or holds something else.
    ValueError
        If there are none.
    FileNotFoundError
        If there is no such file.
    """
    of = "paths, one per file"
    if isinstance(paths, str | bytes | os.PathLike):
        raise TypeError(f"{name} is {str(paths)!r}: pass a list of {of}.")
    paths = listed(list(paths) if isinstance(paths, Iterator) else paths, name, of=of)
    if not isinstance(paths, list | tuple):
        raise TypeError(f"{name} is {describe(paths)}: pass a list of {of}.")
    if len(paths) == 0:
        raise ValueError(f"{name} holds no paths: at least 1 is needed.")
    for i, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"{name}[{i}] is {describe(path)}, but others are paths.")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{name}[{i}] is {os.fspath(path)!r}, which is not a file.")
    return [os.fspath(path) for path in paths]

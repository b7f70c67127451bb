"""Arrays that look into memory-mapped files."""

import mmap
import os
from typing import NamedTuple

import numpy as np

from skfisher.bags.file_rows import FileRows
from skfisher.warning import warn_caller

__all__ = ["MappedFile", "by_path", "file_of", "has_path", "is_mapped", "sendable"]

# Bytes of mapped descriptors that are not sent without a warning.
LARGE = 2**26
# Of the folders where joblib keeps, for as long as a call takes, arrays that its workers map.
OF_JOBLIB = "joblib_memmapping_folder_"


class MappedFile(NamedTuple):
    """An array in a file, by its path and place: what reaches processes that see the same file."""

    path: str
    dtype: np.dtype
    offset: int
    shape: tuple
    size: int  # of the file
    written: int  # when it was last written to, in nanoseconds

    @classmethod
    def of(cls, array):
        """Return the file that a memory map looks into; `array` is one that `has_path`."""
        owner = _owner(array)
        owner.flush()  # what was written to it; the file then has the time of that
        path = os.path.abspath(owner.filename)
        status = os.stat(path)
        offset = owner.offset + array.ctypes.data - owner.ctypes.data
        return cls(path, array.dtype, offset, array.shape, status.st_size, status.st_mtime_ns)

    def open(self):
        """Return the array, mapped again, if the file is here and is the same.

        Raises
        ------
        FileNotFoundError, ValueError
            If it is not.
        """
        remedy = (
            "Keep the file where every process finds it, at one path; or load bags by "
            "Bags.load(folder, mmap_mode=None), and their descriptors are pickled."
        )
        try:
            status = os.stat(self.path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.path}, which these bags are mapped from, is not here. {remedy}"
            ) from error
        if (status.st_size, status.st_mtime_ns) != (self.size, self.written):
            raise ValueError(
                f"{self.path}, which these bags are mapped from, is another file here, or was "
                f"changed. {remedy}"
            )
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def is_mapped(array):
    """Tell whether an array is, or looks into, memory-mapped files.

    The type says little: a memory map that was pickled is a `numpy.memmap` without a file.
    """
    return isinstance(array, FileRows) or _owner(array) is not None


def file_of(array):
    """Return the name of the file that an array looks into, or None if that is not known."""
    filename = getattr(_owner(array), "filename", None)
    return None if filename is None else os.fspath(filename)


def sendable(array):
    """Return an array that reaches another process with the values it has here.

    joblib sends a memory map, or a view of one, as the name of the file and a place in it,
    which is right only for rows side by side in a file that holds all that was written.
    Reversed or transposed views, and pages that belong to this process alone, are copied.

    Parameters
    ----------
    array : array

    Returns
    -------
    array : array
        The same, or a copy in memory; a warning says so if that is large.
    """
    owner = _owner(array)
    if owner is None or _is_what_its_file_holds(array, owner):
        return array
    if array.nbytes > LARGE:
        warn_caller(
            f"{array.nbytes / 2**20:.0f} MiB of mapped descriptors are copied to be sent or "
            "pickled, as their file does not hold them in this form: save these bags and load them "
            "again.",
            UserWarning,
        )
    return np.array(array, order="C")


def has_path(array):
    """Tell whether an array is found by the path of its file, also after a call of joblib's."""
    owner = _owner(array)
    return (
        owner is not None
        and _is_what_its_file_holds(array, owner)
        and OF_JOBLIB not in os.fspath(owner.filename)
    )


def by_path(array):
    """Return an array in a file as a `MappedFile` if it has a path, else as `sendable` does."""
    return MappedFile.of(array) if has_path(array) else sendable(array)


def _is_what_its_file_holds(array, owner):
    return (
        isinstance(owner, np.memmap)
        and owner.mode != "c"
        and owner.filename is not None
        and os.path.isfile(owner.filename)
        # joblib reads the file in the order of the map, not of the view.
        and array.flags.c_contiguous
        and (owner.ndim == 1 or not owner.flags.f_contiguous or array.flags.f_contiguous)
    )


def _owner(array):
    """Return the array at the bottom of a view that holds the map of a file, or None."""
    while array is not None:
        base = getattr(array, "base", None)
        if isinstance(base, mmap.mmap):
            return array
        array = base
    return None

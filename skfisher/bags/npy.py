"""One plain ``.npy`` file: written in blocks, opened only if it is what its header says."""

import hashlib
import io
import itertools
import math
import os

import numpy as np

from skfisher.arrays.libraries import to_host

__all__ = ["open_npy", "read_header", "write_npy"]


def write_npy(path, blocks, dtype, shape):
    """Write an array to a new file, and wait until the disk holds it.

    Parameters
    ----------
    path : Path
        No file yet.
    blocks : iterable of arrays
        The array, cut along its first axis.
    dtype : dtype
    shape : tuple of int

    Returns
    -------
    sha256 : str
        Checksum of the whole file, as the program ``sha256sum`` prints it.
    """
    header, digest = io.BytesIO(), hashlib.sha256()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype.str, "fortran_order": False, "shape": shape}
    )
    with open(path, "xb") as file:
        for part in itertools.chain([header.getvalue()], map(_as_bytes, blocks)):
            file.write(part)
            digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _as_bytes(block):
    return np.ascontiguousarray(to_host(block)).reshape(-1).view(np.uint8)


def open_npy(path, mmap_mode, *, sha256=None):
    """Open an array of real numbers, whatever its file holds.

    Sizes are compared before memory is asked for.

    Parameters
    ----------
    path : Path
    mmap_mode : {"r", "c", "r+", None}
        As in :func:`numpy.load`.
    sha256 : str, default=None
        The checksum that the file must have.

    Returns
    -------
    array : ndarray or memmap

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such an array, or has another checksum.
    """
    if not path.is_file() and path.exists():
        raise ValueError(f"{path} is not a file.")
    # by a string, which a memory map then has for its file name
    with open(os.fspath(path), "r+b" if mmap_mode == "r+" else "rb") as file:
        dtype, shape, order = read_header(file, path)
        offset, size = file.tell(), math.prod(shape)
        found = os.fstat(file.fileno()).st_size - offset
        if found != size * dtype.itemsize:
            raise _not_plain(
                path,
                f"its header says {dtype} of shape {shape!r:.60}, but {found} bytes follow it",
            )
        if sha256 is not None:
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{path} was changed after it was saved: its checksum differs.")
            file.seek(offset)
        try:
            if size == 0:  # an empty file cannot be mapped
                return np.empty(shape, dtype, order)
            if mmap_mode is None:
                return np.fromfile(file, dtype, size).reshape(shape, order=order)
            return np.memmap(file, dtype, mmap_mode, offset, shape, order)
        except (OverflowError, ValueError) as error:  # no rows, and more columns than there can be
            raise _not_plain(path, error) from error


def read_header(file, path):
    """Return dtype, shape and order of an array, and leave the file where the array begins.

    Parameters
    ----------
    file : file open for reading
    path : Path
        What messages call it.

    Raises
    ------
    ValueError
        If it does not begin as an array of real numbers does.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
    except OSError:
        raise
    except Exception as error:  # it is Python source, and each way of being none has its error
        raise _not_plain(path, f"{type(error).__name__}: {error}") from error
    if dtype.kind not in "buif":
        raise _not_plain(path, f"it holds {dtype}, not real numbers")
    if min(shape, default=0) < 0:
        raise _not_plain(path, f"its shape is {shape!r:.60}")
    return dtype, tuple(map(int, shape)), "F" if fortran_order else "C"


def _not_plain(path, reason):
    return ValueError(f"{path} cannot be read as a plain .npy file: {reason}")

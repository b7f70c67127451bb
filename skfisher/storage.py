"""Bags as plain ``.npy`` files in a folder, written and opened in bounded memory."""

import os
from pathlib import Path

import numpy as np

from skfisher.backend import to_host

__all__ = ["read_folder", "write_folder"]


def write_folder(folder, blocks, dtype, n_features, lengths):
    """Write ``values.npy`` and ``lengths.npy``, or leave what was there if that fails.

    Parameters
    ----------
    folder : str or path-like
        Created if missing.
    blocks : iterable of arrays of shape (_, n_features)
        The descriptors, in order.
    dtype : dtype
    n_features : int
    lengths : ndarray of int64
        Number of descriptors of each bag.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (int(lengths.sum()), n_features),
    }
    # Written beside and moved into place: the old file may be the one being read. Both are
    # complete before the first is moved.
    beside = {name: folder / f"{name}.{os.getpid()}.tmp" for name in ("values", "lengths")}
    try:
        with open(beside["values"], "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                to_host(block).tofile(file)
        with open(beside["lengths"], "wb") as file:
            np.save(file, lengths, allow_pickle=False)
        for name, path in beside.items():
            os.replace(path, folder / f"{name}.npy")
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


def read_folder(folder, mmap_mode):
    """Open what `write_folder` wrote.

    Returns
    -------
    values : ndarray or memmap of shape (n, n_features)
    lengths : ndarray of shape (n_bags,)

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or holds Python objects.
    """
    folder = Path(folder)
    return _read(folder / "values.npy", mmap_mode), _read(folder / "lengths.npy", None)


def _read(path, mmap_mode):
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: Bags.save writes values.npy and lengths.npy to a folder."
        )
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a plain .npy file: {error}") from error

"""One shard: the descriptors of a folder that `Bags.save` wrote, read by plain reads of its file.

A map would count towards the memory of the process for as long as it is open, be filled far beyond
the rows that are asked for, and end the process if the file got shorter; a read does none of these.
Every save writes a file of a new name, so what was opened is what is read, or an error says what
happened to it.
"""

import itertools
import math
import os
from typing import NamedTuple

import numpy as np

from skfisher.arrays.exact import first_inexact, inexact
from skfisher.bags.files import MANIFEST, read_arrays, read_entries

__all__ = ["Shard", "check_rows", "open_shard"]

# Rows that are nearer to each other are read at once, which takes no longer than to skip a page.
NEAR_BYTES = 2**12
# But not more at a time, whatever is asked for.
RUN_BYTES = 2**20


class Shard(NamedTuple):
    """What is known of the descriptors of a folder without reading them."""

    folder: str
    file: str  # a name that no other save gives
    sha256: str  # the checksums of its two files
    dtype: np.dtype
    shape: tuple
    offset: int  # bytes before the first descriptor
    written: int  # when the file was last written to, in nanoseconds
    n_bags: int

    def read(self, first, last):
        """Return rows `first` to `last`, a new array."""
        with self._open() as file:
            return self._read(file, first, last)

    def take(self, rows):
        """Return some rows, given by an array of ascending numbers, and read no others."""
        found, places = np.empty((len(rows), self.shape[1]), self.dtype), rows * self._row_bytes
        is_far = np.diff(places) > self._row_bytes + NEAR_BYTES
        is_far |= np.diff(places // RUN_BYTES) > 0
        borders = [0, *(np.flatnonzero(is_far) + 1).tolist(), len(rows)]
        with self._open() as file:
            for i, j in itertools.pairwise(borders):
                first, last = int(rows[i]), int(rows[j - 1]) + 1
                found[i:j] = self._read(file, first, last)[rows[i:j] - first]
        return found

    @property
    def _row_bytes(self):
        return self.shape[1] * self.dtype.itemsize

    def _read(self, file, first, last):
        rows = np.empty((last - first, self.shape[1]), self.dtype)
        file.seek(self.offset + first * self._row_bytes)
        left = memoryview(rows.reshape(-1).view(np.uint8))
        while len(left):  # the system reads some gigabytes at a time
            n_bytes = file.readinto(left)
            if not n_bytes:
                raise self.changed()
            left = left[n_bytes:]
        return rows

    def _open(self):
        """Open the file, if it is as it was when the shard was opened."""
        path = os.path.join(self.folder, self.file)
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115, the caller closes it
        except FileNotFoundError as error:
            if os.path.exists(os.path.join(self.folder, MANIFEST)):
                raise self.changed() from error
            raise FileNotFoundError(f"the shard {self.folder} does not exist any more.") from error
        status = os.fstat(file.fileno())
        size = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if (status.st_size, status.st_mtime_ns) != (size, self.written):
            file.close()
            raise self.changed()
        return file

    def changed(self):
        """Return the error that says that the shard was changed."""
        return ValueError(
            f"the shard {self.folder} was changed after it was opened: open the shards again, and "
            "start again what had read it before."
        )


def open_shard(folder, *, verify=False):
    """Open a shard.

    Parameters
    ----------
    folder : str or path-like
    verify : bool
        Whether to read the descriptors and compare their checksum.

    Returns
    -------
    shard : Shard
    lengths : int64 array of shape (n_bags,)

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it holds no manifest or not the files that this names.
    ValueError
        If the files are damaged, or hold no bags.
    """
    folder = os.path.abspath(folder)
    modes = {"values": "r", "lengths": None}
    while True:
        entries = read_entries(folder, modes)
        if entries is None:
            found = "holds no manifest.json" if os.path.isdir(folder) else "does not exist"
            raise FileNotFoundError(f"the shard {folder} {found}: a shard is what Bags.save wrote.")
        arrays, _ = read_arrays(folder, modes, verify=modes if verify else ["lengths"])
        if read_entries(folder, modes) == entries:  # else it was replaced meanwhile
            break
    values, lengths = arrays["values"], arrays["lengths"]
    _check_bags(folder, values, lengths)
    file = entries["values"].file
    status = os.stat(os.path.join(folder, file))
    offset = status.st_size - values.size * values.dtype.itemsize
    sha256 = entries["values"].sha256 + entries["lengths"].sha256
    shard = Shard(
        folder, file, sha256, values.dtype, values.shape, offset, status.st_mtime_ns, len(lengths)
    )  # fmt: skip
    return shard, lengths.astype(np.int64)


def _check_bags(folder, values, lengths):
    fault = None
    if values.ndim != 2 or lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        fault = f"arrays of shapes {values.shape} and {lengths.shape}"
    elif lengths.min(initial=0) < 0 or sum(lengths.tolist()) != len(values):
        fault = f"{len(values)} descriptors, which is not what the lengths of its bags add up to"
    elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
        fault = f"{values.dtype}, which is wider than float64"
    if fault is not None:
        raise ValueError(f"the shard {folder} holds {fault}: it is not a shard of bags.")


def check_rows(rows, folder, numbers):
    """Refuse NaN, infinity and integers that float64 does not hold.

    Parameters
    ----------
    rows : array
    folder : str
        Of their shard.
    numbers : sequence of int
        Of each row in it.
    """
    if rows.dtype.kind != "f":
        where = first_inexact(rows) if rows.dtype.itemsize == 8 else None
        if where is not None:
            place = f"feature {where[1]} of descriptor {numbers[where[0]]} of the shard {folder}"
            raise inexact(rows[where], place)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # finite only if all are; sums of float16 would not be
        total = rows.sum(dtype=np.float32 if rows.dtype.itemsize == 2 else None)
    if not math.isfinite(total):
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            what = "NaN" if np.isnan(rows[row]).any() else "infinity"
            raise ValueError(f"the shard {folder} contains {what} in descriptor {numbers[row]}.")

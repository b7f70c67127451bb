"""Arrays that belong together, in a folder: replaced as one step, read as one set.

A save writes each array to a file of its own, ``NAME-TOKEN.npy``, with a token that no other save
has, and names the files in ``manifest.json``, which it moves into place last. So a reader, or the
next program after a crash, finds all arrays of one save, and of the last that finished.

While it runs, a save holds a lock on ``save-TOKEN.lock``, which the operating system takes from it
when it dies. Files that the manifest does not name belong to a save that is over as soon as
their lock can be had; the next save deletes them. No save waits for another.
"""

import contextlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import NamedTuple

from skfisher.bags.npy import open_npy, write_npy

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

__all__ = ["MANIFEST", "read_arrays", "read_entries", "write_arrays"]

MANIFEST = "manifest.json"
FORMAT, VERSION = "skfisher arrays", 1
MANIFEST_BYTES = 2**20
TOKEN = "[0-9a-f]{32}"


class Entry(NamedTuple):
    """What the manifest says about an array."""

    file: str
    dtype: str
    shape: list[int]
    sha256: str


def write_arrays(folder, arrays):
    """Replace the arrays in a folder by others: all of them, or none if that fails.

    Memory is that of a block. Any number of threads and processes may write to the folder at a
    time: the last to finish wins. What killed writers left is deleted, and so are the arrays
    that were replaced, except on Windows while a program has them mapped: then the next save
    deletes them.

    Parameters
    ----------
    folder : str or path-like
        Created if missing.
    arrays : dict
        By name, ``(blocks, dtype, shape)`` as `write_npy` takes them. A name is made of letters.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    over = set()  # saves known to have ended
    try:
        with _running_save(folder) as token:
            over.add(token)
            entries = {}
            for name, (blocks, dtype, shape) in arrays.items():
                file = f"{name}-{token}.npy"
                sha256 = write_npy(folder / file, blocks, dtype, shape)
                entries[name] = Entry(file, dtype.str, list(shape), sha256)._asdict()
            beside = folder / f"manifest-{token}.json"
            content = {"format": FORMAT, "version": VERSION, "arrays": entries}
            with open(beside, "x", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(folder)  # the manifest may not reach the disk before what it names
            over |= _named_tokens(folder)
            os.replace(beside, folder / MANIFEST)
            _sync_folder(folder)
    finally:
        _delete_leftovers(folder, arrays, over)


def read_arrays(folder, modes, *, verify=()):
    """Open arrays that `write_arrays` wrote together.

    Parameters
    ----------
    folder : str or path-like
    modes : dict
        By name, how to map an array, or None to read it.
    verify : collection of str, default=()
        Names of arrays whose files are read and compared with their checksums. Folders without
        a manifest, of plain files ``NAME.npy``, have none.

    Returns
    -------
    arrays : dict
    has_manifest : bool

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, or is not the one that the manifest describes.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    while True:
        try:
            return _read_set(folder, manifest, modes, verify), manifest is not None
        except FileNotFoundError:
            newer = _read_manifest(folder)
            if newer == manifest:
                raise
            manifest = newer  # replaced between its reading and that of its files


def read_entries(folder, names):
    """Return what the manifest of a folder says about arrays, by name; None if there is none.

    Raises
    ------
    ValueError
        If it is no manifest, or does not tell of them all.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    return None if manifest is None else _parse(manifest, folder / MANIFEST, names)


def _read_set(folder, manifest, modes, verify):
    if manifest is None:
        return {name: _open(folder / f"{name}.npy", mode) for name, mode in modes.items()}
    entries, arrays = _parse(manifest, folder / MANIFEST, modes), {}
    for name, mode in modes.items():
        path, entry = folder / entries[name].file, entries[name]
        array = _open(path, mode, sha256=entry.sha256 if name in verify else None)
        found = array.dtype.str, list(array.shape), array.flags.c_contiguous
        if found != (entry.dtype, entry.shape, True):
            raise ValueError(
                f"{path} holds {array.dtype} of shape {array.shape}, but {MANIFEST} says "
                f"{entry.dtype!r:.60} of shape {entry.shape!r:.60}: one of them was changed."
            )
        arrays[name] = array
    return arrays


def _open(path, mmap_mode, **options):
    try:
        return open_npy(path, mmap_mode, **options)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist: a folder of saved arrays holds {MANIFEST} and the files that "
            "it names, or one file NAME.npy for each array."
        ) from error


# The manifest


def _read_manifest(folder):
    """Return the bytes of the manifest, or None if there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path} is not a file.")
        return None
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MANIFEST_BYTES:
                raise ValueError(f"{path} is larger than {MANIFEST_BYTES} bytes.")
            return file.read()
    except FileNotFoundError:
        return None


def _parse(manifest, path, names):
    """Return the entries of a manifest, by name, or say what is wrong with it."""
    try:
        content = json.loads(manifest.decode("utf-8"))
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a manifest of arrays saved by skfisher.")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"{path} has version {version!r:.60}, and this skfisher reads version {VERSION}."
        )
    arrays = content.get("arrays")
    if not isinstance(arrays, dict):
        raise ValueError(f"{path} does not list its arrays.")
    return {name: _parse_entry(arrays.get(name), path, name) for name in names}


def _parse_entry(entry, path, name):
    if not isinstance(entry, dict) or not set(Entry._fields) <= set(entry):
        raise ValueError(f"{path} does not describe the array {name!r} by {Entry._fields}.")
    entry = Entry(*(entry[field] for field in Entry._fields))
    allowed = {
        # No other names: these can only lie in the folder.
        "file": isinstance(entry.file, str) and re.fullmatch(f"{name}-{TOKEN}\\.npy", entry.file),
        "dtype": isinstance(entry.dtype, str),
        "shape": isinstance(entry.shape, list) and all(type(n) is int for n in entry.shape),
        "sha256": isinstance(entry.sha256, str),
    }
    for field, fine in allowed.items():
        if not fine:
            value = getattr(entry, field)
            raise ValueError(f"{path} says that the {field} of {name!r} is {value!r:.60}.")
    return entry


# Saves beside each other, and what they leave


@contextlib.contextmanager
def _running_save(folder):
    """Give a token of its own to a save, and hold the lock that says it is running."""
    while True:
        token = uuid.uuid4().hex
        path = folder / f"save-{token}.lock"
        with open(path, "xb") as file:
            try:
                _lock(file)
            except BlockingIOError:
                continue  # taken for a leftover before it was locked
            except OSError:
                pass  # no locks on this file system: nobody will get this one
            if path.exists():
                yield token
                break
    with contextlib.suppress(OSError):
        path.unlink()


def _lock(file):
    """Lock a file that is open for writing; BlockingIOError if somebody else has the lock."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError(str(error)) from error


def _delete_leftovers(folder, names, over):
    """Delete files of saves that are over and that the manifest does not name.

    Parameters
    ----------
    folder : Path
    names : iterable of str
        The arrays whose files to look at.
    over : set of str
        Tokens of saves known to be over; others are if nobody holds their lock.
    """
    ours = re.compile(
        f"(?:(?:{'|'.join(names)})-({TOKEN})\\.npy|manifest-({TOKEN})\\.json|save-({TOKEN})\\.lock)"
    )
    paths = {}
    for path in folder.iterdir():
        if match := ours.fullmatch(path.name):
            paths.setdefault(match[match.lastindex], []).append(path)
    for token, leftovers in paths.items():
        with contextlib.ExitStack() as stack:
            if token not in over and not _is_over(folder / f"save-{token}.lock", stack):
                continue
            # Read with the lock in hand: a save names its files before it gives the lock back.
            if token in _named_tokens(folder):
                continue
            for path in leftovers:
                _delete(path)
        _delete(folder / f"save-{token}.lock")
    if (folder / MANIFEST).is_file():
        for name in names:  # of a folder that had no manifest
            _delete(folder / f"{name}.npy")


def _is_over(path, stack):
    """Tell whether nobody holds a lock; if so, it is held until the stack is left."""
    try:
        _lock(stack.enter_context(open(path, "r+b")))  # noqa: SIM115, the stack closes it
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _delete(path):
    with contextlib.suppress(OSError):  # in use, on Windows
        path.unlink()


def _named_tokens(folder):
    """Return the tokens of the files that the manifest names, if there is one."""
    try:
        text = _read_manifest(folder) or b""
    except (OSError, ValueError):
        return set()
    return {match.decode() for match in re.findall(f"-({TOKEN})\\.npy".encode(), text)}


def _sync_folder(folder):
    """Wait until the disk holds the names of files."""
    if os.name == "nt":  # which opens no folders
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

"""Folders of saved bags, tampered with at random: ``python -m tests.bags.fuzz_files 5000``.

A folder is saved, changed in one of the ways below, and loaded. It must give the same bags, or
an error that says so: ValueError, or FileNotFoundError where a file is missing.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from skfisher.bags.bags import Bags

# What a checksum alone can find: descriptors exchanged for others of the same kind.
DESCRIPTORS_DIFFER = {"flip of descriptors", "file of another save", "descriptors exchanged"}


def make_bags(rng):
    lengths = rng.integers(0, 5, size=rng.integers(1, 6))
    dtype = rng.choice(["<f4", "<f8", ">f4", "u1", "<i2", "?"])
    values = rng.integers(0, 2, size=(lengths.sum(), rng.integers(1, 4))).astype(dtype)
    return Bags.from_lengths(values, lengths)


def files_of(folder):
    names = json.loads((folder / "manifest.json").read_text("utf-8"))["arrays"]
    return {name: folder / entry["file"] for name, entry in names.items()}


def flip(data, rng, first=0, last=None):
    """Return bytes with one to three of them changed."""
    data = bytearray(data)
    last = len(data) if last is None else last
    for _ in range(rng.integers(1, 4)):
        if last > first:
            data[rng.integers(first, last)] ^= rng.integers(1, 256)
    return bytes(data)


def offset_of(data):
    return 10 + int.from_bytes(data[8:10], "little")


ODD_TYPES = [
    "'|O'", "'<f16'", "'>f8'", "'<c8'", "'|V8'", "'<U3'", "'S0'", "''", "'<f400'", "'\\x00'",
    "None", "[('a', '<f4')]", "{'a': 1}", "'<M8[s]'", "('<f4', (2,))", "'f4,f4'", "'<i8'", "'<u8'",
    "'|b1'",
]  # fmt: skip


def edit_header(data, rng):
    """Return a .npy file whose header says something else, and is padded as before."""
    offset = offset_of(data)
    header = data[10:offset].decode("latin1")
    huge = rng.choice(["1099511627776", "4611686018427387904", "1" + 30 * "0", 5000 * "9", "1e3"])
    number = rng.choice(["-1", "0", "1", "True", "None", "'a'", "1.0", "nan", "3L", "[", "(", huge])
    edited = [
        lambda: re.sub(r"\d+(?=,)", number, header, count=1),
        lambda: re.sub(r"\(.*?\)", f"({number}, {number})", header),
        lambda: re.sub(r"\(.*?\)", f"({number},)", header),
        lambda: re.sub(r"\(.*?\)", "(1099511627776, 1099511627776, 0)", header),
        lambda: re.sub(r"\(.*?\)", 2000 * "(" + 2000 * ")", header),
        lambda: header.replace("False", str(rng.choice(["True", "0", "[]", "lambda: 0"]))),
        lambda: re.sub(r"'[<>|=]..?'", lambda _: ODD_TYPES[rng.integers(len(ODD_TYPES))], header),
        lambda: header.replace("{", "{{" if rng.random() < 0.5 else "{'a': 1, "),
        lambda: header.replace("descr", "dscr"),
        lambda: header[: rng.integers(len(header))],
        lambda: header + 20_000 * " ",
        lambda: header.replace("'", '"""', 1),
        lambda: "\\N{" + header,
    ][rng.integers(13)]()  # fmt: skip
    edited = edited.encode("latin1", "replace")
    padded = edited.rstrip(b"\n ").ljust(offset - 11) + b"\n"
    length = rng.choice([len(padded), len(padded) + 64, 0, 65535], p=[0.85, 0.05, 0.05, 0.05])
    version = rng.choice(
        [b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\xff\x00"], p=[0.85, *3 * [0.05]]
    )
    return data[:6] + version + int(length % 65536).to_bytes(2, "little") + padded + data[offset:]


ODD_VALUES = [
    None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 10**30, 2**63, 2**40, "", "a",
    "../x", "../manifest.json", "/etc/passwd", "C:\\x", "values.npy", ".", "..", "\x00", "\udce9",
    "values-" + 32 * "0" + ".npy", "values-" + 32 * "g" + ".npy",
    "../values-" + 32 * "0" + ".npy", "values-" + 32 * "0" + ".npy\n",
    [], {}, [[]], [1, 2], [-1, 2], [2**40, 2**40], [1.0, 2.0], [True, 2], [None], ["1"], {"a": {}},
    [10**30, 0], "<f4", "<i8", "|O", "float32", 3000 * "x",
]  # fmt: skip


def edit_manifest(text, rng):
    """Return the bytes of a manifest in which something else is said."""
    content = json.loads(text)
    places = [(content, key) for key in content]
    for entry in [content["arrays"], *content["arrays"].values()]:
        places += [(entry, key) for key in entry]
    place, key = places[rng.integers(len(places))]
    values, lengths = content["arrays"]["values"], content["arrays"]["lengths"]
    odd = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    if (way := rng.integers(5)) == 0:
        del place[key]
    elif way == 1:
        for field in rng.choice(["file", "dtype", "shape", "sha256"], size=2):
            values[field], lengths[field] = lengths[field], values[field]
    elif way == 2 and isinstance(place[key], list) and place[key]:
        place[key][0] = odd
    else:
        place[key] = odd
    return json.dumps(content).encode("utf-8", "surrogatepass")


def replace_manifest(text, rng):
    wholes = [
        b"", b"{", b"[]", b"null", b"NaN", b"1", b'"', b"\xff\xfe\x00", b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16"), 100_000 * b"[", 100_000 * b'{"arrays":', 5000 * b"9",
        text.replace(b"values", b"\xe9"), text + text, 2 * 2**20 * b" " + text, text[:-3],
        *(text.replace(b'"version": 1', b'"version": ' + v) for v in (b"2", b"true", b"1e400")),
    ]  # fmt: skip
    return wholes[rng.integers(len(wholes))]


def tamper(folder, rng):
    """Change a folder at random; return the way, in words."""
    files, manifest = files_of(folder), folder / "manifest.json"
    name = rng.choice(["values", "lengths"])
    path, other = files[name], files["lengths" if name == "values" else "values"]
    data = path.read_bytes()
    offset = offset_of(data)
    way = rng.choice(
        ["flip", "flip of header", "flip of descriptors", "cut", "append", "header", "swap",
         "file of another save", "descriptors exchanged", "delete", "folder", "manifest byte",
         "manifest cut", "manifest entry", "manifest"],
        p=[0.05, 0.1, 0.05, 0.05, 0.05, 0.25, 0.05, 0.02, 0.02, 0.02, 0.02, 0.1, 0.02, 0.15, 0.05],
    )  # fmt: skip
    if way == "flip":
        path.write_bytes(flip(data, rng, 0, offset))
    elif way == "flip of header":
        path.write_bytes(flip(data, rng, 8, offset))
    elif way == "flip of descriptors":
        path.write_bytes(flip(data, rng, offset))
    elif way == "cut":
        path.write_bytes(data[: rng.integers(len(data))])
    elif way == "append":
        path.write_bytes(data + rng.bytes(rng.integers(1, 100)))
    elif way == "header":
        path.write_bytes(edit_header(data, rng))
    elif way == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif way == "file of another save":
        with tempfile.TemporaryDirectory() as beside:
            make_bags(rng).save(beside)
            path.write_bytes(files_of(Path(beside))[name].read_bytes())
    elif way == "descriptors exchanged":
        path.write_bytes(data[:offset] + rng.bytes(len(data) - offset))
    elif way == "delete":
        path.unlink()
    elif way == "folder":
        path = manifest if rng.random() < 0.3 else path
        path.unlink()
        path.mkdir()
    else:
        text = manifest.read_bytes()
        if way == "manifest byte":
            text = flip(text, rng)
        elif way == "manifest cut":
            text = text[: rng.integers(len(text))]
        else:
            text = (edit_manifest if way == "manifest entry" else replace_manifest)(text, rng)
        manifest.write_bytes(text)
    return way


def same(bags, expected, *, descriptors=True):
    return (
        bags.dtype == expected.dtype
        and bags.values.shape == expected.values.shape
        and bags.lengths.tolist() == expected.lengths.tolist()
        and (not descriptors or bags.values.tobytes() == expected.values.tobytes())
    )


def check(seed):
    """Tamper with a folder and load it in all ways; return what happened, or what went wrong."""
    rng, plain = np.random.default_rng(seed), seed % 5 == 4
    expected = make_bags(rng)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        expected.save(folder)
        files = files_of(folder)
        way = tamper(folder, rng)
        if plain:  # as other programs write them: without a manifest to compare them with
            for name, path in files.items():
                if path.exists():
                    path.rename(folder / f"{name}.npy")
            manifest = folder / "manifest.json"
            manifest.rmdir() if manifest.is_dir() else manifest.unlink()
        for verify in (True, False):
            for mode in ("r", None, "c", "r+"):
                try:
                    bags = Bags.load(folder, mode, verify=verify)
                except (ValueError, FileNotFoundError) as error:
                    if str(folder) not in str(error):
                        return f"{way}: no file is named by {error!r}"
                    # a name that is none, or no file under a name that could be one
                    may_miss = plain or way == "delete" or way.startswith("manifest")
                    if isinstance(error, FileNotFoundError) and not may_miss:
                        return f"{way}: {error!r}"
                except BaseException as error:
                    return f"{way}: {type(error).__name__}: {error}"
                else:
                    exact = verify or way not in DESCRIPTORS_DIFFER
                    if not plain and not same(bags, expected, descriptors=exact):
                        return f"{way}: other bags, verify={verify}"
        # whatever a folder holds, a save replaces it, unless a folder is in the way
        if way != "folder":
            expected.save(folder)
            if not same(Bags.load(folder, verify=True), expected):
                return f"{way}: cannot be replaced"
    return None


def main(n):
    os.fsync = lambda number: None  # thousands of folders that nobody needs after a crash
    wrong = [(seed, found) for seed in range(n) if (found := check(seed)) is not None]
    for seed, found in wrong:
        print(f"seed {seed}: {found}")
    print(f"{n} folders, {len(wrong)} that gave other bags or another error")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

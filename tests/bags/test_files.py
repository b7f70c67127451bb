"""Arrays that are replaced as one step: writers beside each other, readers, crashes."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from skfisher.bags import files as storage
from skfisher.bags.bags import Bags
from skfisher.bags.files import read_arrays, write_arrays
from tests.bags import fuzz_files

MODES = {"values": "r", "lengths": None}


def write(folder, number, n=40, before=lambda: None):
    """Write arrays of one number; `before` is called in the middle of the first."""

    def blocks():
        yield np.full((n, 3), number)
        before()
        yield np.full((n, 3), number)

    values = (blocks(), np.dtype(np.int64), (2 * n, 3))
    lengths = ([np.full(n, number)], np.dtype(np.int64), (n,))
    write_arrays(folder, {"values": values, "lengths": lengths})


def read(folder, modes=MODES):
    """Return the number that all arrays hold."""
    arrays, _ = read_arrays(folder, modes, verify=modes)
    numbers = {int(n) for array in arrays.values() for n in np.unique(array)}
    sizes = {name: len(array) for name, array in arrays.items()}
    assert sizes["values"] == 2 * sizes["lengths"]
    assert len(numbers) == 1, "arrays of several saves are mixed"
    return numbers.pop()


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def assert_clean(folder):
    """Check that a folder holds the manifest and what it names, and nothing else."""
    entries = json.loads((folder / "manifest.json").read_text("utf-8"))["arrays"]
    assert files(folder) == sorted(["manifest.json", *(e["file"] for e in entries.values())])


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda number: None)


def test_arrays_are_replaced_and_nothing_else_is_touched(tmp_path):
    others = ["notes.txt", "values-1.npy", "other-" + 32 * "0" + ".npy", "values.npy.bak"]
    for name in others:
        (tmp_path / name).write_text("mine")
    for number in range(3):
        write(tmp_path, number, n=10 + number)
        assert read(tmp_path) == number
    assert len(files(tmp_path)) == 3 + len(others)
    for name in others:
        (tmp_path / name).unlink()
    assert_clean(tmp_path)


def test_all_is_on_the_disk_before_the_manifest_names_it(tmp_path, monkeypatch):
    write(tmp_path, 1)
    synced, moved = [], []

    def fsync(number):
        synced.append(os.fstat(number).st_ino)

    def replace(source, target):
        moved.append(target)
        inodes = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
        token = Path(source).stem.removeprefix("manifest-")
        names = [f"values-{token}.npy", f"lengths-{token}.npy", Path(source).name]
        assert {inodes[name] for name in names} <= set(synced)
        if os.name != "nt":
            assert synced[-1] == tmp_path.stat().st_ino
        synced.clear()
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path, 2)
    assert moved == [tmp_path / "manifest.json"]
    if os.name != "nt":
        assert synced == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", range(4))
def test_a_save_that_fails_leaves_the_old_arrays_and_no_others(
    tmp_path, monkeypatch, call, error, plain
):
    if plain:
        np.save(tmp_path / "values.npy", np.full((80, 3), 1))
        np.save(tmp_path / "lengths.npy", np.full(40, 1))
    else:
        write(tmp_path, 1)
    before, calls = files(tmp_path), []

    def fail(number):
        calls.append(number)
        if len(calls) == call + 1:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(type(error)):
            write(tmp_path, 2)
    assert files(tmp_path) == before
    if not plain:
        assert read(tmp_path) == 1


# The child forks at every step of a save and dies there, as by a SIGKILL: nothing of Python runs.
DIE_AT_EVERY_STEP = """
    import builtins, os, sys
    import skfisher.bags.npy, skfisher.bags.files
    from tests.bags.test_files import read, write

    def dying_at(moment):
        moments = iter(range(1000))

        def live_on():
            if next(moments) == moment:
                os._exit(1)

        def step(function):
            def wrapped(*args, **kwargs):
                live_on()
                result = function(*args, **kwargs)
                live_on()
                return result
            return wrapped

        for name in ("fsync", "replace", "open"):
            setattr(os, name, step(getattr(os, name)))
        skfisher.bags.files._lock = step(skfisher.bags.files._lock)
        for module in (skfisher.bags.npy, skfisher.bags.files):
            module.open = step(open)
        skfisher.bags.files.Path.unlink = step(skfisher.bags.files.Path.unlink)

    folder = sys.argv[1]
    for moment in range(200):
        child = os.fork()
        if child == 0:
            dying_at(moment)
            write(folder, 1000 + moment)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        print(read(folder))
"""


def run(code, *arguments):
    code = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_that_is_killed_at_any_step_leaves_one_set_and_the_next_cleans(tmp_path):
    write(tmp_path, 1)
    found = list(map(int, run(DIE_AT_EVERY_STEP, tmp_path).split()))
    assert len(found) > 30
    # what was there first, until a child got as far as its manifest: then one set after another
    assert found[0] == 1
    assert sorted(found) == found
    assert 1 < found[-1] < 1000 + len(found)
    # the last child was not killed: it has deleted what all the others left
    assert read(tmp_path) == 1000 + len(found)
    assert_clean(tmp_path)


def test_the_last_to_finish_wins_and_none_deletes_the_files_of_one_that_runs(tmp_path):
    write(tmp_path, 1)
    seen = []

    def meanwhile():  # while the save of 2 has half written its first array
        write(tmp_path, 3)
        seen.append(read(tmp_path))
        write(tmp_path, 4, before=lambda: write(tmp_path, 5))
        seen.append(read(tmp_path))

    write(tmp_path, 2, before=meanwhile)
    assert seen == [3, 4]
    assert read(tmp_path) == 2
    assert_clean(tmp_path)


def test_a_save_that_runs_in_another_process_is_left_alone(tmp_path):
    code = """
    import sys
    from tests.bags.test_files import write

    def wait():
        print("half", flush=True)
        sys.stdin.readline()

    write(sys.argv[1], 2, before=wait)
    """
    code = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert other.stdout.readline() == "half\n"
    write(tmp_path, 1)
    assert read(tmp_path) == 1
    assert len(files(tmp_path)) == 3 + 2  # its lock and what it has written so far
    other.communicate("go on\n", timeout=60)
    assert other.returncode == 0
    assert read(tmp_path) == 2
    assert_clean(tmp_path)


def test_threads_and_processes_write_and_read_and_nothing_is_mixed(tmp_path):
    write(tmp_path, 0)
    code = """
    import os, sys
    from tests.bags.test_files import write

    os.fsync = lambda number: None
    for number in range(2000, 2025):
        write(sys.argv[1], number, n=1 + number % 7)
    """
    code = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2]
    )
    wrong, stop = [], threading.Event()

    def writer(first):
        try:
            for number in range(first, first + 25):
                write(tmp_path, number, n=1 + number % 7)
        except BaseException as error:
            wrong.append(error)

    def reader():
        try:
            while not stop.is_set():
                read(tmp_path)
        except BaseException as error:
            wrong.append(error)

    writers = [threading.Thread(target=writer, args=(first,)) for first in (100, 200)]
    reading = threading.Thread(target=reader)
    for thread in [*writers, reading]:
        thread.start()
    for thread in writers:
        thread.join()
    assert other.wait(timeout=60) == 0
    stop.set()
    reading.join()
    assert wrong == []
    assert read(tmp_path) in (124, 224, 2024)
    write(tmp_path, 1)
    assert_clean(tmp_path)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", ["values", "lengths"])
def test_a_reader_whose_files_are_replaced_reads_the_new_ones(tmp_path, monkeypatch, name, plain):
    if plain:
        np.save(tmp_path / "values.npy", np.full((80, 3), 1))
        np.save(tmp_path / "lengths.npy", np.full(40, 1))
    else:
        write(tmp_path, 1)
    opens, open_npy = [], storage.open_npy

    def replaced_meanwhile(path, *args, **options):
        opens.append(path)
        if path.name.startswith(name) and len(opens) < 5:
            write(tmp_path, 1 + len(opens), n=5)
        return open_npy(path, *args, **options)

    monkeypatch.setattr(storage, "open_npy", replaced_meanwhile)
    arrays, _ = read_arrays(tmp_path, MODES)
    assert {int(array.flat[0]) for array in arrays.values()} == {read(tmp_path)}
    assert len(arrays["values"]) == 10


def test_a_file_that_the_manifest_names_may_be_missing(tmp_path):
    write(tmp_path, 1)
    (path,) = tmp_path.glob("values-*")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name} does not exist"):
        read(tmp_path)


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError("Operation not supported")

    (tmp_path / ("values-" + 32 * "a" + ".npy")).write_text("of a save that may be running")
    (tmp_path / ("save-" + 32 * "a" + ".lock")).write_text("")
    monkeypatch.setattr(storage, "_lock", refuse)
    for number in range(3):
        write(tmp_path, number)
        assert read(tmp_path) == number
    assert len(files(tmp_path)) == 3 + 2
    monkeypatch.undo()
    write(tmp_path, 4)
    assert_clean(tmp_path)


def test_a_lock_that_was_taken_for_a_leftover_is_given_up(tmp_path, monkeypatch):
    lock, taken = storage._lock, []

    def too_late(file):
        if len(taken) < 2:
            taken.append(file.name)
            if len(taken) == 1:
                raise BlockingIOError
            os.unlink(file.name)
        return lock(file)

    if os.name == "nt":
        pytest.skip("an open file cannot be deleted there")
    monkeypatch.setattr(storage, "_lock", too_late)
    write(tmp_path, 1)
    assert read(tmp_path) == 1
    write(tmp_path, 2)
    assert_clean(tmp_path)


def test_checksums_find_what_sizes_do_not(tmp_path):
    write(tmp_path, 1)
    for name in MODES:
        (path,) = tmp_path.glob(f"{name}-*")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"\x01")
        read_arrays(tmp_path, MODES)
        with pytest.raises(ValueError, match=f"{path.name} was changed after it was saved"):
            read_arrays(tmp_path, MODES, verify=[name])
        path.write_bytes(whole)


def test_lengths_are_always_verified(tmp_path):
    Bags.from_lengths(np.zeros((5, 2)), [2, 3]).save(tmp_path)
    (path,) = tmp_path.glob("lengths-*")
    data = bytearray(path.read_bytes())
    data[-16], data[-8] = 3, 2  # with the same sum
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        Bags.load(tmp_path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"file": "../values-" + 32 * "0" + ".npy"}, "the file of 'values' is '../values-000"),
        ({"file": "/etc/passwd"}, "the file of 'values' is '/etc/passwd'"),
        ({"file": "values.npy"}, "the file of 'values' is 'values.npy'"),
        ({"file": ["a"]}, "the file of 'values' is"),
        ({"dtype": None}, "the dtype of 'values' is None"),
        ({"dtype": "<f4"}, "holds int64 .* but manifest.json says '<f4'"),
        ({"shape": [80.0, 3]}, r"the shape of 'values' is \[80.0, 3\]"),
        ({"shape": [True, 3]}, r"the shape of 'values' is \[True, 3\]"),
        ({"shape": [2**70, 3]}, r"holds int64 of shape \(80, 3\), but manifest.json says"),
        ({"sha256": 1}, "the sha256 of 'values' is 1"),
        ({"sha256": "00"}, "was changed after it was saved"),
    ],
)
def test_what_the_manifest_says_is_checked(tmp_path, edit, words):
    write(tmp_path, 1)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text("utf-8"))
    content["arrays"]["values"] |= edit
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=words):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (200_000 * b"[", "cannot be read as JSON"),
        (10_000 * b"9", "cannot be read as JSON"),
        (2**20 * b" " + b"{}", "is larger than 1048576 bytes"),
        (b"[]", "is not a manifest"),
        (b'{"format": "skfisher arrays", "version": 2}', "has version 2, and this"),
        (b'{"format": "skfisher arrays", "version": 1}', "does not list its arrays"),
        (b'{"format": "skfisher arrays", "version": 1, "arrays": {"values": 3}}', "does not desc"),
    ],
)
def test_a_manifest_that_is_none_is_named(tmp_path, content, words):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"manifest.json {words}"):
        read(tmp_path)


# what the parser of Python says of headers
@pytest.mark.filterwarnings("ignore:invalid escape sequence", "ignore:.*invalid escape sequence")
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_folders_that_were_tampered_with(first):
    assert [f for seed in range(first, first + 50) if (f := fuzz_files.check(seed))] == []

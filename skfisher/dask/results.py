"""Results of shards, a file for each, written by workers and kept until the model changes.

The folder of results has a ``model.json`` with the digest of the model, and beside the result of
each shard, ``NAME.npy`` or a folder of bags ``NAME``, a ``NAME.json`` with the digest of model
and shard, which is written last. A result counts as finished if that digest is the one that it
should have, and its size the one it had. All files are written under other names first.
"""

import contextlib
import copy
import hashlib
import json
import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
from sklearn.utils.validation import check_is_fitted

from skfisher.bags.bags import Bags
from skfisher.bags.files import MANIFEST
from skfisher.bags.sharded import ShardedBags
from skfisher.bags.shards import open_shard
from skfisher.dask.workers import Workers, check_shards
from skfisher.process_state import one_blas_thread
from skfisher.version import __version__

__all__ = ["transform"]

MODEL = "model.json"
PARTIAL = ".partial"


def transform(
    estimator, shards, out, *, client=None, method="transform", timeout=60.0, verbose=False
):
    """Write what a fitted estimator makes of each shard; the workers of a Dask cluster do.

    Results are those of ``estimator.transform(shard)`` here, to the last bit. Called again with the
    same folder, after a kill or with more shards, it goes on: a result is kept if it was made by
    an equal model of the same version of skfisher from a shard with the same checksums.

    Parameters
    ----------
    estimator : estimator or pipeline
        Fitted.
    shards : ShardedBags
    out : str or path-like
        The folder of the results, which all workers can write to. Created if missing.
    client : distributed.Client, default=None
        By default the one made last.
    method : str, default="transform"
        Of the estimator: for pipelines that end in a classifier, "predict" or "decision_function".
    timeout : float, default=60
        Seconds to wait for a worker while the cluster has none.
    verbose : bool, default=False
        Whether to print a line at the end.

    Returns
    -------
    paths : list of str
        One for each shard, in their order, named as its folder. A file ``NAME.npy`` has the results
        of its bags, in order. If results are bags, as those of
        :class:`~skfisher.DescriptorTransformer`, it is a folder ``NAME``, which is a shard again.

    Raises
    ------
    TypeError
        If `shards` are no `ShardedBags`, or `client` is no client.
    ValueError
        If `out` holds results of another model, two shards have one name, the client is closed, or
        a shard was changed. Finished results stay.
    FileNotFoundError
        If a worker does not find a shard; it names both.
    RuntimeError
        If a worker lacks this package, or has another version; it names the worker.
    LostWorkersError
        If all workers are gone, or the scheduler. Finished results stay.

    See Also
    --------
    fit : Fit an estimator to shards.
    """
    check_shards(shards)
    check_is_fitted(estimator)
    names = _names(shards)
    model = _sent(estimator)
    key = joblib.hash([__version__, method, model, shards.values.functions])
    workers = Workers(client, timeout, verbose)
    out = Path(os.path.abspath(out))
    _claim(out, key)
    digests = [
        hashlib.sha256(f"{key} {shard.sha256}".encode()).hexdigest()
        for shard in shards.values.shards
    ]
    waiting = [i for i in range(shards.n_shards) if not _is_finished(out, names[i], digests[i])]

    def task(some):
        values = shards.values.of_others(shards.values.shards[i] for i in some)
        named = [(names[i], digests[i]) for i in some]
        return (model, method, str(out), values, named), values.shards[0].folder

    for _ in workers.map(_write_results, map(task, _batches(shards, waiting, workers))):
        pass
    return [str(_result(out, name)) for name in names]


def _names(shards):
    names = [os.path.basename(path) for path in shards.paths]
    seen = {}
    for i, name in enumerate(names):
        if name in seen:
            raise ValueError(
                f"the shards {shards.paths[seen[name]]} and {shards.paths[i]} have one name, but "
                "results are named as shards: rename a folder, or take two folders of results."
            )
        seen[name] = i
    return names


def _sent(estimator):
    """Return a copy for workers, which have one thread for it."""
    alone = {
        name: None
        for name in estimator.get_params(deep=True)
        if name.rsplit("__", 1)[-1] == "n_jobs"
    }
    # as it is after a pickle: so its digest is that of a model that was saved
    return pickle.loads(pickle.dumps(copy.deepcopy(estimator).set_params(**alone)))


def _claim(out, key):
    """Make the folder that of results of a model."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / MODEL
    try:
        found = json.loads(path.read_text("utf-8"))["model"]
    except FileNotFoundError:
        strangers = [p.name for p in out.iterdir() if not p.name.endswith(PARTIAL)]
        if strangers:
            raise ValueError(
                f"{out} holds {strangers[0]}, but no {MODEL}: results go to a folder of their own."
            ) from None
        _write(path, lambda file: file.write(json.dumps({"model": key}).encode()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    else:
        if found != key:
            raise ValueError(
                f"{out} holds results of another model, of other parameters, or of another version "
                "of skfisher: take another folder, or delete this one."
            )
    for path in out.glob(f"*{PARTIAL}"):  # of runs that were killed
        with contextlib.suppress(OSError):
            path.unlink()


def _batches(shards, waiting, workers):
    """Yield lists of shards, by number, of some rows together."""
    lengths = [shards.values.shards[i].shape[0] for i in waiting]
    n_rows = workers.rows_per_task(sum(lengths))
    batch, found = [], 0
    for i, length in zip(waiting, lengths, strict=True):
        batch.append(i)
        found += length
        if found >= n_rows:
            yield batch
            batch, found = [], 0
    if batch:
        yield batch


def _is_finished(out, name, digest):
    try:
        record = json.loads((out / f"{name}.json").read_text("utf-8"))
        return record == {"digest": digest, "bytes": _size(_result(out, name))}
    except (OSError, ValueError):
        return False


def _result(out, name):
    folder = out / name
    return folder if folder.is_dir() else out / f"{name}.npy"


def _size(result):
    if result.is_dir():
        entries = json.loads((result / MANIFEST).read_text("utf-8"))["arrays"]
        return sum((result / entry["file"]).stat().st_size for entry in entries.values())
    return result.stat().st_size


@one_blas_thread
def _write_results(model, method, out, values, named):
    """Write the results of the shards of `values`, under names, with their digests.

    A thread writes the array of a shard, until the disk has it, while that of the next is computed.
    """
    out = Path(out)
    with ThreadPoolExecutor(1) as writer:
        written = None
        for shard, (name, digest) in zip(values.shards, named, strict=True):
            opened, lengths = open_shard(shard.folder)
            if opened != shard:
                raise shard.changed()
            bags = ShardedBags._over(values.of_others([shard]), lengths)
            result = _of_bags(getattr(model, method), bags)
            if written is not None:
                written.result()  # so that no more than two are in memory
            if isinstance(result, Bags):
                result.save(out / name)
                written = None
                _write_record(out, name, digest)
            else:
                written = writer.submit(_write_array, np.asarray(result), out, name, digest)
        if written is not None:
            written.result()


def _write_array(result, out, name, digest):
    _write(out / f"{name}.npy", lambda file: np.save(file, result))
    _write_record(out, name, digest)


def _write_record(out, name, digest):
    """Say that the result of a shard, which the disk holds now, is finished.

    Nobody waits for the disk to hold the record: without it, the result is made again.
    """
    record = {"digest": digest, "bytes": _size(_result(out, name))}
    _write(out / f"{name}.json", lambda file: file.write(_json(record)), sync=False)


def _json(record):
    return json.dumps(record).encode()


def _of_bags(method, bags):
    """Return what a method makes of bags; of none, what it makes of one, without that one."""
    if len(bags):
        return method(bags)
    return method(Bags.from_lengths(np.zeros((1, bags.n_features), bags.dtype), [1]))[:0]


def _write(path, content, *, sync=True):
    """Write a file in one step; it is whole after a crash of the system, too, if it is synced."""
    partial = path.with_name(f"{path.name}-{uuid.uuid4().hex}{PARTIAL}")
    with open(partial, "xb") as file:
        content(file)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)

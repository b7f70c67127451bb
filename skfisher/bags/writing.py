"""A stream of bags to shards, one after the other, so that a run that was killed can go on."""

import itertools
import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

from skfisher.arrays.dense import as_dense, describe
from skfisher.bags.bags import Bags
from skfisher.bags.files import MANIFEST
from skfisher.bags.shards import open_shard

__all__ = ["write_shards"]

NAME = "shard-{:05d}"


def write_shards(stream, folder, bags_per_shard):
    """Write what `ShardedBags.write` describes, and return the folders of all shards."""
    if not isinstance(bags_per_shard, Integral) or bags_per_shard < 1:
        raise ValueError(f"bags_per_shard={bags_per_shard!r} must be an integer of at least 1.")
    folder = Path(folder)
    finished = [open_shard(path, verify=True) for path in _finished(folder)]
    lengths = [length for _, of_shard in finished for length in of_shard.tolist()]
    kind = None
    if finished:
        kind = finished[0][0].shape[1], finished[0][0].dtype
    if callable(stream):
        bags = _alike(stream(len(lengths)), len(lengths), kind)
    else:
        bags = _alike(stream, 0, kind)
        _skip(bags, lengths, folder)
    paths = [shard.folder for shard, _ in finished]
    while some := list(itertools.islice(bags, bags_per_shard)):
        path = folder / NAME.format(len(paths))
        Bags.from_list(some).save(path)
        paths.append(path)
    if not paths:
        raise ValueError("the stream holds no bags: at least 1 is needed.")
    return paths


def _finished(folder):
    """Return the folders of shards that are whole, the first ones."""
    paths = map(folder.joinpath, map(NAME.format, itertools.count()))
    whole = list(itertools.takewhile(lambda path: (path / MANIFEST).is_file(), paths))
    names = {path.parent.name for path in folder.glob(f"shard-*/{MANIFEST}")}
    later = sorted(name for name in names - {path.name for path in whole} if _is_ours(name))
    if later:
        raise ValueError(
            f"{folder} holds {later[0]}, but {NAME.format(len(whole))} is missing: delete the "
            "shards that follow it, or write to another folder."
        )
    return whole


def _is_ours(name):
    return re.fullmatch(r"shard-\d{5,}", name) is not None


def _alike(stream, first, kind):
    """Yield bags as arrays, of one width and dtype, which may be given; they are counted."""
    if not isinstance(stream, Iterable):
        raise TypeError(f"stream is {describe(stream)}, but bags, one after the other, are needed.")
    for i, bag in enumerate(stream, first):
        bag = as_dense(bag, f"bag {i} of the stream")
        if bag.ndim != 2 or 0 in bag.shape:
            raise ValueError(
                f"bag {i} of the stream has shape {bag.shape}, but a bag has the shape "
                "(n_descriptors, n_features), of at least 1 each."
            )
        if bag.dtype.itemsize > 8:
            raise ValueError(
                f"bag {i} of the stream has dtype {bag.dtype}, which is wider than float64: "
                "convert it to float64."
            )
        found = bag.shape[1], bag.dtype
        if kind is None:
            kind = found
        if found != kind:
            raise ValueError(
                f"bag {i} of the stream has {found[0]} features of {found[1]}, but those before it "
                f"have {kind[0]} of {kind[1]}: all bags must be alike."
            )
        yield bag


def _skip(bags, lengths, folder):
    """Leave out the bags that shards hold already, if they are these bags."""
    for i, length in enumerate(lengths):
        bag = next(bags, None)
        if bag is None:
            raise ValueError(
                f"the stream ends after {i} bags, but the shards in {folder} hold {len(lengths)}: "
                "they are of another stream. Write to another folder."
            )
        if len(bag) != length:
            raise ValueError(
                f"bag {i} of the stream has {len(bag)} descriptors, but the one in {folder} has "
                f"{length}: its shards are of another stream. Write to another folder."
            )

"""Bags in many folders, which together may be larger than memory."""

import glob
import os
from collections.abc import Iterable, Iterator

import numpy as np

from skfisher.arrays.dense import describe, listed, odd_one_out
from skfisher.bags.bags import Bags
from skfisher.bags.sharded_values import ShardedValues
from skfisher.bags.shards import open_shard
from skfisher.bags.writing import write_shards

__all__ = ["ShardedBags"]


class ShardedBags(Bags):
    """Bags that lie in folders, the shards, and are read when they are needed.

    A shard is a folder that :meth:`Bags.save` wrote. `open` reads the manifests and the lengths of
    the bags; descriptors are read some ten thousand at a time, when they are processed. The bags of
    all shards, in order, are one :class:`Bags`: it has a length, its subsets are views, and
    mixtures, encoders, :class:`DescriptorTransformer` and joint training take it, in memory that
    does not grow with the number of shards.

    A pickle of shards or of their views holds only the paths of the folders: other processes and
    machines must see the folders at the same paths. If a shard has changed since it was opened, an
    error names it.

    Create one with :meth:`ShardedBags.open` or :meth:`ShardedBags.write`, not with its parameters.

    Parameters
    ----------
    values : object
        Reads the descriptors of all shards. It is not an array.
    starts, stops : ndarrays of int of shape (n_bags,)
        Where each bag lies among them.

    Attributes
    ----------
    paths : tuple of str
        The folders.
    n_shards : int
    shape : tuple
        ``(n_bags,)``.

    See Also
    --------
    Bags : The container, and how one shard is written.

    Notes
    -----
    Sums over descriptors are added up in the order of the descriptors of a shard, and those of
    shards in the order of the shards. So a fit does not depend on the number of threads, nor on
    which worker processes which shard. Its last digits do depend on how bags are divided into
    shards; encodings and joint training do not.

    NaN and infinity are refused when they are read, not before.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skfisher import FisherVectorEncoder, ShardedBags
    >>> rng = np.random.default_rng(0)
    >>> stream = (rng.normal(size=(20, 3)) for _ in range(10))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shards = ShardedBags.write(stream, folder, bags_per_shard=4)
    ...     print(shards)
    ...     encoder = FisherVectorEncoder(2, random_state=0).fit(shards)
    ...     encoder.transform(shards).shape
    <ShardedBags: n_shards=3, n_bags=10, n_descriptors=200, n_features=3, float64>
    (10, 14)
    """

    def __init__(self, values, starts, stops):
        if not isinstance(values, ShardedValues):
            raise TypeError("ShardedBags are made by ShardedBags.open or ShardedBags.write.")
        self.values, self.starts, self.stops = values, starts, stops

    # Bags of other forms, such as lists, are ordinary bags.

    @classmethod
    def _checked(cls, values, starts, stops):
        return Bags(values, starts, stops)

    @classmethod
    def _of(cls, values, starts, stops):
        return Bags._of(values, starts, stops)

    @classmethod
    def _over(cls, values, lengths):
        stops = np.cumsum(lengths)
        return cls(values, stops - lengths, stops)

    @classmethod
    def open(cls, paths, *, verify=False):
        """Open shards.

        Parameters
        ----------
        paths : str, path-like, or list of these
            Folders that :meth:`Bags.save` wrote, or a pattern such as ``"descriptors/*"``, whose
            folders are taken in the order of their names.
        verify : bool, default=False
            Whether to read all descriptors and compare their checksums. Those of the lengths are
            always compared.

        Returns
        -------
        shards : ShardedBags

        Raises
        ------
        FileNotFoundError
            If a shard is missing or holds no manifest, or if there are none.
        TypeError
            If `paths` are not paths, or have no order.
        ValueError
            If a path is an address of object storage; if a shard is damaged, or its width or dtype
            is not that of the others. The message names the shard.
        """
        opened = [open_shard(path, verify=verify) for path in _folders(paths)]
        shards = [shard for shard, _ in opened]
        for what, found in (
            ("features per descriptor", [shard.shape[1] for shard in shards]),
            ("as its dtype", [shard.dtype for shard in shards]),
        ):
            odd, usual = odd_one_out(found)
            if odd is not None:
                raise ValueError(
                    f"the shard {shards[odd].folder} has {found[odd]} {what}, but "
                    f"{shards[usual].folder} has {found[usual]}: all shards must be alike."
                )
        lengths = np.concatenate([lengths for _, lengths in opened])
        return cls._over(ShardedValues.of(shards), lengths)

    @classmethod
    def write(cls, stream, folder, *, bags_per_shard=1000):
        """Write a stream of bags to shards, one shard at a time; if stopped, continue.

        Shards are the folders ``shard-00000``, ``shard-00001`` and so on, each written in one step.
        Called again with the same folder, it keeps the shards that are complete. It compares their
        checksums, skips as many bags of the stream as they hold, whose lengths, width and dtype
        must match, and writes the bags that follow.

        Parameters
        ----------
        stream : iterable of arrays of shape (n_descriptors, n_features), or callable
            The bags, all of one width and dtype. A function is called with the number of bags that
            are already written, and returns the stream of the bags that follow.
        folder : str or path-like
            Created if missing.
        bags_per_shard : int, default=1000
            Number of bags in a shard; these are held in memory. Shards of some hundred megabytes
            are best.

        Returns
        -------
        shards : ShardedBags
            All shards of the folder.

        Raises
        ------
        TypeError
            If a bag is not made of real numbers, or the stream cannot be iterated over.
        ValueError
            If a bag is not two-dimensional, empty, wider than float64, or of another width or
            dtype than those before it; if finished shards are damaged, or hold other bags than
            the stream. Shards that were written stay.
        """
        return cls.open(write_shards(stream, folder, bags_per_shard))

    @property
    def paths(self):
        """The folders of the shards."""
        return tuple(shard.folder for shard in self.values.shards)

    @property
    def n_shards(self):
        """The number of shards, also empty ones."""
        return len(self.values.shards)

    def iter_shards(self):
        """Go through the shards one by one.

        Yields
        ------
        shard : ShardedBags
            The bags of one shard.
        """
        lengths, first = self.lengths, 0
        for i, shard in enumerate(self.values.shards):
            values, _ = self.values.part(i, i + 1)
            yield self._over(values, lengths[first : first + shard.n_bags])
            first += shard.n_bags

    def __repr__(self):
        return (
            f"<ShardedBags: n_shards={self.n_shards}, n_bags={len(self)}, "
            f"n_descriptors={self.n_descriptors}, n_features={self.n_features}, {self.dtype}>"
        )


def _folders(paths):
    """Return the folders of a list, or of a pattern."""
    if not isinstance(paths, str | os.PathLike):
        folders = _listed(paths)
        _refuse_addresses(folders)
        return folders
    path = os.fspath(paths)
    _refuse_addresses([path])
    if not glob.has_magic(path) or os.path.isdir(path):
        return [path]
    folders = sorted(filter(os.path.isdir, glob.glob(path)))
    if not folders:
        raise FileNotFoundError(f"{path} matches no folder.")
    return folders


def _refuse_addresses(paths):
    for path in paths:
        if "://" in path:
            raise ValueError(
                f"{path} is an address, but shards are folders: mount the storage as a folder, or "
                "copy them, by fsspec for instance."
            )


def _listed(paths):
    of = "paths, one per shard"
    if not isinstance(paths, Iterator):
        paths = listed(paths, "paths", of=of)
    if isinstance(paths, bytes) or not isinstance(paths, Iterable):
        raise TypeError(f"paths is {describe(paths)}: pass a list of {of}.")
    folders = list(paths)
    if not folders:
        raise FileNotFoundError("paths is empty: at least 1 shard is needed.")
    for i, folder in enumerate(folders):
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"paths[{i}] is {describe(folder)}, but a path is needed.")
    return [os.fspath(folder) for folder in folders]

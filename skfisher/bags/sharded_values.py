"""The descriptors of shards as if they were one array, which is read where it is asked for."""

import itertools

import numpy as np

from skfisher.bags.shards import check_rows
from skfisher.process_state import one_blas_thread

__all__ = ["ShardedValues", "mapped_when_read", "runs_of_shards", "worked_on_by"]


class ShardedValues:
    """The rows of shards, one shard after the other, mapped by functions as they are read.

    What is read is checked: `check_rows` has a look at every row, and the shard at its file.

    Parameters
    ----------
    shards : tuple of Shard
        Of one width and one dtype.
    functions : tuple of callables
        Each is given rows and returns as many. They are pickled with the values.
    like : array
        Of the width and dtype of what the last function returns.
    workers : object, optional
        Who works on the descriptors, see `skfisher.parallel.machines`; by default this process.
    """

    ndim, device = 2, "cpu"

    def __init__(self, shards, functions, like, workers=None):
        self.shards, self.functions, self.workers = shards, functions, workers
        self.ends = np.cumsum([shard.shape[0] for shard in shards])
        self.shape = int(self.ends[-1]), like.shape[1]
        self.dtype = like.dtype

    @classmethod
    def of(cls, shards):
        """Return the values of shards as they are."""
        return cls(tuple(shards), (), np.empty((0, shards[0].shape[1]), shards[0].dtype))

    def worked_on_by(self, workers):
        """Return the same values for others to work on."""
        return ShardedValues(self.shards, self.functions, self._like(), workers)

    def mapped(self, function):
        """Return what a function makes of the rows, whenever they are read."""
        row = self[:1] if len(self) else np.zeros((1, self.shape[1]), self.dtype)
        functions = (*self.functions, function)
        return ShardedValues(self.shards, functions, function(row), self.workers)

    def part(self, first, last):
        """Return the values of some consecutive shards, and the number of their first row."""
        n_before = int(self.ends[first - 1]) if first else 0
        return self.of_others(self.shards[first:last]), n_before

    def of_others(self, shards):
        """Return the values of other shards, mapped by the same functions."""
        return ShardedValues(tuple(shards), self.functions, self._like())

    def owners(self, rows):
        """Return the number of the shard that each of some rows is in."""
        return np.searchsorted(self.ends, rows, side="right")

    def _like(self):
        return np.empty((0, self.shape[1]), self.dtype)

    def __getstate__(self):
        return {**vars(self), "workers": None}  # they stay where they were asked for

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            return self._map(self._run(first, last))
        rows = np.asarray(rows)
        if rows.ndim == 0:
            return self[int(rows) : int(rows) + 1][0]
        return self._map(self._take(rows))

    def _run(self, first, last):
        parts = []
        while first < last:
            i = int(self.owners(first))
            shard, end = self.shards[i], min(int(self.ends[i]), last)
            before = int(self.ends[i]) - shard.shape[0]
            parts.append(shard.read(first - before, end - before))
            check_rows(parts[-1], shard.folder, range(first - before, end - before))
            first = end
        if not parts:
            return np.empty((0, self.shards[0].shape[1]), self.shards[0].dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _take(self, rows):
        found = np.empty((len(rows), self.shards[0].shape[1]), self.shards[0].dtype)
        owners = self.owners(rows)
        for i in np.unique(owners).tolist():
            mine, shard = owners == i, self.shards[i]
            numbers = rows[mine] - (int(self.ends[i]) - shard.shape[0])
            found[mine] = of_shard = shard.take(numbers)
            check_rows(of_shard, shard.folder, numbers)
        return found

    @one_blas_thread
    def _map(self, rows):
        for function in self.functions:
            rows = function(rows) if len(rows) else self._like()
        return rows


def runs_of_shards(bags):
    """Return slices of consecutive bags that lie in one shard; bags elsewhere are one run."""
    if not isinstance(bags.values, ShardedValues) or len(bags.starts) == 0:
        return [slice(0, len(bags.starts))]
    owners = bags.values.owners(bags.starts)
    borders = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
    return [slice(a, b) for a, b in itertools.pairwise(borders)]


def mapped_when_read(bags, function):
    """Return bags of shards whose rows a function maps whenever they are read."""
    return _with_values(bags, bags.values.mapped(function))


def worked_on_by(bags, workers):
    """Return the same bags of shards for others to work on, see `skfisher.parallel.machines`."""
    return _with_values(bags, bags.values.worked_on_by(workers))


def _with_values(bags, values):
    others = object.__new__(type(bags))
    vars(others).update(vars(bags), values=values)
    return others

"""The descriptors of shards as if they were one array, which is read where it is asked for."""

import itertools
from typing import NamedTuple

import numpy as np

from skfisher.bags.file_rows import row_numbers
from skfisher.bags.shards import check_rows
from skfisher.process_state import one_blas_thread

__all__ = [
    "ShardedValues",
    "has_borders",
    "in_memory",
    "mapped_when_read",
    "read_here",
    "runs_of_shards",
    "without_borders",
    "worked_on_by",
]


class Columns(NamedTuple):
    """Some columns of rows, as a function of them."""

    first: int
    last: int

    def __call__(self, x):
        """Return a view."""
        return x[:, self.first : self.last]


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

    Attributes
    ----------
    workers : object or None
        Who works on the descriptors, see `skfisher.parallel.machines`; None for this process.
    has_borders : bool
        Whether work is cut where shards end, and added up shard by shard.
    """

    ndim, device = 2, "cpu"
    workers, has_borders = None, True

    def __init__(self, shards, functions, like):
        self.shards, self.functions = shards, functions
        self.ends = np.cumsum([shard.shape[0] for shard in shards])
        self.shape = int(self.ends[-1]), like.shape[1]
        self.dtype = like.dtype

    @classmethod
    def of(cls, shards):
        """Return the values of shards as they are."""
        return cls(tuple(shards), (), np.empty((0, shards[0].shape[1]), shards[0].dtype))

    def worked_on_by(self, workers):
        """Return the same values for others to work on, or for this process if that is None."""
        return self._with(workers=workers)

    def without_borders(self):
        """Return the same values, for work that does not look at where shards end."""
        return self._with(has_borders=False)

    def mapped(self, function):
        """Return what a function makes of the rows, whenever they are read."""
        row = self[:1] if len(self) else np.zeros((1, self.shape[1]), self.dtype)
        return self._mapped(function, like=function(row))

    def _mapped(self, function, like):
        functions, shape = (*self.functions, function), (len(self), like.shape[1])
        return self._with(functions=functions, shape=shape, dtype=like.dtype)

    def _with(self, **changes):
        others = object.__new__(type(self))
        vars(others).update(vars(self), **changes)
        return others

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
        return {**vars(self), "workers": None}  # who stay where they were asked for

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        """Return rows; ``[:, first:last]`` are all rows of some columns, in the files still."""
        if isinstance(rows, tuple):
            return self._of_columns(*rows)
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step != 1:
                return self[np.arange(first, last, step)]
            return self._map(self._run(first, last))
        rows = row_numbers(rows, len(self))
        if rows.ndim == 0:
            return self[int(rows) : int(rows) + 1][0]
        found = self._map(self._take(rows.ravel()))
        return found.reshape(*rows.shape, self.shape[1])

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
        order = np.argsort(rows, kind="stable")
        owners = self.owners(rows[order])
        for mine in np.split(order, np.flatnonzero(np.diff(owners)) + 1) if len(order) else ():
            i = int(self.owners(rows[mine[0]]))
            shard = self.shards[i]
            numbers = rows[mine] - (int(self.ends[i]) - shard.shape[0])
            found[mine] = of_shard = shard.take(numbers)
            check_rows(of_shard, shard.folder, numbers)
        return found

    def _of_columns(self, rows, columns):
        if rows != slice(None) or not isinstance(columns, slice) or columns.step not in (None, 1):
            raise IndexError("rows of shards are read by one index, or cut as [:, first:last].")
        first, last, _ = columns.indices(self.shape[1])
        cut = Columns(first, max(first, last))
        return self._mapped(cut, like=cut(self._like()))

    @one_blas_thread
    def _map(self, rows):
        for function in self.functions:
            rows = function(rows) if len(rows) else self._like()
        return rows


def has_borders(values):
    """Tell whether values are those of shards at whose ends work is cut."""
    return isinstance(values, ShardedValues) and values.has_borders


def runs_of_shards(bags):
    """Return slices of consecutive bags that lie in one shard; bags elsewhere are one run."""
    if not has_borders(bags.values) or len(bags.starts) == 0:
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


def read_here(bags):
    """Return the same bags, for this process to work on if they are bags of shards."""
    return worked_on_by(bags, None) if isinstance(bags.values, ShardedValues) else bags


def in_memory(bags):
    """Return bags of shards with their descriptors read; others stay as they are."""
    return bags.pack() if isinstance(bags.values, ShardedValues) else bags


def without_borders(bags):
    """Return the same bags, to be worked on as those of one array if they are bags of shards.

    What is added up then has the bits that it has for one array, as encodings have in any case.
    """
    if not isinstance(bags.values, ShardedValues):
        return bags
    return _with_values(bags, bags.values.without_borders())


def _with_values(bags, values):
    others = object.__new__(type(bags))
    vars(others).update(vars(bags), values=values)
    return others

r"""A chain of layers: from bags to encodings, and gradients back.

.. math:: \text{descriptors} \;\to\; \text{rows} \;\to\; \text{sums}
          \;\to\; \text{pooled} \;\to\; \text{encodings}

Descriptors pass some bags, or a part of a long bag, at a time, so that memory does not grow with
their number. What is computed from a bag's sums is small and in float64, on the host.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skfisher.arrays.libraries import asarray, float_dtype, to_host, zeros
from skfisher.bags.bags import Bags
from skfisher.parallel.units import HERE, Where, cut_bags, map_rows, row_units

__all__ = ["Chain", "Encoded", "map_descriptors"]

# Longer bags are cut into parts, which bounds memory whatever the length of a bag.
ROWS_PER_PART = 2**14


class Prepared(NamedTuple):
    """What the layers share between all bags of a dtype."""

    below: list
    pooling: Any
    above: list
    n_out: int  # width of an encoding


class Block(NamedTuple):
    """Some descriptors as they enter and leave each layer below, and where bags lie in them."""

    rows: list
    starts: np.ndarray
    stops: np.ndarray


class Encoded(NamedTuple):
    """Bags after a forward pass, with what the way back needs; float64 from the sums on."""

    sums: tuple
    stages: list  # what was pooled, and what each layer above made of it
    block: Block | None  # all descriptors, if they are few

    @property
    def encodings(self):
        """The last stage, of shape (n_bags, n_out)."""
        return self.stages[-1]


@dataclass(frozen=True)
class Chain:
    """Layers one after the other; the parameters of all of them are one dict.

    Parameters
    ----------
    below : tuple of RowLayer
        What descriptors go through.
    pooling : PoolingLayer
    above : tuple of RowLayer
        What encodings go through, on the host.
    where : Where
        Where descriptors are worked on, by whoever uses the chain.
    """

    below: tuple
    pooling: Any
    above: tuple = ()
    where: Where = HERE

    @property
    def groups(self):
        """Names of the parameters of each group that can be trained."""
        layers = (*self.below, self.pooling, *self.above)
        return {name: names for layer in layers for name, names in layer.groups.items()}

    def names(self, train):
        """Return the names of the parameters in some groups, in the order of the layers."""
        return [n for group, names in self.groups.items() if group in train for n in names]

    def constants(self, parameters):
        """Return the entries of parameters that training keeps."""
        free = self.names(self.groups)
        return {name: value for name, value in parameters.items() if name not in free}

    @property
    def join(self):
        """What makes the sums of a bag of those of its parts."""
        return getattr(self.pooling, "join", np.add)

    @property
    def pools_whole_bags(self):
        """Whether the sums of a bag are not those of its parts."""
        return getattr(self.pooling, "whole", False)

    @property
    def pools_alone(self):
        """Whether there is nothing but a pooling layer that knows how to encode in one pass."""
        return not (self.below or self.above) and hasattr(self.pooling, "encode")

    def prepare(self, parameters, dtype):
        """Return what the layers share between all bags of a dtype."""
        return Prepared(
            self.prepare_below(parameters, dtype),
            self.pooling.prepare(parameters, float_dtype(dtype)),
            [layer.prepare(parameters, np.dtype(np.float64)) for layer in self.above],
            self.pooling.n_out(parameters),
        )

    def prepare_below(self, parameters, dtype):
        """Return what the layers below share between all bags of a dtype."""
        return [layer.prepare(parameters, float_dtype(dtype)) for layer in self.below]

    def rows(self, prepared, x):
        """Return descriptors as they enter and leave each layer below, for what those prepared."""
        rows = [x.astype(float_dtype(x.dtype), copy=False)]
        for layer, q in zip(self.below, prepared, strict=True):
            rows.append(layer.apply(q, rows[-1]))
        return rows

    def forward(self, prepared, x, starts, stops):
        """Encode bags, rows ``starts[i]:stops[i]`` of `x`, where `x` is.

        Parameters
        ----------
        prepared : Prepared
        x : array of shape (n, d)
        starts, stops : int64 arrays of shape (n_bags,), on the host

        Returns
        -------
        encoded : Encoded
        """
        sums, block = self._sums(prepared, x, starts, stops)
        return Encoded(sums, self.read(prepared, sums, stops - starts), block)

    def sums(self, prepared, x, starts, stops):
        """Return the sums of bags, on the host; those of the parts of a bag add up."""
        return self._sums(prepared, x, starts, stops)[0]

    def _sums(self, prepared, x, starts, stops):
        """Return the sums of bags, and all their descriptors if they are few."""
        owners, parts = self._parts(Bags._of(x, starts, stops))
        slices = cut_bags(parts.lengths, prepared.n_out)
        found = []
        for some in slices:
            block = self._block(prepared, parts[some])
            sums = self.pooling.sums(prepared.pooling, block.rows[-1], block.starts, block.stops)
            found.append([to_host(s) for s in sums])
        sums = tuple(map(np.concatenate, zip(*found, strict=True)))
        if len(parts) > len(starts):
            firsts = np.searchsorted(owners, np.arange(len(starts)))
            sums = tuple(self.join.reduceat(s, firsts, axis=0) for s in sums)
        return sums, block if len(slices) == 1 else None

    def _parts(self, bags):
        """Return the bags as parts, and the bag that each belongs to."""
        if self.pools_whole_bags:
            return np.arange(len(bags)), bags
        return cut_long(bags)

    def read(self, prepared, sums, counts):
        """Return what is pooled from sums, and what each layer above makes of it."""
        stages = [self.pooling.read(prepared.pooling, sums, counts)]
        for layer, q in zip(self.above, prepared.above, strict=True):
            stages.append(layer.apply(q, stages[-1]))
        return stages

    def _block(self, prepared, parts):
        parts = parts.pack()
        return Block(self.rows(prepared.below, parts.values), parts.starts, parts.stops)

    def backward(
        self, g, prepared, encoded, x, starts, stops, *, train, with_x=False, d_shares=None
    ):
        """Return the gradients by descriptors and parameters, for `g` arriving at the encodings.

        Parameters
        ----------
        g : array of shape (n_bags, n_out)
        prepared, encoded, x, starts, stops
            Of the pass forward.
        train : collection of str
            The groups whose gradients are wanted.
        with_x : bool
            Whether those by the descriptors are wanted.
        d_shares : array of shape (n_bags, k), optional
            A gradient that arrives at the shares of a pooling layer with a penalty.

        Returns
        -------
        d_x : array of shape (n, d), or None
            0 for rows that are in no bag; those of a row that is in several add up.
        gradients : dict
        """
        names = self.names(train)
        if not (names or with_x):
            return None, {}
        d_x = None
        gradients, stages = {}, encoded.stages
        for layer, q, below, y in zip(
            self.above[::-1], prepared.above[::-1], stages[-2::-1], stages[:0:-1], strict=True
        ):
            g, part = layer.vjp(q, g, below, y, with_x=True)
            gradients |= part
        counts = stops - starts
        d_sums, of_pooling = self.pooling.read_vjp(prepared.pooling, g, encoded.sums, counts)
        if d_shares is not None:
            also, part = self.pooling.shares_vjp(prepared.pooling, d_shares, encoded.sums, counts)
            d_sums = tuple(a + b for a, b in zip(d_sums, also, strict=True))
            of_pooling = added(of_pooling, part)
        owners, parts = self._parts(Bags._of(x, starts, stops))
        for some in cut_bags(parts.lengths, prepared.n_out):
            block = encoded.block or self._block(prepared, parts[some])
            d_block = [asarray(s[owners[some]], like=block.rows[-1]) for s in d_sums]
            d_rows, through_sums, of_below = self._block_vjp(
                prepared, block, d_block, train, with_x=with_x
            )
            if with_x and d_x is None and len(d_rows) == len(x) and bags_fill(parts[some]):
                d_x = d_rows
            elif with_x:
                d_x = zeros(x.shape, like=d_rows) if d_x is None else d_x
                add_rows(d_x, parts[some], d_rows, block.starts)
            of_pooling = added(of_pooling, through_sums)
            gradients = added(gradients, of_below)
        gradients |= self.pooling.prepare_vjp(prepared.pooling, of_pooling)
        return d_x, {name: gradients[name] for name in names}

    def _block_vjp(self, prepared, block, d_sums, train, *, with_x):
        """Return the gradients of a block by rows, the pooling layer, and the layers below."""
        rows, starts, stops = block
        trained = [bool(set(train).intersection(layer.groups)) for layer in self.below]
        wanted = with_x or any(trained)
        g, of_pooling = self.pooling.sums_vjp(
            prepared.pooling, d_sums, rows[-1], starts, stops, with_x=wanted
        )
        of_below = {}
        for i in reversed(range(len(self.below))):
            if not (with_x or any(trained[: i + 1])):
                break
            wanted = with_x or any(trained[:i])
            g, part = self.below[i].vjp(prepared.below[i], g, rows[i], rows[i + 1], with_x=wanted)
            of_below |= part
        return g if with_x else None, *(
            {name: to_host(g).astype(np.float64) for name, g in part.items()}
            for part in (of_pooling, of_below)
        )

    def n_out(self, parameters):
        """Return the width of an encoding."""
        return self.pooling.n_out(parameters)

    def scratch(self, parameters, n_features):
        """Return the bytes it takes on a GPU for each descriptor, and for each unit of bags."""
        row_bytes, bag_bytes = self.pooling.scratch(parameters)
        # as many numbers as the descriptor has, between the layers and on their way back
        return row_bytes + 16 * n_features * (1 + len(self.below)), bag_bytes


def added(total, part):
    """Return the sums of what two dicts of arrays hold."""
    return total | {name: total[name] + g if name in total else g for name, g in part.items()}


def bags_fill(bags):
    """Tell whether bags follow each other from the first row of their values to the last."""
    borders = np.append(bags.starts, len(bags.values))
    return borders[0] == 0 and np.array_equal(borders[1:], bags.stops)


def add_rows(total, bags, rows, firsts):
    """Add rows, those of bag i from ``firsts[i]`` on, to where the bags lie in `total`."""
    if (bags.starts[1:] == bags.stops[:-1]).all():
        total[bags.starts[0] : bags.stops[-1]] += rows
        return
    for start, stop, first in zip(
        bags.starts.tolist(), bags.stops.tolist(), firsts.tolist(), strict=True
    ):
        total[start:stop] += rows[first : first + stop - start]


def cut_long(bags):
    """Cut long bags into parts of nearly equal length.

    Returns
    -------
    owners : int array of shape (n_parts,)
        The bag each part belongs to.
    parts : Bags
    """
    n_parts = -(-bags.lengths // ROWS_PER_PART)
    owners = np.arange(len(bags)).repeat(n_parts)
    if len(owners) == len(bags):
        return owners, bags
    position = np.arange(len(owners)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    starts, lengths, n_parts = bags.starts[owners], bags.lengths[owners], n_parts[owners]
    stops = starts + lengths * (position + 1) // n_parts
    return owners, Bags._of(bags.values, starts + lengths * position // n_parts, stops)


def map_descriptors(chain, parameters, bags):
    """Return the bags with their descriptors sent through the layers below, on the host."""
    rows = functools.partial(_last_rows, chain, chain.prepare_below(parameters, bags.dtype))
    row_bytes = 16 * bags.n_features * (1 + len(chain.below))
    values = map_rows(
        rows, row_units(bags, chain.where), tile=ROWS_PER_PART, scratch=(row_bytes, 0)
    )
    return Bags.from_lengths(to_host(values), bags.lengths)


def _last_rows(chain, prepared, x):
    return chain.rows(prepared, x)[-1]

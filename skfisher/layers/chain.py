r"""A chain of layers: from bags to encodings, and gradients back.

.. math:: \text{descriptors} \;\to\; \text{rows} \;\to\; \text{sums}
          \;\to\; \text{pooled} \;\to\; \text{encodings}

Descriptors pass some bags, or a part of a long bag, at a time, so that memory does not grow with
their number. What is computed from a bag's sums is small and in float64.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from skfisher.arrays.libraries import (
    asarray,
    cuda_devices,
    finished,
    float_dtype,
    rows_on,
    to_host,
    work_context,
)
from skfisher.bags.bags import Bags
from skfisher.parallel.threads import cut_bags, map_in_order

__all__ = ["Chain", "Encoded", "encode_bags"]

# Longer bags are cut into parts, which bounds memory whatever the length of a bag.
ROWS_PER_PART = 2**14


class Encoded(NamedTuple):
    """Bags after a forward pass, with what the way back needs; float64 from the sums on."""

    prepared: "Prepared"
    sums: tuple
    stages: list  # what was pooled, and what each layer above made of it
    rows: tuple | None  # what enters and leaves the layers below, if all bags were one task

    @property
    def encodings(self):
        """The last stage, of shape (n_bags, n_out)."""
        return self.stages[-1]


class Prepared(NamedTuple):
    """What the layers share between all bags."""

    below: list
    pooling: Any
    above: list


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
    n_jobs : int or None
        Threads on the host.
    device : None, str or list of str
        Where descriptors are worked on.
    """

    below: tuple
    pooling: Any
    above: tuple = ()
    n_jobs: int | None = None
    device: str | list | None = None

    @property
    def groups(self):
        """Names of the parameters of each group that can be trained."""
        layers = (*self.below, self.pooling, *self.above)
        return {name: names for layer in layers for name, names in layer.groups.items()}

    def constants(self, parameters):
        """Return the entries of parameters that training keeps."""
        free = {name for names in self.groups.values() for name in names}
        return {name: value for name, value in parameters.items() if name not in free}

    def on(self, turn, values):
        """Return the chain of task number `turn`: several devices take turns."""
        devices = cuda_devices(self.device, values)
        if len(devices) < 2:
            return self
        return replace(self, device=f"cuda:{devices[turn % len(devices)]}")

    def n_threads(self, values):
        """Return how many tasks to run at a time: one for each device, or as asked for.

        If several, what computes `values` is done: threads have streams of their own.
        """
        devices = cuda_devices(self.device, values)
        n_threads = len(devices) if len(devices) > 1 else self.n_jobs
        if n_threads not in (None, 1):
            finished(values)
        return n_threads

    def prepare(self, parameters, dtype):
        """Return what the layers share between all bags of a dtype."""
        dtype = float_dtype(dtype)
        return Prepared(
            self.prepare_below(parameters, dtype),
            self.pooling.prepare(parameters, dtype),
            [layer.prepare(parameters, np.dtype(np.float64)) for layer in self.above],
        )

    def prepare_below(self, parameters, dtype):
        """Return what the layers below share between all bags of a dtype."""
        return [layer.prepare(parameters, float_dtype(dtype)) for layer in self.below]

    def rows(self, prepared, bags):
        """Return the descriptors as they enter and leave each layer below, and their borders.

        They are on the one device of the chain, which must be the current one. `prepared` is
        what the layers below have prepared.
        """
        x, starts, stops = rows_on(self.device, bags.values, bags.starts, bags.stops)
        bags = Bags(x, starts, stops).pack()
        rows = [bags.values.astype(float_dtype(x.dtype), copy=False)]
        for layer, q in zip(self.below, prepared, strict=True):
            rows.append(layer.apply(q, rows[-1]))
        return rows, bags.starts, bags.stops

    def forward(self, parameters, bags):
        """Encode bags, all at once: `encode_bags` does it for any number of them."""
        prepared = self.prepare(parameters, bags.dtype)
        owners, parts = cut_long(bags)
        cuts = self._cut(parameters, parts)
        tasks = [
            (self.on(turn, bags.values), prepared, parts[part], len(cuts) == 1)
            for turn, part in enumerate(cuts)
        ]
        n_threads = self.n_threads(bags.values)
        results = list(map_in_order(_sum_task, tasks, n_jobs=n_threads))
        rows = results[-1][1]
        sums = tuple(np.concatenate(s) for s in zip(*(r[0] for r in results), strict=True))
        if len(parts) > len(bags):
            firsts = np.searchsorted(owners, np.arange(len(bags)))
            sums = tuple(np.add.reduceat(s, firsts, axis=0) for s in sums)
        stages = [self.pooling.read(prepared.pooling, sums, bags.lengths)]
        for layer, q in zip(self.above, prepared.above, strict=True):
            stages.append(layer.apply(q, stages[-1]))
        return Encoded(prepared, sums, stages, rows)

    def backward(self, g, parameters, bags, encoded, *, train):
        """Return the gradients by the parameters, a dict, for `g` arriving at the encodings.

        Parameters
        ----------
        g : array of shape (n_bags, n_out)
        parameters : dict
        bags : Bags
        encoded : Encoded
            Of these bags and parameters.
        train : collection of str
            The groups whose gradients are wanted.
        """
        wanted = {name for group, names in self.groups.items() if group in train for name in names}
        if not wanted:
            return {}
        prepared, stages = encoded.prepared, encoded.stages
        gradients = {}
        for layer, q, x, y in zip(
            self.above[::-1], prepared.above[::-1], stages[-2::-1], stages[:0:-1], strict=True
        ):
            g, part = layer.vjp(q, g, x, y, with_x=True)
            gradients |= part
        d_sums, direct = self.pooling.read_vjp(prepared.pooling, g, encoded.sums, bags.lengths)
        owners, parts = cut_long(bags)
        deep = any(set(train).intersection(layer.groups) for layer in self.below)
        tasks = []
        for turn, part in enumerate(self._cut(parameters, parts)):
            g_part = tuple(s[owners[part]] for s in d_sums)
            chain = self.on(turn, bags.values)
            tasks.append((chain, prepared, parts[part], encoded.rows, g_part, train, deep))
        n_threads = self.n_threads(bags.values)
        for of_pooling, of_below in map_in_order(_gradient_task, tasks, n_jobs=n_threads):
            direct = added(direct, of_pooling)
            gradients = added(gradients, of_below)
        gradients |= self.pooling.prepare_vjp(prepared.pooling, direct)
        return {name: gradient for name, gradient in gradients.items() if name in wanted}

    def n_out(self, parameters):
        """Return the width of an encoding."""
        return self.pooling.n_out(parameters)

    def _cut(self, parameters, parts):
        return cut_bags(parts.lengths, self.n_out(parameters))


def _sum_task(chain, prepared, bags, keep):
    """Return the sums of bags, and their rows to be kept."""
    with work_context(chain.device, bags.values):
        rows, starts, stops = chain.rows(prepared.below, bags)
        sums = chain.pooling.sums(prepared.pooling, rows[-1], starts, stops)
        return tuple(to_host(s) for s in sums), (rows, starts, stops) if keep else None


def _gradient_task(chain, prepared, bags, kept, d_sums, train, deep):
    """Return the gradients of some bags: by the pooling layer, and by those below if `deep`."""
    with work_context(chain.device, bags.values):
        rows, starts, stops = chain.rows(prepared.below, bags) if kept is None else kept
        d_sums = tuple(asarray(s, like=rows[-1], dtype=s.dtype) for s in d_sums)
        g, of_pooling = chain.pooling.sums_vjp(
            prepared.pooling, d_sums, rows[-1], starts, stops, with_x=deep
        )
        of_below = {}
        trained = [bool(set(train).intersection(layer.groups)) for layer in chain.below]
        for i in reversed(range(len(chain.below))):
            if not any(trained[: i + 1]):
                break
            below = any(trained[:i])
            layer, q = chain.below[i], prepared.below[i]
            g, part = layer.vjp(q, g, rows[i], rows[i + 1], with_x=below)
            of_below |= part
        return [
            {name: to_host(g).astype(np.float64) for name, g in part.items()}
            for part in (of_pooling, of_below)
        ]


def added(total, part):
    """Return the sums of what two dicts of arrays hold."""
    return total | {name: total[name] + g if name in total else g for name, g in part.items()}


def cut_long(bags):
    """Cut long bags into parts of nearly equal length.

    Returns
    -------
    owners : int array of shape (n_parts,)
        The bag each part belongs to.
    parts : Bags
    """
    n_parts = -(-bags.lengths // ROWS_PER_PART)
    owners = np.repeat(np.arange(len(bags)), n_parts)
    if len(owners) == len(bags):
        return owners, bags
    position = np.arange(len(owners)) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    starts, lengths, n_parts = bags.starts[owners], bags.lengths[owners], n_parts[owners]
    stops = starts + lengths * (position + 1) // n_parts
    return owners, Bags(bags.values, starts + lengths * position // n_parts, stops)


def encode_bags(chain, parameters, bags):
    """Encode any number of bags, some of them at a time.

    Returns
    -------
    encodings : array of shape (n_bags, n_out)
        float32 for descriptors of up to 32 bits (integers: 16), else float64.
    """
    n_out = chain.n_out(parameters)
    encodings = np.empty((len(bags), n_out), dtype=float_dtype(bags.dtype))
    parts = cut_bags(bags.lengths, n_out)
    n_threads, single = chain.n_threads(bags.values), replace(chain, n_jobs=1)
    tasks = [
        (single.on(turn, bags.values), parameters, bags[part]) for turn, part in enumerate(parts)
    ]
    # not named: an exception's traceback would keep its threads and limits alive
    for part, block in zip(parts, map_in_order(_encode_task, tasks, n_jobs=n_threads), strict=True):
        encodings[part] = block
    return encodings


def _encode_task(chain, parameters, bags):
    return chain.forward(parameters, bags).encodings

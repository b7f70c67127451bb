"""The way of tensors through a pooling layer, forward and back, in arrays."""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch

from skfisher.arrays.libraries import asarray, external_stream, is_cupy, to_host, zeros
from skfisher.arrays.tensors import as_array
from skfisher.bags.bags import Bags
from skfisher.layers.chain import Chain, Encoded, added
from skfisher.layers.encode import encode_bags
from skfisher.parallel.units import Where, bag_units, cut_bags, map_units

__all__ = ["Operation", "Pass", "Registered", "registered", "stream_of"]


class Operation(NamedTuple):
    """A pooling layer, and what its parameters are called."""

    layer: Any
    trained: tuple  # names, in the order of the layer's groups
    constants: tuple
    n_features: int  # width of a descriptor

    def parameters(self, values):
        """Return the parameters, float64 and on the host, for as many tensors."""
        values = [v.detach().cpu() for v in values]
        arrays = [(v.double() if v.is_floating_point() else v).numpy() for v in values]
        return dict(zip((*self.trained, *self.constants), arrays, strict=True))

    def register(self, values):
        """Return the name by which the operator finds this layer, for parameters like `values`."""
        name = f"{self.layer!r} of {[tuple(v.shape) for v in values]}"
        if name not in _REGISTERED:
            p, shapes = self.parameters(values), []
            if not hasattr(self.layer, "encode_vjp"):
                q, one = self.layer.prepare(p, np.dtype(np.float64)), np.array([1])
                sums = self.layer.sums(q, np.zeros((1, self.n_features)), one - 1, one)
                shapes = [s.shape[1:] for s in sums]
            _REGISTERED[name] = Registered(self, self.layer.n_out(p), shapes)
        return name


class Registered(NamedTuple):
    """An operation, the width of its results, and what it keeps of each bag for the way back."""

    operation: Operation
    n_out: int
    shapes: list  # of the sums; none where the layer needs none

    @property
    def n_sums(self):
        """How many numbers are kept of a bag."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


_REGISTERED: dict[str, Registered] = {}


def registered(name):
    """Return what `Operation.register` has put under a name."""
    return _REGISTERED[name]


class Pass:
    """A layer and some bags: what the way forward and the way back have in common.

    Parameters
    ----------
    x : torch.Tensor of shape (n, d)
    starts, stops : int64 tensors of shape (n_bags,), on the CPU
    values : list of torch.Tensor
        The parameters, in the order of the operation.
    name : str
        What `Operation.register` returned.

    Raises
    ------
    TypeError, ValueError
        If these are no bags for this layer.
    """

    def __init__(self, x, starts, stops, values, name):
        self.entry, self.device, self.dtype = registered(name), x.device, x.dtype
        operation = self.entry.operation
        self.bags = _bags(x, starts, stops, operation.n_features)
        self.values, self.parameters = values, operation.parameters(values)
        self.chain = Chain((), operation.layer, where=Where(torch.get_num_threads()))
        self.in_one_pass = hasattr(operation.layer, "encode_vjp")

    @functools.cached_property
    def prepared(self):
        """What the layer shares between the bags."""
        return self.chain.prepare(self.parameters, self.bags.dtype)

    def forward(self, *, keep_sums):
        """Return the encodings, and the sums of each bag side by side: empty if none are kept."""
        if self.in_one_pass or not keep_sums:
            encodings = encode_bags(self.chain, self.parameters, self.bags)
            sums = np.empty((len(self.bags) if keep_sums else 0, 0))
        else:
            found = self._each_unit(functools.partial(_forward, self.chain, self.prepared))
            encodings, sums = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return self._tensor(encodings), torch.from_numpy(sums)

    def backward(self, g, sums, *, with_x, with_values):
        """Return the gradient by the descriptors, or None, and those by the trained parameters.

        Parameters
        ----------
        g : torch.Tensor of shape (n_bags, n_out)
        sums : torch.Tensor
            As `forward` returned them.
        with_x, with_values : bool
            Which are wanted.

        Returns
        -------
        d_x : torch.Tensor or None
        d_values : list of torch.Tensor
            Empty unless they are wanted.
        """
        x, d_x, gradients = self.bags.values, None, {}
        work = functools.partial(
            _backward_in_one_pass if self.in_one_pass else _backward,
            self.chain, self.prepared, self.entry.shapes, with_x, with_values,
        )  # fmt: skip
        beside = [g.detach().cpu().numpy(), sums.numpy()]
        disjoint = (self.bags.starts[1:] >= self.bags.stops[:-1]).all()
        for first, d_rows, of_unit in self._each_unit(work, beside):
            gradients = added(gradients, of_unit)
            if d_x is None and with_x and d_rows.shape == x.shape:
                d_x = d_rows
            elif with_x:
                d_x = zeros(x.shape, like=d_rows) if d_x is None else d_x
                place = d_x[first : first + len(d_rows)]
                place[...] = d_rows if disjoint else place + d_rows
        trained = self.entry.operation.trained if with_values else ()
        d_values = [
            torch.from_numpy(np.asarray(gradients[name])).to(value.device, value.dtype)
            for name, value in zip(trained, self.values, strict=False)
        ]
        return None if d_x is None else self._tensor(to_host(d_x)), d_values

    def _each_unit(self, work, beside=()):
        """Return what `work` returns for some bags after others, in threads on the host."""
        bags, where = self.bags, self.chain.where
        if is_cupy(bags.values):  # a layer cuts what is too much at once
            return [work(bags.values, bags.starts, bags.stops, *beside)]
        units = bag_units(bags, cut_bags(bags.lengths, self.entry.n_out), where)
        return map_units(work, units, beside=beside)

    def _tensor(self, array):
        return torch.from_numpy(array).to(self.device, self.dtype)


def stream_of(x):
    """Return a context in which CuPy works on the stream of PyTorch."""
    pointer = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None
    return external_stream(pointer, x.device.index)


def _bags(x, starts, stops, n_features):
    """Return checked bags over the memory of a tensor."""
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"descriptors have dtype {x.dtype}: write .float(), or .double().")
    if x.shape[1] != n_features:
        raise ValueError(
            f"descriptors have {x.shape[1]} features, but this module was made for {n_features}."
        )
    starts, stops = starts.numpy(), stops.numpy()
    if not len(starts):
        raise ValueError("there are no bags: leave out batches without any.")
    if (wrong := stops <= starts).any():
        raise ValueError(
            f"bag {int(wrong.argmax())} is empty: give it a descriptor, or leave it out."
        )
    if (wrong := (starts < 0) | (stops > len(x))).any():
        i = int(wrong.argmax())
        raise ValueError(
            f"bag {i} is to be rows {starts[i]} to {stops[i]}, but there are {len(x)} rows."
        )
    return Bags._of(as_array(x, "x"), starts, stops)


def _forward(chain, prepared, x, starts, stops):
    encoded = chain.forward(prepared, x, starts, stops)
    return encoded.encodings, np.hstack([s.reshape(len(starts), -1) for s in encoded.sums])


def _backward(chain, prepared, shapes, with_x, with_values, x, starts, stops, g, sums):
    """Return the first row of the bags, the gradients by the rows from there, and the others."""
    first, x, starts, stops = _own_rows(x, starts, stops)
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    sums = tuple(
        s.reshape(len(starts), *shape)
        for s, shape in zip(np.split(sums, cuts, axis=1), shapes, strict=True)
    )
    train = tuple(chain.groups) if with_values else ()
    encoded, g = Encoded(sums, [None], None), g.astype(np.float64)
    return first, *chain.backward(
        g, prepared, encoded, x, starts, stops, train=train, with_x=with_x
    )


def _backward_in_one_pass(chain, prepared, _, with_x, with_values, x, starts, stops, g, __):
    first, x, starts, stops = _own_rows(x, starts, stops)
    return first, *chain.pooling.encode_vjp(
        prepared.pooling, asarray(g, like=x), x, starts, stops,
        with_x=with_x, with_parameters=with_values,
    )  # fmt: skip


def _own_rows(x, starts, stops):
    """Return the first row of some bags, the rows from there to their last, and their borders."""
    first, stop = int(starts.min()), int(stops.max())
    return first, x[first:stop], starts - first, stops - first

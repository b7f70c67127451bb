"""Pooling layers as an operator of PyTorch, with its gradient.

One operator serves all layers: it is told by name which one it is to be, as operators take
tensors, numbers and text. `torch.compile` sees it from outside, by the shapes of what it returns.
Where nothing is compiled, `pooled` calls the same functions without the operator, which would
cost small batches as much time as their work.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch

from skfisher.arrays.libraries import external_stream, is_cupy, to_host, zeros
from skfisher.arrays.tensors import as_array
from skfisher.bags.bags import Bags
from skfisher.layers.chain import Chain, Encoded, added
from skfisher.layers.encode import encode_bags
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.parallel.units import Where, bag_units, cut_bags, map_units

__all__ = ["Operation", "normalize", "pool", "pooled"]


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
            p, one = self.parameters(values), np.array([1])
            q = self.layer.prepare(p, np.dtype(np.float64))
            sums = self.layer.sums(q, np.zeros((1, self.n_features)), one - 1, one)
            _REGISTERED[name] = Registered(self, self.layer.n_out(p), [s.shape[1:] for s in sums])
        return name


class Registered(NamedTuple):
    """An operation and the shapes of its results for one bag."""

    operation: Operation
    n_out: int
    shapes: list  # of the sums

    @property
    def n_sums(self):
        """How many numbers the sums of a bag are."""
        return sum(int(np.prod(shape)) for shape in self.shapes)


_REGISTERED: dict[str, Registered] = {}


def _pool(
    x: torch.Tensor,
    starts: torch.Tensor,
    stops: torch.Tensor,
    values: list[torch.Tensor],
    name: str,
    keep_sums: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the encodings of bags, and their sums side by side, which are empty if not kept."""
    entry, bags = _REGISTERED[name], _bags(x, starts, stops, _REGISTERED[name])
    chain, p = _chain(entry), entry.operation.parameters(values)
    with _stream(x):
        if not keep_sums:
            encodings, sums = encode_bags(chain, p, bags), np.empty(0)
        else:
            prepared = chain.prepare(p, bags.dtype)
            work = functools.partial(_forward, chain, prepared)
            found = _each_unit(work, bags, entry.n_out)
            encodings, sums = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return torch.from_numpy(encodings).to(x.device, x.dtype), torch.from_numpy(sums)


pool = torch.library.custom_op("skfisher::pool", _pool, mutates_args=())


@pool.register_fake
def _(x, starts, stops, values, name, keep_sums):
    entry, n_bags = _REGISTERED[name], starts.shape[0]
    sums = (n_bags, entry.n_sums) if keep_sums else (0,)
    return x.new_empty((n_bags, entry.n_out)), starts.new_empty(sums, dtype=torch.float64)


def _pool_backward(
    g: torch.Tensor,
    sums: torch.Tensor,
    x: torch.Tensor,
    starts: torch.Tensor,
    stops: torch.Tensor,
    values: list[torch.Tensor],
    name: str,
    with_x: bool,
    with_values: bool,
) -> list[torch.Tensor]:
    """Return the gradients by descriptors and trained parameters; empty if not wanted."""
    entry, bags = _REGISTERED[name], _bags(x, starts, stops, _REGISTERED[name])
    operation, chain = entry.operation, _chain(entry)
    train = tuple(operation.layer.groups) if with_values else ()
    beside = [g.detach().to("cpu", torch.float64).numpy(), sums.numpy()]
    with _stream(x):
        prepared = chain.prepare(operation.parameters(values), bags.dtype)
        work = functools.partial(_backward, chain, prepared, entry.shapes, train, with_x)
        d_x, gradients = None, {}
        disjoint = (bags.starts[1:] >= bags.stops[:-1]).all()
        for first, d_rows, of_unit in _each_unit(work, bags, entry.n_out, beside):
            gradients = added(gradients, of_unit)
            if d_x is None and with_x and d_rows.shape == x.shape:
                d_x = d_rows
            elif with_x:
                d_x = zeros(x.shape, like=d_rows) if d_x is None else d_x
                place = d_x[first : first + len(d_rows)]
                place[...] = d_rows if disjoint else place + d_rows
        d_x = np.empty(0, np.float32) if d_x is None else to_host(d_x)
    found = [torch.from_numpy(d_x).to(x.device, x.dtype)]
    for n, value in zip(operation.trained, values, strict=False):
        gradient = gradients.get(n, np.empty(0))
        found.append(torch.from_numpy(np.asarray(gradient)).to(value.device, value.dtype))
    return found


pool_backward = torch.library.custom_op("skfisher::pool_backward", _pool_backward, mutates_args=())


@pool_backward.register_fake
def _(g, sums, x, starts, stops, values, name, with_x, with_values):
    trained = values[: len(_REGISTERED[name].operation.trained)]
    return [
        torch.empty_like(x) if with_x else x.new_empty(0),
        *(torch.empty_like(v) if with_values else v.new_empty(0) for v in trained),
    ]


def _setup(ctx, inputs, output):
    x, starts, stops, values, ctx.name, ctx.kept = inputs
    ctx.n_values = len(values)
    ctx.save_for_backward(output[1], x, starts, stops, *values)


def _gradient(ctx, g, _):
    if not ctx.kept:
        raise RuntimeError("the sums of this pass were not kept, so that there is no gradient.")
    d_x, d_values = _gradients(pool_backward, ctx, g, any(ctx.needs_input_grad[3]))
    return d_x, None, None, d_values, None, None


def _gradients(backward, ctx, g, with_values):
    """Return the gradients by descriptors and by all parameters; None where none is wanted."""
    sums, x, starts, stops, *values = ctx.saved_tensors
    with_x = ctx.needs_input_grad[0]
    d_x, *found = backward(g, sums, x, starts, stops, values, ctx.name, with_x, with_values)
    found = found if with_values else []
    return d_x if with_x else None, found + [None] * (ctx.n_values - len(found))


class _Pooled(torch.autograd.Function):
    """What `pool` is when it is not compiled."""

    @staticmethod
    def forward(ctx, x, starts, stops, name, *values):
        encodings, sums = _pool(x, starts, stops, values, name, True)
        _setup(ctx, (x, starts, stops, values, name, True), (encodings, sums))
        return encodings

    @staticmethod
    def backward(ctx, g):
        again = torch.is_grad_enabled()  # by create_graph=True
        with torch.no_grad():
            d_x, d_values = _gradients(_pool_backward, ctx, g, any(ctx.needs_input_grad[4:]))
        if again:
            _, x, _, _, *values = ctx.saved_tensors
            d_x, *d_values = (
                d if d is None else _Once.apply(d, g, x, *values) for d in (d_x, *d_values)
            )
        return d_x, None, None, None, *d_values


class _Once(torch.autograd.Function):
    """A gradient, which has none of its own by what it was computed from."""

    @staticmethod
    def forward(ctx, d, *_):
        return d.clone()

    @staticmethod
    def backward(ctx, g):
        _no_second_gradient(ctx, g)


def pooled(x, starts, stops, values, name):
    """Return the encodings of bags.

    Parameters
    ----------
    x : torch.Tensor of shape (n, d)
    starts, stops : int64 tensors of shape (n_bags,), on the CPU
    values : list of torch.Tensor
        The parameters, in the order of the operation.
    name : str
        What `Operation.register` returned.

    Returns
    -------
    encodings : torch.Tensor of shape (n_bags, n_out)
    """
    needed = torch.is_grad_enabled() and any(v.requires_grad for v in (x, *values))
    if torch.compiler.is_compiling():
        return pool(x, starts, stops, values, name, needed)[0]
    if needed:
        return _Pooled.apply(x, starts, stops, name, *values)
    return _pool(x, starts, stops, values, name, False)[0]


def _no_second_gradient(ctx, *g):
    raise RuntimeError(
        "skfisher's layers have first derivatives only: call backward or torch.autograd.grad "
        "without create_graph=True."
    )


pool.register_autograd(_gradient, setup_context=_setup)
pool_backward.register_autograd(_no_second_gradient, setup_context=lambda *_, **__: None)


@torch.library.custom_op("skfisher::power_l2_normalize", mutates_args=())
def normalize(
    x: torch.Tensor, blocks: torch.Tensor | None, power: float, eps: float
) -> torch.Tensor:
    """Return rows normalised by signed power and length; `eps` of 0 for the exact power."""
    with _stream(x):
        return torch.from_dlpack(power_l2_normalize(as_array(x, "x"), **_how(blocks, power, eps)))


@torch.library.custom_op("skfisher::power_l2_normalize_backward", mutates_args=())
def normalize_backward(
    g: torch.Tensor, x: torch.Tensor, blocks: torch.Tensor | None, power: float, eps: float
) -> torch.Tensor:
    """Return the gradient by the rows."""
    with _stream(x):
        g, x = as_array(g.contiguous(), "g"), as_array(x, "x")
        return torch.from_dlpack(power_l2_normalize_vjp(g, x, **_how(blocks, power, eps)))


def _how(blocks, power, eps):
    blocks = None if blocks is None else blocks.cpu().numpy()
    return {"power": power, "blocks": blocks, "eps": eps or None}


normalize.register_fake(lambda x, blocks, power, eps: torch.empty_like(x))
normalize_backward.register_fake(lambda g, x, blocks, power, eps: torch.empty_like(x))


def _setup_rows(ctx, inputs, output):
    x, blocks, ctx.power, ctx.eps = inputs
    ctx.save_for_backward(x, blocks)


def _gradient_by_rows(ctx, g):
    return normalize_backward(g, *ctx.saved_tensors, ctx.power, ctx.eps), None, None, None


normalize.register_autograd(_gradient_by_rows, setup_context=_setup_rows)
normalize_backward.register_autograd(_no_second_gradient, setup_context=lambda *_, **__: None)


def _bags(x, starts, stops, entry):
    """Return checked bags over the memory of a tensor."""
    n_features = entry.operation.n_features
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"descriptors have dtype {x.dtype}: write .float(), or .double().")
    if x.shape[1] != n_features:
        raise ValueError(
            f"descriptors have {x.shape[1]} features, but this module was made for {n_features}."
        )
    starts, stops = starts.numpy(), stops.numpy()
    if not len(starts):
        raise ValueError("there are no bags: leave out batches without any.")
    if (wrong := (stops <= starts)).any():
        raise ValueError(
            f"bag {int(wrong.argmax())} is empty: give it a descriptor, or leave it out."
        )
    if (wrong := (starts < 0) | (stops > len(x))).any():
        i = int(wrong.argmax())
        raise ValueError(
            f"bag {i} is to be rows {starts[i]} to {stops[i]}, but there are {len(x)} rows."
        )
    return Bags(as_array(x, "x"), starts, stops)


def _chain(entry):
    return Chain((), entry.operation.layer, where=Where(torch.get_num_threads()))


def _stream(x):
    """Return a context in which CuPy works on the stream of PyTorch."""
    pointer = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None
    return external_stream(pointer, x.device.index)


def _each_unit(work, bags, n_out, beside=()):
    """Return what `work` returns for some bags after others, in threads on the host."""
    if is_cupy(bags.values):  # a chain cuts what is too much at once
        return [work(bags.values, bags.starts, bags.stops, *beside)]
    slices = cut_bags(bags.lengths, n_out)
    return map_units(work, bag_units(bags, slices, Where(torch.get_num_threads())), beside=beside)


def _forward(chain, prepared, x, starts, stops):
    encoded = chain.forward(prepared, x, starts, stops)
    return encoded.encodings, np.hstack([s.reshape(len(starts), -1) for s in encoded.sums])


def _backward(chain, prepared, shapes, train, with_x, x, starts, stops, g, sums):
    """Return the first row of the bags, the gradients by the rows from there, and the others."""
    first, stop = int(starts.min()), int(stops.max())
    x, starts, stops = x[first:stop], starts - first, stops - first
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    sums = tuple(
        s.reshape(len(starts), *shape)
        for s, shape in zip(np.split(sums, cuts, axis=1), shapes, strict=True)
    )
    encoded = Encoded(sums, [None], None)
    d_x, gradients = chain.backward(
        g, prepared, encoded, x, starts, stops, train=train, with_x=with_x
    )
    return first, d_x, gradients

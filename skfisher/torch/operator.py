"""Pooling layers as an operator of PyTorch, with its gradient.

One operator serves all layers: it is told by name which one it is to be, as operators take
tensors, numbers and text. `torch.compile` sees it from outside, by the shapes of what it returns.
Where nothing is compiled, `pooled` does the same without the operator, which would cost small
batches as much time as their work, and hands what the way forward has prepared to the way back.
"""

from typing import Optional  # `|` fails where documentation is built without PyTorch

import torch

from skfisher.arrays.tensors import as_array
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.torch.passes import Pass, registered, stream_of

__all__ = ["normalize", "pool", "pooled"]


@torch.library.custom_op("skfisher::pool", mutates_args=())
def pool(
    x: torch.Tensor,
    starts: torch.Tensor,
    stops: torch.Tensor,
    values: list[torch.Tensor],
    name: str,
    keep_sums: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the encodings of bags, and their sums side by side, which are empty if not kept."""
    with stream_of(x):
        return Pass(x, starts, stops, values, name).forward(keep_sums=keep_sums)


@pool.register_fake
def _(x, starts, stops, values, name, keep_sums):
    entry, n_bags = registered(name), starts.shape[0]
    sums = (n_bags, entry.n_sums) if keep_sums else (0, 0)
    return x.new_empty((n_bags, entry.n_out)), starts.new_empty(sums, dtype=torch.float64)


@torch.library.custom_op("skfisher::pool_backward", mutates_args=())
def pool_backward(
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
    with stream_of(x):
        work = Pass(x, starts, stops, values, name)
        d_x, d_values = work.backward(g, sums, with_x=with_x, with_values=with_values)
    trained = values[: len(work.entry.operation.trained)]
    return [
        x.new_empty(0) if d_x is None else d_x,
        *(d_values or [v.new_empty(0) for v in trained]),
    ]


@pool_backward.register_fake
def _(g, sums, x, starts, stops, values, name, with_x, with_values):
    trained = values[: len(registered(name).operation.trained)]
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
        raise RuntimeError("the sums of this pass were not kept, so there is no gradient.")
    with_x, with_values = ctx.needs_input_grad[0], any(ctx.needs_input_grad[3])
    sums, x, starts, stops, *values = ctx.saved_tensors
    d_x, *found = pool_backward(g, sums, x, starts, stops, values, ctx.name, with_x, with_values)
    found = found if with_values else []
    found += [None] * (ctx.n_values - len(found))
    return d_x if with_x else None, None, None, found, None, None


class _Pooled(torch.autograd.Function):
    """What `pool` is when it is not compiled."""

    @staticmethod
    def forward(ctx, work, x, *values):
        with stream_of(x):
            encodings, ctx.sums = work.forward(keep_sums=True)
        ctx.work = work
        ctx.save_for_backward(x, *values)
        return encodings

    @staticmethod
    def backward(ctx, g):
        x, *values = ctx.saved_tensors  # which refuses what was written to in between
        _, with_x, *of_values = ctx.needs_input_grad
        with stream_of(x):
            d_x, found = ctx.work.backward(g, ctx.sums, with_x=with_x, with_values=any(of_values))
        found += [None] * (len(values) - len(found))
        if torch.is_grad_enabled():  # by create_graph=True
            d_x, *found = (d if d is None else _Once.apply(d, g, x, *values) for d in (d_x, *found))
        return None, d_x, *found


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
    with stream_of(x):
        work = Pass(x, starts, stops, values, name)
        if not needed:
            return work.forward(keep_sums=False)[0]
    return _Pooled.apply(work, x, *values)


def _no_second_gradient(ctx, *g):
    raise RuntimeError(
        "skfisher's layers have first derivatives only: call backward or torch.autograd.grad "
        "without create_graph=True."
    )


pool.register_autograd(_gradient, setup_context=_setup)
pool_backward.register_autograd(_no_second_gradient, setup_context=lambda *_, **__: None)


@torch.library.custom_op("skfisher::power_l2_normalize", mutates_args=())
def normalize(
    x: torch.Tensor, blocks: Optional[torch.Tensor], power: float, eps: float
) -> torch.Tensor:
    """Return rows normalised by signed power and length; `eps` of 0 for the exact power."""
    with stream_of(x):
        return torch.from_dlpack(power_l2_normalize(as_array(x, "x"), **_how(blocks, power, eps)))


@torch.library.custom_op("skfisher::power_l2_normalize_backward", mutates_args=())
def normalize_backward(
    g: torch.Tensor, x: torch.Tensor, blocks: Optional[torch.Tensor], power: float, eps: float
) -> torch.Tensor:
    """Return the gradient by the rows."""
    with stream_of(x):
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

"""Tensors of descriptors, in the forms that networks have them, as rows and borders of bags."""

import torch

__all__ = ["as_rows"]


def as_rows(x, *, lengths=None, mask=None, offsets=None):
    """Return the descriptors of all bags as rows, and where the bags lie in them.

    Parameters
    ----------
    x : torch.Tensor
        Of shape (B, T, D), padded unless all bags have T descriptors; (N, D), with `offsets`;
        (B, D, H, W), a descriptor for every place of feature maps; or jagged, a nested tensor.
    lengths : int tensor of shape (B,), optional
        How many descriptors of a padded bag there are; they come first.
    mask : bool tensor of shape (B, T), optional
        Which descriptors of a padded bag there are.
    offsets : int tensor of shape (B + 1,), optional
        Bag ``i`` holds the rows ``offsets[i]:offsets[i + 1]``.

    Returns
    -------
    rows : torch.Tensor of shape (n, D)
    starts, stops : int64 tensors of shape (B,), on the CPU

    Raises
    ------
    ValueError
        If shapes do not fit each other.
    """
    if x.is_nested:
        _refuse("a nested tensor", lengths=lengths, mask=mask, offsets=offsets)
        if x.layout != torch.jagged or x.dim() != 3:
            raise ValueError(
                "a nested tensor of descriptors must be jagged, of shape (B, ragged, D): make it "
                "by torch.nested.nested_tensor(bags, layout=torch.jagged)."
            )
        x, offsets = x.values(), x.offsets()
    if offsets is not None:
        _refuse("offsets", lengths=lengths, mask=mask)
        if x.dim() != 2 or offsets.dim() != 1 or len(offsets) < 2:
            raise ValueError(
                "offsets of shape (B + 1,) go with packed descriptors of shape (N, D), got "
                f"{tuple(offsets.shape)} and {tuple(x.shape)}."
            )
        offsets = offsets.to("cpu", torch.int64)
        return x, offsets[:-1].clone(), offsets[1:].clone()
    if x.dim() == 4:
        _refuse("feature maps", lengths=lengths, mask=mask)
        x = x.permute(0, 2, 3, 1).flatten(1, 2)
    if x.dim() != 3:
        raise ValueError(
            "descriptors must have shape (B, T, D), (B, D, H, W), or (N, D) with offsets, got "
            f"{tuple(x.shape)}."
        )
    n_bags, n_most, width = x.shape
    starts = torch.arange(n_bags) * n_most
    if mask is not None:
        _refuse("mask", lengths=lengths)
        if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be a bool tensor of shape {tuple(x.shape[:2])}, got {mask.dtype} of "
                f"shape {tuple(mask.shape)}."
            )
        # descriptors that there are first, in their order
        order = torch.argsort(~mask, dim=1, stable=True)
        x = torch.take_along_dim(x, order[:, :, None], dim=1)
        lengths = mask.sum(dim=1)
    stops = starts + n_most
    if lengths is not None:
        if lengths.shape != (n_bags,) or lengths.is_floating_point():
            raise ValueError(
                f"lengths must be integers of shape ({n_bags},), got {lengths.dtype} of shape "
                f"{tuple(lengths.shape)}."
            )
        lengths = lengths.to("cpu", torch.int64)
        if not torch.compiler.is_compiling() and int(lengths.max()) > n_most:
            i = int((lengths > n_most).nonzero()[0])
            raise ValueError(f"lengths[{i}] is {int(lengths[i])}, but x has {n_most} rows a bag.")
        stops = starts + lengths
    return x.reshape(n_bags * n_most, width), starts, stops


def _refuse(form, **others):
    """Raise ValueError for what says a second time which rows there are."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{form} says which descriptors there are: leave {name} out.")

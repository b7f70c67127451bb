"""Power and L2 normalisation as a module of PyTorch."""

from torch import nn

from skfisher.torch.operator import normalize

__all__ = ["PowerL2"]


class PowerL2(nn.Module):
    r"""Signed power, then unit length: what Fisher vectors need before a linear classifier.

    .. math:: u = \operatorname{sign}(x) |x|^\alpha, \qquad y = u / \lVert u \rVert_2

    Parameters
    ----------
    power : float, default=0.5
    eps : float, default=1e-4
        Entries below this size are not raised to the power but scaled, so that the gradient
        stays finite; None for the exact power.
    blocks : int tensor of shape (n,), default=None
        Labels of the columns: columns with the same label are first scaled to unit length together.
        With a `power` of 1, this is intra-normalisation.

    References
    ----------
    Perronnin, Sánchez and Mensink (2010), section 3; Arandjelović and Zisserman (2013).
    """

    def __init__(self, power=0.5, eps=1e-4, *, blocks=None):
        super().__init__()
        self.power, self.eps = power, eps
        self.register_buffer("blocks", blocks)

    def forward(self, x):
        """Normalise rows.

        Parameters
        ----------
        x : torch.Tensor of shape (B, n)

        Returns
        -------
        y : torch.Tensor of shape (B, n)
        """
        return normalize(x, self.blocks, float(self.power), float(self.eps or 0))

    def extra_repr(self):
        """Return the settings."""
        return f"power={self.power}, eps={self.eps}"

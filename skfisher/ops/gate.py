r"""A gate: shares of some components in a bag, and the loss that keeps all of them in use.

.. math:: H = W f + \varepsilon \operatorname{softplus}(V f), \qquad
          \omega = \operatorname{softmax} \text{ over the } K \text{ largest entries of } H,

0 for all other components. The noise :math:`\varepsilon`, in training alone, is one number a bag.

Source: Wang, Gao, Xie, Zuo and Li (2018), Global gated mixture of second-order pooling, section
2.2; one number of noise a bag, and the deviation of the loss, are those of the authors' code.
"""

from skfisher.arrays.libraries import array_module

__all__ = ["balance_loss", "balance_loss_vjp", "gate_shares", "gate_shares_vjp"]


def gate_shares(f, gate, spread, *, n_active, noise=None):
    """Return the share of each component in each bag.

    Parameters
    ----------
    f : array of shape (n, d)
        What the gate sees of each bag.
    gate : array of shape (k, d)
        ``W``.
    spread : array of shape (k, d)
        ``V``: how far noise reaches.
    n_active : int
        How many components have a share: those of the largest ``H``, the first of equals.
    noise : array of shape (n,), optional
        By default none.

    Returns
    -------
    shares : array of shape (n, k)
        Rows sum to 1.
    """
    xp = array_module(f)
    logits = f @ gate.T
    if noise is not None:
        logits += noise[:, None] * xp.logaddexp(0, f @ spread.T)
    # by place, not by value: an entry of H may be 0, and two may be equal
    this, other = logits[:, :, None], logits[:, None, :]
    before = xp.arange(len(gate)) < xp.arange(len(gate))[:, None]
    place = ((other > this) | ((other == this) & before)).sum(axis=2)
    logits = xp.where(place < n_active, logits, -xp.inf)
    powers = xp.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def gate_shares_vjp(g, f, gate, spread, *, n_active, noise=None):
    """Return ``d_f, d_gate, d_spread`` for `g` of shape (n, k) arriving at `gate_shares`."""
    xp = array_module(f)
    shares = gate_shares(f, gate, spread, n_active=n_active, noise=noise)
    d_logits = shares * (g - (shares * g).sum(axis=1, keepdims=True))
    d_f, d_gate = d_logits @ gate, d_logits.T @ f
    if noise is None:
        return d_f, d_gate, xp.zeros_like(spread)
    slope = 0.5 + 0.5 * xp.tanh(0.5 * (f @ spread.T))  # of softplus
    d_reach = noise[:, None] * slope * d_logits
    return d_f + d_reach @ spread, d_gate, d_reach.T @ f


def balance_loss(usage, *, weight):
    r"""Return a loss that is 0 where all components are used alike.

    .. math:: L = a \left(\frac{\operatorname{std}(\iota)}{\operatorname{mean}(\iota)}\right)^2,

    with the deviation of a sample, which divides by one less than the number of components.

    Source: Wang et al. (2018), section 2.2.

    Parameters
    ----------
    usage : array of shape (k,)
        The sum of the shares of each component over the bags of a batch.
    weight : float
        ``a``.

    Returns
    -------
    loss : array of shape ()
    """
    k, mean = len(usage), usage.mean()
    return weight * ((usage - mean) ** 2).sum() / (max(k - 1, 1) * mean**2)


def balance_loss_vjp(g, usage, *, weight):
    """Return ``d_usage`` for the number `g` arriving at `balance_loss`."""
    k, mean = len(usage), usage.mean()
    away = usage - mean
    by_mean = (away**2).sum() / (k * mean)
    return g * 2 * weight * (away - by_mean) / (max(k - 1, 1) * mean**2)

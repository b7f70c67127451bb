r"""A gated mixture of second-order poolings as a layer: projections, of which a bag uses some.

.. math:: y = \sum_i \omega_i \, v\big(f(W_i M W_i^\top)\big), \qquad
          \omega = \text{gate}(\mu)

with :math:`\mu` and M the mean and the second-order statistic of a bag. Projections act on the sums
of a bag, so that its descriptors are read once, however many there are.

Source: Wang, Gao, Xie, Zuo and Li (2018), Global gated mixture of second-order pooling.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from skfisher.codebooks.moments import second_moments
from skfisher.layers.second_order import MatrixPooling
from skfisher.ops.gate import balance_loss, balance_loss_vjp, gate_shares, gate_shares_vjp

__all__ = ["GatedPooling"]

# What projections start with beside the principal axes, as a share of these: else all of them
# would learn the same.
APART = 0.3


@dataclass
class PreparedGate:
    """A prepared matrix layer for each projection, the gate, and the last bags that were read."""

    moments: list
    gate: np.ndarray | None  # without one, all projections have the same share
    spread: np.ndarray | None
    noise: np.ndarray | None = None
    kept: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class GatedPooling:
    """The pooling layer of several projected second-order statistics.

    Parameters
    ----------
    n_projections : int
    n_active : int
        How many projections a bag uses, once there is a gate.
    balance : float
        Weight of the loss that keeps all projections in use.
    matrix : MatrixPooling
        What is made of each; its `n_components` is the width of the projections, None for that of
        the descriptors.
    normalize : {"l2", "power-l2"} or None
        How a classifier wants the encodings.
    """

    n_projections: int = 4
    n_active: int = 2
    balance: float = 0.01
    matrix: MatrixPooling = field(default_factory=lambda: MatrixPooling(norm=None))
    normalize: str | None = "l2"

    groups: ClassVar = {"projections": ("projections",), "gate": ("gate", "spread")}
    n_start_rows: ClassVar = MatrixPooling.n_start_rows
    n_least_rows: ClassVar = 1

    def check(self, n_features):
        """Check the width of the projections, and that as many can be active."""
        if self.n_active > self.n_projections:
            raise ValueError(
                f"n_active={self.n_active} is more than n_projections={self.n_projections}: a bag "
                "can use no more than there are."
            )
        self.matrix.check(n_features)

    def start(self, bags, seed):
        """Return projections near the principal axes, and a gate that is drawn.

        The authors start all weights of the gate at one number; which projections a bag then uses
        would be the same for all bags, as no ties are broken at random here.
        """
        p = self.start_from(second_moments(bags, products=True), seed)
        k, d = self.n_projections, bags.n_features
        gate = np.random.default_rng([seed, 1]).normal(size=(k, d)) / np.sqrt(d)
        return p | {"gate": gate, "spread": np.full((k, d), 1 / d)}

    def start_from(self, moments, seed):
        """Return constants and projections for the moments of the descriptors."""
        d = len(moments.mean)
        width = d if self.matrix.n_components is None else self.matrix.n_components
        p = replace(self.matrix, n_components=width).start_from(moments)
        axes = p.pop("projection")
        apart = np.random.default_rng(seed).normal(size=(self.n_projections - 1, *axes.shape))
        p["projections"] = np.concatenate([axes[None], axes + APART / np.sqrt(d) * apart])
        return p

    def prepare(self, p, dtype):
        """Return what each projection shares between bags, and the gate."""
        constants = {name: value for name, value in p.items() if name != "projections"}
        moments = [
            self.matrix.prepare(constants | {"projection": projection}, dtype)
            for projection in p["projections"]
        ]
        return PreparedGate(moments, p.get("gate"), p.get("spread"))

    def noisy(self, q, noise):
        """Return what was prepared, for bags with a number of noise each."""
        return PreparedGate([replace(m, kept=None) for m in q.moments], q.gate, q.spread, noise)

    def sums(self, q, x, starts, stops):
        """Return the sums of descriptors and of their outer products, about the mean."""
        return self.matrix.sums(q.moments[0], x, starts, stops)

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and no gradients by what was prepared."""
        return self.matrix.sums_vjp(q.moments[0], g, x, starts, stops, with_x=with_x)

    def shares(self, q, sums, counts):
        """Return the share of each projection in each bag."""
        if q.gate is None:
            return np.full((len(counts), len(q.moments)), 1 / len(q.moments))
        return gate_shares(*self._gate(q, sums, counts), **self._options(q))

    def _gate(self, q, sums, counts):
        return sums[0] / counts[:, None] / q.moments[0].scale, q.gate, q.spread

    def _options(self, q):
        return {"n_active": self.n_active, "noise": q.noise}

    @property
    def penalizes(self):
        """Whether there is a balance loss."""
        return self.balance > 0

    def penalty(self, q, total):
        """Return the balance loss of a batch, and its gradient by the sum of the shares."""
        loss = balance_loss(total, weight=self.balance)
        return float(loss), balance_loss_vjp(1.0, total, weight=self.balance)

    def shares_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums and by the gate, for `g` at the shares."""
        d_f, d_gate, d_spread = gate_shares_vjp(g, *self._gate(q, sums, counts), **self._options(q))
        d_s1 = d_f / counts[:, None] / q.moments[0].scale
        return (d_s1, np.zeros_like(sums[1])), {"gate": d_gate, "spread": d_spread}

    def _parts(self, q, sums, counts):
        """Return the shares, and what bags make of each projection that they use.

        Of each that any of them uses: its number, these bags, their sums and their encodings.
        """
        shares, parts = self.shares(q, sums, counts), []
        for i in np.flatnonzero(shares.any(axis=0)).tolist():
            bags = np.flatnonzero(shares[:, i])
            some = tuple(s[bags] for s in sums)
            parts.append((i, bags, some, self.matrix.read(q.moments[i], some, counts[bags])))
        q.kept = sums, (shares, parts)  # for the way back, if that comes next
        return shares, parts

    def read(self, q, sums, counts):
        """Return the encodings of the projections, added up by their shares."""
        shares, parts = self._parts(q, sums, counts)
        encodings = np.zeros((len(counts), parts[0][3].shape[1]))
        for i, bags, _, of_projection in parts:
            encodings[bags] += shares[bags, i, None] * of_projection
        return encodings

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums, and by projections and gate."""
        kept, found = q.kept or (None, None)
        shares, parts = found if kept is sums else self._parts(q, sums, counts)
        d_shares = np.zeros_like(shares)
        d_projections = np.zeros((len(q.moments), *q.moments[0].projection.shape))
        d_sums = tuple(np.zeros_like(s) for s in sums)
        for i, bags, some, of_projection in parts:
            d_shares[bags, i] = (g[bags] * of_projection).sum(axis=1)
            d_some, gradients = self.matrix.read_vjp(
                q.moments[i], shares[bags, i, None] * g[bags], some, counts[bags]
            )
            for whole, part in zip(d_sums, d_some, strict=True):
                whole[bags] += part
            d_projections[i] = gradients["projection"]
        through, gradients = self.shares_vjp(q, d_shares, sums, counts)
        d_sums = tuple(a + b for a, b in zip(d_sums, through, strict=True))
        return d_sums, gradients | {"projections": d_projections}

    def prepare_vjp(self, q, g):
        """Return the gradients by projections and gate: they are parameters as they are."""
        return g

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row and for each bag."""
        return self.matrix.scratch(p)

    def _first(self, p):
        constants = {name: value for name, value in p.items() if name != "projections"}
        return constants | {"projection": p["projections"][0]}

    def n_out(self, p):
        """Return the width of an encoding."""
        return self.matrix.n_out(self._first(p))

    def attributes(self, p):
        """Return mean, scale, ridge and ``projections_``, and the weights of the gate, if any."""
        shown = {name: p[name] for name in _GATE if name in p}
        return self.matrix.attributes(p) | {f"{name}_": value for name, value in shown.items()}

    def parameters(self, attributes):
        """Return the parameters of fitted attributes."""
        given = {name: attributes[f"{name}_"] for name in _GATE if f"{name}_" in attributes}
        return self.matrix.parameters(attributes) | given

    def names(self, p):
        """Return the names of the columns, of projected dimensions d0, d1, ..."""
        return self.matrix.names(self._first(p))


_GATE = ("projections", "gate", "spread")

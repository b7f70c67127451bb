r"""Deep Fisher networks as a pooling layer: Fisher vectors of windows, and of their codes.

.. math::
    \text{descriptors} \;\to\; \text{sums of cells and windows} \;\to\; F \;\to\; \text{power, L2}
    \;\to\; P F + p \;\to\; \text{stacks, L2} \;\to\; R c + r \;\to\; \text{sums}

with one mixture below and one above. The sums that a bag is read off are those of its descriptors
and those of the rows that its stacks of windows become, both under their mixture. A window knows
its neighbours, so these are sums over a whole bag: bags are not cut (`whole`).

Source: Simonyan, Vedaldi and Zisserman (2013).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.base import clone

from skfisher.arrays.libraries import asarray, float_dtype, to_host, zeros
from skfisher.bags.bags import Bags
from skfisher.codebooks.em import Mixture
from skfisher.layers.chain import added
from skfisher.layers.fisher import FisherPooling, PreparedMixture
from skfisher.layers.mixture import MixtureLayer
from skfisher.layers.windows import Layout, Windows, joined, windows_of
from skfisher.ops.feature_map import linear_map, linear_map_vjp
from skfisher.ops.normalization import power_l2_normalize, power_l2_normalize_vjp
from skfisher.ops.windows import (
    rows_beside,
    rows_beside_vjp,
    sums_of_rows,
    sums_of_rows_vjp,
)
from skfisher.process_state import configured

__all__ = ["DeepFisherPooling"]

# Numbers of the codes of windows that are in memory at a time.
CODE_NUMBERS = 2**22
MIXTURE = MixtureLayer.groups["mixture"]
MAPS = ("projection_weight", "projection_bias"), ("reduction_weight", "reduction_bias")


class PreparedNetwork(NamedTuple):
    """What all bags share."""

    local: PreparedMixture
    above: PreparedMixture
    maps: dict  # of the dtype to work in
    layout: Layout


class Way(NamedTuple):
    """Some bags on their way forward, as far as the way back looks at it."""

    windows: Windows
    x: Any  # descriptors, cell by cell
    starts: np.ndarray  # of the cells among these
    stops: np.ndarray
    of_cells: tuple  # sums
    of_windows: tuple
    counts: np.ndarray  # of descriptors in each window
    vectors: np.ndarray  # Fisher vectors of windows
    codes: np.ndarray  # of unit length
    projected: np.ndarray
    beside: np.ndarray  # of the windows of each stack
    stacks: np.ndarray  # of unit length
    rows: np.ndarray  # of the second layer


@dataclass(frozen=True)
class DeepFisherPooling:
    """The pooling layer of deep Fisher networks, trained from the encodings to the descriptors.

    Parameters
    ----------
    encoder : DeepFisherEncoder
        Its parameters say what the network is like; clones of it are fitted at the start.
    n_components : (int, int)
        Of both mixtures.
    power_eps : float
        Entries of Fisher vectors of windows below this size are not raised to the power but
        scaled, so that the gradient stays finite.
    """

    encoder: Any
    n_components: tuple
    power_eps: float = 1e-4

    groups: ClassVar = {
        "local": tuple(f"local_{name}" for name in MIXTURE),
        "projection": MAPS[0],
        "reduction": MAPS[1],
        "global": tuple(f"global_{name}" for name in MIXTURE),
    }
    whole: ClassVar = True
    normalize: ClassVar = "power-intra"

    @property
    def n_positions(self):
        """How many of the last columns of a descriptor are its position."""
        return self.encoder.n_positions

    @property
    def local(self):
        """The layer of descriptors."""
        return self._fisher(self.n_components[0])

    @property
    def above(self):
        """The layer of codes."""
        return self._fisher(self.n_components[1])

    def _fisher(self, n_components):
        options = {name: getattr(self.encoder, name) for name in ("max_iter", "variance_floor")}
        return FisherPooling(n_components, **options)

    @property
    def _reads_both(self):
        return 1 in self.encoder.layers

    @property
    def n_start_rows(self):
        """How many descriptors the network is fitted to."""
        return self.local.n_start_rows + 8 * self.encoder.max_windows

    @property
    def n_least_rows(self):
        """How many descriptors it needs."""
        return self.n_components[0]

    def check(self, n_features):
        """Rows of any width can be pooled."""

    def start(self, bags, seed):
        """Return the parameters of a network that is fitted layer by layer to whole `bags`."""
        encoder = clone(self.encoder).set_params(random_state=seed).fit(bags)
        local, above = (
            Mixture(e.weights_, e.means_, e.variances_) for e in (encoder.local_, encoder.global_)
        )
        p = self._free(local, self.local.constants_of(local), "local_")
        p |= self._free(above, self.above.constants_of(above), "global_")
        width = self.local.n_out(part_of(p, "local_"))
        projection = affine_map(encoder.projection_, width, "projection")
        width = len(projection[1]) * math.prod(self._layout(encoder.cell_).sides(encoder.stack))
        reduction = affine_map(encoder.reduction_, width, "reduction")
        maps = zip((*MAPS[0], *MAPS[1]), (*projection, *reduction), strict=True)
        return p | dict(maps) | {"cell": np.array(encoder.cell_)}

    def _layout(self, cell):
        return Layout(self.n_positions, cell, self.encoder.window, self.encoder.stack)

    def _free(self, mixture, constants, prefix):
        free = self.local.free(mixture, constants)
        return {f"{prefix}{name}": value for name, value in free.items()}

    def prepare(self, p, dtype):
        """Return both mixtures, the maps between them, and how windows lie."""
        return PreparedNetwork(
            self.local.prepare(part_of(p, "local_"), float_dtype(dtype)),
            self.above.prepare(part_of(p, "global_"), float_dtype(dtype)),
            {name: p[name].astype(dtype) for names in MAPS for name in names},
            self._layout(p["cell"].item()),
        )

    def sums(self, q, x, starts, stops):
        """Return the sums of descriptors, those of rows above, and how many these are."""
        found = []
        for some in self._groups(q, x, starts, stops):
            way = self._forward(q, x, some)
            ends = way.windows.n_stacks.cumsum()
            above = self.above.sums(q.above, way.rows, ends - way.windows.n_stacks, ends)
            borders = np.append(0, way.windows.n_cells.cumsum()).tolist()
            local = [
                np.stack([s[a:b].sum(axis=0) for a, b in itertools.pairwise(borders)])
                for s in way.of_cells
                if self._reads_both
            ]
            found.append((*local, *above, way.windows.n_stacks.astype(np.float64)))
        return tuple(map(np.concatenate, zip(*found, strict=True)))

    def sums_vjp(self, q, g, x, starts, stops, *, with_x):
        """Return ``d_x`` or None, and the gradients by both mixtures and the maps between them."""
        d_x, total, first = zeros(x.shape, like=x) if with_x else None, {}, 0
        g = [to_host(s) for s in g]
        for some in self._groups(q, x, starts, stops):
            bags = slice(first, first + len(some.n_cells))
            way = self._forward(q, x, some)
            d_rows, found = self._backward(q, way, [s[bags] for s in g], with_x)
            total, first = added(total, found), bags.stop
            if d_x is None:
                continue
            if some.rows is None:
                d_x[some.starts[0] : some.stops[-1]] += d_rows
            else:
                d_x[asarray(some.rows, like=x), : d_rows.shape[1]] += d_rows
        return d_x, total

    def _groups(self, q, x, starts, stops):
        """Yield the windows of as many bags as there is memory for the codes of."""
        bags, group, n_windows = Bags._of(x, starts, stops), [], 0
        most = CODE_NUMBERS // len(q.maps["projection_weight"].T)
        for i in range(len(bags)):
            windows = windows_of(q.layout, bags, i)
            if group and n_windows + len(windows.of_cells) > most:
                yield joined(group)
                group, n_windows = [], 0
            group.append(windows)
            n_windows += len(windows.of_cells)
        yield joined(group)

    def _forward(self, q, x, windows):
        starts, stops = windows.starts, windows.stops
        if windows.rows is None:
            first, last = int(starts[0]), int(stops[-1])
            x, starts, stops = x[first:last], starts - first, stops - first
        else:
            x = x[asarray(windows.rows, like=x), : -q.layout.n_positions]
        of_cells = tuple(map(to_host, self.local.sums(q.local, x, starts, stops)))
        of_windows = tuple(sums_of_rows(s, windows.of_cells) for s in of_cells)
        counts = sums_of_rows(stops - starts, windows.of_cells)
        width = len(q.maps["projection_weight"].T)
        vectors = np.empty((len(counts), width), x.dtype)
        self.local.read(q.local, of_windows, counts, out=vectors)
        codes = power_l2_normalize(vectors, eps=self.power_eps)
        projected = linear_map(codes, *(q.maps[name] for name in MAPS[0]))
        beside = rows_beside(projected, windows.of_windows)
        stacks = power_l2_normalize(beside, power=1)
        rows = linear_map(stacks, *(q.maps[name] for name in MAPS[1]))
        return Way(
            windows, x, starts, stops, of_cells, of_windows, counts, vectors, codes, projected,
            beside, stacks, rows,
        )  # fmt: skip

    def _backward(self, q, way, g, with_x):
        """Return the gradients by descriptors, cell by cell, and by what was prepared."""
        windows, ends = way.windows, way.windows.n_stacks.cumsum()
        projection, reduction = ([q.maps[name] for name in names] for names in MAPS)
        d_rows, by_above = self.above.sums_vjp(
            q.above, g[-4:-1], way.rows, ends - windows.n_stacks, ends, with_x=True
        )
        d_stacks, *by_reduction = linear_map_vjp(d_rows, way.stacks, *reduction)
        d_beside = power_l2_normalize_vjp(d_stacks, way.beside, power=1)
        d_projected = rows_beside_vjp(d_beside, way.projected, windows.of_windows)
        d_codes, *by_projection = linear_map_vjp(d_projected, way.codes, *projection)
        d_vectors = power_l2_normalize_vjp(d_codes, way.vectors, eps=self.power_eps)
        d_windows, direct = self.local.read_vjp(q.local, d_vectors, way.of_windows, way.counts)
        d_cells = [
            sums_of_rows_vjp(d, cells, windows.of_cells)
            for d, cells in zip(d_windows, way.of_cells, strict=True)
        ]
        if self._reads_both:
            d_cells = [
                d + s.repeat(windows.n_cells, axis=0) for d, s in zip(d_cells, g, strict=False)
            ]
        d_cells = tuple(asarray(d, like=way.x) for d in d_cells)
        d_x, through_sums = self.local.sums_vjp(
            q.local, d_cells, way.x, way.starts, way.stops, with_x=with_x
        )
        by_maps = (d.astype(np.float64) for d in (*by_projection, *by_reduction))
        by_maps = dict(zip((*MAPS[0], *MAPS[1]), by_maps, strict=True))
        by_local = added(direct, {name: to_host(d) for name, d in through_sums.items()})
        return d_x, named(by_local, "local_") | named(by_above, "global_") | by_maps

    def read(self, q, sums, counts):
        """Return the Fisher vectors of descriptors, if they are wanted, and of the rows above."""
        *above, n_stacks = sums[-4:]
        vectors = self.above.read(q.above, above, n_stacks)
        if not self._reads_both:
            return vectors
        return np.hstack([self.local.read(q.local, sums[:3], counts), vectors])

    def read_vjp(self, q, g, sums, counts):
        """Return the gradients at the sums, and those by both mixtures with the sums held."""
        *above, n_stacks = sums[-4:]
        k, d = q.above.mixture.means.shape
        width = g.shape[1] - k * (2 * d + 1)
        d_above, by_above = self.above.read_vjp(q.above, g[:, width:], above, n_stacks)
        d_sums, found = (*d_above, np.zeros_like(n_stacks)), named(by_above, "global_")
        if not self._reads_both:
            return d_sums, found
        d_local, by_local = self.local.read_vjp(q.local, g[:, :width], sums[:3], counts)
        return (*d_local, *d_sums), named(by_local, "local_") | found

    def prepare_vjp(self, q, g):
        """Return the gradients by the free parameters."""
        local, above = (
            layer.prepare_vjp(prepared, part_of(g, prefix))
            for layer, prepared, prefix in (
                (self.local, q.local, "local_"), (self.above, q.above, "global_")
            )
        )  # fmt: skip
        maps = {name: g[name] for names in MAPS for name in names}
        return named(local, "local_") | named(above, "global_") | maps

    def scratch(self, p):
        """Return the bytes that the sums take on a GPU for each row, and for each bag."""
        row_bytes, cell_bytes = self.local.scratch(part_of(p, "local_"))
        return row_bytes + cell_bytes, 0  # a row may be a cell

    def n_out(self, p):
        """Return the width of an encoding."""
        widths = self._widths(p)
        return sum(widths) if self._reads_both else widths[1]

    def _widths(self, p):
        parts = (self.local, "local_"), (self.above, "global_")
        return [layer.n_out(part_of(p, prefix)) for layer, prefix in parts]

    def blocks(self, p):
        """Return the labels of the columns: a block for each layer."""
        first, second = self._widths(p)
        return np.repeat([0, 1], [first, second]) if self._reads_both else np.zeros(second, int)

    def names(self, p):
        """Return the names of the columns, those of each layer after its number."""
        names = []
        if self._reads_both:
            names += [f"layer1_{name}" for name in self.local.names(part_of(p, "local_"))]
        above = self.above.names(part_of(p, "global_"))
        return names + [f"layer2_{name.replace('_d', '_code')}" for name in above]

    def attributes(self, p):
        """Return what both mixtures and the maps show, such as ``local_means_``."""
        shown = {f"{name}_": p[name] for names in MAPS for name in names}
        for layer, prefix in ((self.local, "local_"), (self.above, "global_")):
            shown |= named(layer.attributes(part_of(p, prefix)), prefix)
        return shown

    def parameters(self, attributes):
        """Return the free parameters that fitted attributes and constants stand for."""
        p = {name: attributes[f"{name}_"] for names in MAPS for name in names}
        for layer, prefix in ((self.local, "local_"), (self.above, "global_")):
            p |= named(layer.parameters(part_of(attributes, prefix)), prefix)
        return p | {"cell": attributes["cell"]}

    def health(self, p):
        """Return what both mixtures tell of themselves, the worse of each."""
        found = [self.local.health(part_of(p, prefix)) for prefix in ("local_", "global_")]
        return {name: min(values[name] for values in found) for name in found[0]}

    def fault(self, p):
        """Return the name of what is not finite though the free parameters are, or None."""
        faults = (self.local.fault(part_of(p, prefix)) for prefix in ("local_", "global_"))
        return next((fault for fault in faults if fault), None)


def part_of(values, prefix):
    """Return the entries of a dict whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): value for n, value in values.items() if n.startswith(prefix)}


def named(values, prefix):
    """Return a dict with a prefix before each name."""
    return {prefix + name: value for name, value in values.items()}


@configured(array_api_dispatch=False, transform_output="default")
def affine_map(transformer, width, name):
    """Return the weight (n_out, width) and the bias that a fitted transformer is.

    Raises
    ------
    ValueError
        If it is no such map.
    """
    bias = np.asarray(transformer.transform(np.zeros((1, width))), dtype=np.float64)[0]
    weight = np.asarray(transformer.transform(np.eye(width)), dtype=np.float64) - bias
    x = np.random.default_rng(0).normal(size=(4, width))
    expected = np.asarray(transformer.transform(x), dtype=np.float64)
    found = x @ weight + bias
    if not np.allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()):
        raise ValueError(
            f"{name}={transformer!r} is not a linear map, so there is no gradient through it: "
            "take PCA, TruncatedSVD, or another transformer that is linear."
        )
    return np.ascontiguousarray(weight.T), bias

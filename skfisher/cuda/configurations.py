"""Which kernels there are: their template arguments, threads, tiles and shared memory.

The table is all the launchers choose from, and what the tests compile for every architecture.
"""

from typing import NamedTuple

from skfisher.cuda import module
from skfisher.cuda.layout import component_tile

__all__ = [
    "Configuration",
    "all_configurations",
    "descriptor_vjp",
    "moments",
    "posterior_vjp",
    "score",
]

FLOAT = 4  # bytes


class Configuration(NamedTuple):
    """A kernel with its template arguments, and how to launch it."""

    expression: str
    threads: int
    shared_bytes: int = 0
    rows: int = 0  # that a block works on at a time
    components: int = 0  # a tile has
    features: int = 0  # a tile has

    def launch(self, grid, *args):
        """Launch on the current stream; numbers in `args` are NumPy scalars."""
        function = module.kernel(self.expression, self.shared_bytes)
        function(grid, (self.threads,), args, shared_mem=self.shared_bytes)


def _score(components, rows_per_thread):
    threads, slab = 256, 32
    rows = threads // (components // 4) * rows_per_thread
    return Configuration(
        f"skfisher::score<{components},{rows_per_thread}>",
        threads,
        FLOAT * (rows * (slab + 4) + 2 * slab * components),
        rows=rows,
        components=components,
    )


def _moments(components, features, per_thread, centred):
    threads = components // per_thread[0] * (features // per_thread[1])
    rows = 64
    arguments = f"{components},{features},{per_thread[0]},{per_thread[1]},{str(centred).lower()}"
    return Configuration(
        f"skfisher::moments<{arguments}>",
        threads,
        FLOAT * rows * (components + features),
        rows=rows,
        components=components,
        features=features,
    )


SCORE = [_score(32, 8), _score(64, 8)]
MOMENTS = [
    _moments(32, 32, (4, 4), False),
    _moments(32, 64, (4, 4), False),
    _moments(32, 128, (4, 4), False),
    _moments(64, 32, (8, 4), False),
    _moments(64, 64, (8, 4), False),
    _moments(64, 128, (8, 4), False),
]
# The centred sums hold a row of parameters for each of theirs: smaller rectangles.
CENTRED_MOMENTS = [
    _moments(32, 32, (4, 4), True),
    _moments(32, 64, (4, 4), True),
    _moments(64, 32, (4, 4), True),
    _moments(64, 64, (4, 4), True),
]


# By the dtype of what they sum.
_TYPES = {"float32": "float", "float64": "double"}
ADD_CHUNKS = {t: Configuration(f"skfisher::add_chunks<{c}>", 256) for t, c in _TYPES.items()}
BAG_SUMS = {t: Configuration(f"skfisher::bag_sums<{c}>", 256) for t, c in _TYPES.items()}
BAG_VECTORS = {t: Configuration(f"skfisher::bag_vectors<{c}>", 256) for t, c in _TYPES.items()}
CHUNK_LOG_LIKELIHOOD = Configuration("skfisher::chunk_log_likelihood", 32)


def _posterior_vjp(components, rows_per_thread):
    threads, slab = 256, 32
    rows = threads // (components // 4) * rows_per_thread
    return Configuration(
        f"skfisher::posterior_vjp<{components},{rows_per_thread}>",
        threads,
        FLOAT * (rows * (slab + 4) + 2 * slab * (2 * components + 4)),
        rows=rows,
        components=components,
    )


def _descriptor_vjp(features, rows_per_thread):
    threads, slab = 256, 32
    rows = threads // (features // 4) * rows_per_thread
    return Configuration(
        f"skfisher::descriptor_vjp<{features},{rows_per_thread}>",
        threads,
        FLOAT * (2 * rows * (slab + 4) + 4 * slab * features),
        rows=rows,
        features=features,
    )


def _normalization(name, threads=512):
    warps = threads // 32
    return Configuration(f"skfisher::{name}<{threads}>", threads, FLOAT * warps, rows=1)


POSTERIOR_VJP = [_posterior_vjp(32, 4), _posterior_vjp(64, 4)]
DESCRIPTOR_VJP = [_descriptor_vjp(32, 4), _descriptor_vjp(64, 4)]
ADD_BAGS = {t: Configuration(f"skfisher::add_bags<{c}>", 256) for t, c in _TYPES.items()}
ADD_DIRECT_GRADIENTS = {
    t: Configuration(f"skfisher::add_direct_gradients<{c}>", 256) for t, c in _TYPES.items()
}
POWER_L2_NORMALIZE = _normalization("power_l2_normalize")
POWER_L2_NORMALIZE_VJP = _normalization("power_l2_normalize_vjp")


def all_configurations():
    """Return every configuration that a launcher may choose."""
    return [
        *SCORE,
        *MOMENTS,
        *CENTRED_MOMENTS,
        *ADD_CHUNKS.values(),
        *BAG_SUMS.values(),
        *BAG_VECTORS.values(),
        CHUNK_LOG_LIKELIHOOD,
        *POSTERIOR_VJP,
        *DESCRIPTOR_VJP,
        *ADD_BAGS.values(),
        *ADD_DIRECT_GRADIENTS.values(),
        POWER_L2_NORMALIZE,
        POWER_L2_NORMALIZE_VJP,
    ]


def _of_tile(configurations, k):
    return [c for c in configurations if c.components == component_tile(k)]


def score(k):
    """Return the kernel that computes posteriors of K components."""
    return _of_tile(SCORE, k)[0]


def moments(k, d, *, centred):
    """Return the kernel that sums moments of K components in D dimensions."""
    choices = _of_tile(CENTRED_MOMENTS if centred else MOMENTS, k)
    fitting = [c for c in choices if c.features >= d]
    return fitting[0] if fitting else choices[-1]


def posterior_vjp(k):
    """Return the kernel of the gradients at the posteriors of K components."""
    return _of_tile(POSTERIOR_VJP, k)[0]


def descriptor_vjp(d):
    """Return the kernel of the gradients at descriptors of D dimensions."""
    return next((c for c in DESCRIPTOR_VJP if c.features >= d), DESCRIPTOR_VJP[-1])

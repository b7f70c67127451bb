"""What `gpu.py` measures: the cases, the passes over them, and the least work in each."""

import inspect
from typing import NamedTuple

import numpy as np
import sklearn
from sklearn.mixture import GaussianMixture

from skfisher import Bags, DiagonalGaussianMixture, FisherVectorEncoder
from skfisher.arrays.devices import to_device
from skfisher.arrays.libraries import to_host
from skfisher.codebooks.em import Mixture, em_iterations
from skfisher.ops.fisher import fisher_vector, fisher_vector_vjp
from skfisher.parallel.units import Where, row_units

# Multiply-adds per descriptor, component and dimension, at the least: two for the log joint
# densities, two for the moments; backward two more for the gradient at the posteriors, two for
# sums by the parameters, or four for the descriptors.
WORK = {
    "forward": 4,
    "VJP, parameters": 6,
    "VJP, descriptors": 8,
    "VJP, both": 10,
    "EM iteration": 4,
}


class Case(NamedTuple):
    """Bags of one length, and a mixture."""

    n_bags: int
    length: int
    d: int
    k: int

    def __str__(self):
        return f"{self.n_bags} x {self.length} x {self.d}, K={self.k}"

    @property
    def n_descriptors(self):
        return self.n_bags * self.length

    @property
    def n_out(self):
        """Width of a Fisher vector."""
        return self.k * (2 * self.d + 1)

    @property
    def nbytes(self):
        """Bytes of the descriptors and the encodings, in float32."""
        return 4 * (self.n_descriptors * self.d + self.n_bags * self.n_out)

    def tiny(self):
        """Return the same mixture with hardly any descriptors."""
        return self._replace(n_bags=min(self.n_bags, 3), length=min(self.length, 20))


PAPER = Case(24, 10_000, 64, 32)  # Wieschollek, Groh and Lensch (2017), table 1
LAYOUTS = [(24, 10_000), (1, 100_000), (5_000, 50), (10_000, 10)]
SHAPES = [(32, 64), (64, 24), (64, 128), (256, 64), (256, 512)]
CASES = [Case(*layout, d, k) for k, d in SHAPES for layout in LAYOUTS]
CASES.append(Case(16, 10_000, 768, 32))  # embeddings of a network


class Ceilings(NamedTuple):
    """What the machine does at best, as measured."""

    multiply_adds: float | None = None  # a second, float32, in a large matrix product
    bandwidth: float | None = None  # bytes a second, read and written by a large copy


def multiply_adds(case, work):
    """Return the multiply-adds a pass takes at the least."""
    return WORK[work] * case.n_descriptors * case.k * case.d


def bytes_moved(case, work):
    """Return the bytes a pass reads and writes at the least, with nothing stored in between."""
    descriptors = 4 * case.n_descriptors * case.d
    encodings = 4 * case.n_bags * case.n_out  # or gradients arriving there
    if work == "EM iteration":
        return descriptors
    if work in ("VJP, descriptors", "VJP, both"):
        return 2 * descriptors + encodings
    return descriptors + encodings


def floor(case, work, ceilings):
    """Return the least time a pass could take in float32, and what sets it."""
    if None in ceilings:
        return None, None
    arithmetic = multiply_adds(case, work) / ceilings.multiply_adds
    memory = bytes_moved(case, work) / ceilings.bandwidth
    return (arithmetic, "arithmetic") if arithmetic >= memory else (memory, "memory")


class Problem:
    """Bags, a mixture, and the gradient that arrives at the bags' Fisher vectors."""

    def __init__(self, case, seed=0):
        rng = np.random.default_rng(seed)
        shape = (case.k, case.d)
        self.mixture = Mixture(
            rng.dirichlet(np.full(case.k, 5.0)),
            rng.normal(size=shape) / 2,
            rng.uniform(0.5, 1.5, size=shape),
        )
        component = rng.choice(case.k, size=case.n_descriptors, p=self.mixture.weights)
        x = rng.standard_normal((case.n_descriptors, case.d), dtype=np.float32)
        x *= np.sqrt(self.mixture.variances).astype(np.float32)[component]
        x += self.mixture.means.astype(np.float32)[component]
        self.bags = Bags.from_lengths(x, np.full(case.n_bags, case.length))
        self.g = rng.standard_normal((case.n_bags, case.n_out), dtype=np.float32)

    @property
    def where(self):
        return self.bags.starts, self.bags.stops

    def encoder(self, **parameters):
        """Return an encoder fitted to the mixture."""
        given = DiagonalGaussianMixture()
        given.weights_, given.means_, given.variances_ = self.mixture
        return FisherVectorEncoder(mixture=given, **parameters).fit(self.bags[:1])

    def em(self, x, **options):
        """Return a function that takes one iteration of EM at a time."""
        floor = np.full(self.bags.n_features, 1e-3)
        units = row_units(Bags(x, *self.where), Where(**options))
        iterations = em_iterations(units, self.mixture, floor, tol=0)
        return lambda: next(iterations)

    def passes(self, x, g):
        """Return a function for every pass, over descriptors `x` and gradients `g` in place."""
        where = x, *self.where, *self.mixture
        return {
            "forward": lambda: fisher_vector(*where),
            "VJP, parameters": lambda: fisher_vector_vjp(g, *where, with_x=False),
            "VJP, descriptors": lambda: fisher_vector_vjp(g, *where, with_parameters=False),
            "VJP, both": lambda: fisher_vector_vjp(g, *where),
            "EM iteration": self.em(x),
        }

    def passes_from_host(self, device):
        """Return the same passes from host memory to host memory; None: on the CPU."""
        x, encoder = self.bags.values, self.encoder(device=device, n_jobs=-1)

        def on_device(work):
            place = [to_device(a, device) for a in (x, self.g)]
            return [to_host(a) for a in self.passes(*place)[work]() if a is not None]

        passes = {
            work: lambda work=work: on_device(work)
            for work in ("VJP, parameters", "VJP, descriptors", "VJP, both")
        }
        passes["forward"] = lambda: encoder.transform(self.bags)
        # a new start every time: the descriptors may stay on the device between iterations
        passes["EM iteration"] = lambda: self.em(x, device=device, n_jobs=-1)()
        return passes

    def scikit_learn(self, x, xp):
        """Return a function for an iteration of scikit-learn's EM on arrays of the library `xp`.

        None if that version of scikit-learn takes none but NumPy's.
        """
        model = GaussianMixture(len(self.mixture.weights), covariance_type="diag", reg_covar=1e-3)
        if "xp" not in inspect.signature(model._e_step).parameters:
            return None
        weights, means, variances = (xp.asarray(p.astype(np.float32)) for p in self.mixture)
        model.weights_, model.means_, model.covariances_ = weights, means, variances
        model.precisions_cholesky_ = 1 / xp.sqrt(variances)

        def iterate():
            with sklearn.config_context(array_api_dispatch=True):
                _, log_posteriors = model._e_step(x)
                model._m_step(x, log_posteriors)

        return iterate

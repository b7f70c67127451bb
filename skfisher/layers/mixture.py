"""Mixtures as what a layer learns: free parameters, the start, and what solvers ask for.

The free parameters are ``weight_logits`` (k,), ``means`` and ``log_variances`` (k, d), the
logarithm of what the variances exceed ``variance_floor`` (d,) by. Where nothing is trained, a
`Mixture` under the name ``mixture`` takes the place of all of them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skfisher.codebooks.em import Mixture
from skfisher.codebooks.fitting import INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT
from skfisher.codebooks.given import is_fitted_mixture, mixture_of, number_to_fit
from skfisher.codebooks.mixture import DiagonalGaussianMixture
from skfisher.codebooks.moments import global_moments
from skfisher.ops.constraints import (
    floored_exp,
    floored_exp_vjp,
    floored_log,
    normalized_sigmoid,
    normalized_sigmoid_inverse,
    normalized_sigmoid_vjp,
    softmax,
    softmax_vjp,
)
from skfisher.process_state import ignoring

__all__ = ["MixtureLayer"]

# The weights of a mixture from numbers that are free, with the gradient and the way back.
WEIGHT_MAPS = {
    "softmax": (softmax, softmax_vjp, np.log),
    "sigmoid": (normalized_sigmoid, normalized_sigmoid_vjp, normalized_sigmoid_inverse),
}
# The smallest weight to start with, which is the smallest that EM leaves, and that of a step of
# the line search.
LEAST_WEIGHT, LEAST_STEP_WEIGHT = 1e-12, 1e-6


@dataclass(frozen=True)
class MixtureLayer:
    """Base class of pooling layers that assign descriptors by a mixture that can be trained.

    Parameters
    ----------
    n_components : int
        Of the mixture to start from, unless `mixture` has its own.
    mixture : estimator or None
        As for :class:`~skfisher.FisherVectorEncoder`.
    max_iter : int
        Iterations of EM, without `mixture`.
    variance_floor : float
        Smallest variance in EM, as a share of the global one; a tenth of it in training.
    weight_map : {"softmax", "sigmoid"}
        What makes weights of free parameters; "sigmoid" is that of Wieschollek et al. (2017).
    """

    n_components: int = 16
    mixture: Any = None
    max_iter: int = 100
    variance_floor: float = 1e-3
    weight_map: str = "softmax"

    groups: ClassVar = {"mixture": ("weight_logits", "means", "log_variances")}

    @property
    def n_start_rows(self):
        """How many descriptors the first mixture is fitted to."""
        return max(INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT * self._n_to_fit)

    @property
    def n_least_rows(self):
        """How many descriptors a mixture needs."""
        return 1 if self._is_given else self._n_to_fit

    @property
    def _n_to_fit(self):
        """How many components the first mixture is fitted with."""
        if self.mixture is None:
            return self.n_components
        return number_to_fit(self.mixture, "n_components")

    @property
    def _is_given(self):
        return self.mixture is not None and is_fitted_mixture(self.mixture)

    def check(self, n_features):
        """Check that a mixture that was fitted before has the width of the descriptors."""
        if not self._is_given:
            return
        width = mixture_of(self.mixture).means.shape[1]
        if width != n_features:
            raise ValueError(
                f"mixture was fitted on {width} features, but the mapped descriptors have "
                f"{n_features}: pass a mixture of that width, or one that is not fitted."
            )

    def start(self, bags, seed):
        """Return the parameters of a mixture of the descriptors of `bags`, and its constants."""
        moments = global_moments(bags)
        mixture = self._first_mixture(bags, seed)
        # Below the floor of EM, as a variance at the floor itself could not grow again.
        floor = moments.floor(self.variance_floor / 10)
        constants = {
            "variance_floor": np.minimum(floor, mixture.variances.min(axis=0) / 2),
            "global_variance": moments.floor(1.0),
        }
        return self.free(mixture, constants)

    def constants_of(self, mixture):
        """Return the constants for a mixture whose descriptors are not at hand."""
        weights, means, variances = mixture
        spread = weights @ (variances + means**2) - (weights @ means) ** 2
        floor = np.minimum(self.variance_floor / 10 * spread, variances.min(axis=0) / 2)
        return {"variance_floor": floor, "global_variance": spread}

    def _first_mixture(self, bags, seed):
        mixture = self.mixture
        if mixture is None:
            mixture = DiagonalGaussianMixture(
                self.n_components,
                max_iter=self.max_iter,
                variance_floor=self.variance_floor,
                random_state=seed,
            )
        elif self._is_given:
            mixture = mixture_of(mixture)
            # free parameters know no weight of 0
            return mixture._replace(weights=np.maximum(mixture.weights, LEAST_WEIGHT))
        ours = isinstance(mixture, DiagonalGaussianMixture)
        fit = ignoring(ConvergenceWarning)(clone(mixture).fit)  # a start need not be an optimum
        return mixture_of(fit(bags if ours else bags.values))

    def mixture_of(self, p):
        """Return the mixture that free parameters stand for, or that stands in their place."""
        if "mixture" in p:
            return p["mixture"]
        weights = WEIGHT_MAPS[self.weight_map][0](p["weight_logits"])
        variances = floored_exp(p["log_variances"], floor=p["variance_floor"])
        return Mixture(weights, p["means"], variances)

    def free(self, mixture, constants):
        """Return the free parameters of a mixture, and the constants."""
        return constants | {
            "weight_logits": WEIGHT_MAPS[self.weight_map][2](mixture.weights),
            "means": mixture.means,
            "log_variances": floored_log(mixture.variances, floor=constants["variance_floor"]),
        }

    def free_vjp(self, d_mixture, p):
        """Return the gradients by the free parameters, for those by the mixture."""
        d_weights, d_means, d_variances = d_mixture
        return {
            "weight_logits": WEIGHT_MAPS[self.weight_map][1](d_weights, p["weight_logits"]),
            "means": d_means,
            "log_variances": floored_exp_vjp(
                d_variances, p["log_variances"], floor=p["variance_floor"]
            ),
        }

    def means_of(self, p):
        """Return the means (k, d), whichever way the mixture is held."""
        return p["mixture"].means if "mixture" in p else p["means"]

    def attributes(self, p):
        """Return ``weights_``, ``means_`` and ``variances_``."""
        mixture = self.mixture_of(p)
        return {f"{name}_": values for name, values in mixture._asdict().items()}

    def parameters(self, attributes):
        """Return the free parameters of fitted attributes and constants."""
        constants = {name: attributes[name] for name in ("variance_floor", "global_variance")}
        return self.free(Mixture(*(attributes[f"{name}_"] for name in Mixture._fields)), constants)

    # What single solvers and reports ask for.

    def information(self, p):
        r"""Return the diagonal Fisher information by the free parameters, per descriptor.

        .. math:: I_{\nu_k} = w_k, \qquad I_{\mu_{kd}} = w_k / v_{kd}, \qquad
                  I_{\zeta_{kd}} = \tfrac{1}{2} w_k \, (1 - \varepsilon_d / v_{kd})^2

        with :math:`w = \operatorname{softmax}(\nu)` and :math:`v = \varepsilon + e^\zeta`.

        Source: Sánchez et al. (2013), appendix A.
        """
        weights, _, variances = self.mixture_of(p)
        column = weights[:, None]
        return {
            "weight_logits": weights,
            "means": column / variances,
            "log_variances": column / 2 * (1 - p["variance_floor"] / variances) ** 2,
        }

    def slopes(self, p, gradients):
        """Return the gradients by weights, means and variances, tangent to the simplex."""
        mixture = self.mixture_of(p)
        excess = mixture.variances - p["variance_floor"]
        return Mixture(
            gradients["weight_logits"] / mixture.weights,
            gradients["means"],
            gradients["log_variances"] / np.maximum(excess, np.finfo(np.float64).tiny),
        )

    def retract(self, p, slopes, step):
        """Return the parameters after a step downhill, put back among those of a mixture.

        Source: Sydorov, Sakurada and Lampert (2014), section 3.
        """
        floor = p["variance_floor"]
        weights, means, variances = (
            value - step * slope for value, slope in zip(self.mixture_of(p), slopes, strict=True)
        )
        weights = np.maximum(weights, LEAST_STEP_WEIGHT)
        mixture = Mixture(weights / weights.sum(), means, np.maximum(variances, 2 * floor))
        constants = {name: p[name] for name in ("variance_floor", "global_variance")}
        return p | self.free(mixture, constants)

    def health(self, p):
        """Return the smallest weight, times K, and the smallest share of the global variance."""
        weights, _, variances = self.mixture_of(p)
        return {
            "smallest_weight": float(weights.min() * len(weights)),
            "smallest_variance": float((variances / p["global_variance"]).min()),
        }

    def fault(self, p):
        """Return the name of what is not finite though the free parameters are, or None."""
        with np.errstate(all="ignore"):
            weights, _, variances = self.mixture_of(p)
            if not np.isfinite(np.log(weights)).all():
                return "the logarithm of a mixture weight"
            if not np.isfinite(variances).all():
                return "a variance of the mixture"
        return None

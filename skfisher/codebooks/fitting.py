"""How an estimator fits a diagonal Gaussian mixture: the loop around `em`."""

from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skfisher._compat import Interval, StrOptions
from skfisher.arrays.libraries import float_dtype, to_host
from skfisher.bags.bags import Bags
from skfisher.bags.sampling import draw_rows
from skfisher.codebooks.em import (
    LEAST_SEEN,
    StepwiseState,
    em_iterations,
    initial_mixture,
    stepwise_update,
)
from skfisher.codebooks.moments import Moments, global_moments
from skfisher.codebooks.parameters import parameters_of
from skfisher.parallel.units import Where, row_units
from skfisher.process_state import one_blas_thread
from skfisher.warning import warn_caller

__all__ = ["MixtureFitter", "course_of_fit", "too_far"]

# Descriptors clustered to start EM: more do not move the clusters, only the time.
INIT_DESCRIPTORS = 20_000
INIT_DESCRIPTORS_PER_COMPONENT = 256


class MixtureFitter:
    """Fits ``weights_, means_, variances_`` of an estimator with the mixture's parameters."""

    _mixture_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "k-means++"})],
        "variance_floor": [Interval(Real, 0, 1, closed="neither")],
        "max_descriptors": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_jobs": [Integral, None],
        "device": [str, list, tuple, None],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    def _mixture(self, bags=None):
        """Return the parameters, which may have been set by hand, for bags if there are any."""
        mixture = parameters_of(self)
        width = mixture.means.shape[1]
        if bags is not None and bags.n_features != width:
            raise ValueError(
                f"X[0] has {bags.n_features} features per descriptor, but means_ is of shape "
                f"{mixture.means.shape}: pass descriptors of width {width}."
            )
        return mixture

    def _where(self):
        return Where(self.n_jobs, self.device)

    def _keep_mixture(self, mixture, **course):
        """Set the parameters, and with them all that tells how they were found, in one step."""
        weights, means, variances = mixture
        vars(self).update(weights_=weights, means_=means, variances_=variances, **course)

    @one_blas_thread
    def _adopt_mixture(self, mixture, source):
        """Hold the parameters of a mixture that was fitted elsewhere."""
        course = course_of_fit(source)
        course["lower_bounds_"] = [course["lower_bound_"]]
        # what partial_fit goes on from: the mixture's own moments
        weights, means, variances = mixture
        mean = weights @ means
        variance = weights @ (variances + (means - mean) ** 2)
        self._keep_mixture(
            mixture, **course,
            _global_mean=mean, _global_variance=variance, _online=None, _n_seen=0,
        )  # fmt: skip

    def _fit_mixture(self, bags, X, y, encoder=None):
        """Run EM, for itself or for an encoder, which then holds the mixture from the first step.

        Whoever it is for tells the callbacks.
        """
        rng = check_random_state(self.random_state)
        seeds = rng.randint(np.iinfo(np.int32).max, size=3)
        who = self if encoder is None else encoder
        progress = who._init_callback_context(max_subtasks=self.max_iter)
        progress.call_on_fit_task_begin(estimator=who, X=X, y=y)
        bags = self._subsample(bags, seeds[0])
        mixture, moments, floor = self._start(bags, seeds[1])
        steps = self._em_steps(bags, mixture, moments, floor, seeds[2])
        lower_bounds = []
        for n_iter in range(1, self.max_iter + 1):
            step = progress.subcontext(task_name="em-iteration")
            step.call_on_fit_task_begin(estimator=who)
            before = mixture
            mixture, lower_bound, converged, online = next(steps)
            _check_likelihood(lower_bound, before, bags)
            lower_bounds = [*lower_bounds, lower_bound]
            self._keep_mixture(
                mixture, converged_=converged, n_iter_=n_iter,
                lower_bound_=lower_bound, lower_bounds_=lower_bounds,
                _online=online, _n_seen=bags.n_descriptors,
                _global_mean=moments.mean, _global_variance=moments.variance,
            )  # fmt: skip
            if encoder is not None and n_iter == 1:
                encoder._hold(self)
            if self.verbose:
                print(
                    f"{type(self).__name__}: iteration {n_iter} of at most {self.max_iter}, "
                    f"mean log-likelihood {lower_bound:.6f}"
                )
            stop = step.call_on_fit_task_end(estimator=who, reconstruction_attributes=dict)
            if stop or converged:
                break
        else:
            if encoder is None:  # which encodes no worse, and rather better, short of a maximum
                warn_caller(
                    f"EM did not gain less than tol={self.tol} within max_iter={self.max_iter} "
                    "iterations: raise max_iter or tol, lower n_components, or give more data.",
                    ConvergenceWarning,
                )
        progress.call_on_fit_task_end(estimator=who, X=X, y=y, reconstruction_attributes=dict)

    def _subsample(self, bags, seed):
        if self.max_descriptors is None or bags.n_descriptors <= self.max_descriptors:
            return bags
        if self.max_descriptors < self.n_components:
            raise ValueError(
                f"max_descriptors={self.max_descriptors} leaves fewer descriptors than "
                f"n_components={self.n_components}: raise it, or lower n_components."
            )
        rows, owners = draw_rows(bags.starts, bags.stops, self.max_descriptors, seed)
        lengths = np.bincount(owners)
        return Bags.from_lengths(bags.values[rows], lengths[lengths > 0])

    def _start(self, bags, seed):
        """Return the first mixture, the global moments and the variance floor."""
        moments = global_moments(bags, self._where())
        floor = moments.floor(self.variance_floor)
        if self.warm_start and getattr(self, "means_", np.empty(0)).shape == (
            self.n_components,
            bags.n_features,
        ):
            return self._mixture(), moments, floor
        n_rows = max(INIT_DESCRIPTORS, INIT_DESCRIPTORS_PER_COMPONENT * self.n_components)
        rows, _ = draw_rows(bags.starts, bags.stops, n_rows, seed)
        mixture = initial_mixture(
            bags.values, rows, self.n_components, moments, floor,
            method=self.init_params, seed=int(seed),
        )  # fmt: skip
        return mixture, moments, floor

    def _em_steps(self, bags, mixture, moments, floor, seed):
        """Yield what `em_iterations` does, and the state of online EM or None."""
        if self.batch_size is not None:
            yield from self._epochs(bags, mixture, moments, seed)
        units = row_units(bags, self._where())
        for step in em_iterations(units, mixture, floor, tol=self.tol):
            yield *step, None

    def _epochs(self, bags, mixture, moments, seed):
        """Yield steps of online EM over shuffled batches of bags."""
        rng = np.random.default_rng(seed)
        state = StepwiseState.begin(mixture, moments)
        before = -np.inf
        while True:
            moving = state.n_seen >= LEAST_SEEN * len(mixture.weights)
            order = rng.permutation(len(bags))
            total = 0.0
            for first in range(0, len(bags), self.batch_size):
                batch = bags[np.sort(order[first : first + self.batch_size])]
                state, mixture, log_likelihood = stepwise_update(
                    state, row_units(batch, self._where()), mixture, self.variance_floor
                )
                total += log_likelihood * batch.n_descriptors
            total /= bags.n_descriptors
            yield mixture, total, abs(total - before) < self.tol, state._asdict()
            # parameters that do not move yet have not converged
            before = total if moving else -np.inf

    def _partial_fit_mixture(self, bags):
        if not hasattr(self, "means_"):
            seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            mixture, moments, _ = self._start(bags, seed)
            state = StepwiseState.begin(mixture, moments)
            course = {"converged_": False, "n_iter_": 1, "lower_bounds_": []}
        else:
            mixture = self._mixture(bags)
            if not hasattr(self, "_online"):
                self._adopt_mixture(mixture, self)
            if len(mixture.weights) != self.n_components:
                raise ValueError(
                    f"n_components={self.n_components}, but the mixture has "
                    f"{len(mixture.weights)} components: call fit to start again."
                )
            course = {"n_iter_": self.n_iter_ + 1, "lower_bounds_": self.lower_bounds_}
            if self._online is not None:
                state = StepwiseState(**self._online)
            else:  # fitted exactly before: as if on that many batches of this size
                moments = Moments(self._global_mean, self._global_variance)
                n_steps = max(1, self._n_seen // bags.n_descriptors)
                state = StepwiseState.of_mixture(mixture, moments, n_steps, self._n_seen)
        state, updated, lower_bound = stepwise_update(
            state, row_units(bags, self._where()), mixture, self.variance_floor
        )
        _check_likelihood(lower_bound, mixture, bags)
        course |= {
            "lower_bound_": lower_bound, "lower_bounds_": [*course["lower_bounds_"], lower_bound],
            "_online": state._asdict(),
        }  # fmt: skip
        self._keep_mixture(updated, **course)


def course_of_fit(mixture):
    """Return the attributes that tell how a mixture was fitted."""
    # parameters set by hand come without these
    lower_bound = float(getattr(mixture, "lower_bound_", np.nan))
    return {
        "converged_": getattr(mixture, "converged_", True),
        "n_iter_": getattr(mixture, "n_iter_", 1),
        "lower_bound_": lower_bound,
        "lower_bounds_": list(getattr(mixture, "lower_bounds_", [lower_bound])),
    }


def _check_likelihood(log_likelihood, mixture, bags):
    if not np.isfinite(log_likelihood):
        raise ValueError(too_far(mixture, bags))


def too_far(mixture, bags, sample=None):
    """Return what to say of a descriptor whose square is too much for float32.

    Of the given sample, or of the one that reaches farthest.
    """
    mean = mixture.weights @ mixture.means
    deviation = np.sqrt(mixture.weights @ (mixture.variances + (mixture.means - mean) ** 2))

    def reach(bag):
        return np.abs((to_host(bag).astype(np.float64) - mean) / deviation).max()

    if sample is None:
        sample = int(np.argmax([reach(bag) for bag in bags]))
    return (
        f"X[{sample}] has a descriptor {reach(bags[sample]):.0e} standard deviations from the "
        f"mixture's mean: its square overflows {float_dtype(bags.dtype)}. Is it a fill value? "
        "Drop it, or pass float64."
    )

"""What encoders of a Gaussian mixture have in common: they fit one, or take one."""

import copy

from sklearn.base import clone
from sklearn.utils.metaestimators import available_if

from skfisher._compat import HasMethods, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import detached, to_host
from skfisher.bags.bags import Bags
from skfisher.codebooks.fitting import MixtureFitter, too_far
from skfisher.codebooks.given import is_fitted_mixture, mixture_of, number_to_fit, unfrozen
from skfisher.codebooks.mixture import DiagonalGaussianMixture
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import CodebookEncoder
from skfisher.process_state import configured

__all__ = ["MixtureEncoder"]

# What an encoder of its own mixture says of it; all else is as in `DiagonalGaussianMixture`.
OF_MIXTURE = ("n_components", "max_iter", "variance_floor", "max_descriptors", "n_jobs", "device")
OF_MIXTURE += ("random_state",)


def _trains_its_own_mixture(encoder):
    if encoder.mixture is not None:
        raise AttributeError("partial_fit trains the encoder's own mixture: set mixture=None.")
    return True


def _of_mixture(name):
    """Return a property that reads an attribute of `mixture_`, absent until there is one."""

    def of_mixture(encoder):
        return getattr(vars(encoder).get("mixture_"), name)

    return property(of_mixture, doc=f"The attribute `{name}` of `mixture_`.")


@configured(array_api_dispatch=False)
def _fitted(mixture, bags):
    """Fit a clone of a mixture, which may write to what it is given unless it is our own."""
    if type(mixture) is not DiagonalGaussianMixture:
        values = detached(to_host(bags.pack().values), bags.values)
        ours = isinstance(mixture, DiagonalGaussianMixture)
        bags = Bags.from_lengths(values, bags.lengths) if ours else values
    return clone(mixture).fit(bags)


class MixtureEncoder(CodebookEncoder):
    """Base class of encoders whose codebook is a Gaussian mixture.

    A subclass has the parameters `mixture` and those of `OF_MIXTURE`, and says how it encodes.
    """

    _encoder_constraints: dict = {
        **CodebookEncoder._encoder_constraints,
        **{name: MixtureFitter._mixture_constraints[name] for name in OF_MIXTURE},
        "mixture": [HasMethods(["fit"]), None],
    }

    @all_or_nothing(unless="mixture_")
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Fit the mixture to the descriptors of all bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : object
            After an interrupt, it holds the last finished iteration of EM.
        """
        parse_device(self.device)
        given = self.mixture
        if given is None:
            bags = self._read(X, reset=True, min_descriptors=self.n_components)
            self._own_mixture()._fit_mixture(bags, X, y, encoder=self)
        elif is_fitted_mixture(given):
            self._adopt(given, self._read(X, reset=True))
        else:
            ours = isinstance(given, DiagonalGaussianMixture)  # says itself what is too few
            n_least = 1 if ours else number_to_fit(given, "n_components")
            bags = self._read(X, reset=True, min_descriptors=n_least)
            self._adopt(_fitted(given, bags), bags)
        return self

    def _read(self, X, *, reset, min_descriptors=1):
        bags = check_bags(self, X, reset=reset, min_descriptors=min_descriptors)
        self._check_length(bags.n_features)
        return bags

    def _check_length(self, n_features):
        """Raise ValueError where encodings of such descriptors are too long."""

    def _own_mixture(self):
        return DiagonalGaussianMixture(**{name: getattr(self, name) for name in OF_MIXTURE})

    def _adopt(self, mixture, bags):
        """Hold a copy of a fitted mixture, ours or scikit-learn's."""
        parameters = mixture_of(mixture)
        width = parameters.means.shape[1]
        if bags.n_features != width:
            raise ValueError(
                f"X[0] has {bags.n_features} features per descriptor, but mixture was fitted "
                f"on {width}: pass descriptors of that width, or another mixture."
            )
        held = self._own_mixture().set_params(n_components=len(parameters.weights))
        held._adopt_mixture(parameters, unfrozen(mixture))
        self._hold(held)

    def _hold(self, mixture):
        """Make a mixture, fitted to the descriptors of this encoder, that of the encodings."""
        mixture.n_features_in_, mixture._fit_on_bags = self.n_features_in_, False
        if hasattr(self, "feature_names_in_"):
            mixture.feature_names_in_ = self.feature_names_in_
        self.mixture_ = mixture

    @available_if(_trains_its_own_mixture)
    @all_or_nothing(unless="mixture_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def partial_fit(self, X, y=None):
        """Take one step of online EM with a batch of bags.

        The first batch determines the start and needs at least `n_components` descriptors. The
        parameters move once 20 descriptors per component have been seen.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : object
        """
        parse_device(self.device)
        first = not hasattr(self, "mixture_")
        bags = self._read(X, reset=first, min_descriptors=self.n_components if first else 1)
        mixture = self._own_mixture()
        if not first:  # a copy, whose attributes are replaced one by one and never changed
            parameters = mixture.get_params()
            mixture = copy.copy(self.mixture_).set_params(**parameters)
        mixture._partial_fit_mixture(bags)
        self._hold(mixture)
        return self

    weights_, means_, variances_ = map(_of_mixture, ("weights_", "means_", "variances_"))
    converged_, n_iter_ = map(_of_mixture, ("converged_", "n_iter_"))
    lower_bound_, lower_bounds_ = map(_of_mixture, ("lower_bound_", "lower_bounds_"))

    def _parameters(self, bags):
        return {"mixture": self.mixture_._mixture(bags)}

    def _why_not_finite(self, bags, i):
        return too_far(self.mixture_._mixture(), bags, i)

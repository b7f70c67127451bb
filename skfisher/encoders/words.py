"""What bags of words and VLAD share: a codebook of centres, found at once or batch by batch."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if

from skfisher._compat import HasMethods, Interval, StrOptions, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import device_of, float_dtype
from skfisher.bags.bags import Bags
from skfisher.bags.sampling import draw_rows
from skfisher.codebooks.centers import first_centers, given_centers, mean_gap, sharpness
from skfisher.codebooks.online_kmeans import kmeans_step
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import CodebookEncoder
from skfisher.parallel.units import Where, row_units

__all__ = ["WordsEncoder"]


def _finds_its_own_words(encoder):
    if encoder.codebook is not None:
        raise AttributeError("partial_fit moves the encoder's own words: set codebook=None.")
    return True


class WordsEncoder(CodebookEncoder):
    """Base class of encoders whose codebook are centres.

    A subclass has `pooling`, and says by `_check_together` which parameters contradict each other.
    """

    _words_constraints: dict = {
        **CodebookEncoder._encoder_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "assignment": [StrOptions({"soft", "hard"})],
        "ratio": [Interval(Real, 1, None, closed="neither")],
        "metric": [StrOptions({"diagonal"}), None],
        "codebook": [HasMethods(["fit"]), "array-like", None],
        "max_descriptors": [Interval(Integral, 1, None, closed="left"), None],
    }

    @all_or_nothing(unless="cluster_centers_")
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Find the words among the descriptors of all bags.

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
        bags = check_bags(self, X, reset=True, min_descriptors=self.pooling().n_least_rows)
        self._check_width(given_centers(self.codebook), bags)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        sample = self._sample(bags, seed)
        centers = first_centers(self.codebook, sample, self.n_components, seed)
        counts = np.zeros(len(centers))
        if self.codebook is None:  # of words that `partial_fit` may move
            _, counts = kmeans_step(row_units(sample, self._where()), centers, counts)
        self._hold(centers, mean_gap(sample.values, centers), counts)
        return self

    @available_if(_finds_its_own_words)
    @all_or_nothing(unless="cluster_centers_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def partial_fit(self, X, y=None):
        """Take one step of mini-batch k-means with a batch of bags.

        The first batch determines the start and needs at least `n_components` descriptors; the more
        it has, the better. Each word is the mean of all descriptors ever assigned to it.

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
        first = not hasattr(self, "cluster_centers_")
        n_least = self.pooling().n_least_rows if first else 1
        bags = check_bags(self, X, reset=first, min_descriptors=n_least)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        sample = self._sample(bags, seed)
        if first:
            centers = first_centers(None, sample, self.n_components, seed)
            gap, counts = 0.0, np.zeros(len(centers))
        else:
            centers, gap, counts = self._centers(bags), self._gap, self._counts
            if len(centers) != self.n_components:
                raise ValueError(
                    f"n_components={self.n_components}, but there are {len(centers)} words: call "
                    "fit to start again."
                )
        seen = counts.sum()
        centers, counts = kmeans_step(row_units(bags, self._where()), centers, counts)
        share = bags.n_descriptors / (seen + bags.n_descriptors)
        gap = (1 - share) * gap + share * mean_gap(sample.values, centers)
        self._hold(centers, gap, counts)
        return self

    def _where(self):
        return Where(self.n_jobs, self.device)

    def _sample(self, bags, seed):
        """Return descriptors drawn at random, all in one bag."""
        most = self.pooling().n_start_rows if self.max_descriptors is None else self.max_descriptors
        if self.codebook is None and most < self.n_components:
            raise ValueError(
                f"max_descriptors={most} leaves fewer descriptors than n_components="
                f"{self.n_components}: raise it, or lower n_components."
            )
        rows, _ = draw_rows(bags.starts, bags.stops, most, seed)
        with device_of(bags.values):
            return Bags.from_lengths(bags.values[rows], [len(rows)])

    def _hold(self, centers, gap, counts):
        """Set the words, in one step with all that belongs to them."""
        vars(self).update(
            cluster_centers_=centers, scale_=sharpness(gap, centers, self.ratio),
            _gap=gap, _counts=counts,
        )  # fmt: skip

    def _centers(self, bags):
        centers = given_centers(self.cluster_centers_)
        self._check_width(centers, bags)
        return centers

    def _check_width(self, centers, bags):
        if centers is not None and bags.n_features != centers.shape[1]:
            raise ValueError(
                f"X[0] has {bags.n_features} features per descriptor, but the centres of codebook "
                f"have {centers.shape[1]}: pass descriptors of that width, or another codebook."
            )

    def _parameters(self, bags):
        return self.pooling().free(self._centers(bags), self.scale_)

    def _why_not_finite(self, bags, i):
        return (
            f"X[{i}] has a descriptor so far from all words that its encoding overflows "
            f"{float_dtype(bags.dtype)}. Is it a fill value? Drop it, or pass float64."
        )

    @property
    def _n_features_out(self):
        return self.pooling().n_out({"centers": self.cluster_centers_})

    def _names(self, dimensions):
        return self.pooling().columns(len(self.cluster_centers_), dimensions)

    def _settings(self):
        """Return what the layers of all subclasses are told, after a look at it."""
        soft = {"metric": self.metric is not None, **self._of_soft_assignment()}
        for name, is_set in soft.items():
            if is_set and self.assignment == "hard":
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is about soft assignment, but "
                    f"assignment='hard': take assignment='soft', or leave {name} as it is by "
                    "default."
                )
        names = ("n_components", "assignment", "ratio", "metric", "codebook", "normalize")
        return {name: getattr(self, name) for name in names}

    def _of_soft_assignment(self):
        """Return by name whether parameters of soft assignment alone are set."""
        return {}

    def __sklearn_is_fitted__(self):
        return hasattr(self, "cluster_centers_")

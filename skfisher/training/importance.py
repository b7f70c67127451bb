r"""Batches of the bags whose losses are large, weighted so that it does no harm, or a little.

Bags are drawn from some candidates with chances in proportion to losses that a small model
predicts, and their losses are weighted,

.. math:: p_i \propto \hat L_i + s \, \langle \hat L \rangle, \qquad w_i = (N p_i)^{-k}.

With ``k = 1`` the expected gradient is that of the mean loss, with less variance; smaller ``k``
leaves weight on what is hard. The model is a ridge regression of the losses seen on the mean of a
bag's descriptors and on its shares of the components, which are looked at once.

Source: Katharopoulos and Fleuret (2017), Biased importance sampling for deep neural network
training.
"""

import functools
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from skfisher._compat import Interval, validate_parameter_constraints
from skfisher.arrays.libraries import to_host
from skfisher.parallel.units import bag_units, cut_bags, map_units
from skfisher.training.sampling import Drawn

__all__ = ["LossSampling", "chances", "features_of", "loss_weights"]

CONSTRAINTS = {
    "bias_exponent": [Interval(Real, None, None, closed="neither")],
    "n_candidate_batches": [Interval(Integral, 1, None, closed="left")],
    "smoothing": [Interval(Real, 0, None, closed="left")],
    "damping": [Interval(Real, 0, None, closed="neither")],
    "decay": [Interval(Real, 0, 1, closed="both")],
}


def chances(losses, smoothing):
    """Return the probabilities of candidates, in proportion to losses that are not negative.

    Parameters
    ----------
    losses : array of shape (n,)
    smoothing : float
        Share of the mean loss that is added to each. Losses of the hinge are 0 for many bags,
        which would never be drawn.

    Returns
    -------
    p : array of shape (n,)
        Uniform where all losses are 0.
    """
    smoothed = losses + smoothing * losses.mean()
    total = smoothed.sum()
    return smoothed / total if total > 0 else np.full(len(losses), 1 / len(losses))


def loss_weights(p, n_candidates, k):
    """Return the weights of what was drawn with probabilities `p` out of `n_candidates`.

    They are scaled so that the weighted loss of a batch is comparable to the mean loss: for losses
    in proportion to `p` it is that mean.

    Parameters
    ----------
    p : array of shape (batch_size,)
    n_candidates : int
    k : float
        The exponent.

    Returns
    -------
    weights : array of shape (batch_size,)
    """
    unbiased = 1 / (n_candidates * p)
    weights = unbiased**k
    return weights * ((unbiased * p).sum() / (weights * p).sum())


def features_of(chain, parameters, bags):
    """Return what losses are predicted from: 1, the mean of each bag, its sums that are vectors.

    Parameters
    ----------
    chain : Chain
    parameters : dict
    bags : Bags

    Returns
    -------
    features : array of shape (n_bags, n)
        Standardised.
    """
    work = functools.partial(_features, chain, chain.prepare(parameters, bags.dtype))
    slices = cut_bags(bags.lengths, chain.n_out(parameters))
    row_bytes, bag_bytes = chain.scratch(parameters, bags.n_features)
    scratch = row_bytes, bag_bytes * max(some.stop - some.start for some in slices)
    found = map_units(work, bag_units(bags, slices, chain.where), scratch=scratch)
    features = np.concatenate([to_host(of_unit[0]) for of_unit in found])
    features = features - features.mean(axis=0)
    scale = np.sqrt((features**2).mean(axis=0))
    features = features / np.where(scale > 0, scale, 1)
    return np.column_stack([np.ones(len(features)), features])


def _features(chain, prepared, x, starts, stops):
    means = [
        to_host(x[start:stop].mean(axis=0, dtype=np.float64))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
    sums = [s for s in chain.sums(prepared, x, starts, stops) if s.ndim == 2]
    return [np.column_stack([means, *(s / (stops - starts)[:, None] for s in sums)])]


@dataclass(frozen=True)
class Epoch:
    """What a sampler knows within an epoch."""

    features: np.ndarray
    gram: np.ndarray
    moments: np.ndarray
    drawn: Any = None  # predicted losses and weights of the last batch
    seen: tuple = ()  # of every batch: its effective size, predicted and true losses


@dataclass(frozen=True)
class LossSampling:
    r"""Draw the bags of a batch in proportion to predicted losses.

    A small model predicts the losses :math:`\hat L` of some candidates. Chances and weights are

    .. math:: p_i \propto \hat L_i + s \, \langle \hat L \rangle, \qquad w_i = (N p_i)^{-k}.

    Pass it as ``JointClassifier(sampling=...)`` to change the defaults of ``sampling="loss"``.
    Whether it pays depends on how many bags are easy: see the guide.

    Parameters
    ----------
    bias_exponent : float, default=0.5
        The exponent ``k``. With 1, the expected gradient is unchanged; smaller values favour hard
        bags, and 0 minimises the mean squared loss.
    n_candidate_batches : int, default=4
        Number of batches of bags, drawn uniformly, from which a batch is drawn.
    smoothing : float, default=0.1
        ``s``: share of the mean loss that is added to every predicted loss.
    damping : float, default=1e-3
        Ridge of the regression, as a share of the mean square of its features.
    decay : float, default=0.99
        Factor by which a batch seen earlier counts less with every step.

    Raises
    ------
    ValueError
        If a setting is out of range.

    See Also
    --------
    JointClassifier : Takes it as `sampling`.

    References
    ----------
    Katharopoulos and Fleuret (2017), Biased importance sampling for deep neural network training.

    Examples
    --------
    >>> from skfisher import FisherVectorEncoder, JointClassifier, LossSampling
    >>> from skfisher.datasets import load_digits_patches
    >>> digits = load_digits_patches(patch_size=3)
    >>> X, y = digits.data[:200], digits.target[:200]
    >>> model = JointClassifier(
    ...     FisherVectorEncoder(2), sampling=LossSampling(1), max_iter=5, random_state=0
    ... ).fit(X, y)
    >>> len(model.history_["effective_sample_size"])
    5
    """

    bias_exponent: float = 0.5
    n_candidate_batches: int = 4
    smoothing: float = 0.1
    damping: float = 1e-3
    decay: float = 0.99

    def __post_init__(self):
        """Check the settings."""
        known = {name: value for name, value in asdict(self).items() if name in CONSTRAINTS}
        validate_parameter_constraints(CONSTRAINTS, known, type(self).__name__)

    def begin(self, chain, parameters, bags):
        """Return the features of all bags, and a regression that has seen nothing.

        Parameters
        ----------
        chain : Chain
        parameters : dict
            Of the chain, before training.
        bags : Bags

        Returns
        -------
        memory : tuple of arrays
            Features (n_bags, n), their Gram matrix, and their products with losses.
        """
        features = features_of(chain, parameters, bags)
        n = features.shape[1]
        return features, np.zeros((n, n)), np.zeros(n)

    def start(self, memory, rng, n_bags):
        """Return the state before the first batch of an epoch.

        Parameters
        ----------
        memory : tuple of arrays
        rng : numpy.random.Generator
        n_bags : int

        Returns
        -------
        state : Epoch
        """
        return Epoch(*memory)

    def draw(self, state, rng, batch_size):
        """Draw a batch, with replacement, from candidates drawn without.

        Parameters
        ----------
        state : Epoch
        rng : numpy.random.Generator
        batch_size : int

        Returns
        -------
        drawn : Drawn
            Index, weights and the state.
        """
        n_bags = len(state.features)
        n_candidates = min(n_bags, self.n_candidate_batches * batch_size)
        candidates = np.sort(rng.choice(n_bags, size=n_candidates, replace=False))
        predicted = self.predict(state, candidates)
        p = chances(predicted, self.smoothing)
        drawn = np.sort(rng.choice(n_candidates, size=batch_size, p=p))
        weights = loss_weights(p[drawn], n_candidates, self.bias_exponent)
        state = replace(state, drawn=(predicted[drawn], weights))
        return Drawn(candidates[drawn], weights, state)

    def predict(self, state, index):
        """Return the predicted losses of some bags.

        Parameters
        ----------
        state : Epoch
        index : int array of shape (n,)

        Returns
        -------
        losses : array of shape (n,)
            At least 0; all 0 before any was seen.
        """
        ridge = self.damping * max(np.trace(state.gram) / len(state.gram), np.finfo(float).tiny)
        theta = np.linalg.solve(state.gram + ridge * np.eye(len(state.gram)), state.moments)
        return np.maximum(state.features[index] @ theta, 0)

    def observe(self, state, index, losses):
        """Let the regression see the losses of a batch.

        Parameters
        ----------
        state : Epoch
            As `draw` returned it.
        index : int array of shape (batch_size,)
        losses : array of shape (batch_size,)
            Not weighted.

        Returns
        -------
        state : Epoch
        """
        features = state.features[index]
        predicted, weights = state.drawn
        size = weights.sum() ** 2 / (weights**2).sum()
        return replace(
            state,
            gram=self.decay * state.gram + features.T @ features,
            moments=self.decay * state.moments + features.T @ losses,
            seen=(*state.seen, (size, predicted, losses)),
        )

    def end(self, state):
        r"""Return features and regression, and how well an epoch went.

        Parameters
        ----------
        state : Epoch

        Returns
        -------
        memory : tuple of arrays
        record : dict
            "effective_sample_size", the mean of :math:`(\sum w)^2 / \sum w^2` over batches, and
            "loss_correlation", of predicted losses and true ones.
        """
        sizes, predicted, losses = zip(*state.seen, strict=True)
        predicted, losses = np.concatenate(predicted), np.concatenate(losses)
        constant = min(np.ptp(predicted), np.ptp(losses)) == 0
        record = {
            "effective_sample_size": float(np.mean(sizes)),
            "loss_correlation": np.nan if constant else float(np.corrcoef(predicted, losses)[0, 1]),
        }
        return (state.features, state.gram, state.moments), record

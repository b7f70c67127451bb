"""GradientFeatureMap: explicit features with nearly the kernel of gradients."""

import copy
import math
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.arrays.libraries import array_module, asarray, empty, to_host
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_table
from skfisher.gradient_features.factors import GradientFeatures
from skfisher.ops.outer_products import (
    energetic_pairs,
    pair_features,
    principal_axes,
)
from skfisher.ops.sketch import tensor_sketch
from skfisher.parallel.blocks import rows_on_device, write_rows
from skfisher.process_state import one_blas_thread

__all__ = ["GradientFeatureMap"]

# On the host, so many samples add their share to the moments together: these are large.
ROWS_PER_SUM = 1024


def _is_pretrained(estimator):
    return not estimator._is_trainable()


class GradientFeatureMap(GradientFeatures):
    r"""Features whose inner products are close to a kernel between gradients.

    **A scikit-learn network handed over as it is will be cloned and trained on** ``(X, y)`` **in**
    `fit`, **even if it was fitted before; for a pretrained one write**
    ``GradientFeatureMap(FrozenEstimator(network))``, as in :class:`GradientFeatureKernel`.

    The kernel of n samples is a matrix of n² numbers; this map gives `n_components` numbers for
    each sample, for :class:`~sklearn.svm.LinearSVC` or
    :class:`~sklearn.linear_model.SGDClassifier` on millions of samples.

    Parameters
    ----------
    network : estimator, FrozenEstimator, DenseHead, torch.nn.Module or "precomputed"
        As in :class:`GradientFeatureKernel`.
    n_components : int, default=1024
        Length of the features. "spectral" gives fewer if fewer make the map exact.
    method : {"spectral", "tensor_sketch"}, default="spectral"
        "spectral" rotates activations and errors to their uncentred principal axes, learned in
        `fit`, and keeps the pairs of axes with most energy. "tensor_sketch" [1]_ learns nothing
        from the samples and needs many times the components for the same error.
    layer : int or list of int, default=-2
        Index of the weight matrix, or several. This and the next parameters are those of
        :class:`GradientFeatureKernel`.
    target : {"auto", "uniform", "none", "jacobian"}, array (n_outputs,) or callable, default="auto"
        The label distribution of the loss, or the Jacobian of the outputs.
    temperature : float, default=2.0
        Divides the logits.
    normalize : bool, default=True
        Scale gradients to unit length, layer by layer.
    activations : bool, default=False
        Add the layer's own output.
    bias : bool, default=False
        Include the gradient with respect to the bias vector.
    n_activations : int, default=None
        With ``network="precomputed"``: how many of the first columns of X are activations.
    max_outputs : int, default=1
        As in :class:`GradientFeatureKernel`, with another default. A larger number makes the errors
        of ``target="jacobian"`` below the last hidden layer that many times as wide, and the
        matrix that "spectral" decomposes too.
    batch_size : int, default=1024
        Number of samples that pass through the network at a time on a GPU. On the CPU it is 256, or
        1024 in `fit`, in every thread.
    device : str, default=None
        None to work where X is, "cpu", "cuda", "cuda:1" or "auto".
    random_state : int, RandomState instance or None, default=0
        Seed of the sketch, and of the sign combinations of `max_outputs`.

    Attributes
    ----------
    n_components_ : int
        Length of the features.
    energies_ : array of shape (n_components,)
        "spectral": mean squared value that each feature would have if the two factors were
        uncorrelated. With ``normalize=True``, the energies add up to the share of the kernel's
        diagonal that the map keeps.
    axes_ : list of (array of shape (n_in, r), array of shape (n_out, s))
        "spectral": the axes of activations and errors, for each part of the kernel.
    pairs_ : list of (array, array)
        "spectral": which axes make each feature.
    moments_ : list of (array of shape (n_in, n_in), array of shape (n_out, n_out))
        "spectral": sums of squares and products, to which `partial_fit` adds.
    n_samples_seen_ : int
        How many samples are in `moments_`.
    buckets_, signs_ : list of (array of shape (n_in,), array of shape (n_out,))
        "tensor_sketch": where each activation and error goes, and with which sign.
    head_, network_, layers_, n_outputs_, target_, cotangents_ : object
        As in :class:`GradientFeatureKernel`.
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in,)
        Where X has feature names.

    See Also
    --------
    GradientFeatureKernel : The exact kernel.

    Notes
    -----
    `fit` of "spectral" takes one pass over the samples and two eigenvalue decompositions, cubic in
    the widths of the layer; every call of `partial_fit` decomposes again, so give it large batches.
    `transform` is two matrix products of at most `n_components` columns, in bounded memory.

    References
    ----------
    .. [1] N. Pham and R. Pagh (2013), "Fast and scalable polynomial kernels via explicit feature
       maps", KDD.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import DenseHead, GradientFeatureKernel, GradientFeatureMap
    >>> rng = np.random.default_rng(0)
    >>> head = DenseHead([rng.normal(size=shape) for shape in ((8, 32), (32, 20))])
    >>> X = rng.normal(size=(200, 8))
    >>> Z = GradientFeatureMap(head, n_components=192).fit_transform(X)
    >>> K = GradientFeatureKernel(head).fit_transform(X)
    >>> Z.shape
    (200, 192)
    >>> bool(np.linalg.norm(Z @ Z.T - K) < 0.05 * np.linalg.norm(K))
    True
    """

    _parameter_constraints: dict = {
        **GradientFeatures._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "method": [StrOptions({"spectral", "tensor_sketch"})],
    }

    def __init__(
        self,
        network,
        *,
        n_components=1024,
        method="spectral",
        layer=-2,
        target="auto",
        temperature=2.0,
        normalize=True,
        activations=False,
        bias=False,
        n_activations=None,
        max_outputs=1,
        batch_size=1024,
        device=None,
        random_state=0,
    ):
        self.network = network
        self.n_components = n_components
        self.method = method
        self.layer = layer
        self.target = target
        self.temperature = temperature
        self.normalize = normalize
        self.activations = activations
        self.bias = bias
        self.n_activations = n_activations
        self.max_outputs = max_outputs
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Train the network, unless it is pretrained, and learn the map.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The training samples: what enters the network, or its precomputed factors.
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            What the network is trained on. Ignored if it is pretrained.

        Returns
        -------
        self : GradientFeatureMap
        """
        X = self._fit_network(X, y)
        if self.method == "tensor_sketch":
            self._draw_sketch(X)
        else:
            self.n_samples_seen_, self.moments_ = 0, None
            self._add_moments(X)
            self._choose_pairs()
        self._n_features_out = self.n_components_
        return self

    @available_if(_is_pretrained)
    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def partial_fit(self, X, y=None):
        """Learn the map from more samples; it needs a pretrained network.

        The map is that of a single `fit` on all samples seen, up to rounding.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : None
            Ignored.

        Returns
        -------
        self : GradientFeatureMap
        """
        if not hasattr(self, "n_components_"):
            return self.fit(X)
        X = check_table(self, X, reset=False)
        if self.method == "spectral":
            self._add_moments(X)
            self._choose_pairs()
            self._n_features_out = self.n_components_
        return self

    @mirrors_input
    def transform(self, X):
        """Return the features of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        features : array of shape (n_samples, n_components)
            float32 if `X` is, else float64.
        """
        check_is_fitted(self)
        X = check_table(self, X, reset=False)
        features = empty((len(X), self.n_components_), like=X)
        with self._at_work(X):
            for rows, batch in self._map_rows(self._features, X):
                write_rows(features, rows, batch)
        return features

    def _pairs_of_factors(self, parts):
        """Yield (activations, errors) for each part, as one rank-one gradient."""
        xp = array_module(parts[0][0])
        for index, (a, *errors) in enumerate(parts):
            if not errors:  # the activations themselves
                yield a, xp.ones((len(a), 1), dtype=a.dtype)
            elif len(errors) == 1:
                yield a, errors[0]
            else:
                yield a, xp.concatenate(list(self._passes(index, errors)), axis=1)

    def _add_moments(self, X):
        totals = copy.deepcopy(self.moments_)
        with self._at_work(X):
            for _, moments in self._map_rows(self._moments, X, ROWS_PER_SUM):
                if totals is None:
                    totals = [tuple(m.astype(np.float64) for m in pair) for pair in moments]
                    continue
                for pair in zip(totals, moments, strict=True):
                    for total, moment in zip(*pair, strict=True):
                        total += moment
        self.moments_ = totals
        self.n_samples_seen_ += len(X)

    def _moments(self, parts):
        """Return the sums of outer products of some rows' factors with themselves."""
        return [tuple(to_host(f.T @ f) for f in pair) for pair in self._pairs_of_factors(parts)]

    @one_blas_thread
    def _choose_pairs(self):
        n_pairs, n_seen = self.n_components, self.n_samples_seen_
        rotations = [
            [principal_axes(moment / n_seen, n_pairs) for moment in pair] for pair in self.moments_
        ]
        energies = [(left[1], right[1]) for left, right in rotations]
        self.pairs_, chosen = energetic_pairs(energies, n_pairs)
        self.energies_ = np.concatenate(chosen) / len(rotations)
        self.n_components_ = len(self.energies_)
        self.axes_ = [
            tuple(
                np.ascontiguousarray(axes[:, : used.max(initial=-1) + 1])
                for (axes, _), used in zip(rotation, pair, strict=True)
            )
            for rotation, pair in zip(rotations, self.pairs_, strict=True)
        ]

    def _draw_sketch(self, X):
        with self._at_work(X):
            one = rows_on_device(X, slice(1), self.device)
            pairs = list(self._pairs_of_factors(self._parts(one, self._arrays(one))))
        rng = check_random_state(self.random_state)
        self.n_components_ = self.n_components
        self.buckets_, self.signs_ = [], []
        for factors in pairs:
            widths = [f.shape[1] for f in factors]
            self.buckets_.append(tuple(rng.randint(self.n_components, size=d) for d in widths))
            self.signs_.append(tuple(2 * rng.randint(2, size=d) - 1 for d in widths))

    def _features(self, parts):
        xp = array_module(parts[0][0])
        scale = 1 / math.sqrt(len(parts))
        pairs = enumerate(self._pairs_of_factors(parts))
        if self.method == "tensor_sketch":
            sketches = [
                tensor_sketch((a, e), self.buckets_[k], self.signs_[k], self.n_components)
                for k, (a, e) in pairs
            ]
            return scale * sum(sketches)  # sketches of different parts are uncorrelated
        features = [
            pair_features(
                a,
                e,
                *(asarray(axes, like=a, dtype=a.dtype) for axes in self.axes_[k]),
                [xp.asarray(index) for index in self.pairs_[k]],
            )
            for k, (a, e) in pairs
        ]
        return scale * xp.concatenate(features, axis=1)

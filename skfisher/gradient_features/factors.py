"""What the estimators of gradient features share: the network, and its factors in batches."""

import copy
import functools
import math
from numbers import Integral, Real

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import unique_labels

from skfisher._compat import Interval, StrOptions
from skfisher.arrays.dense import as_numpy, check_unmasked
from skfisher.arrays.devices import parse_device, work_context
from skfisher.arrays.libraries import array_module, asarray, empty, to_host
from skfisher.contract.estimator import BagEstimator
from skfisher.contract.labels import read_labels
from skfisher.contract.validation import check_table
from skfisher.gradient_features.dense_head import (
    DenseHead,
    check_label_distribution,
    check_logits,
    layer_indices,
    pretrained_head,
)
from skfisher.ops.dense_network import (
    activation_slope,
    error_passes,
    forward,
    layer_errors,
    output_error,
    unit_rows,
)
from skfisher.parallel.blocks import map_blocks, rows_on_device
from skfisher.torch.modules import is_torch_module
from skfisher.warning import warn_caller

__all__ = ["GradientFeatures"]

# On the host, so many samples go through the network and its products together.
ROWS_PER_BLOCK = 256
# Below this many outputs the error, which has P - 1 directions, is a weak similarity.
FEW_OUTPUTS = 15


class GradientFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BagEstimator):
    """Base class: reads the network in `fit` and turns samples into gradient factors.

    Factors are a list of *parts*, one kernel each, every part a tuple of arrays with one row for
    each sample:

    - ``(activations,)``: the kernel of the activations themselves;
    - ``(activations, errors)``: rank-one gradients;
    - ``(activations, slope, slope, ...)``: one gradient for each cotangent; the slopes of the
      layers above, lowest first, from which `error_passes` computes the errors again.
    """

    _parameter_constraints: dict = {
        "network": "no_validation",  # pretrained_head says what it may be
        "layer": [Integral, "array-like"],
        "target": [StrOptions({"auto", "uniform", "none", "jacobian"}), "array-like", callable],
        "temperature": [Interval(Real, 0, np.inf, closed="right")],
        "normalize": ["boolean"],
        "activations": ["boolean"],
        "bias": ["boolean"],
        "n_activations": [Interval(Integral, 1, None, closed="left"), None],
        "max_outputs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, None],
        "random_state": ["random_state"],
    }

    def _fit_network(self, X, y):
        """Check `X`, read or train the network, set everything that `_factors` needs."""
        parse_device(self.device, several=False)  # before any work
        vars(self).pop("network_", None)  # of an earlier fit
        if self._is_precomputed():
            X = check_table(self, X, reset=True)
            self._fit_precomputed(X)
            return X
        head = pretrained_head(self.network)
        if head is None:
            X = check_table(self, X, reset=True)
            head = self._train(X, y)
        else:
            X = check_table(self, X, reset=True)
        if X.shape[1] != head.n_features_in:
            raise ValueError(
                f"X has {X.shape[1]} features, but the first layer of the network takes "
                f"{head.n_features_in}."
            )
        self.layers_ = layer_indices(self.layer, head.n_layers)
        self.target_ = self._read_target(head)
        self.head_ = head
        self.n_outputs_ = head.n_outputs
        self.cotangents_ = self._draw_cotangents(head)
        return X

    def _is_precomputed(self):
        return isinstance(self.network, str) and self.network == "precomputed"

    def _is_trainable(self):
        """Tell whether `fit` trains the network, and so needs `y`."""
        network = self.network
        return hasattr(network, "fit") and not isinstance(network, FrozenEstimator)

    def _fit_precomputed(self, X):
        if self.n_activations is None:
            raise ValueError(
                "network='precomputed' needs n_activations: the first n_activations columns of X "
                "are activations, the others errors."
            )
        if self.n_activations >= X.shape[1]:
            raise ValueError(
                f"n_activations={self.n_activations} leaves no errors: X has n_features = "
                f"{X.shape[1]}."
            )
        if self.activations:
            raise ValueError(
                "activations=True adds the layer's own output, which precomputed factors do not "
                "hold."
            )
        for name in ("head_", "layers_", "n_outputs_", "target_", "cotangents_"):
            vars(self).pop(name, None)  # of an earlier fit

    def _train(self, X, y):
        network = self.network
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        y = read_labels(y) if is_classifier(network) else as_numpy(y, "y")
        check_consistent_length(X, y)
        if hasattr(network, "hidden_layer_sizes"):
            layer_indices(self.layer, np.size(network.hidden_layer_sizes) + 1)
        if hasattr(network, "classes_"):
            found, wanted = unique_labels(y), np.asarray(network.classes_)
            if not np.array_equal(found, wanted):
                warn_caller(
                    f"The network is fitted on the classes {wanted}, and y has {found}: a clone of "
                    "it is trained on (X, y). Pass FrozenEstimator(network) to use it as it is.",
                )
        # copies: a network may write to what it is given
        self.network_ = clone(network).fit(np.array(to_host(X)), y.copy())
        return DenseHead.from_sklearn(self.network_)

    def _read_target(self, head):
        """Return the target, chosen where it is "auto", or say what is wrong with it."""
        target, n_outputs = self.target, head.n_outputs
        if isinstance(target, str) and target == "auto":
            few = head.output == "identity" or n_outputs < FEW_OUTPUTS
            return "jacobian" if few else "uniform"
        named = isinstance(target, str)
        if (named and target == "jacobian") or (callable(target) and head.output != "identity"):
            return target
        check_label_distribution(target, head.output, n_outputs)
        if named and target == "uniform" and n_outputs < FEW_OUTPUTS:
            n_directions = n_outputs - (head.output == "softmax")  # softmax errors sum to zero
            warn_caller(
                f"The network has {n_outputs} output{'s' * (n_outputs != 1)}, so the error of "
                f"target='uniform' has only {n_directions} direction{'s' * (n_directions != 1)}; "
                "target='jacobian' is usually better.",
            )
        return target

    def _draw_cotangents(self, head):
        """Return the (P, q) cotangents of the passes below the last hidden layer, if any."""
        if not self._is_jacobian() or min(self.layers_) >= head.n_layers - 2:
            return None
        n_outputs, n_passes = head.n_outputs, self.max_outputs
        if n_outputs <= n_passes:
            return np.eye(n_outputs)
        # E[r r'] = 1, so the mean over the draws is unbiased for the sum over the outputs
        bits = check_random_state(self.random_state).randint(2, size=(n_outputs, n_passes))
        return (2 * bits - 1) / math.sqrt(n_passes)

    def _is_jacobian(self):
        return isinstance(self.target_, str) and self.target_ == "jacobian"

    def _at_work(self, x):
        """Return a context in which the device to work on samples `x` is the current one."""
        return work_context(self.device, x)

    def _map_rows(self, function, x, n_rows=ROWS_PER_BLOCK):
        """Yield (slice, function(parts)) for some rows of `x` at a time; warn of zero factors.

        To be called in `_at_work`, as everything that computes with factors. On the host threads
        take rows in blocks of a fixed size: no bit depends on their number, or on `batch_size`.
        """
        network = self._arrays(rows_on_device(x, slice(1), self.device))
        results = map_blocks(
            functools.partial(self._of_rows, function, network),
            x,
            self.device,
            n_rows=n_rows,
            n_rows_gpu=self.batch_size,
            threads=not callable(self.target),  # a function of the user's need not be made for them
        )
        zero = []
        for rows, (result, is_zero) in results:
            zero.extend((rows.start + np.flatnonzero(is_zero)).tolist())
            yield rows, result
        if zero:
            shown = ", ".join(map(str, zero[:5])) + (", ..." if len(zero) > 5 else "")
            warn_caller(
                f"{len(zero)} of {len(x)} samples have a gradient factor of zero (X[{shown}]): "
                "all units of a layer are off, or the error vanishes. Their gradient is 0.",
            )

    def _of_rows(self, function, network, x, start):
        """Return a function of the parts of some rows, and which of these have a zero factor."""
        parts = self._parts(x, network, start)
        is_zero = sum(~array.any(axis=1) for part in parts for array in part)
        return function(parts), to_host(is_zero)

    def _factors(self, x):
        """Return the parts of all rows of `x`."""
        factors = None
        for rows, parts in self._map_rows(list, x):
            if factors is None:
                factors = [
                    tuple(empty((len(x), array.shape[1]), like=array) for array in part)
                    for part in parts
                ]
            for whole, part in zip(factors, parts, strict=True):
                for array, piece in zip(whole, part, strict=True):
                    array[rows] = piece
        return factors

    def _arrays(self, like):
        return None if self._is_precomputed() else self.head_.arrays(like=like)

    def _parts(self, x, network, start=0):
        """Return the parts of one batch, whose first row is number `start`."""
        if network is None:
            a, e = x[:, : self.n_activations], x[:, self.n_activations :]
            return [(self._scaled(self._with_bias(a)), self._scaled(e))]
        weights, biases, activations = network
        inputs, logits = forward(x, weights, biases, activations)
        check_logits(logits, start)
        errors = self._errors(inputs, logits, network)
        parts = []
        for k in self.layers_:
            parts.append((self._scaled(self._with_bias(inputs[k])), *errors[k]))
            if self.activations:
                own = inputs[k + 1] if k + 1 < len(inputs) else logits
                parts.append((self._scaled(own),))
        return parts

    def _errors(self, inputs, logits, network):
        """Return a dict from layer to the right-hand factors of its part."""
        weights, _, activations = network
        if self._is_jacobian():
            return {k: self._jacobian(k, inputs, network) for k in self.layers_}
        error = output_error(
            logits,
            output=self.head_.output,
            target=_called(self.target_, logits) if callable(self.target_) else self.target_,
            temperature=self.temperature,
        )
        errors = layer_errors(error, inputs, weights, activations, min(self.layers_))
        return {k: (self._scaled(errors[k]),) for k in self.layers_}

    def _jacobian(self, layer, inputs, network):
        """Return the errors of all outputs at one layer: in closed form, or slopes for passes."""
        weights, _, activations = network
        xp = array_module(inputs[0])
        if layer == len(weights) - 1:  # the Jacobian of the logits by themselves is the identity
            ones = xp.ones((len(inputs[0]), 1), dtype=inputs[0].dtype)
            return (self._scaled(ones * math.sqrt(self.n_outputs_)),)
        slopes = [
            activation_slope(inputs[k + 1], activations[k]) for k in range(layer, len(weights) - 1)
        ]
        if len(slopes) == 1:  # sum_p (s w_p)(s' w_p) = (s |w|)(s' |w|), unit by unit
            norms = xp.sqrt((weights[-1] * weights[-1]).sum(axis=1))
            return (self._scaled(slopes[0] * norms),)
        if self.normalize:
            passes = error_passes(slopes, weights[layer + 1 :], self._cotangents(slopes[0]))
            squares = sum((errors * errors).sum(axis=1) for errors in passes)
            slopes[0] /= xp.where(squares > 0, xp.sqrt(squares), 1)[:, None]
        return tuple(slopes)

    def _cotangents(self, like):
        return asarray(self.cotangents_, like=like, dtype=like.dtype)

    def _passes(self, index, slopes):
        """Yield the errors of part `index`, one pass after the other, from its slopes."""
        layer = self.layers_[index // (1 + self.activations)]
        weights = self.head_.arrays(like=slopes[0])[0]
        return error_passes(slopes, weights[layer + 1 :], self._cotangents(slopes[0]))

    def _with_bias(self, a):
        """Append a column of ones if the kernel includes the gradient by the bias."""
        if not self.bias:
            return a
        augmented = empty((len(a), a.shape[1] + 1), like=a)
        augmented[:, :-1] = a
        augmented[:, -1] = 1
        return augmented

    def _scaled(self, x):
        return unit_rows(x) if self.normalize else x

    def __sklearn_clone__(self):
        # scikit-learn would deep-copy a PyTorch module for every candidate and fold of a search.
        if not is_torch_module(self.network):
            return super().__sklearn_clone__()
        without = copy.copy(self)
        without.network = None
        twin = super(GradientFeatures, without).__sklearn_clone__()
        twin.network = self.network
        return twin

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = False
        tags.target_tags.required = self._is_trainable()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _called(target, logits):
    xp = array_module(logits)
    g = target(logits.copy())  # it may write to what it is given
    check_unmasked(g, "what the target function returned")
    g = xp.asarray(g)
    if g.shape not in (logits.shape, logits.shape[1:]):
        raise ValueError(
            f"The target function returned shape {g.shape} for logits of shape {logits.shape}: it "
            f"must return that shape or {logits.shape[1:]}."
        )
    if g.dtype.kind not in "fiub" or not xp.isfinite(g).all():
        raise ValueError("The target function must return finite numbers.")
    return g

"""Dense networks as plain arrays: what gradient features need of a trained network."""

from itertools import pairwise
from numbers import Integral

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.dense import as_dense, as_numpy
from skfisher.arrays.exact import check_exact
from skfisher.arrays.libraries import array_module, asarray, float_dtype
from skfisher.ops import dense_network as gradients
from skfisher.process_state import one_blas_thread
from skfisher.torch.modules import is_torch_module, read_dense_layers

__all__ = [
    "DenseHead",
    "check_label_distribution",
    "check_logits",
    "layer_indices",
    "pretrained_head",
]


class DenseHead:
    """The dense layers of a trained network, as immutable arrays.

    This is all that gradient features need of a network: the weights, the biases and the names of
    its activations. Whatever computes the input of these layers (a convolutional trunk, say) may
    run in any framework.

    The arrays are copied, so training the network further does not change the head, and
    write-protected; copies and scikit-learn clones of a head share them.

    Parameters
    ----------
    weights : sequence of arrays of shape (n_in, n_out)
        One matrix for each layer, laid out as scikit-learn's ``coefs_``; the transpose of
        ``torch.nn.Linear.weight``.
    biases : sequence of arrays of shape (n_out,), default=None
        One vector for each layer; None means zeros.
    activation : {"relu", "tanh", "logistic", "identity"} or a sequence of them, default="relu"
        The activation of the hidden layers: one for all, or one for each.
    output : {"softmax", "logistic", "identity"}, default="softmax"
        What turns the outputs of the last layer into predictions: "softmax" for classes, "logistic"
        for a single logit or several labels, "identity" for regression.

    Attributes
    ----------
    weights, biases : tuples of arrays
    activations : tuple of str
        One for each hidden layer.
    output : str
    n_layers, n_features_in, n_outputs : int

    See Also
    --------
    GradientFeatureKernel : The kernel of the gradients of such a network.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import DenseHead
    >>> rng = np.random.default_rng(0)
    >>> head = DenseHead([rng.normal(size=(6, 5)), rng.normal(size=(5, 3))], activation="tanh")
    >>> head
    DenseHead(6 -> 5 -> 3, activation='tanh', output='softmax')
    >>> activations, errors = head.gradient_factors(rng.normal(size=(4, 6)), layer=-2)
    >>> activations.shape, errors.shape
    ((4, 6), (4, 5))
    """

    def __init__(self, weights, biases=None, *, activation="relu", output="softmax"):
        weights = [_frozen_array(w, f"weights[{k}]", 2) for k, w in enumerate(weights)]
        if not weights:
            raise ValueError("A DenseHead needs at least one weight matrix.")
        for k, (below, above) in enumerate(pairwise(weights)):
            if below.shape[1] != above.shape[0]:
                raise ValueError(
                    f"weights[{k}] has {below.shape[1]} outputs, but weights[{k + 1}] takes "
                    f"{above.shape[0]} inputs: the layers do not form a chain."
                )
        if biases is None:
            biases = [np.zeros(w.shape[1], dtype=w.dtype) for w in weights]
        biases = [_frozen_array(b, f"biases[{k}]", 1) for k, b in enumerate(biases)]
        if [len(b) for b in biases] != [w.shape[1] for w in weights]:
            raise ValueError(
                f"biases have the lengths {[len(b) for b in biases]}, but the layers have "
                f"{[w.shape[1] for w in weights]} outputs."
            )
        n_hidden = len(weights) - 1
        one_for_all = activation is None or isinstance(activation, str)
        activations = (activation,) * n_hidden if one_for_all else tuple(activation)
        if len(activations) != n_hidden:
            raise ValueError(
                f"activation names {len(activations)} activations for {n_hidden} hidden layers."
            )
        for name in (*activations, *([activation] if one_for_all else [])):
            if name not in gradients.ACTIVATIONS:
                raise ValueError(
                    f"activation={name!r} is not known: use one of {gradients.ACTIVATIONS}."
                )
        if output not in gradients.OUTPUTS:
            raise ValueError(f"output={output!r} is not known: use one of {gradients.OUTPUTS}.")
        self.weights = tuple(weights)
        self.biases = tuple(biases)
        self.activations = activations
        self.output = output

    @classmethod
    def from_sklearn(cls, network):
        """Read a fitted :class:`~sklearn.neural_network.MLPClassifier` or ``MLPRegressor``.

        Parameters
        ----------
        network : MLPClassifier or MLPRegressor
            Fitted.

        Returns
        -------
        head : DenseHead

        Raises
        ------
        NotFittedError
            If the network is not fitted.
        """
        check_is_fitted(network, "coefs_")
        return cls(
            network.coefs_,
            network.intercepts_,
            activation=network.activation,
            output=network.out_activation_,
        )

    @classmethod
    def from_torch(cls, module, layers=None, *, activation="relu", output=None):
        """Read the dense layers of a PyTorch module.

        Weights are read, nothing is run: dropout, in-place activations, the training mode and
        frozen parameters make no difference.

        Parameters
        ----------
        module : torch.nn.Module
            A ``torch.nn.Sequential`` of ``Linear`` layers, ``ReLU``, ``Tanh``, ``Sigmoid`` or
            ``Identity`` between them, ``Dropout`` and ``Flatten`` anywhere; it may be nested. Or
            any module, with `layers`.
        layers : sequence of str, default=None
            The names of the ``Linear`` layers that form the head, lowest first, as in
            ``module.named_modules()``.
        activation : str or sequence of str, default="relu"
            With `layers`: the activation between them.
        output : {"softmax", "logistic", "identity"}, default=None
            None reads a closing ``Softmax``, ``LogSoftmax`` or ``Sigmoid``, and takes "softmax"
            where there is none.

        Returns
        -------
        head : DenseHead
            Half precision becomes float32.

        Raises
        ------
        ValueError
            If a name is not that of a ``Linear`` layer (the message lists those there are), if the
            layers do not form a chain, or if one set of weights is used twice: its gradient is
            then a sum of outer products.
        TypeError
            If a module has no dense equivalent.
        """
        weights, biases, activations, closing = read_dense_layers(module, layers)
        return cls(weights, biases, activation=activations or activation, output=output or closing)

    @property
    def n_layers(self):
        """Number of weight matrices."""
        return len(self.weights)

    @property
    def n_features_in(self):
        """Width of the input of the first layer."""
        return self.weights[0].shape[0]

    @property
    def n_outputs(self):
        """Number of outputs, P."""
        return self.weights[-1].shape[1]

    def arrays(self, *, like):
        """Return what `skfisher.ops.dense_network.forward` takes.

        Parameters
        ----------
        like : array
            Whose dtype and library the weights and biases get.

        Returns
        -------
        weights, biases : lists of arrays
        activations : tuple of str
        """
        weights = [asarray(w, like=like, dtype=like.dtype) for w in self.weights]
        biases = [asarray(b, like=like, dtype=like.dtype) for b in self.biases]
        return weights, biases, self.activations

    @one_blas_thread
    def gradient_factors(self, X, *, layer=-2, target="uniform", temperature=2.0):
        """Return the factors of the per-sample gradients of one layer, not normalised.

        ``np.hstack([activations, errors])`` is what ``network="precomputed"`` takes: for a large
        network, extract the factors once, before cross-validation.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in), float32 or float64
        layer : int, default=-2
            Index of the weight matrix.
        target : {"uniform", "none"} or array of shape (n_outputs,), default="uniform"
            The label distribution of the loss.
        temperature : float, default=2.0
            Positive, or ``np.inf``.

        Returns
        -------
        activations : array of shape (n_samples, n_in)
        errors : array of shape (n_samples, n_out)

        Raises
        ------
        ValueError
            For a layer out of range, samples of another width than the first layer, a temperature
            that is not positive, a target that is not a label distribution, and for samples whose
            outputs are not finite.
        """
        X = as_dense(X)
        check_exact(X, "X")
        X = X.astype(float_dtype(X.dtype), copy=False)
        if X.ndim != 2 or X.shape[1] != self.n_features_in:
            raise ValueError(
                f"X has shape {X.shape}, but the first layer of the network takes "
                f"(n_samples, {self.n_features_in})."
            )
        if not temperature > 0:
            raise ValueError(f"temperature={temperature!r} must be positive.")
        check_label_distribution(target, self.output, self.n_outputs)
        [index] = layer_indices(layer, self.n_layers)
        weights, biases, activations = self.arrays(like=X)
        inputs, logits = gradients.forward(X, weights, biases, activations)
        check_logits(logits)
        error = gradients.output_error(
            logits, output=self.output, target=target, temperature=temperature
        )
        errors = gradients.layer_errors(error, inputs, weights, activations, index)
        return inputs[index], errors[index]

    def __deepcopy__(self, memo):
        return self  # immutable: clones in a grid search share the weights

    def __setstate__(self, state):
        vars(self).update(state)
        for array in (*self.weights, *self.biases):  # a pickle forgets it
            array.setflags(write=False)

    def __repr__(self):
        widths = [self.n_features_in, *(w.shape[1] for w in self.weights)]
        names = self.activations[0] if len(set(self.activations)) == 1 else self.activations
        activation = f", activation={names!r}" if self.activations else ""
        return f"DenseHead({' -> '.join(map(str, widths))}{activation}, output={self.output!r})"


def layer_indices(layer, n_layers):
    """Return an index, or a list of them, as a list of indices from 0.

    Raises
    ------
    ValueError
        If an index is out of range or occurs twice.
    TypeError
        If it is not an integer.
    """
    layers = [layer] if np.ndim(layer) == 0 else list(layer)
    for index in layers:
        if not isinstance(index, Integral) or isinstance(index, bool):
            raise TypeError(f"layer={layer!r} must be an integer or a list of integers.")
        if not -n_layers <= index < n_layers:
            raise ValueError(
                f"layer={index}, but the network has {n_layers} weight "
                f"{'matrix' if n_layers == 1 else 'matrices'} "
                f"(indices {-n_layers} to {n_layers - 1})."
            )
    indices = [int(index) % n_layers for index in layers]
    if not indices or len(set(indices)) < len(indices):
        raise ValueError(f"layer={layer} must name at least one layer, and none twice.")
    return indices


def check_label_distribution(target, output, n_outputs):
    """Raise ValueError if `target` is no label distribution for a network.

    Parameters
    ----------
    target : "uniform", "none" or array of shape (n_outputs,)
    output : {"softmax", "logistic", "identity"}
    n_outputs : int
    """
    named = isinstance(target, str)
    if named and target not in ("uniform", "none"):
        raise ValueError(f"target={target!r} is not known: use 'uniform', 'none' or an array.")
    if output == "identity" and not (named and target == "none"):
        raise ValueError(
            "A regression network has no label distribution: use target='jacobian' or 'none'."
        )
    if named:
        return
    target = as_numpy(target, "target")
    if target.shape != (n_outputs,):
        raise ValueError(
            f"target has shape {target.shape}, but the network has {n_outputs} outputs: it "
            f"must have shape ({n_outputs},)."
        )
    if target.dtype.kind not in "fiub" or not ((target >= 0) & (target <= 1)).all():
        raise ValueError("target must hold probabilities, between 0 and 1.")
    if output == "softmax" and not np.isclose(target.sum(), 1):
        raise ValueError(f"target must sum to 1, it sums to {target.sum():g}.")


def check_logits(logits, start=0):
    """Raise ValueError if the outputs of a sample, counted from `start`, are not finite."""
    finite = array_module(logits).isfinite(logits).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"The output of the network for X[{start + int(finite.argmin())}] is not finite."
        )


def pretrained_head(network):
    """Return the `DenseHead` of a pretrained network, or None for one that is to be trained.

    Raises
    ------
    NotFittedError
        If a frozen network is not fitted.
    TypeError
        If the network is of a kind that cannot be read.
    """
    frozen = isinstance(network, FrozenEstimator)
    model = network.estimator if frozen else network
    if isinstance(model, DenseHead):
        return model
    if is_torch_module(model):
        return DenseHead.from_torch(model)
    if not isinstance(model, (MLPClassifier, MLPRegressor)):
        raise TypeError(
            "network must be an MLPClassifier or MLPRegressor, a FrozenEstimator of one, a "
            f"DenseHead, a torch.nn.Sequential or 'precomputed', got {type(model).__name__}. Put "
            "scalers and other transformers in front of this estimator in a pipeline."
        )
    return DenseHead.from_sklearn(model) if frozen else None


def _frozen_array(x, name, ndim):
    x = as_numpy(x, name)
    check_exact(x, name)
    if x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {x.shape}.")
    if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise ValueError(f"{name} must be real and finite, got dtype {x.dtype}.")
    x = np.array(x, dtype=float_dtype(x.dtype), order="C")
    x.setflags(write=False)
    return x

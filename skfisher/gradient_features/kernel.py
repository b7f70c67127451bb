"""GradientFeatureKernel: the kernel between the per-sample gradients of a network."""

from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import _fit_context
from skfisher.arrays.libraries import asarray, to_host
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_table
from skfisher.gradient_features.factors import GradientFeatures
from skfisher.ops.trace_kernel import (
    jacobian_trace_kernel,
    linear_kernel,
    trace_kernel,
)
from skfisher.parallel.blocks import product_calls
from skfisher.process_state import one_blas_thread

__all__ = ["GradientFeatureKernel"]


class GradientFeatureKernel(GradientFeatures):
    r"""Kernel between the gradients that samples cause in one layer of a network.

    **A scikit-learn network handed over as it is will be cloned and trained on** ``(X, y)`` **in**
    `fit`, **the target's labels included, even if it was fitted before: the rule for every inner
    estimator in scikit-learn. For a pretrained network write**
    ``GradientFeatureKernel(FrozenEstimator(network))``, or pass a :class:`DenseHead` or a PyTorch
    module, which are always taken as they are.

    For one sample, the gradient of a loss with respect to a weight matrix is the outer product of
    the input of the layer, :math:`x`, and the error that comes back to it, :math:`e`. The kernel
    between two gradients is exact and needs only the two factors:

    .. math:: K(i, j) = \langle x_i e_i^\top, x_j e_j^\top \rangle_F
              = \langle x_i, x_j \rangle \, \langle e_i, e_j \rangle

    `fit` keeps the factors of the training samples. `transform` returns the kernel between its
    samples and the training samples, which ``SVC(kernel="precomputed")`` takes in a pipeline. The
    estimator can also be used as ``SVC(kernel=GradientFeatureKernel(FrozenEstimator(network)))``,
    which computes the factors of the training samples again at every call.

    The kernel by itself is no better than activations, and with few source classes it is worse.
    Compare it with a kernel of the activations in one grid search; the user guide reports
    measurements.

    Parameters
    ----------
    network : estimator, FrozenEstimator, DenseHead, torch.nn.Module or "precomputed"
        An ``MLPClassifier`` or ``MLPRegressor`` is trained in `fit`; the others are pretrained. A
        PyTorch module is read by :meth:`DenseHead.from_torch`. With "precomputed", X holds the
        factors ``np.hstack([activations, errors])``, from any framework.
    layer : int or list of int, default=-2
        Index of the weight matrix, negative from the last one: -2 is the matrix into the last
        hidden layer. A list gives the mean of the kernels of its layers.
    target : {"auto", "uniform", "none", "jacobian"}, array (n_outputs,) or callable, default="auto"
        The label distribution of the loss, :math:`g` in the error :math:`\mathrm{softmax}(y / \tau)
        - g` of the logits y:

        - "auto": "jacobian" with fewer than 15 outputs or a regression network, else "uniform".
        - "uniform": no label at all, as in [1]_. Needs many outputs.
        - "none": zeros.
        - an array: the same distribution for all samples, such as class priors.
        - a callable that maps logits of shape (n, n_outputs) to distributions of that shape.
        - "jacobian": no loss. The gradient of every output in place of one error, summed in the
          kernel: the empirical neural tangent kernel of the layer [2]_. For the last hidden layer
          this costs the same; for layers below, it takes one pass for each output.
    temperature : float, default=2.0
        The :math:`\tau` above. ``np.inf`` means centred logits. Not used by "jacobian".
    normalize : bool, default=True
        Scale gradients to unit length, layer by layer.
    activations : bool, default=False
        Add the kernel of the layer's own output, as in [3]_; the result is the mean of the two.
    bias : bool, default=False
        Include the gradient with respect to the bias vector: one more activation, always 1.
    n_activations : int, default=None
        With ``network="precomputed"``: how many of the first columns of X are activations.
    max_outputs : int, default=64
        With ``target="jacobian"`` and a layer below the last hidden one: networks with more outputs
        use this many random sign combinations of outputs, which is unbiased.
    batch_size : int, default=1024
        Number of samples that pass through the network at a time on a GPU. On the CPU it is 256, in
        every thread.
    device : str, default=None
        None to work where X is, "cpu", "cuda", "cuda:1" or "auto". The kernel comes back where X
        is; factors are kept on the host.
    random_state : int, RandomState instance or None, default=0
        Seed of the sign combinations of `max_outputs`. It is fixed by default, so that kernels of
        two calls agree.

    Attributes
    ----------
    head_ : DenseHead
        The network as arrays. Not set with "precomputed".
    network_ : estimator
        The network trained in `fit`. Not set if it was pretrained.
    factors_ : list of tuples of arrays
        The training samples: for each layer ``(activations, errors)``, followed by ``(outputs,)``
        with ``activations=True``. Below the last hidden layer "jacobian" keeps slopes in place of
        errors.
    layers_ : list of int
        Indices of the layers, from 0.
    n_outputs_ : int
        Number of outputs of the network.
    target_ : str, array or callable
        The target in use.
    cotangents_ : array of shape (n_outputs, n_passes) or None
        What "jacobian" propagates back below the last hidden layer.
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in,)
        Where X has feature names.

    Raises
    ------
    ValueError
        In `fit`, for a layer out of range, samples of another width than the network's first layer,
        a target of the wrong length or with a regression network; in any call for samples whose
        outputs are not finite.
    TypeError
        For a layer that is no integer, or a network of another kind.
    NotFittedError
        If a frozen network is not fitted.

    Warns
    -----
    UserWarning
        If the network has fewer than 15 outputs and ``target="uniform"``; if a fitted network that
        is not frozen is about to be trained on other classes; for samples whose gradient is zero
        (their row in the kernel is zero too).

    See Also
    --------
    GradientFeatureMap : An explicit map with nearly this kernel, for linear models on many samples.
    DenseHead : A network as plain arrays.

    Notes
    -----
    Kernel entries may be negative, and the matrix is positive semi-definite. Time is that of two
    matrix products, n n_train (n_in + n_out) multiplications; memory is the result and, in every
    thread, a block of at most 4 million of its entries.

    On the CPU, as many threads as BLAS may use work on samples and rows of the result in blocks of
    a fixed size: the number of threads and `batch_size` do not change a bit of the result.

    References
    ----------
    .. [1] A. Gordo, A. Gaidon and F. Perronnin (2015), "Deep Fishing: Gradient Features from Deep
       Nets", BMVC.
    .. [2] A. Jacot, F. Gabriel and C. Hongler (2018), "Neural Tangent Kernel: Convergence and
       Generalization in Neural Networks", NeurIPS.
    .. [3] F. Mu, Y. Liang and Y. Li (2020), "Gradients as Features for Deep Representation
       Learning", ICLR.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from skfisher import GradientFeatureKernel
    >>> X, y = load_digits(return_X_y=True)
    >>> network = MLPClassifier((32, 32), max_iter=50, random_state=0)
    >>> network = network.set_params(early_stopping=True).fit(X[y < 5] / 16, y[y < 5])
    >>> X, y = X[y >= 5] / 16, y[y >= 5]
    >>> kernel = GradientFeatureKernel(FrozenEstimator(network), target="jacobian")
    >>> classifier = make_pipeline(kernel, SVC(kernel="precomputed", C=10)).fit(X[:500], y[:500])
    >>> bool(classifier.score(X[500:], y[500:]) > 0.8)
    True
    """

    def __init__(
        self,
        network,
        *,
        layer=-2,
        target="auto",
        temperature=2.0,
        normalize=True,
        activations=False,
        bias=False,
        n_activations=None,
        max_outputs=64,
        batch_size=1024,
        device=None,
        random_state=0,
    ):
        self.network = network
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
        """Train the network, unless it is pretrained, and keep the factors of the samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The training samples: what enters the network, or its precomputed factors.
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            What the network is trained on. Ignored if it is pretrained.

        Returns
        -------
        self : GradientFeatureKernel
        """
        self._fit(X, y)
        return self

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @mirrors_input
    def fit_transform(self, X, y=None):
        """Fit, and return the kernel of the training samples at half the work of `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            As in `fit`.

        Returns
        -------
        kernel : array of shape (n_samples, n_samples)
            Equal to ``fit(X, y).transform(X)`` up to rounding, and exactly symmetric.
        """
        X, factors = self._fit(X, y)
        with self._at_work(X):
            kernel = self._kernel(factors)
        return asarray(kernel, like=X)

    @mirrors_input
    def transform(self, X):
        """Return the kernel of samples against the training samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        kernel : array of shape (n_samples, n_train_samples)
            float32 if `X` is, else float64.
        """
        check_is_fitted(self)
        X = check_table(self, X, reset=False)
        with self._at_work(X):
            kernel = self._kernel(self._factors(X), self.factors_)
        return asarray(kernel, like=X)

    @mirrors_input
    def __call__(self, X, Y=None):
        """Return the kernel between two sets of samples, for ``SVC(kernel=...)``.

        It needs no fit if the network is pretrained.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        Y : array-like of shape (n_samples_y, n_features), default=None
            None means `X`.

        Returns
        -------
        kernel : array of shape (n_samples, n_samples_y)
        """
        if not hasattr(self, "factors_") and not self._is_trainable():
            self = clone(self)
            self._validate_params()
            self._fit_network(X, None)
        else:
            check_is_fitted(self)
        alone = Y is None or Y is X
        X = check_table(self, X, reset=False)
        Y = None if alone else check_table(self, Y, reset=False, name="Y")
        with self._at_work(X):
            kernel = self._kernel(self._factors(X), None if alone else self._factors(Y))
        return asarray(kernel, like=X)

    def _fit(self, X, y):
        X = self._fit_network(X, y)
        with self._at_work(X):
            factors = self._factors(X)
        self.factors_ = [tuple(map(to_host, part)) for part in factors]
        self._n_features_out = len(X)
        return X, factors

    def _kernel(self, factors, factors_b=None):
        """Return the mean over the parts, of one set of factors or between two."""
        return self._mean_kernel(factors, factors_b, product_calls(like=factors[0][0]))

    @one_blas_thread
    def _mean_kernel(self, factors, factors_b, each):
        total = None
        for index, part in enumerate(factors):
            part_b = None
            if factors_b is not None:
                like = part[0]
                part_b = [asarray(array, like=like, dtype=like.dtype) for array in factors_b[index]]
            kernel = self._part_kernel(index, part, part_b, each)
            if total is None:
                total = kernel
            else:
                total += kernel
        if len(factors) > 1:
            total /= len(factors)
        return total

    def _part_kernel(self, index, part, part_b, each):
        a, *errors = part
        a_b, *errors_b = (None,) * len(part) if part_b is None else part_b
        if not errors:
            return linear_kernel(a, a_b, each=each)
        if len(errors) == 1:
            return trace_kernel(a, errors[0], a_b, errors_b[0], each=each)
        passes = self._passes(index, errors)
        passes_b = None if part_b is None else self._passes(index, errors_b)
        return jacobian_trace_kernel(a, passes, a_b, passes_b, each=each)

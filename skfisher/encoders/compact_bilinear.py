"""Compact bilinear pooling: bags encoded by sketches of powers of their descriptors."""

from numbers import Integral, Real

import numpy as np

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import to_host
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import CodebookEncoder
from skfisher.layers.sketch import SketchPooling

__all__ = ["CompactBilinearPooling"]


class CompactBilinearPooling(CodebookEncoder):
    r"""Encode each bag by a sketch of its second moments, or of a kernel's features.

    The second moments :math:`\frac{1}{T} \sum_t x_t x_t^\top` of a bag are :math:`D^2` numbers.
    Tensor sketches [1]_ of M numbers have nearly the same inner products,

    .. math:: \langle z(X), z(Y) \rangle \approx
              \frac{1}{T T'} \sum_{t, t'} \langle x_t, y_{t'} \rangle^2,

    without error on average and with a variance that falls as 1/M. This is compact bilinear pooling
    [2]_. With ``kernel="rbf"``, descriptors are scaled to unit length, and sketches of all orders
    up to `degree`, weighted by the Taylor coefficients of the kernel, approximate
    :math:`\exp(-\gamma \lVert x - y \rVert^2)`. This is kernel pooling [3]_.

    Use it if :math:`D (D + 1) / 2` is larger than M; otherwise, the second moments themselves are
    shorter and exact.

    Parameters
    ----------
    n_components : int, default=4096
        Length of a sketch, M.
    degree : int, default=2
        Power of the inner products that the sketch approximates; with a kernel, the highest order.
    kernel : {"rbf"}, default=None
        Kernel whose features are pooled; by default, none.
    gamma : float, default=1.0
        Coefficient :math:`\gamma` of the kernel.
    normalize : {"power-l2", "l2"}, default=None
        "power-l2" normalises as :class:`PowerL2Normalizer` does by default, as published; "l2" only
        scales to unit length, which keeps inner products up to a factor for each bag.
    n_jobs : int, default=None
        Number of threads in `transform`; None for 1, -1 for all cores. It does not change the
        result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of the hashes.

    Attributes
    ----------
    buckets_, signs_ : ndarrays of int of shape (degree, n_features)
        The hashes. Without a kernel they are `indexHash_` and `bitHash_` of scikit-learn's
        ``PolynomialCountSketch(degree=degree, gamma=1, coef0=0)`` with the same `random_state`;
        with a kernel, those of the orders from 2 on, stacked.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    sklearn.kernel_approximation.PolynomialCountSketch : The same for single vectors. Without a
        kernel or `normalize`, encodings are the means of its features over each bag.

    Notes
    -----
    A bag of more than D descriptors is first summed to a matrix, whose sketch takes :math:`D^2`
    additions whatever T and M are.

    References
    ----------
    .. [1] Pham and Pagh (2013), Fast and scalable polynomial kernels via explicit feature maps.
    .. [2] Gao, Beijbom, Zhang and Darrell (2016), Compact bilinear pooling.
    .. [3] Cui, Zhou, Wang, Liu, Lin and Belongie (2017), Kernel pooling for convolutional neural
       networks.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import CompactBilinearPooling
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(size=(rng.integers(20, 40), 3)) for _ in range(10)]
    >>> CompactBilinearPooling(n_components=64, random_state=0).fit_transform(bags).shape
    (10, 64)
    """

    _parameter_constraints: dict = {
        **CodebookEncoder._encoder_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "degree": [Interval(Integral, 1, None, closed="left")],
        "kernel": [StrOptions({"rbf"}), None],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "normalize": [StrOptions({"power-l2", "l2"}), None],
    }

    def __init__(
        self,
        n_components=4096,
        *,
        degree=2,
        kernel=None,
        gamma=1.0,
        normalize=None,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.degree = degree
        self.kernel = kernel
        self.gamma = gamma
        self.normalize = normalize
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    @all_or_nothing()
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Draw the hashes, for descriptors of this width.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : CompactBilinearPooling
        """
        parse_device(self.device)
        bags = check_bags(self, X, reset=True, copy=False)
        pooling = self.pooling()
        vars(self).update(pooling.attributes(pooling.drawn(bags.n_features, self.random_state)))
        return self

    def _parameters(self, bags):
        return self.pooling().parameters(vars(self))

    def _why_not_finite(self, bags, i):
        largest = np.abs(to_host(bags[i])).max()
        return (
            f"X[{i}] has a descriptor with an entry of size {largest:.0e}: powers of it are no "
            f"{bags.dtype} numbers. Is it a fill value? Drop it, or rescale the descriptors."
        )

    @property
    def _n_features_out(self):
        return self.pooling().n_out(self.pooling().parameters(vars(self)))

    def _names(self, dimensions):
        return self.pooling().names_of(dimensions)

    def pooling(self):
        """Return the layer that :class:`JointClassifier` puts behind a map that it trains.

        Returns
        -------
        layer : SketchPooling
        """
        return SketchPooling(
            n_components=self.n_components,
            degree=self.degree,
            gamma=None if self.kernel is None else self.gamma,
            normalize="l2" if self.normalize == "l2" else "power-l2",
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "buckets_")

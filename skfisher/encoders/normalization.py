"""Power and L2 normalisation as a scikit-learn transformer."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin

from skfisher._compat import Interval, _fit_context
from skfisher.arrays.dense import as_numpy
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_table
from skfisher.ops.normalization import power_l2_normalize

__all__ = ["PowerL2Normalizer"]


class PowerL2Normalizer(OneToOneFeatureMixin, TransformerMixin, BagEstimator):
    r"""Raise every feature to a power, keeping its sign, and scale each sample to unit length.

    .. math:: u = \operatorname{sign}(x) \, |x|^\alpha, \qquad y = u / \lVert u \rVert_2

    The power spreads values that are peaked at zero, and damps the few descriptors that repeat over
    a whole bag. Scaling to unit length removes the influence of how much of a bag is background.
    Together, they make Fisher vectors work with linear classifiers [1]_.

    Parameters
    ----------
    power : float, default=0.5
        The exponent :math:`\alpha`, above 0. With 1 only the length changes; 0.5 is the signed
        square root.
    blocks : int or array-like of int of shape (n_features,), default=None
        Scale every block of features to unit length before the sample as a whole, so that no block
        dominates, as intra-normalisation does for each visual word [2]_. A number means that many
        blocks of consecutive features, all equally wide; an array gives each feature the label of
        its block. `FisherVectorEncoder.blocks` returns these labels for the components of a Fisher
        vector.

    Attributes
    ----------
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if `X` has names that are all strings.

    See Also
    --------
    FisherVectorEncoder : Makes the vectors to normalise.
    sklearn.preprocessing.Normalizer : Only scales samples to unit length.

    Notes
    -----
    Samples and blocks of zeros stay zero. Nothing is learned, so `transform` works without `fit`.
    A positive factor on a sample changes nothing.

    Applied to every SIFT descriptor, which `DescriptorTransformer` does, this is RootSIFT.

    References
    ----------
    .. [1] F. Perronnin, J. Sánchez and T. Mensink (2010), "Improving the Fisher kernel for
       large-scale image classification", ECCV.
    .. [2] R. Arandjelović and A. Zisserman (2013), "All about VLAD", CVPR.

    Examples
    --------
    >>> from skfisher import PowerL2Normalizer
    >>> PowerL2Normalizer().fit_transform([[9.0, -16.0], [0.0, 0.0]])
    array([[ 0.6, -0.8],
           [ 0. ,  0. ]])
    >>> PowerL2Normalizer(power=1, blocks=2).fit_transform([[3.0, -4.0, 0.0, 0.1]]).round(3)
    array([[ 0.424, -0.566,  0.   ,  0.707]])
    """

    _parameter_constraints: dict = {
        "power": [Interval(Real, 0, None, closed="neither")],
        "blocks": [Interval(Integral, 1, None, closed="left"), "array-like", None],
    }

    def __init__(self, power=0.5, *, blocks=None):
        self.power = power
        self.blocks = blocks

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Check the parameters and remember the features' names; nothing is learned.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The vectors to normalise.
        y : None
            Ignored.

        Returns
        -------
        self : PowerL2Normalizer

        Raises
        ------
        ValueError
            If `blocks` does not fit the number of features.
        """
        X = check_table(self, X, reset=True)
        block_labels(self.blocks, X.shape[1])
        return self

    @mirrors_input
    def transform(self, X):
        """Normalise each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The vectors to normalise; they are not written to.

        Returns
        -------
        X_normalized : array of shape (n_samples, n_features)
            float32 if `X` is, else float64; on a GPU if `X` is a CuPy array or tensor there.
        """
        X = check_table(self, X, reset=False)
        blocks = block_labels(self.blocks, X.shape[1])
        return power_l2_normalize(X, power=self.power, blocks=blocks)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def block_labels(blocks, n_features):
    """Read a ``blocks`` parameter: return the label of each feature, counted from 0, or None.

    Raises
    ------
    ValueError
        If `n_features` features cannot be cut into `blocks` equal blocks, or if labels are given
        that are not `n_features` integers.
    """
    if blocks is None:
        return None
    if isinstance(blocks, Integral):
        if n_features % blocks:
            raise ValueError(
                f"blocks={blocks} does not divide n_features={n_features}: a number of blocks asks "
                "for equally wide blocks; give the label of each feature for others."
            )
        return np.repeat(np.arange(blocks), n_features // blocks)
    labels = as_numpy(blocks, "blocks")
    if labels.shape != (n_features,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"blocks must be one integer label per feature, of shape ({n_features},), got "
            f"{labels.dtype} of shape {labels.shape}."
        )
    return np.unique(labels, return_inverse=True)[1]

"""Where in its bag a descriptor stands, as one more dimension."""

from numbers import Real

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval, _fit_context
from skfisher.arrays.libraries import asarray, empty, float_dtype
from skfisher.bags.bags import Bags
from skfisher.bags.feature_names import names_in
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.set_output import BagOutputMixin, is_table
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags

__all__ = ["PositionAppender"]

BLOCK_NUMBERS = 2**19


class PositionAppender(BagOutputMixin, TransformerMixin, BagEstimator):
    """Append to every descriptor its position in the bag.

    For bags that are sequences. Positions run evenly from -0.5 for the first descriptor to 0.5 for
    the last, up to half a step, times `scale`. A mixture of such descriptors can tell early from
    late.

    Parameters
    ----------
    scale : float, default=1.0
        Distance between the first and the last descriptor. If positions should count as much as the
        other features in Euclidean distances, as in k-means, choose about 3.5 times the standard
        deviation of these features.

    Attributes
    ----------
    n_features_in_ : int
        Width of a descriptor seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if it was given a table whose names are all strings.

    See Also
    --------
    ImagePatches : Appends the positions of patches in the plane.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import PositionAppender
    >>> PositionAppender().fit_transform([np.zeros((4, 1))])[0]
    array([[ 0.   , -0.375],
           [ 0.   , -0.125],
           [ 0.   ,  0.125],
           [ 0.   ,  0.375]])
    """

    _parameter_constraints: dict = {
        "scale": [Interval(Real, 0, float(np.finfo(np.float32).max), closed="both")]
    }

    def __init__(self, scale=1.0):
        self.scale = scale

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Check the parameters and the bags, and remember the width of descriptors.

        Parameters
        ----------
        X : Bags, list of arrays, 3-D array or table
            The bags, see `Bags`.
        y : None
            Ignored.

        Returns
        -------
        self : PositionAppender
        """
        check_bags(self, X, reset=True)
        return self

    def _transform(self, X):
        check_is_fitted(self)
        bags = check_bags(self, X, reset=False)
        lengths = bags.lengths
        n, width = int(lengths.sum()), bags.n_features
        values = empty((n, width + 1), like=bags.values, dtype=float_dtype(bags.dtype))
        first = 0
        for block in bags.blocks(max(256, BLOCK_NUMBERS // width)):
            values[first : first + len(block), :width] = block
            first += len(block)
        place = np.arange(n) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        position = self.scale * ((place + 0.5) / np.repeat(lengths, lengths) - 0.5)
        values[:, width] = asarray(position, like=values)
        return values if is_table(X) else Bags.from_lengths(values, lengths)

    def get_feature_names_out(self, input_features=None):
        """Name the features: those of the input, and ``position``.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features,), default=None
            Names of a descriptor's features, by default those seen in `fit`, or ``x0``, ``x1``, ...

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        return np.append(names_in(self, input_features), "position").astype(object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

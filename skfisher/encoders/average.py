"""The simplest encoders: mean, mean and standard deviation, or maximum of a bag."""

import numpy as np

from skfisher._compat import StrOptions, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import float_dtype
from skfisher.codebooks.moments import global_moments
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import BagEncoder
from skfisher.layers.average import AveragePooling
from skfisher.layers.maximum import MaximumPooling
from skfisher.parallel.units import Where

__all__ = ["MeanPooling"]


class MeanPooling(BagEncoder):
    """Encode each bag by its mean, by mean and standard deviation, or by its maximum.

    This is the baseline that every other encoder has to beat, in D or 2 D numbers.

    Parameters
    ----------
    statistic : {"mean", "mean_std", "max"}, default="mean"
        "mean_std" is the mean of every dimension, followed by the standard deviation of every
        dimension over the descriptors of the bag, 0 for a bag of one descriptor. "max" is the
        largest value of each dimension.
    normalize : {"power-l2", "l2"}, default=None
        "power-l2" takes signed square roots and scales to unit length; "l2" only scales. By
        default, encodings are not normalised: scale their columns before a linear classifier, for
        example with :class:`sklearn.preprocessing.StandardScaler`.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,)
        Mean of the descriptors of all bags, float64. Squares are added up about this mean, which
        keeps the digits of descriptors that lie far from the origin.
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    VLADEncoder : Means about several centres.

    Notes
    -----
    Sums are always in float64. :class:`JointClassifier` can train a map of the descriptors before
    "mean" and "mean_std"; it refuses "max", which is not a sum over descriptors.

    Examples
    --------
    >>> from skfisher import MeanPooling
    >>> bags = [[[1.0, 0.0], [3.0, 4.0]], [[2.0, 2.0]]]
    >>> MeanPooling("mean_std").fit_transform(bags)
    array([[2., 2., 1., 2.],
           [2., 2., 0., 0.]])
    >>> MeanPooling("max").fit(bags).get_feature_names_out()
    array(['max_d0', 'max_d1'], dtype=object)
    """

    _parameter_constraints: dict = {
        **BagEncoder._encoder_constraints,
        "statistic": [StrOptions({"mean", "mean_std", "max"})],
        "normalize": [StrOptions({"power-l2", "l2"}), None],
    }

    def __init__(self, statistic="mean", *, normalize=None, n_jobs=None, device=None):
        self.statistic = statistic
        self.normalize = normalize
        self.n_jobs = n_jobs
        self.device = device

    @all_or_nothing(unless="mean_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Find the mean of all descriptors, about which sums are taken.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : MeanPooling
        """
        parse_device(self.device)
        bags = check_bags(self, X, reset=True)
        self.mean_ = global_moments(bags, Where(self.n_jobs, self.device)).mean
        return self

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains descriptors under.

        Returns
        -------
        layer : AveragePooling or MaximumPooling
            The second has no gradient.
        """
        if self.statistic == "max":
            return MaximumPooling()
        return AveragePooling(self.statistic == "mean_std", self.normalize)

    def _parameters(self, bags):
        return {"origin": np.asarray(self.mean_, dtype=np.float64)}

    def _why_not_finite(self, bags, i):
        return (
            f"X[{i}] has a descriptor so far from all others that its encoding overflows "
            f"{float_dtype(bags.dtype)}. Is it a fill value? Drop it, or pass float64."
        )

    @property
    def _n_features_out(self):
        return self.pooling().n_out({"origin": self.mean_})

    def _names(self, dimensions):
        return self.pooling().columns(dimensions)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "mean_")

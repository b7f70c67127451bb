"""What every encoder of bags has in common, with a codebook or without."""

import math
from numbers import Integral

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import StrOptions
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import array_module, empty, float_dtype
from skfisher.bags.feature_names import names_in
from skfisher.contract.estimator import BagEstimator
from skfisher.contract.tensors_in_out import mirrors_input
from skfisher.contract.validation import check_bags
from skfisher.layers.chain import Chain
from skfisher.layers.encode import encode_bags
from skfisher.ops.normalization import power_l2_normalize
from skfisher.parallel.units import Where

__all__ = ["BagEncoder", "CodebookEncoder"]


class BagEncoder(TransformerMixin, BagEstimator):
    """Base class of encoders: a bag becomes what a pooling layer reads off sums over it.

    A subclass fits what the layer needs: it sets an attribute that ends in ``_`` in one step.
    It has the parameters `normalize`, `n_jobs` and `device`. And it says:

    - ``pooling()``, the layer that encodes, which joint training takes too, and
      ``_parameters(bags)``, those of the layer, checked against the width of bags;
    - ``_names(dimensions)``, a list of the names of their columns;
    - ``_why_not_finite(bags, i)``, what is wrong with a bag whose vector is not finite;
    - ``blocks()``, the labels of the columns that ``normalize="intra"`` scales together, if it
      takes that.
    """

    _takes_shards = True
    _encoder_constraints: dict = {
        "normalize": [StrOptions({"power-l2"}), None],
        "n_jobs": [Integral, None],
        "device": [str, list, tuple, None],
    }

    @mirrors_input
    def transform(self, X):
        """Encode bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        encodings : array of shape (n_bags, n_features_out)
            float32 for descriptors of up to 32 bits (integers: 16), else float64.
        """
        check_is_fitted(self)
        parse_device(self.device)
        bags = check_bags(self, X, reset=False, copy=False)
        chain = Chain((), self.pooling(), where=Where(self.n_jobs, self.device))
        parameters = self._parameters(bags)
        shape = len(bags), chain.n_out(parameters)
        encodings = empty(shape, like=bags.values, dtype=float_dtype(bags.dtype))
        encode_bags(chain, parameters, bags, out=encodings)
        self._check_finite(encodings, bags)
        self._normalize(encodings)
        return encodings

    def _normalize(self, encodings):
        """Normalise encodings in place, as the parameter asks."""
        if self.normalize is None:
            return
        blocks = self.blocks() if self.normalize == "intra" else None
        power = 0.5 if self.normalize == "power-l2" else 1
        power_l2_normalize(encodings, power=power, blocks=blocks, out=encodings)

    def _check_finite(self, encodings, bags):
        xp = array_module(encodings)
        with np.errstate(over="ignore", invalid="ignore"):
            total = encodings.sum()  # finite only if all are
        if not math.isfinite(total):
            finite = xp.isfinite(encodings).all(axis=1)
            if not finite.all():
                raise ValueError(self._why_not_finite(bags, int(finite.argmin())))

    def get_feature_names_out(self, input_features=None):
        """Name the columns of encodings.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the dimensions of a descriptor; by default those seen in `fit`,
            or ``d0, d1, ...``. The name of the one column that holds the bags, which a
            ``ColumnTransformer`` passes, is taken for no name of a dimension.

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        return np.asarray(self._names(names_in(self, input_features, prefix="d")), dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class CodebookEncoder(BagEncoder):
    """Base class of encoders that describe a bag by what it adds up to over a codebook.

    A subclass has the parameter `random_state` too, whatever a user of the encoder alone tunes of
    the codebook, and takes a codebook itself for the rest.
    """

    _encoder_constraints: dict = {
        **BagEncoder._encoder_constraints,
        "random_state": ["random_state"],
    }

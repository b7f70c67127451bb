"""A fitted joint model: its arrays as parameters of the chain, and its encodings of bags."""

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import asarray
from skfisher.contract.extremes import check_encodings
from skfisher.contract.tensors_in_out import mirrors_input
from skfisher.joint.input import read_bags
from skfisher.layers.beside import Beside
from skfisher.layers.chain import Chain
from skfisher.layers.encode import encode_bags
from skfisher.layers.feature_map import FeatureMap
from skfisher.layers.layer import n_positions_of
from skfisher.layers.normalization import Centering, normalization_of
from skfisher.layers.whitening import Whitening
from skfisher.parallel.units import Where
from skfisher.process_state import one_blas_thread

__all__ = ["FittedJointModel"]

MAP = FeatureMap.groups["features"]


def _beside_positions(layer, pooling):
    """Return a row layer that passes on positions, if descriptors have any."""
    n_positions = n_positions_of(pooling)
    return Beside(layer, n_positions) if n_positions else layer


class FittedJointModel(TransformerMixin):
    """Reads and writes the fitted attributes of a jointly trained model, and encodes.

    A subclass has `_pooling`, which returns the pooling layer, and for what is learnt from `y`
    `_new_task` and `_task`, which return the task of a model that is not fitted, and of this one,
    and `_keep_task`, which sets the attributes that `_task` reads.
    """

    def _chain(self, *, whitened=False):
        """Return the layers of the fitted model."""
        form = self._form
        pooling = self._pooling()
        below = () if whitened else (self._whitening(pooling),)
        if form["feature_map"] != "identity":
            below += (_beside_positions(FeatureMap(form["feature_map"]), pooling),)
        above = (normalization_of(pooling, form["power"], form["power_eps"]),)
        if form["center"]:
            above += (Centering(),)
        return Chain(below, pooling, above, Where(self.n_jobs, self.device))

    def _whitening(self, pooling):
        whitening = Whitening(self.center_, self.axes_, self._squash, self._unmix)
        return _beside_positions(whitening, pooling)

    def _parameters(self):
        """Return the parameters of each model: one, or one for each column of decisions."""
        pooling, per_class = self._pooling(), self._form["multi_class"] == "ovr"
        coef, intercept = self._task().from_attributes(self.coef_, self.intercept_)
        models = []
        for c in range(len(coef)) if per_class else [...]:
            attributes = {name: getattr(self, name)[c] for name in self._pooling_attributes}
            parameters = self._constants | pooling.parameters(attributes | self._constants)
            if self.map_weight_ is not None:
                parameters |= {name: getattr(self, f"{name}_")[c] for name in MAP}
            rows = slice(c, c + 1) if per_class else slice(None)
            parameters |= {"coef": coef[rows], "intercept": intercept[rows]}
            models.append(parameters)
        return models

    def _columns(self, n_columns):
        """Return the columns of decisions that each model is for."""
        if self._form["multi_class"] == "ovr":
            return [slice(c, c + 1) for c in range(n_columns)]
        return [slice(0, n_columns)]

    def _attributes(self, chain, models):
        """Return the fitted attributes that the parameters of all models make."""
        shown = [chain.pooling.attributes(parameters) for parameters in models]
        attributes = {name: [a[name] for a in shown] for name in shown[0]}
        names = tuple(attributes)
        if self._form["feature_map"] != "identity":
            attributes |= {f"{name}_": [p[name] for p in models] for name in MAP}
        shared = self._form["multi_class"] == "shared"
        attributes = {n: v[0].copy() if shared else np.stack(v) for n, v in attributes.items()}
        if self._form["feature_map"] == "identity":
            attributes |= {f"{name}_": None for name in MAP}
        coef = np.concatenate([p["coef"] for p in models])
        intercept = np.concatenate([p["intercept"] for p in models])
        coef, intercept = self._task().to_attributes(coef, intercept)
        return attributes | {
            "coef_": coef, "intercept_": intercept,
            "network_coef_": coef, "network_intercept_": intercept,
            "_constants": chain.constants(models[0]), "_pooling_attributes": names,
        }  # fmt: skip

    def _encodings(self, X):
        """Return the bags, and encodings and parameters of each model, on the host."""
        check_is_fitted(self)
        parse_device(self.device)
        bags = read_bags(self, X, reset=False)
        chain = self._chain()
        models = self._parameters()
        with np.errstate(over="ignore", invalid="ignore"):
            encodings = [encode_bags(chain, parameters, bags) for parameters in models]
        return bags, list(zip(map(check_encodings, encodings), models, strict=True))

    @one_blas_thread
    def _decision(self, X):
        """Return the bags and their decision values, on the host."""
        bags, models = self._encodings(X)
        return bags, np.hstack([e @ p["coef"].T + p["intercept"] for e, p in models])

    @mirrors_input
    def transform(self, X):
        """Return the learnt encodings, after normalisation.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        encodings : ndarray of shape (n_bags, n_encoding)
            With ``multi_class="ovr"``, those of all classes beside each other. float32 for
            descriptors of up to 32 bits (integers: 16), else float64.
        """
        bags, models = self._encodings(X)
        return asarray(np.hstack([encodings for encodings, _ in models]), like=bags.values)

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the encodings.

        Parameters
        ----------
        input_features : None
            Ignored, since encodings are of mapped descriptors.

        Returns
        -------
        names : ndarray of str objects
            ``weight_k0``, ..., ``mean_k0_d0``, ..., ``variance_k0_d0``, ... for Fisher vectors;
            with ``multi_class="ovr"`` after ``class0_``, ``class1_`` and so on.
        """
        check_is_fitted(self)
        models = self._parameters()
        names = self._pooling().names(models[0])
        if self._form["multi_class"] == "ovr":
            names = [f"class{c}_{name}" for c in range(len(models)) for name in names]
        return np.asarray(names, dtype=object)

    @property
    def _n_features_out(self):
        return len(self.get_feature_names_out())

    def __sklearn_is_fitted__(self):
        return hasattr(self, "coef_")

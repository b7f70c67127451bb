"""A fitted joint model: its arrays as parameters of the chain, and what it says of bags."""

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import asarray
from skfisher.contract.extremes import check_encodings
from skfisher.contract.labels import Targets
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
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


def _has_probabilities(model):
    if model.loss != "log_loss":
        raise AttributeError(
            f"Probabilities need loss='log_loss', not {model.loss!r}: wrap the estimator in "
            "sklearn.calibration.CalibratedClassifierCV, or set that loss."
        )
    return True


def _beside_positions(layer, pooling):
    """Return a row layer that passes on positions, if descriptors have any."""
    n_positions = n_positions_of(pooling)
    return Beside(layer, n_positions) if n_positions else layer


class FittedJointModel(TransformerMixin):
    """Reads and writes the fitted attributes of a jointly trained classifier, and predicts.

    A subclass has `_pooling`, which returns the pooling layer.
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
        models = []
        for c in range(len(self.coef_)) if per_class else [...]:
            attributes = {name: getattr(self, name)[c] for name in self._pooling_attributes}
            parameters = self._constants | pooling.parameters(attributes | self._constants)
            if self.map_weight_ is not None:
                parameters |= {name: getattr(self, f"{name}_")[c] for name in MAP}
            rows = slice(c, c + 1) if per_class else slice(None)
            parameters |= {"coef": self.coef_[rows], "intercept": self.intercept_[rows]}
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
        return attributes | {
            "coef_": coef, "intercept_": intercept,
            "network_coef_": coef, "network_intercept_": intercept,
            "_constants": chain.constants(models[0]), "_pooling_attributes": names,
        }  # fmt: skip

    def _encodings(self, X):
        """Return the bags, and encodings and classifier of each model, on the host."""
        check_is_fitted(self)
        parse_device(self.device)
        bags = read_bags(self, X, reset=False)
        chain = self._chain()
        models = self._parameters()
        with np.errstate(over="ignore", invalid="ignore"):
            encodings = [encode_bags(chain, parameters, bags) for parameters in models]
        return bags, list(zip(map(check_encodings, encodings), models, strict=True))

    @mirrors_input
    def decision_function(self, X):
        """Return the decision values of the linear classifier.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        decision : ndarray of shape (n_bags, n_classes), or (n_bags,) for two classes
            Positive for the class; with two classes, for the second.
        """
        bags, decision = self._decision(X)
        return asarray(decision[:, 0] if self._kind == "binary" else decision, like=bags.values)

    @one_blas_thread
    def _decision(self, X):
        bags, models = self._encodings(X)
        decision = [(e @ p["coef"].T + p["intercept"]).astype(e.dtype) for e, p in models]
        return bags, np.hstack(decision)

    @reads_input
    def predict(self, X):
        """Return the class of each bag, or label indicators if `y` was of that kind.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        y : ndarray of shape (n_bags,) or (n_bags, n_labels)
        """
        _, decision = self._decision(X)
        return Targets(self._kind, self.classes_, decision).labels(decision)

    @available_if(_has_probabilities)
    @mirrors_input
    def predict_proba(self, X):
        """Return the probability of each class, with ``loss="log_loss"``.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        probabilities : ndarray of shape (n_bags, n_classes)
            Rows sum to 1; for label indicators, each entry is the probability of its label. With
            ``multi_class="ovr"``, those of separate models, scaled to sum to 1.
        """
        bags, decision = self._decision(X)
        return asarray(self._probabilities(decision), like=bags.values)

    def _probabilities(self, decision):
        if self._kind == "multiclass" and self._form["multi_class"] == "shared":
            powers = np.exp(decision - decision.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        chances = np.exp(-np.logaddexp(0, -decision))
        if self._kind == "binary":
            return np.hstack([np.exp(-np.logaddexp(0, decision)), chances])
        if self._kind == "multiclass":
            total = chances.sum(axis=1, keepdims=True)
            even = np.full_like(chances, 1 / chances.shape[1])
            return np.divide(chances, total, out=even, where=total > 0)
        return chances

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

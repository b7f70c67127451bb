"""A fitted joint model: its arrays as parameters of the chain, and what it says of bags."""

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher.arrays.libraries import asarray, parse_device
from skfisher.codebooks.em import Mixture
from skfisher.contract.labels import Targets
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_bags
from skfisher.layers.chain import Chain, encode_bags
from skfisher.layers.whitening import Whitening
from skfisher.process_state import one_blas_thread

__all__ = ["FittedJointModel"]

MAP = ("map_weight", "map_bias")


class FittedJointModel(TransformerMixin):
    """Reads and writes the fitted attributes of a jointly trained classifier, and predicts."""

    def _chain(self, *, whitened=False):
        """Return what is fixed about the fitted chain."""
        weights = "softmax" if self.solver == "line_search" else self.weights
        names = ("feature_map", "power", "power_eps", "include_weights")
        return Chain(
            weights=weights, floor=self._floor, **{name: self._form[name] for name in names},
            whitening=None if whitened else self._whitening(),
            n_jobs=self.n_jobs, device=self.device,
        )  # fmt: skip

    def _whitening(self):
        return Whitening(self.center_, self.axes_, self._squash, self._unmix)

    def _parameters(self):
        """Return the parameters of each model: one, or one for each column of decisions."""
        chain = self._chain()
        per_class = self.means_.ndim == 3
        models = []
        for c in range(len(self.means_)) if per_class else [...]:
            parameters = chain.free(Mixture(self.weights_[c], self.means_[c], self.variances_[c]))
            if self.map_weight_ is not None:
                parameters |= {"map_weight": self.map_weight_[c], "map_bias": self.map_bias_[c]}
            rows = slice(c, c + 1) if per_class else slice(None)
            parameters |= {"coef": self.coef_[rows], "intercept": self.intercept_[rows]}
            models.append(parameters)
        return models

    def _columns(self, n_columns):
        """Return the columns of decisions that each model is for."""
        if self.multi_class == "ovr":
            return [slice(c, c + 1) for c in range(n_columns)]
        return [slice(0, n_columns)]

    def _attributes(self, chain, models):
        """Return the fitted attributes that the parameters of all models make."""
        mixtures = [chain.mixture(parameters) for parameters in models]
        attributes = {
            "weights_": [m.weights for m in mixtures],
            "means_": [m.means for m in mixtures],
            "variances_": [m.variances for m in mixtures],
        }
        if self.feature_map != "identity":
            attributes |= {f"{name}_": [p[name] for p in models] for name in MAP}
        shared = self.multi_class == "shared"
        attributes = {n: v[0].copy() if shared else np.stack(v) for n, v in attributes.items()}
        if self.feature_map == "identity":
            attributes |= {f"{name}_": None for name in MAP}
        coef = np.concatenate([p["coef"] for p in models])
        intercept = np.concatenate([p["intercept"] for p in models])
        return attributes | {
            "coef_": coef, "intercept_": intercept,
            "network_coef_": coef, "network_intercept_": intercept,
        }  # fmt: skip

    def _encodings(self, X):
        """Return the bags, and encodings and classifier of each model, on the host."""
        check_is_fitted(self)
        parse_device(self.device)
        bags = check_bags(self, X, reset=False)
        chain = self._chain()
        models = self._parameters()
        return bags, [(encode_bags(chain, parameters, bags), parameters) for parameters in models]

    @mirrors_input
    def decision_function(self, X):
        """Return the decision values of the SVM.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        decision : ndarray of shape (n_bags, n_classes), or (n_bags,) for two classes
            Positive for the class, for the second one of two.
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
            Ignored: encodings are of mapped descriptors.

        Returns
        -------
        names : ndarray of str objects
            ``weight_k0``, ..., ``mean_k0_d0``, ..., ``variance_k0_d0``, ...; with
            ``multi_class="ovr"`` after ``class0_``, ``class1_`` and so on.
        """
        check_is_fitted(self)
        k, d = self.means_.shape[-2:]
        names = [f"weight_k{i}" for i in range(k)] if self._form["include_weights"] else []
        for block in ("mean", "variance"):
            names += [f"{block}_k{i}_d{j}" for i in range(k) for j in range(d)]
        if self.means_.ndim == 3:
            names = [f"class{c}_{name}" for c in range(len(self.means_)) for name in names]
        return np.asarray(names, dtype=object)

    @property
    def _n_features_out(self):
        return len(self.get_feature_names_out())

    def __sklearn_is_fitted__(self):
        return hasattr(self, "coef_")

"""Criteria by which to choose the number of components of a mixture."""

import numpy as np

from skfisher.contract.tensors_in_out import reads_input

__all__ = ["InformationCriteria"]


class InformationCriteria:
    """Methods ``bic`` and ``aic`` of a mixture that has ``score_samples``."""

    @reads_input
    def bic(self, X):
        """Return the Bayesian information criterion on `X`; lower is better.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        bic : float
            Summed over descriptors, in nats times 2.
        """
        densities = self.score_samples(X)
        log_likelihood = float(densities.sum(dtype=np.float64))
        return self._n_parameters() * np.log(len(densities)) - 2 * log_likelihood

    @reads_input
    def aic(self, X):
        """Return the Akaike information criterion on `X`; lower is better.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        aic : float
            Summed over descriptors, in nats times 2.
        """
        log_likelihood = float(self.score_samples(X).sum(dtype=np.float64))
        return 2 * self._n_parameters() - 2 * log_likelihood

    def _n_parameters(self):
        return self.weights_.size - 1 + self.means_.size + self.variances_.size

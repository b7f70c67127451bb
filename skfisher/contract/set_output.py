"""What transformers of bags return: bags for bags, a table or a data frame for a table."""

from skfisher._compat import wants_data_frame, wrap_output
from skfisher.arrays.dense import listed, nesting
from skfisher.arrays.libraries import to_host
from skfisher.bags.bags import Bags
from skfisher.contract.tensors_in_out import mirrors_input

__all__ = ["BagOutputMixin", "is_table"]


class BagOutputMixin:
    """``transform`` and ``fit_transform`` for transformers whose output may be `Bags`.

    A class lists it before scikit-learn's ``TransformerMixin`` and defines ``_transform``. There,
    ``set_output`` would turn whatever is returned into a data frame. Bags have no rectangular
    form: they stay bags, and get what else a data frame would have, the names of the features.
    """

    @mirrors_input
    def transform(self, X):
        """Transform every descriptor.

        Parameters
        ----------
        X : samples of the kind `fit` takes

        Returns
        -------
        X_transformed : Bags, or for a table an array of shape (n_samples, n_features_out)
        """
        return self._in_form(self._transform(X), X)

    def _in_form(self, output, X):
        """Return output for `X` in the form that ``set_output`` asks for."""
        if isinstance(output, Bags):
            return output._marked(False, self._names_asked_for())
        return wrap_output(to_host(output) if wants_data_frame(self) else output, X, self)

    def _names_asked_for(self):
        """Return the names of the features of bags, if ``set_output`` asks for data frames."""
        try:
            return self.get_feature_names_out() if wants_data_frame(self) else None
        except AttributeError:  # nameless, as a data frame would be
            return None

    def fit_transform(self, X, y=None):
        """Fit to `X`, then transform it.

        Parameters
        ----------
        X : samples of the kind `fit` takes
        y : array-like of shape (n_samples,), default=None
            Labels.

        Returns
        -------
        X_transformed : Bags, or for a table an array of shape (n_samples, n_features_out)
        """
        return self.fit(X, y).transform(X)


def is_table(X):
    """Tell whether `check_bags` reads `X` as one descriptor per sample."""
    return not isinstance(X, Bags) and nesting(listed(X)) in (0, 2)

"""What the transformers that describe images, recordings and series have in common."""

from typing import NamedTuple

import numpy as np

from skfisher._compat import NullCallbackContext, _fit_context
from skfisher.bags.bags import Bags
from skfisher.bags.paths import are_paths, read_paths
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.set_output import BagOutputMixin
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.parallel.threads import map_in_order

__all__ = ["ExtractionMixin", "Work", "paths_in"]


class Work(NamedTuple):
    """Samples that were looked at, and what is to be done with each."""

    function: object  # of the arguments of a sample; returns its descriptors
    arguments: list  # tuples
    is_table: bool = False  # whether the output is to be one, too


class ExtractionMixin(BagOutputMixin):
    """What makes a bag of each sample, sample by sample, in threads.

    A class lists it before scikit-learn's ``TransformerMixin`` and has the parameter `n_jobs`. It
    says:

    - ``_samples``, of which messages ask for a list;
    - ``_look(X, reset)``, which checks whatever can be known before long work, sets fitted
      attributes if `reset`, and returns `Work`. Files are opened when their turn comes.
    """

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Check the parameters and the samples; nothing is learned but their form.

        Parameters
        ----------
        X : list of paths, or arrays as the class reads them
        y : None
            Ignored.

        Returns
        -------
        self : estimator instance

        Raises
        ------
        FileNotFoundError
            If a path is not that of a file.
        TypeError
            If a sample is not an array of real numbers.
        ValueError
            If there are no samples, or one cannot be described. The message names it, by its
            place in `X` or by its path.
        """
        self._look(X, reset=True)
        return self

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    @mirrors_input
    def fit_transform(self, X, y=None):
        """Fit, and describe the samples. Callbacks are called after each sample.

        Parameters
        ----------
        X : list of paths, or arrays as the class reads them
        y : None
            Ignored.

        Returns
        -------
        bags : Bags
            One bag per sample; for a table, a table.
        """
        work = self._look(X, reset=True)
        progress = self._init_callback_context(max_subtasks=len(work.arguments))
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        output = self._bags(work, progress)
        progress.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)
        return self._in_form(output, X)

    def _transform(self, X):
        return self._bags(self._look(X, reset=False), NullCallbackContext())

    def _bags(self, work, progress):
        parts = []
        for part in map_in_order(work.function, work.arguments, n_jobs=self.n_jobs):
            step = progress.subcontext(task_name="sample")
            step.call_on_fit_task_begin(estimator=self)
            parts.append(part)
            step.call_on_fit_task_end(estimator=self, reconstruction_attributes=dict)
        lengths = np.array([len(part) for part in parts])
        dtype = np.result_type(*{part.dtype for part in parts})
        values = np.empty((int(lengths.sum()), parts[0].shape[1]), dtype=dtype)
        for i, bag in enumerate(bags := Bags.from_lengths(values, lengths)):
            bag[:] = parts[i]
            parts[i] = None  # or there would be two of everything
        return values if work.is_table else bags


def paths_in(X):
    """Return the paths that `X` is a list of, or None if it is none; all must be files."""
    is_array = isinstance(X, np.ndarray) and X.dtype.kind == "U" and X.ndim == 1
    X = X.tolist() if is_array else X
    return read_paths(X, "X") if are_paths(X) else None

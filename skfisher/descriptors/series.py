"""Series in, bags of their windows out."""

import functools
from numbers import Integral

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import Interval
from skfisher.arrays.libraries import is_cupy
from skfisher.bags.bags import Bags
from skfisher.bags.feature_names import names_in
from skfisher.contract.estimator import BagEstimator
from skfisher.contract.set_output import is_table
from skfisher.contract.validation import check_bags
from skfisher.descriptors.extraction import ExtractionMixin, Work, paths_in
from skfisher.descriptors.patches import patches_of_image

__all__ = ["Windows"]


class Windows(ExtractionMixin, TransformerMixin, BagEstimator):
    """Cut every series into overlapping windows: one bag per series, one descriptor per window.

    A window is flattened step by step, with the sensors of a step side by side. Windows are in
    order of time.

    Parameters
    ----------
    size : int, default=16
        Length of a window in steps.
    step : int, default=1
        Distance between windows in steps. Windows start at the beginning of a series; left-over
        steps at its end are dropped.
    reader : callable, default=None
        Function that returns the series at a path, such as ``pandas.read_csv``. By default,
        ``.npy`` files are memory-mapped, and the single array in a ``.npz`` file is read.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.

    Attributes
    ----------
    n_features_in_ : int
        Number of sensors.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the sensors, if series are data frames whose columns are all strings.

    See Also
    --------
    PositionAppender : Appends the position of a window in its series.
    DescriptorTransformer : Reduce or scale the windows.
    MFCC : Frames of sounds.

    Notes
    -----
    Series can be given in any form that `Bags` takes: a list of arrays or data frames of shape
    (n_steps, n_sensors) and of any lengths, an array (n_series, n_steps, n_sensors), `Bags`, or a
    list of paths. A table is read as series of one step, as by other estimators of this package;
    its output is a table too. Series of one sensor have shape (n_steps, 1).

    Windows keep the dtype of the series.

    Examples
    --------
    >>> import pandas as pd
    >>> from skfisher import Windows
    >>> series = [pd.DataFrame({"x": range(n), "y": range(n)}) for n in (5, 9)]
    >>> windows = Windows(3, step=2).fit(series)
    >>> windows.transform(series)
    <Bags: n_bags=2, n_descriptors=6 (2 to 4 a bag), n_features=6, int64, cpu>
    >>> windows.get_feature_names_out()
    array(['x_t0', 'y_t0', 'x_t1', 'y_t1', 'x_t2', 'y_t2'], dtype=object)
    """

    _parameter_constraints: dict = {
        "size": [Interval(Integral, 1, None, closed="left")],
        "step": [Interval(Integral, 1, None, closed="left")],
        "reader": [callable, None],
        "n_jobs": [Integral, None],
    }

    _samples = "2-D arrays, one per series"

    def __init__(self, size=16, *, step=1, reader=None, n_jobs=None):
        self.size = size
        self.step = step
        self.reader = reader
        self.n_jobs = n_jobs

    def _look(self, X, reset):
        if not reset:
            check_is_fitted(self)
        paths = paths_in(X)
        if paths is not None:
            X = Bags.from_files(paths, self.reader)
        bags = check_bags(self, X, reset=reset)
        lengths = bags.lengths
        if lengths.min() < self.size:
            i, a_table = int((lengths < self.size).argmax()), is_table(X)
            name = f"X[{i}]" if paths is None else paths[i]
            raise ValueError(
                f"{name} has {lengths[i]} steps, fewer than a window of {self.size}: lower size or "
                "drop it."
                + (
                    " A table (2-D) is read as series of one step: write [X] for a single series, "
                    "X[:, :, None] for n series of one sensor."
                    if a_table
                    else ""
                )
            )
        if is_cupy(bags.values):
            raise TypeError("X is on a GPU, but series are cut on the CPU: write X.get().")
        cut = functools.partial(_windows_of, size=self.size, step=self.step)
        return Work(cut, [(bags[i : i + 1],) for i in range(len(bags))], is_table(X))

    def get_feature_names_out(self, input_features=None):
        """Name the columns of a window, such as ``x0_t2`` for sensor 0 at its step 2.

        Parameters
        ----------
        input_features : array-like of str of shape (n_sensors,), default=None
            Names of the sensors, by default those seen in `fit`, or ``x0``, ``x1``, ...

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        sensors = names_in(self, input_features)
        return np.asarray([f"{s}_t{t}" for t in range(self.size) for s in sensors], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _windows_of(series, *, size, step):
    """Return the windows of a series, which comes as the one bag of `Bags`."""
    image = series[0][:, None]  # of one column
    return patches_of_image(image, patch_size=(size, 1), step=(step, 1))

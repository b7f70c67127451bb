"""Any encoder of bags, applied to their parts: cells of the plane, or stretches of a series."""

from numbers import Integral

import numpy as np
from scipy.sparse import issparse
from sklearn.base import TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import HasMethods, Interval, _fit_context
from skfisher.arrays.dense import describe
from skfisher.arrays.libraries import asarray, zeros
from skfisher.bags.cells import cells_of_bags, check_beside_positions, without_positions
from skfisher.bags.feature_names import names_in
from skfisher.bags.sharded_values import in_memory
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_bags
from skfisher.process_state import configured

__all__ = ["SpatialPyramid"]

# Numbers of descriptors that are put in the order of cells at a time.
NUMBERS_AT_ONCE = 2**23


class SpatialPyramid(TransformerMixin, BagEstimator):
    """Encode bags cell by cell, in grids from coarse to fine.

    An encoding does not record where the descriptors of a bag lie. A spatial pyramid [1]_ keeps
    part of that information: the bag is cut into cells, each cell is encoded as a bag of its own,
    and the encodings are put side by side. The encoder is fitted once, to whole bags.

    Parameters
    ----------
    encoder : transformer instance
        Encodes bags as vectors: any encoder of this package, or a pipeline that ends in one and has
        transformers of descriptors before it. It is cloned, and does not see positions.
    cells : tuple, default=((1, 1), (2, 2), (3, 1))
        The grids, each given by its rows and columns: by default the whole image, its quarters, and
        its top, middle and bottom. For series, numbers of stretches, such as ``(1, 2, 4)``.
    n_positions : {0, 2}, default=2
        2: the last two columns of a descriptor are its position in the plane, x and y, as
        ``ImagePatches(positions=...)`` and ``DenseSIFT(positions=...)`` append them. A grid covers
        the rectangle in which the descriptors of a bag lie, whatever their units. 0: a bag is a
        series, whose descriptors are in order of time.

    Attributes
    ----------
    encoder_ : transformer
        As fitted.
    n_features_in_ : int
        Width of a descriptor, with its position.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if bags are data frames whose columns are all strings.

    See Also
    --------
    DeepFisherEncoder : Overlapping windows, encoded twice.
    ImagePatches : Appended positions can also be encoded, as two more dimensions.

    Notes
    -----
    A cell without descriptors is encoded by zeros. If every cell should count alike, let the
    encoder normalise, as ``FisherVectorEncoder(normalize="power-l2")``; a ``PowerL2Normalizer``
    after the pyramid scales all cells together.

    Descriptors are encoded once per grid. :class:`JointClassifier` does not train pyramids.

    References
    ----------
    .. [1] S. Lazebnik, C. Schmid and J. Ponce (2006), "Beyond bags of features: spatial pyramid
       matching for recognizing natural scene categories", CVPR.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skfisher import FisherVectorEncoder, ImagePatches, SpatialPyramid
    >>> bags = ImagePatches(3, positions=1.0).fit_transform(load_digits().images[:100])
    >>> encoder = FisherVectorEncoder(4, normalize="power-l2", random_state=0)
    >>> pyramid = SpatialPyramid(encoder, cells=((1, 1), (2, 2))).fit(bags)
    >>> pyramid.transform(bags).shape  # 5 cells, each 4 (2 x 9 + 1)
    (100, 380)
    """

    _takes_shards = True
    _parameter_constraints: dict = {
        "encoder": [HasMethods(["fit", "transform"])],
        "cells": [tuple, list],
        "n_positions": [Interval(Integral, 0, 2, closed="both")],
    }

    def __init__(self, encoder, cells=((1, 1), (2, 2), (3, 1)), *, n_positions=2):
        self.encoder = encoder
        self.cells = cells
        self.n_positions = n_positions

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Fit the encoder to whole bags, without positions.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : array-like of shape (n_bags,), default=None
            Labels, for an encoder that learns from them.

        Returns
        -------
        self : SpatialPyramid

        Raises
        ------
        ValueError
            If `cells` are not grids, or descriptors are positions and nothing else.
        """
        self._grids()
        bags = check_bags(self, X, reset=True)
        check_beside_positions(bags, self.n_positions)
        encoder = clone(self.encoder)
        if hasattr(encoder, "set_output"):
            encoder.set_output(transform="default")
        self.encoder_ = encoder.fit(without_positions(bags, self.n_positions), y)
        return self

    @mirrors_input
    @configured(transform_output="default")
    def transform(self, X):
        """Encode the cells of bags.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array

        Returns
        -------
        encodings : array of shape (n_bags, n_cells * n_features_out of the encoder)
            Grid by grid, the cells of a grid row by row.

        Raises
        ------
        TypeError
            If the encoder returns something else than an array of one row per bag.
        """
        check_is_fitted(self)
        grids = self._grids()
        bags, encodings = check_bags(self, X, reset=False), None
        for first, last in _groups(bags.lengths, max(1, NUMBERS_AT_ONCE // bags.n_features)):
            offset, some = 0, in_memory(bags[first:last])
            for grid in grids:
                cells, places = cells_of_bags(some, grid, self.n_positions)
                codes = self._codes(cells)
                n_cells = grid[0] * grid[1]
                if encodings is None:
                    n_all = sum(rows * columns for rows, columns in grids)
                    encodings = zeros((len(bags), n_all, codes.shape[1]), like=codes)
                owners, of_grid = np.divmod(places, n_cells)
                owners, of_grid = (
                    asarray(i, like=codes) for i in (first + owners, offset + of_grid)
                )
                encodings[owners, of_grid] = codes
                offset += n_cells
        return encodings.reshape(len(bags), -1)

    def _codes(self, cells):
        codes = self.encoder_.transform(cells)
        if issparse(codes) or getattr(codes, "shape", ())[:1] != (len(cells),) or codes.ndim != 2:
            raise TypeError(
                f"encoder={self.encoder!r} returned {describe(codes)} for {len(cells)} bags, but "
                "an array of a row for each is needed: end a pipeline of transformers with an "
                "encoder such as FisherVectorEncoder."
            )
        return codes

    def _grids(self):
        """Return the rows and columns of every grid."""
        if self.n_positions == 1:
            raise ValueError("n_positions=1 must be 0, for series, or 2, for the plane.")
        grids = [
            (cells, 1) if isinstance(cells, Integral) and self.n_positions == 0 else cells
            for cells in (self.cells if isinstance(self.cells, tuple | list) else ())
        ]
        fine = [
            isinstance(grid, tuple | list)
            and len(grid) == 2
            and all(isinstance(n, Integral) and n >= 1 for n in grid)
            and (self.n_positions == 2 or grid[1] == 1)
            for grid in grids
        ]
        if not grids or not all(fine):
            wanted = (
                "pairs of rows and columns, such as ((1, 1), (2, 2))"
                if self.n_positions
                else "numbers of stretches, such as (1, 2, 4), where bags are series"
            )
            raise ValueError(f"cells={self.cells!r} must be {wanted}.")
        return [(int(rows), int(columns)) for rows, columns in grids]

    def get_feature_names_out(self, input_features=None):
        """Name the columns: ``2x3_r1_c0_...`` is of row 1, column 0 in a grid of 2 rows, 3 columns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the dimensions of a descriptor, by default those seen in `fit`, or ``d0, d1,
            ...``.

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        names = names_in(self, input_features, prefix="d")
        codes = self.encoder_.get_feature_names_out(names[: len(names) - self.n_positions])
        return np.asarray(
            [
                f"{rows}x{columns}_r{i}_c{j}_{code}"
                for rows, columns in self._grids()
                for i in range(rows)
                for j in range(columns)
                for code in codes
            ],
            dtype=object,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        try:
            inner = get_tags(self.encoder)
        except (AttributeError, TypeError):  # no estimator: fit will say so
            return tags
        tags.target_tags.required = inner.target_tags.required
        tags.non_deterministic = inner.non_deterministic
        return tags


def _groups(lengths, n_rows):
    """Yield the first and last of some bags that have so many descriptors at most, or of one."""
    ends, first = np.cumsum(lengths), 0
    while first < len(lengths):
        before = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, before + n_rows, side="right")))
        yield first, last
        first = last

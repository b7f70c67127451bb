"""Any transformer of scikit-learn, applied to every descriptor of bags."""

import copy
import functools
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.base import TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import HasMethods, Interval, _fit_context
from skfisher.arrays.dense import as_numpy
from skfisher.arrays.libraries import detached, float_dtype, to_host
from skfisher.bags.bags import Bags
from skfisher.bags.feature_names import names_in
from skfisher.bags.sampling import draw_descriptors
from skfisher.bags.sharded_values import ShardedValues, mapped_when_read
from skfisher.contract.estimator import BagEstimator, all_or_nothing
from skfisher.contract.extremes import place_of
from skfisher.contract.labels import read_labels
from skfisher.contract.set_output import BagOutputMixin, is_table
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.descriptors.moments import fitted_to_moments
from skfisher.parallel.units import Where, map_rows, row_units
from skfisher.process_state import configured

__all__ = ["DescriptorTransformer", "check_labels", "transform_rows"]

# Descriptors go to the transformer in blocks of so many numbers, 4 MiB as float64. It does not
# follow n_jobs, so neither do results.
BLOCK_NUMBERS = 2**19


# The transformer is given arrays of NumPy, and is to return such.
_plain_scikit_learn = configured(array_api_dispatch=False, transform_output="default")


class DescriptorTransformer(BagOutputMixin, TransformerMixin, BagEstimator):
    """Apply a scikit-learn transformer to every descriptor of every bag.

    The transformer is fitted on the descriptors of all bags, stacked, or on a random sample of
    them. Bags keep their lengths; their descriptors change.

    Parameters
    ----------
    transformer : transformer instance
        Any scikit-learn transformer of dense tables, for instance ``PCA(64)``,
        ``StandardScaler()`` or a pipeline of several. It is cloned, never changed.
    max_descriptors : int, default=100_000
        Fit on this many descriptors, drawn without replacement from all bags together. None fits on
        all of them, which takes memory for a floating-point copy unless `incremental`.
    incremental : bool, default=False
        Fit by the transformer's ``partial_fit``, block by block in the order of the bags, in
        bounded memory. Write ``DescriptorTransformer(IncrementalPCA(64), max_descriptors=None,
        incremental=True)`` to fit on every descriptor of a memory map.
    n_jobs : int, default=None
        Number of threads for `transform`, see scikit-learn's glossary. It does not change the
        result.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice of descriptors. The transformer has a seed of its own.

    Attributes
    ----------
    transformer_ : transformer instance
        The fitted transformer.
    n_features_in_ : int
        Width of a descriptor seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, if it was given a table whose names are all strings.

    See Also
    --------
    FisherVectorEncoder : Encodes the transformed bags.
    PositionAppender : Appends the position of each descriptor in its bag.

    Notes
    -----
    If `y` is given, each descriptor gets the label of its bag, so that supervised transformers such
    as ``LinearDiscriminantAnalysis`` work. These labels are weak: a background descriptor gets the
    label of its image, too.

    Descriptors are passed to the transformer as float32, or as float64 if float32 does not hold
    every value of their dtype, and come back in that dtype. `transform` limits BLAS to one thread:
    use `n_jobs` instead. The result is held in memory; memory beyond it is bounded.

    A table, read as one descriptor per sample, becomes a table again.

    For :class:`ShardedBags`, ``transform`` returns bags of the same shards, whose descriptors are
    transformed whenever they are read. To transform them only once, save them, or write them by
    ``skfisher.dask.transform``. With ``max_descriptors=None``, ``StandardScaler`` and ``PCA`` are
    fitted to all descriptors of shards by one pass, in bounded memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from skfisher import DescriptorTransformer
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(size=(n, 8)) for n in (20, 30, 40)]
    >>> DescriptorTransformer(PCA(3)).fit_transform(bags)
    <Bags: n_bags=3, n_descriptors=90 (20 to 40 a bag), n_features=3, float64, cpu>
    """

    _takes_shards = True
    _parameter_constraints: dict = {
        "transformer": [HasMethods(["fit", "transform"])],
        "max_descriptors": [Interval(Integral, 1, None, closed="left"), None],
        "incremental": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        transformer,
        *,
        max_descriptors=100_000,
        incremental=False,
        n_jobs=None,
        random_state=None,
    ):
        self.transformer = transformer
        self.max_descriptors = max_descriptors
        self.incremental = incremental
        self.n_jobs = n_jobs
        self.random_state = random_state

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Fit a clone of the transformer on the descriptors.

        Parameters
        ----------
        X : Bags, list of arrays, 3-D array or table
            The bags, see `Bags`.
        y : array-like of shape (n_bags,) or (n_bags, n_outputs), default=None
            Labels of the bags, for supervised transformers.

        Returns
        -------
        self : DescriptorTransformer

        Raises
        ------
        TypeError
            If `incremental` and the transformer has no ``partial_fit``.
        ValueError
            If the bags are not valid, or `y` has another length.
        """
        if self.incremental and not hasattr(self.transformer, "partial_fit"):
            raise TypeError(
                f"incremental=True needs a transformer with partial_fit, which {self.transformer} "
                "has not: set incremental=False and max_descriptors, or take another transformer, "
                "such as IncrementalPCA for PCA."
            )
        bags = check_bags(self, X, reset=True)
        y = check_labels(self.transformer, y, bags)
        if self._reads_shards_at_once(bags):
            fitted = fitted_to_moments(self.transformer, bags, Where(self.n_jobs, "cpu"))
            if fitted is not None:
                self.transformer_ = fitted
                return self
        sample, owners = draw_descriptors(bags, self.max_descriptors, self.random_state)
        n_rows = _rows_per_block(bags) if self.incremental else None
        blocks = _training_blocks(sample, None if y is None else y[owners], n_rows)
        self.transformer_ = _learn(clone(self.transformer), blocks, partial=self.incremental)
        return self

    def _reads_shards_at_once(self, bags):
        """Tell whether the descriptors of shards, all of them, are asked for in one array."""
        most = self.max_descriptors
        takes_all = most is None or most >= bags.n_descriptors
        return isinstance(bags.values, ShardedValues) and takes_all and not self.incremental

    @available_if(lambda self: _has_partial_fit(self.transformer))
    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def partial_fit(self, X, y=None):
        """Continue the fit with all descriptors of more bags.

        Parameters
        ----------
        X : Bags, list of arrays, 3-D array or table
            The bags, see `Bags`. `max_descriptors` is not used.
        y : array-like of shape (n_bags,) or (n_bags, n_outputs), default=None
            Labels of the bags, for supervised transformers.

        Returns
        -------
        self : DescriptorTransformer
        """
        first_call = not hasattr(self, "transformer_")
        bags = check_bags(self, X, reset=first_call)
        y = check_labels(self.transformer, y, bags)
        # a copy, as an error may come between two blocks
        transformer = clone(self.transformer) if first_call else copy.deepcopy(self.transformer_)
        blocks = _training_blocks(bags, y, _rows_per_block(bags))
        self.transformer_ = _learn(transformer, blocks, partial=True)
        return self

    def _transform(self, X):
        check_is_fitted(self)
        bags = check_bags(self, X, reset=False, copy=False)
        n_rows = _rows_per_block(bags)
        if isinstance(bags.values, ShardedValues):
            return mapped_when_read(bags, RowMap(self.transformer_, n_rows))
        values = map_rows(
            functools.partial(transform_rows, transformer=self.transformer_),
            row_units(bags, Where(self.n_jobs, "cpu"), n_rows),
            tile=n_rows,
        )
        _check_output(values, bags, self.transformer_)
        return values if is_table(X) else Bags.from_lengths(values, bags.lengths)

    def get_feature_names_out(self, input_features=None):
        """Ask the transformer for the names of its features.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features,), default=None
            Names of a descriptor's features, by default those seen in `fit`, or ``x0``, ``x1``, ...

        Returns
        -------
        names : ndarray of str objects

        Raises
        ------
        AttributeError
            If the transformer does not name its features.
        """
        check_is_fitted(self)
        if not hasattr(self.transformer_, "get_feature_names_out"):
            # scikit-learn looks for these words, and makes data frames without names then
            raise AttributeError(f"{self.transformer_} does not provide get_feature_names_out.")
        return self.transformer_.get_feature_names_out(names_in(self, input_features))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        try:
            inner = get_tags(self.transformer)
        except (AttributeError, TypeError):  # no estimator: fit will say so
            return tags
        tags.target_tags.required = inner.target_tags.required
        tags.input_tags.positive_only = inner.input_tags.positive_only
        tags.non_deterministic = inner.non_deterministic
        return tags


def _training_blocks(bags, y, n_rows=None):
    """Yield descriptors in floating point and their labels, at most about `n_rows` at a time."""
    dtype, ends, n = float_dtype(bags.dtype), np.cumsum(bags.lengths), bags.n_descriptors
    # Equal blocks: a transformer may refuse a last one that is too short.
    n_rows = n if n_rows is None else -(-n // max(1, n // n_rows))
    first = 0
    for x in bags.blocks(n_rows):
        places = np.arange(first, first + len(x))
        labels = None if y is None else y[np.searchsorted(ends, places, "right")]
        yield detached(to_host(x).astype(dtype, copy=False), bags.values), labels
        first += len(x)


def _rows_per_block(bags):
    return max(256, BLOCK_NUMBERS // bags.n_features)


@_plain_scikit_learn
@np.errstate(over="ignore", invalid="ignore")  # of its checks; it may do without such squares
def _learn(transformer, blocks, *, partial):
    learn = transformer.partial_fit if partial else transformer.fit
    for x, y in blocks:
        try:
            learn(x, y)
        except np.linalg.LinAlgError as fault:
            raise ValueError(
                f"{transformer} cannot be fitted to the descriptors: {fault}. Their squares may be "
                "out of the range of floating-point numbers. Rescale the descriptors."
            ) from fault
    return transformer


@_plain_scikit_learn
@np.errstate(over="ignore", invalid="ignore")  # the caller looks
def transform_rows(x, transformer):
    """Return rows as a transformer of scikit-learn maps them, in their dtype."""
    x = x.astype(float_dtype(x.dtype))  # a copy: the transformer may write to it
    part = transformer.transform(x)
    if issparse(part):
        raise TypeError(
            f"{transformer} returned a sparse matrix, but descriptors are dense: ask it for dense "
            "output, for instance by sparse_output=False."
        )
    if (
        type(part) is not np.ndarray or part.dtype.kind != "f"
    ):  # to write a transformer takes as long as some of them
        part = as_numpy(part, f"the output of {transformer}")
    if part.ndim != 2 or len(part) != len(x):
        raise ValueError(
            f"{transformer} returned an array of shape {part.shape} for {len(x)} descriptors: it "
            f"must return one row for each, of shape ({len(x)}, n_features_out)."
        )
    return part.astype(x.dtype, copy=False)


class RowMap(NamedTuple):
    """A fitted transformer as a function of rows, so many at a time."""

    transformer: Any
    n_rows: int

    def __call__(self, x):
        """Return the rows as they are mapped; the caller reads them from somewhere."""
        blocks = [
            transform_rows(x[first : first + self.n_rows], self.transformer)
            for first in range(0, len(x), self.n_rows)
        ]
        values = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum()
        if values.dtype.kind == "f" and not (np.isfinite(total) or np.isfinite(values).all()):
            raise ValueError(
                f"{self.transformer} made NaN or infinity of a descriptor of the shards. Rescale "
                f"the descriptors, or save float64 if {values.dtype} does not hold them."
            )
        return values


def _check_output(values, bags, transformer):
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()  # finite only if all are
    if not np.isfinite(total):
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            sample, descriptor = place_of(int(finite.argmin()), bags)
            raise ValueError(
                f"{transformer} made NaN or infinity of descriptor {descriptor} of X[{sample}]. "
                f"Rescale the descriptors, or pass float64 if {values.dtype} does not hold them."
            )


def check_labels(transformer, y, bags):
    """Return labels as an array, for a transformer that learns from them in the form they need."""
    if y is None:
        return None
    y = read_labels(y) if get_tags(transformer).target_tags.required else as_numpy(y, "y")
    if y.ndim == 0 or len(y) != len(bags):
        raise ValueError(
            f"y has shape {y.shape}, but X holds {len(bags)} bags: one label per bag is needed."
        )
    return y


def _has_partial_fit(transformer):
    if not hasattr(transformer, "partial_fit"):
        raise AttributeError(f"{transformer} has no partial_fit.")
    return True

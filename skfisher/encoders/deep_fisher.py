"""Deep Fisher networks: Fisher vectors of windows, encoded by Fisher vectors again."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted

from skfisher._compat import HasMethods, Interval, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import asarray, empty, float_dtype
from skfisher.bags.bags import Bags
from skfisher.bags.cells import check_beside_positions
from skfisher.bags.sharded_values import read_here
from skfisher.codebooks.fitting import too_far
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import mirrors_input, reads_input
from skfisher.contract.validation import check_bags
from skfisher.descriptors.transformer import check_labels
from skfisher.encoders.deep_settings import (
    check_settings,
    check_stacks,
    check_trainable,
    check_unchanged,
    form_of,
)
from skfisher.encoders.encoder import BagEncoder
from skfisher.encoders.fisher import FisherVectorEncoder
from skfisher.encoders.projections import draw_windows, fitted_projection, projecting, rows_of
from skfisher.encoders.window_codes import iter_stacks, iter_window_codes
from skfisher.encoders.window_counts import count_windows, extent_of
from skfisher.layers.chain import Chain
from skfisher.layers.deep_fisher import DeepFisherPooling
from skfisher.layers.encode import encode_bags
from skfisher.layers.windows import Layout
from skfisher.ops.normalization import power_l2_normalize
from skfisher.parallel.units import Where
from skfisher.process_state import configured, one_blas_thread

__all__ = ["DeepFisherEncoder"]

# By default: the descriptors of a cell, and the cells along the longest side of all bags.
ROWS_OF_SERIES, CELLS_OF_PLANE = 8, 8


class DeepFisherEncoder(BagEncoder):
    r"""Encode bags by two Fisher layers, the first of them over windows.

    The Fisher vector of a bag does not record where its descriptors lie. A deep Fisher network [1]_
    keeps part of that information:

    1. the bag is cut into overlapping *windows*; the *code* of a window is its Fisher vector, power
       and L2 normalised;
    2. codes are projected to few dimensions;
    3. the projected codes of neighbouring windows are put side by side, and scaled to unit length;
    4. the results are projected again and whitened, and are the descriptors of the second layer;
    5. their Fisher vector encodes the bag, beside the Fisher vector of all its descriptors.

    A Fisher vector is computed from sums over descriptors. These are added up over each cell once,
    and then over the cells of every window.

    Parameters
    ----------
    n_components : int or (int, int), default=(16, 16)
        Number of components of the mixture of descriptors, and of the mixture of codes.
    n_positions : {0, 2}, default=0
        0: a bag is a series, whose descriptors are in order of time. 2: the last two columns of a
        descriptor are its position in the plane, x and y, as ``ImagePatches(positions=...)``
        appends them. They say which window a descriptor belongs to, and are not encoded.
    cell : int or float, default=None
        Size of a cell. Cells lie side by side, and a window begins at every cell. In a series, the
        size is the number of descriptors, by default 8; in the plane, it is the side in the units
        of the positions, by default an eighth of the longest side of all bags.
    window : int, default=2
        Number of cells along a side of a window. A descriptor of a series is in `window` windows,
        one in the plane in `window` squared.
    projection : transformer, default=None
        Any scikit-learn transformer that maps codes of windows to shorter ones. If `fit` is given
        `y`, each window has the label of its bag. By default PCA to 64 dimensions.
    stack : int, default=2
        Number of neighbouring windows, along each side, whose codes are put side by side; 1 does
        not stack codes.
    reduction : transformer, default=None
        Any scikit-learn transformer that maps stacked codes to descriptors of the second layer. By
        default PCA to 64 dimensions, whitened.
    layers : tuple, default=(1, 2)
        Which Fisher vectors of the bag are returned, one after the other: that of its descriptors,
        1, and that of its windows, 2.
    max_windows : int, default=10_000
        Fit `projection`, `reduction` and the second mixture to at most this many windows, drawn at
        random. Their codes are held in memory during `fit`.
    max_iter : int, default=2
        Iterations of expectation maximisation, as for :class:`FisherVectorEncoder`.
    variance_floor : float, default=0.3
        Variance floor of both mixtures, as for :class:`FisherVectorEncoder`.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str or list of str, default=None
        Where descriptors are processed: "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or
        several devices in a list; by default where they are. Codes are projected on the host.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw of windows, both mixtures and PCA.

    Attributes
    ----------
    local_ : FisherVectorEncoder
        Encoder of the descriptors.
    cell_ : int or float
        The size of a cell that is used.
    projection_, reduction_ : transformer
        The fitted transformers; None without a second layer.
    global_ : FisherVectorEncoder
        Encoder of the descriptors of the second layer; None without one.
    n_iter_ : int
        Iterations of expectation maximisation, of the mixture that took more.
    n_features_in_ : int
        Width of a descriptor, with its position.

    See Also
    --------
    FisherVectorEncoder : One layer.
    PositionAppender : Appends the position of each descriptor in its series.

    Notes
    -----
    For :class:`ShardedBags`, a fit reads all bags to find the mixture of descriptors, and then only
    the bags from which windows were drawn.

    A bag smaller than a window is treated as one window. Windows without descriptors are left out;
    next to others in a stack, they are zeros. The Fisher vector of each layer has unit length.

    In the paper, the projection is trained for classification; here, the default PCA does not look
    at labels. :class:`JointClassifier` trains the whole network, if both projections are linear
    maps that need no labels, such as PCA.

    References
    ----------
    .. [1] Simonyan, Vedaldi and Zisserman (2013), Deep Fisher networks for large-scale image
       classification.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import DeepFisherEncoder
    >>> rng = np.random.default_rng(0)
    >>> series = [rng.normal(size=(n, 3)) for n in (40, 50, 60, 70)]
    >>> encoder = DeepFisherEncoder((4, 2), cell=5, random_state=0).fit(series)
    >>> encoder.transform(series).shape  # 4 (2 x 3 + 1), and 2 (2 x 35 + 1) of so few windows
    (4, 170)
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "n_positions": [Interval(Integral, 0, 2, closed="both")],
        "cell": [Interval(Real, 0, None, closed="neither"), None],
        "window": [Interval(Integral, 1, None, closed="left")],
        "projection": [HasMethods(["fit", "transform"]), None],
        "stack": [Interval(Integral, 1, None, closed="left")],
        "reduction": [HasMethods(["fit", "transform"]), None],
        "layers": [tuple, list],
        "max_windows": [Interval(Integral, 2, None, closed="left")],
        **{
            name: FisherVectorEncoder._parameter_constraints[name]
            for name in ("max_iter", "variance_floor", "n_jobs", "device", "random_state")
        },
    }

    def __init__(
        self,
        n_components=(16, 16),
        *,
        n_positions=0,
        cell=None,
        window=2,
        projection=None,
        stack=2,
        reduction=None,
        layers=(1, 2),
        max_windows=10_000,
        max_iter=2,
        variance_floor=0.3,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.n_positions = n_positions
        self.cell = cell
        self.window = window
        self.projection = projection
        self.stack = stack
        self.reduction = reduction
        self.layers = layers
        self.max_windows = max_windows
        self.max_iter = max_iter
        self.variance_floor = variance_floor
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    @reads_input
    def fit(self, X, y=None):
        """Fit layer by layer: a mixture, the projection, the reduction, another mixture.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : array-like of shape (n_bags,) or (n_bags, n_outputs), default=None
            Labels of the bags, for a `projection` or `reduction` that learns from them.

        Returns
        -------
        self : DeepFisherEncoder

        Raises
        ------
        ValueError
            If parameters contradict each other or the bags, or if there are fewer windows than
            components of the second mixture.
        """
        parse_device(self.device)
        n_local, n_global = check_settings(self)
        bags = check_bags(self, X, reset=True, min_descriptors=n_local)
        check_beside_positions(bags, self.n_positions)
        labels = [
            check_labels(t, y, bags) if t is not None else None
            for t in (self.projection, self.reduction)
        ]
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=5)
        layout = self._layout(bags)
        local = self._fisher(n_local, seeds[0]).fit(layout.descriptors(bags))
        second = (None,) * 3
        if 2 in self.layers:
            second = self._fit_second(local, bags, layout, labels, n_global, seeds[1:])
        projection, reduction, of_windows = second
        vars(self).update(
            n_iter_=max(getattr(encoder, "n_iter_", 1) for encoder in (local, of_windows)),
            local_=local, cell_=layout.cell, _form=form_of(self),
            projection_=projection, reduction_=reduction, global_=of_windows,
        )  # fmt: skip
        return self

    @configured(array_api_dispatch=False, transform_output="default")
    @one_blas_thread
    def _fit_second(self, local, bags, layout, labels, n_global, seeds):
        """Return the fitted projection, reduction and encoder of the second layer."""
        n_windows, n_stacks = count_windows(layout, bags, Where(self.n_jobs))
        check_stacks(self, n_global, n_stacks)
        bags, drawn = read_here(bags), draw_windows(n_windows, self.max_windows, seeds[0])
        codes = (b.codes for b in self._windows(local, bags, layout, None, some=drawn.bags))
        projection = fitted_projection(
            self.projection, rows_of(codes, drawn.rows), labels[0], drawn.owners, seeds[1],
            whiten=False,
        )  # fmt: skip
        project = projecting(projection, float_dtype(bags.dtype))
        drawn = draw_windows(n_stacks, self.max_windows, seeds[2])
        stacks = iter_stacks(self._windows(local, bags, layout, project, some=drawn.bags), layout)
        stacks = rows_of((of_some.codes for of_some in stacks), drawn.rows)
        reduction = fitted_projection(
            self.reduction, stacks, labels[1], drawn.owners, seeds[1], whiten=True
        )
        rows = projecting(reduction, stacks.dtype)(stacks, np.array([len(stacks)]))
        rows = Bags.from_lengths(rows, [len(rows)])
        return projection, reduction, self._fisher(n_global, seeds[3], device=None).fit(rows)

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

        Raises
        ------
        ValueError
            If bags are not valid, a code overflows, or parameters have changed since `fit`.
        """
        check_is_fitted(self)
        parse_device(self.device)
        check_unchanged(self)
        bags = check_bags(self, X, reset=False)
        shape, dtype = (len(bags), self._n_features_out), float_dtype(bags.dtype)
        encodings = empty(shape, like=bags.values, dtype=dtype)
        self._encode(bags, out=encodings)
        self._check_finite(encodings, bags)
        return encodings

    @configured(array_api_dispatch=False, transform_output="default")
    @one_blas_thread
    def _encode(self, bags, out):
        """Write the encodings of bags."""
        layout, local = self._layout(bags, self.cell_), self.local_
        width = local._n_features_out if 1 in self.layers else 0
        if 2 not in self.layers:
            self._fisher_vectors(local, layout.descriptors(bags), self._where(), out)
            return
        project, reduce = (projecting(t, out.dtype) for t in (self.projection_, self.reduction_))
        first = 0
        for stacks in iter_stacks(self._windows(local, bags, layout, project), layout):
            some = slice(first, first + len(stacks.counts))
            rows = Bags.from_lengths(reduce(stacks.codes, stacks.counts), stacks.counts)
            self._write(stacks.sums, rows, bags[some], layout, width, out[some])
            first = some.stop

    def pooling(self):
        """Return the layer that joint training takes.

        Returns
        -------
        layer : DeepFisherPooling

        Raises
        ------
        ValueError
            If parameters contradict each other, or name what joint training cannot train.
        """
        return DeepFisherPooling(self, check_trainable(self))

    def _write(self, sums, rows, bags, layout, width, out):
        """Write the encodings of some bags: of their sums, and of the second layer's rows."""
        if width:
            pooling = self.local_.pooling()
            mixture = self.local_._parameters(layout.descriptors(bags))
            whole = pooling.read(pooling.prepare(mixture, out.dtype), sums, bags.lengths)
            out[:, :width] = asarray(power_l2_normalize(whole, out=whole), like=out)
        encodings = self._fisher_vectors(self.global_, rows, Where(self.n_jobs))
        out[:, width:] = asarray(encodings, like=out)

    def _fisher_vectors(self, encoder, bags, where, out=None):
        chain = Chain((), encoder.pooling(), where=where)
        out = encode_bags(chain, encoder._parameters(bags), bags, out=out)
        return power_l2_normalize(out, out=out)

    def _windows(self, local, bags, layout, project, some=None):
        """Yield the codes of windows, of all bags or some, band by band, all finite."""
        chain = Chain((), local.pooling(), where=self._where())
        parameters = local._parameters(layout.descriptors(bags))
        for band in iter_window_codes(chain, parameters, bags, layout, some=some, project=project):
            if band.codes is None:
                bags, mixture = layout.descriptors(bags), local.mixture_._mixture()
                raise ValueError(too_far(mixture, bags, band.bag))
            yield band

    def _layout(self, bags, cell=None):
        """Return how windows lie, for the cell that is asked for or, in `fit`, found."""
        cell = self.cell if cell is None else cell
        if cell is None and self.n_positions:
            # a little more, so that the last positions are in the last cell
            cell = extent_of(bags, Where(self.n_jobs)) / CELLS_OF_PLANE * 1.001 or 1.0
        return Layout(self.n_positions, cell or ROWS_OF_SERIES, self.window, self.stack)

    def _fisher(self, n_components, seed, **changes):
        options = {"n_jobs": self.n_jobs, "device": self.device, **changes}
        return FisherVectorEncoder(
            n_components, normalize="power-l2", max_iter=self.max_iter,
            variance_floor=self.variance_floor, random_state=int(seed), **options,
        )  # fmt: skip

    def _where(self):
        return Where(self.n_jobs, self.device)

    def _why_not_finite(self, bags, i):
        layout = self._layout(bags, self.cell_)
        return too_far(self.local_.mixture_._mixture(), layout.descriptors(bags), i)

    @property
    def _n_features_out(self):
        encoders = {1: self.local_, 2: self.global_}
        return sum(encoders[layer]._n_features_out for layer in self.layers)

    def _names(self, dimensions):
        names = []
        if 1 in self.layers:
            first = self.local_._names(dimensions[: len(dimensions) - self.n_positions])
            names += [f"layer1_{name}" for name in first]
        if 2 in self.layers:
            codes = [f"code{j}" for j in range(self.global_.n_features_in_)]
            names += [f"layer2_{name}" for name in self.global_._names(codes)]
        return names

    def __sklearn_is_fitted__(self):
        return hasattr(self, "local_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        for transformer in (self.projection, self.reduction):
            try:
                tags.target_tags.required |= get_tags(transformer).target_tags.required
            except (AttributeError, TypeError):  # none, or no estimator: fit will say so
                continue
        return tags

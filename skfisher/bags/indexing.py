"""What makes bags a one-dimensional array: indexing, iteration, and what scikit-learn asks for."""

import numpy as np

from skfisher._compat import get_namespace
from skfisher.arrays.dense import check_unmasked
from skfisher.arrays.libraries import is_cupy, to_host
from skfisher.bags.html import html_of
from skfisher.bags.mapped import is_mapped

__all__ = ["IndexedBags"]


class IndexedBags:
    """Base class of `Bags`, which brings `values`, `starts`, `stops` and ``_view``."""

    ndim = 1

    def __len__(self):
        return len(self.starts)

    def __iter__(self):
        values = self._plain_values()
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            yield values[start:stop]

    def _plain_values(self):
        # Slices of a np.memmap are memory maps too, slow to make and odd to compute with.
        return np.asarray(self.values) if isinstance(self.values, np.memmap) else self.values

    def __repr__(self):
        lengths = self.lengths
        text = f"<Bags: n_bags={len(self)}, n_descriptors={self.n_descriptors}"
        if len(self):
            few, many = lengths.min(), lengths.max()
            text += f" ({few} a bag)" if few == many else f" ({few} to {many} a bag)"
        text += f", n_features={self.n_features}, {self.dtype}, {self.device}"
        return text + (", memory-mapped>" if is_mapped(self.values) else ">")

    def _repr_html_(self):
        return html_of(self)

    def __getitem__(self, key):
        # The boundaries are NumPy arrays, so NumPy itself reads the key. scikit-learn
        # passes (indices, Ellipsis).
        check_unmasked(key, "index")
        if is_cupy(key):
            key = to_host(key)
        elif isinstance(key, tuple):
            key = tuple(to_host(part) if is_cupy(part) else part for part in key)
        starts, stops = self.starts[key], self.stops[key]
        if starts.ndim == 0:
            return self._plain_values()[int(starts) : int(stops)]
        if starts.ndim > 1:
            raise IndexError("Bags have one dimension: index them with one integer, slice or list.")
        return self._view(starts, stops)

    def take(self, indices, axis=0, out=None, mode="raise"):
        """Return the bags at the given positions, as :func:`numpy.take` does.

        scikit-learn calls it when array API dispatch is on.

        Parameters
        ----------
        indices : int or array-like of int
            Which bags; masks and slices, which some versions pass, work as in indexing.
        axis : {0, -1, None}, default=0
            Bags have one axis.
        out : None
            Not supported.
        mode : {"raise", "wrap", "clip"}, default="raise"
            What happens to indices out of range.

        Returns
        -------
        bags : Bags, or the array of one bag if `indices` is an integer
        """
        if axis not in (0, -1, None):
            raise ValueError(f"axis={axis!r} is out of bounds: bags have one dimension.")
        if out is not None:
            raise ValueError("Bags.take does not support out: bags are views, never written to.")
        if isinstance(indices, slice):
            return self[indices]
        check_unmasked(indices, "indices")
        indices = np.asarray(to_host(indices))
        if indices.dtype != bool:
            if indices.size == 0:
                indices = indices.astype(np.int64)
            indices = np.arange(len(self)).take(indices, mode=mode)
        return self[indices]

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Bags have no rectangular form: put what takes tables (such as BaggingClassifier) "
            "after the encoder in a pipeline. The descriptors of all bags are in .values."
        )

    def __array_namespace__(self, *, api_version=None):
        return get_namespace(self.values)[0]

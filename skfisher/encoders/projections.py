"""How codes of windows are projected: some are drawn, and any transformer is fitted to them."""

import functools
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from skfisher.bags.bags import Bags
from skfisher.bags.sampling import draw_rows
from skfisher.descriptors.transformer import DescriptorTransformer, transform_rows

__all__ = ["draw_windows", "fitted_projection", "projecting", "rows_of"]

WIDTH = 64  # of projected codes, by default
# Directions of less than this share of the largest variance are rounding, not to be whitened.
LEAST_VARIANCE = 1e-6


class Drawn(NamedTuple):
    """Rows drawn of all that bags have."""

    bags: np.ndarray  # the numbers of those that rows were drawn of, ascending
    rows: np.ndarray  # the numbers of the rows among all of these bags, ascending
    owners: np.ndarray  # the number of the bag each row is of


def draw_windows(n_of_bags, n, seed):
    """Draw `n` rows of all that bags have, which are so many for each."""
    stops = np.cumsum(n_of_bags)
    starts = stops - n_of_bags
    rows, owners = draw_rows(starts, stops, n, seed)
    bags, places = np.unique(owners, return_inverse=True)
    n_before = np.cumsum(n_of_bags[bags]) - n_of_bags[bags]
    return Drawn(bags, rows - (starts[bags] - n_before)[places], owners)


def rows_of(parts, chosen):
    """Return the rows of given numbers, of parts that one after the other are all rows."""
    first, found = 0, []
    for rows in parts:
        low, high = np.searchsorted(chosen, [first, first + len(rows)])
        found.append(rows[chosen[low:high] - first])
        first += len(rows)
    return np.concatenate(found)


def fitted_projection(transformer, rows, labels, owners, seed, *, whiten):
    """Return a clone of a transformer, fitted to rows; by default PCA."""
    if transformer is None:
        return _fitted_pca(rows, seed, whiten=whiten)
    bags = Bags.from_lengths(rows, np.ones(len(rows), dtype=np.int64))
    y = None if labels is None else labels[owners]
    return DescriptorTransformer(transformer, max_descriptors=None).fit(bags, y).transformer_


@np.errstate(divide="ignore", invalid="ignore")  # of the share of no variance
def _fitted_pca(rows, seed, *, whiten):
    n = max(1, min(WIDTH, len(rows) - 1, rows.shape[1]))
    pca = PCA(n, whiten=whiten, random_state=int(seed)).fit(rows)
    variances = pca.explained_variance_
    rank = max(1, int((variances > LEAST_VARIANCE * variances[0]).sum()))
    if rank == n or not whiten:
        return pca
    return PCA(rank, whiten=True, random_state=int(seed)).fit(rows)


def projecting(transformer, dtype):
    """Return the function that a fitted transformer is, of rows of a dtype.

    It is called ``f(rows, lengths)``, with the rows of some bags one bag after the other: what it
    makes of a bag has the same bits in any company. PCA, fitted here or elsewhere, takes its
    product alone: scikit-learn's checks of a few windows take longer.
    """
    if type(transformer) is not PCA:
        return functools.partial(_transformed, transformer)
    scale = 1.0
    if transformer.whiten:
        scale = np.sqrt(transformer.explained_variance_)
        scale = np.maximum(scale, np.finfo(scale.dtype).eps)  # as scikit-learn does
    matrix = np.ascontiguousarray(transformer.components_.T / scale, dtype=dtype)
    return functools.partial(_product, transformer.mean_.astype(dtype), matrix)


def _transformed(transformer, rows, lengths):
    bags = np.split(rows, lengths.cumsum()[:-1])
    return np.concatenate([transform_rows(bag, transformer) for bag in bags if len(bag)])


def _product(mean, matrix, rows, lengths):
    """Return the product of each bag with a matrix."""
    rows, first = rows - mean, 0
    out = np.empty((len(rows), matrix.shape[1]), rows.dtype)
    for length in lengths.tolist():
        bag = slice(first, first + length)
        np.matmul(rows[bag], matrix, out=out[bag])
        first += length
    return out

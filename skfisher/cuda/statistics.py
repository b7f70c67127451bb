"""Launches the kernels of the forward pass: Fisher vectors and sums of bags, totals for EM.

Descriptors pass through in groups of whole bags whose posteriors and partial sums fit in a
scratch space of fixed size; most batches are one group. A group is a launch of each kernel,
however many bags it has and however long they are. How a batch falls into groups does not
show in the result: a bag's sums follow from the bag alone.
"""

import numpy as np

from skfisher.arrays.libraries import asarray, empty
from skfisher.cuda import configurations, module
from skfisher.cuda.groups import CHUNKS_IN_BLOCK, block_ranges, cut, scratch_numbers, window
from skfisher.cuda.layout import chunk_table, in_place, pack_mixture, partial_size
from skfisher.cuda.mixture import DeviceMixture

__all__ = ["bag_expectations", "bag_sums", "fisher_vector", "takes"]

# float32 numbers, 2 GiB: the posteriors of a million descriptors under 256 components and the
# sums of their chunks in 512 dimensions.
SCRATCH = 2**29
# Reach up to which centred sums have errors of about 1e-5 of a Fisher vector.
LARGEST_REACH = 64.0
# K (2D + 1) at most: the scratch space then holds some chunks, and a grid has blocks for each.
LARGEST_RESULT = 2**23
# K at most: the scratch space then holds the posteriors of a block of chunks, at most 2^15 rows.
LARGEST_K = 2**14
# Longer bags are summed by many threads, block by block, before they are finished.
LONG_BAG = 4 * CHUNKS_IN_BLOCK


def takes(x, weights, means, variances):
    """Tell whether the kernels serve descriptors and a mixture; the array code serves all.

    They do for float32 on a GPU, unless SKFISHER_FUSED=0, for mixtures of a size that
    fits and whose means lie within reach of float32.
    """
    if not module.fused(x):
        return False
    k, d = means.shape
    if k > LARGEST_K or partial_size(k, d) > LARGEST_RESULT or len(x) >= 2**31:
        return False
    packed = pack_mixture(weights, means, variances)
    return packed.representable and packed.reach <= LARGEST_REACH


def fisher_vector(x, starts, stops, weights, means, variances, *, include_weights=True, out=None):
    """Return Fisher vectors of bags, float32; arguments as in `skfisher.ops.fisher`."""
    mixture = DeviceMixture(pack_mixture(weights, means, variances), like=x)
    k, d = mixture.k, mixture.d
    shape = len(starts), 2 * k * d + (k if include_weights else 0)
    direct = out is not None and out.flags.c_contiguous and out.dtype == np.float32
    encodings = out if direct else empty(shape, like=x)
    parameters = _on_device([*mixture.affine(), *mixture.packed.weight_factors], like=x)
    shares = asarray(1 / (stops - starts), like=x)
    for bags, terms, ranges in _summed_bags(x, chunk_table(starts, stops, k, d), mixture):
        configurations.BAG_VECTORS[terms.dtype.name].launch(
            (len(ranges) - 1, -(-k * d // 256)),
            terms, ranges, shares[bags], parameters,
            np.int32(k), np.int32(d), np.int32(include_weights), encodings[bags],
        )  # fmt: skip
    if out is None or direct:
        return encodings
    out[...] = encodings
    return out


def bag_sums(x, starts, stops, weights, means, variances, *, coordinates):
    """Return S0, S1 and S2 of bags, float64 of shapes (n_bags, k) and twice (n_bags, k, d).

    Parameters
    ----------
    x, starts, stops, weights, means, variances
        As in `skfisher.ops.fisher.fisher_vector`.
    coordinates : means, variances
        Of the mixture in the coordinates that the sums are wanted in.
    """
    mixture = DeviceMixture(pack_mixture(weights, means, variances), like=x)
    return _bag_sums(x, chunk_table(starts, stops, *means.shape), mixture, coordinates)


def bag_expectations(x, starts, stops, weights, means, variances, *, coordinates, scale):
    """Return what `bag_sums` does, and the log-likelihood of each bag.

    Parameters
    ----------
    x, starts, stops, weights, means, variances, coordinates
        As in `bag_sums`.
    scale : float or array of shape (d,)
        Unit of the coordinates, on the host: the densities are those in them.

    Returns
    -------
    sums : S0, S1 and S2, float64
    log_likelihood : float64 array of shape (n_bags,)
    """
    mixture = DeviceMixture(pack_mixture(weights, means, variances), like=x)
    table = chunk_table(starts, stops, *means.shape)
    of_chunks = empty(len(table[0]), like=x, dtype=np.float64)
    sums = _bag_sums(x, table, mixture, coordinates, log_likelihood=of_chunks)
    of_bags = empty((len(starts), 1), like=x, dtype=np.float64)
    _add(of_chunks[:, None], table[1], of_bags)
    log_volume = float(np.log(np.broadcast_to(scale, means.shape[1])).sum())
    return sums, of_bags[:, 0] + log_volume * asarray(stops - starts, like=x)


def _bag_sums(x, table, mixture, coordinates, log_likelihood=None):
    k, d = mixture.k, mixture.d
    n_bags = len(table[1]) - 1
    parameters = _on_device(mixture.affine(coordinates), like=x)
    shapes = (n_bags, k), (n_bags, k, d), (n_bags, k, d)
    sums = tuple(empty(shape, like=x, dtype=np.float64) for shape in shapes)
    for bags, terms, ranges in _summed_bags(x, table, mixture, log_likelihood):
        configurations.BAG_SUMS[terms.dtype.name].launch(
            (len(ranges) - 1, -(-k * d // 256)),
            terms, ranges, parameters, np.int32(k), np.int32(d), *(s[bags] for s in sums),
        )  # fmt: skip
    return sums


def _summed_bags(x, table, mixture, log_likelihood=None):
    """Sum the chunks of bags, a group of bags at a time.

    Parameters
    ----------
    table : chunks, bag_chunks
        As `chunk_table` returns them.
    log_likelihood : float64 array of shape (n_chunks,), optional
        Written, if given.

    Yields
    ------
    bags : slice
    terms : array of shape (n_terms, partial_size(k, d))
        float32 sums of chunks, or float64 sums of blocks of chunks; on the device.
    ranges : int32 array of shape (n_bags + 1,)
        The terms of each bag; on the device.
    """
    chunks, bag_chunks = table
    if len(chunks) == 0:
        return
    size = partial_size(mixture.k, mixture.d)

    def sum_chunks(part):
        rows, moved = window(x, chunks[part])
        likelihood = None if log_likelihood is None else log_likelihood[part]
        return mixture.partial_sums(rows, asarray(moved, like=x), likelihood)

    costs = scratch_numbers(chunks, mixture.k, mixture.d, copied=not in_place(x))
    for first, last in cut(np.add.reduceat(costs, bag_chunks[:-1]), SCRATCH):
        low, high = int(bag_chunks[first]), int(bag_chunks[last])
        ranges = bag_chunks[first : last + 1]
        if np.diff(ranges).max() <= LONG_BAG and costs[low:high].sum() <= SCRATCH:
            terms = sum_chunks(slice(low, high))
            ranges = ranges - low
        else:
            blocks, ranges = block_ranges(ranges)
            terms = empty((len(blocks) - 1, size), like=x, dtype=np.float64)
            for b, e in cut(np.add.reduceat(costs[low:high], blocks[:-1] - low), SCRATCH):
                partial = sum_chunks(slice(int(blocks[b]), int(blocks[e])))
                _add(partial, blocks[b : e + 1] - blocks[b], terms[b:e])
        yield slice(first, last), terms, asarray(ranges, like=x)


def _add(terms, ranges, out):
    """Write the sums of the terms ``ranges[i]:ranges[i + 1]`` into row ``i`` of `out`."""
    size = terms.shape[1]
    configurations.ADD_CHUNKS[terms.dtype.name].launch(
        (len(out), -(-size // 256)), terms, np.int64(size), asarray(ranges, like=terms), out
    )


def _on_device(parts, *, like):
    return asarray(np.concatenate([part.ravel() for part in parts]), like=like)

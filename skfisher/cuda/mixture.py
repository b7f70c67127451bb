"""A mixture on the device, and the two kernels that every pass over descriptors is made of."""

import functools

import numpy as np

from skfisher.arrays.libraries import asarray, empty, to_host
from skfisher.cuda import configurations
from skfisher.cuda.layout import partial_size, row_width

__all__ = ["CENTRED_REACH", "DeviceMixture"]

# Beyond this reach, sums are taken about each mean, at half again the time. Up to it, sums
# about the shift have errors below 1e-5 of a Fisher vector.
CENTRED_REACH = 4.0


class DeviceMixture:
    """A mixture where the descriptors are.

    Parameters
    ----------
    packed : PackedMixture
    like : array
        Of the library, and on the device, to work on.
    """

    def __init__(self, packed, *, like):
        self.packed = packed
        self.k, self.d = packed.inv_std.shape
        self.centred = packed.reach > CENTRED_REACH
        self.shift = asarray(packed.shift, like=like)
        self.params = asarray(packed.params, like=like)
        # The arguments between `x` and what is a kernel's own.
        self.common = (
            np.int32(self.d), self.shift, self.params,
            np.int32(packed.kp), np.int32(packed.dp), np.int32(self.k),
        )  # fmt: skip

    @functools.cached_property
    def component_tables(self):
        """``inv_std`` and ``scaled_mean`` once more, (2, kp, dp): a row per component."""
        packed = self.packed
        tables = packed.params[: -packed.kp].reshape(2, packed.dp, packed.kp)
        return asarray(np.ascontiguousarray(tables.transpose(0, 2, 1)), like=self.params)

    def affine(self, coordinates=None):
        """Return alpha and beta, (k, d), on the host, of the coordinates ``alpha y + beta``.

        With them, finish.cu turns moments of what the kernels sum, ``y``, into others.

        Parameters
        ----------
        coordinates : means, variances, optional
            Of the mixture in the coordinates that moments are wanted in; by default
            ``(x - mu) / sigma`` of each component.
        """
        alpha, beta = self.packed.affine(centred=self.centred)
        if coordinates is None:
            return alpha, beta
        means, variances = (to_host(p) for p in coordinates)
        deviations = np.sqrt(variances)
        return deviations * alpha, deviations * beta + means

    def posteriors(self, x):
        """Return posteriors (n, row_width(k)), zeros from column k on, and their normalisers.

        The latter, of shape (n, 2), are the largest log joint density of each descriptor and
        the logarithm of the sum of exponentials less it: together its log-likelihood.
        """
        n, width = len(x), row_width(self.k)
        posteriors, row_norm = empty((n, width), like=x), empty((n, 2), like=x)
        configuration = configurations.score(self.k)
        configuration.launch(
            (-(-n // configuration.rows),),
            x, *self.common, np.int32(n), np.int32(width), posteriors, row_norm,
        )  # fmt: skip
        return posteriors, row_norm

    def partial_sums(self, x, chunks, log_likelihood=None):
        """Return the sums of chunks under the posteriors, as `moments` does.

        Parameters
        ----------
        x : float32 array of shape (n, d)
        chunks : int32 array of shape (n_chunks, 3), on the device
        log_likelihood : float64 array of shape (n_chunks,), optional
            Written: of each chunk, if given.
        """
        posteriors, row_norm = self.posteriors(x)
        if log_likelihood is not None:
            configurations.CHUNK_LOG_LIKELIHOOD.launch(
                (len(chunks),), chunks, row_norm, log_likelihood
            )
        return self.moments(x, posteriors, chunks)

    def moments(self, x, weights, chunks):
        """Return the sums of chunks, (n_chunks, partial_size(k, d)), with any row weights.

        Parameters
        ----------
        x : float32 array of shape (n, d)
        weights : float32 array of shape (n, row_width(k))
            Zeros from column k on.
        chunks : int32 array of shape (n_chunks, 3), on the device
        """
        partial = empty((len(chunks), partial_size(self.k, self.d)), like=x)
        configuration = configurations.moments(self.k, self.d, centred=self.centred)
        tiles = -(-self.k // configuration.components), -(-self.d // configuration.features)
        configuration.launch(
            (len(chunks), *tiles),
            x, *self.common, chunks, weights, np.int32(row_width(self.k)), partial,
        )  # fmt: skip
        return partial

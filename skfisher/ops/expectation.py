"""The E-step of EM: statistics of descriptors under a mixture, and their log-likelihood."""

from skfisher.arrays.libraries import array_module, to_host
from skfisher.cuda import statistics as kernels
from skfisher.ops.gaussian import frame_on_host, framed_logits, scale_of
from skfisher.ops.soft_assignment import Sums, total_statistics

__all__ = ["expectation_sums"]


def expectation_sums(x, starts, stops, weights, means, variances):
    r"""Sum posteriors and moments over bags, or any runs of descriptors, for EM.

    .. math:: S_0 = \sum_t \gamma_t, \quad S_1 = \sum_t \gamma_t y_t', \quad
              S_2 = \sum_t \gamma_t (y_t^2)', \quad
              L = \sum_t \log \sum_k w_k \mathcal N(y_t; \mu_k, v_k)

    Source: Sánchez, Perronnin, Mensink and Verbeek (2013), section 2.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    starts, stops : int64 arrays of shape (n_runs,), on the host
        Run ``i`` holds the rows ``starts[i]:stops[i]`` of `x`, at least one.
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    sums : Sums of float64 arrays
        In the coordinates ``y`` of the mixture, those of `mixture_frame` or of `x`.
    log_likelihood : float64 array of shape (n_runs,)
        Of ``y``, in nats.
    """
    mixture = [to_host(p) for p in (weights, means, variances)]
    if kernels.takes(x, *mixture):
        frame, _, *coordinates, _ = frame_on_host(x.dtype, *mixture)
        sums, log_likelihood = kernels.bag_expectations(
            x, starts, stops, *mixture, coordinates=coordinates, scale=scale_of(frame)
        )
        return Sums(*sums), log_likelihood
    xp = array_module(x)
    frame, _, coefficients = framed_logits(x, *mixture)
    parts = [
        total_statistics(x, starts[i : i + 1], stops[i : i + 1], coefficients, frame=frame)
        for i in range(len(starts))
    ]
    sums = Sums(*(xp.concatenate(s) for s in zip(*(part[0] for part in parts), strict=True)))
    return sums, xp.asarray([part[1] for part in parts])

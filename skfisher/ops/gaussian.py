r"""Log densities and posteriors of a diagonal Gaussian mixture.

With ``l_tk = log w_k + log N(x_t; mu_k, v_k)`` the posteriors are the softmax of ``l``
over the components. Written as a matrix product,

.. math:: l_{tk} = \left\langle x_t, \frac{\mu_k}{v_k} \right\rangle
          + \left\langle x_t^2, -\frac{1}{2 v_k} \right\rangle + \log w_k
          - \tfrac12 \sum_d \left(\log 2 \pi v_{kd} + \frac{\mu_{kd}^2}{v_{kd}}\right),

two products, of ``X`` and of ``X^2`` with the coefficients of all components.
"""

import math

import numpy as np

from skfisher.arrays.libraries import array_module, asarray, float_dtype, is_cupy, to_host
from skfisher.arrays.remembered import remembering
from skfisher.ops.chunks import Frame

__all__ = [
    "apply_frame",
    "frame_on_host",
    "framed_logits",
    "log_joint",
    "logit_coefficients",
    "logit_coefficients_vjp",
    "mixture_frame",
    "scale_of",
    "softmax_rows",
    "to_frame",
]

LOG_2PI = math.log(2 * math.pi)


def logit_coefficients(weights, means, variances):
    r"""Return the coefficients of the log joint density, the equation of this module.

    Source: Sánchez, Perronnin, Mensink and Verbeek (2013), section 2, expanded.

    Parameters
    ----------
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    linear : array of shape (k, d)
    quadratic : array of shape (k, d)
    constant : array of shape (k,)
        Of a component of weight 0 so low that its posteriors vanish, but finite.
    """
    xp = array_module(means)
    log_weights = xp.log(xp.maximum(weights, float(xp.finfo(means.dtype).tiny)))
    linear = means / variances
    volumes = linear * means
    volumes += xp.log(variances)
    log_volumes = volumes.sum(axis=1) + means.shape[1] * LOG_2PI
    return linear, -0.5 / variances, log_weights - 0.5 * log_volumes


def logit_coefficients_vjp(g, weights, means, variances):
    """Return ``d_weights, d_means, d_variances`` for `g`, a triple, at `logit_coefficients`.

    These are the terms in R0, R1 and R2 of the Fisher vector's gradient.
    """
    xp = array_module(means)
    g1, g2, g0 = g
    d_weights = _divide_or_zero(g0, weights, xp)
    g0 = g0[:, None]
    d_means = (g1 - means * g0) / variances
    d_variances = 0.5 * ((g2 - means * (2 * g1 - means * g0)) / variances - g0) / variances
    return d_weights, d_means, d_variances


def _divide_or_zero(numerator, weights, xp):
    # a component of weight 0 has no influence, hence no gradient
    return xp.where(weights > 0, numerator / xp.where(weights > 0, weights, 1), 0)


def log_joint(x, weights, means, variances):
    r"""Log joint density of descriptors and components.

    .. math:: l_{tk} = \log w_k - \tfrac12 \sum_d \left(\log 2 \pi v_{kd}
              + \frac{(x_{td} - \mu_{kd})^2}{v_{kd}}\right)

    Source: Wieschollek, Groh and Lensch (2017), section 3.

    Parameters
    ----------
    x : array of shape (n, d), float32 or float64
    weights : array of shape (k,)
    means : array of shape (k, d)
    variances : array of shape (k, d)

    Returns
    -------
    log_joint : array of shape (n, k), of the dtype and library of `x`
        Computed about the mixture's centre, so a common offset of descriptors and
        means costs no digits; in float64 where float32 would not do.
    """
    frame, weights, means, variances, dtype = to_frame(x, weights, means, variances)
    y = apply_frame(x, frame, dtype)
    linear, quadratic, constant = logit_coefficients(weights, means, variances)
    if frame is not None:
        constant = constant - array_module(x).log(frame.scale).sum()
    logits = y @ linear.astype(dtype).T
    logits += (y * y) @ quadratic.astype(dtype).T
    logits += constant.astype(dtype)
    return logits.astype(float_dtype(x.dtype), copy=False)


def softmax_rows(logits):
    """Return the softmax of each row, and its normaliser in two parts, ``max`` and ``log sum``.

    Their sum is the log-likelihood of the row. As one float32 number it would round at
    the size of the maximum, often in the hundreds.
    """
    xp = array_module(logits)
    largest = logits.max(axis=1, keepdims=True)
    e = xp.exp(logits - largest)
    total = e.sum(axis=1, keepdims=True)
    return e / total, largest[:, 0], xp.log(total[:, 0])


def mixture_frame(weights, means, variances):
    """Return the mixture's own mean and, rounded to powers of two, standard deviations.

    Powers of two rescale without rounding; the shift is a float32 number, so that it is
    the same in both dtypes.
    """
    xp = array_module(means)
    share = (weights / weights.sum())[:, None]
    shift = (share * means).sum(axis=0)
    rounded = xp.clip(shift, -1e38, 1e38).astype(np.float32).astype(np.float64)
    shift = xp.where(xp.abs(shift) < 1e38, rounded, shift)
    spread = xp.sqrt((share * (variances + (means - shift) ** 2)).sum(axis=0))
    return Frame(shift, xp.exp2(xp.round(xp.log2(spread))))


def reach(means, variances):
    """Return the mean over dimensions of ``means^2 / variances``, of the farthest component.

    The expanded square of the log density is a difference of numbers of this size, and
    loses digits accordingly.
    """
    with np.errstate(over="ignore"):  # infinity is far enough
        squares = means * means
        squares /= variances
    return float(squares.sum(axis=1).max()) / means.shape[1]


# Reach up to which descriptors are used as they are, and up to which float32 will do.
_NO_FRAME = 2.0
_FLOAT32 = 16.0
# Below so many means, K D, products are so short that float64 costs little, and vectors
# of bags that resemble the mixture so short that float32 leaves them fewer digits.
_SMALL = 256


def to_frame(x, weights, means, variances):
    """Choose the coordinates and the dtype to compute in, from the parameters alone.

    Chosen on the host, so that no rounding of a device's own tells it from the others.

    Returns
    -------
    frame : Frame of that dtype, or None where descriptors can be used as they are
    weights, means, variances : float64 arrays of the library of `x`, in the frame
    dtype : float32 or float64
        float64 also for float32 descriptors when components lie so far from the centre,
        in their own deviations, that float32 would cost the result its digits, and
        where it costs next to nothing.
    """
    frame, *parameters, dtype = frame_on_host(x.dtype, weights, means, variances)
    if frame is not None:
        frame = Frame(*(asarray(part, like=x) for part in frame))
    return frame, *(asarray(p, like=x) for p in parameters), dtype


def frame_on_host(dtype, weights, means, variances):
    """Return what `to_frame` does for descriptors of a dtype, as NumPy arrays."""
    weights, means, variances = (
        to_host(p).astype(np.float64, copy=False) for p in (weights, means, variances)
    )
    small = means.size < _SMALL
    dtype = np.dtype(np.float64) if small else float_dtype(dtype)
    moderate = float(variances.min()) > 2.0**-40 and float(variances.max()) < 2.0**40
    if moderate and reach(means, variances) <= _NO_FRAME:
        return None, weights, means, variances, dtype
    frame = mixture_frame(weights, means, variances)
    means = (means - frame.shift) / frame.scale
    variances = variances / frame.scale**2
    extreme = float(frame.scale.min()) < 2.0**-120 or float(frame.scale.max()) > 2.0**120
    if extreme or reach(means, variances) > _FLOAT32:
        dtype = np.dtype(np.float64)
    return frame, weights, means, variances, dtype


def framed_logits(x, weights, means, variances):
    """Return what sums over descriptors need of a mixture: its frame, and the logits in it.

    Returns
    -------
    frame : Frame or None
    parameters : weights, means and variances in the frame, float64
    coefficients : those of `logit_coefficients`, of the dtype to work in
    """
    if is_cupy(x):
        frame, *parameters, dtype = to_frame(x, weights, means, variances)
        return frame, parameters, [c.astype(dtype) for c in logit_coefficients(*parameters)]
    return _framed_logits(x.dtype, *map(to_host, (weights, means, variances)))


@remembering
def _framed_logits(dtype, weights, means, variances):
    frame, *parameters, dtype = frame_on_host(dtype, weights, means, variances)
    return frame, parameters, [c.astype(dtype) for c in logit_coefficients(*parameters)]


def scale_of(frame):
    """Return the scale of a frame, 1 where there is none."""
    return 1.0 if frame is None else frame.scale


def apply_frame(x, frame, dtype):
    """Return the descriptors `x` in the frame, in the given dtype."""
    x = x.astype(dtype, copy=False)
    if frame is None:
        return x
    return (x - frame.shift.astype(dtype)) / frame.scale.astype(dtype)

"""Low-rank bilinear pooling: bags encoded by their energies along directions."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from skfisher._compat import Interval, StrOptions, _fit_context
from skfisher.arrays.devices import parse_device
from skfisher.arrays.libraries import to_host
from skfisher.codebooks.moments import second_moments
from skfisher.contract.estimator import all_or_nothing
from skfisher.contract.tensors_in_out import reads_input
from skfisher.contract.validation import check_bags
from skfisher.encoders.encoder import CodebookEncoder
from skfisher.layers.bilinear import EnergyPooling
from skfisher.parallel.units import Where

__all__ = ["LowRankBilinearPooling"]


class LowRankBilinearPooling(CodebookEncoder):
    r"""Encode each bag by its energies along some directions.

    .. math:: e_j = \frac{1}{T} \sum_t \langle u_j, x_t \rangle^2

    A linear classifier of the energies, with coefficients c, scores a bag by

    .. math:: \sum_j c_j e_j = \frac{1}{T} \left(\lVert X U_1 \rVert_F^2 -
              \lVert X U_2 \rVert_F^2\right),

    where :math:`U_1` holds the directions with positive coefficients and :math:`U_2` those with
    negative ones, times the roots of their sizes. This is a bilinear classifier of low rank [1]_,
    which never forms the second moments of a bag. The encoder is meant to be trained, by
    ``JointClassifier(LowRankBilinearPooling())``; the classes share the directions. Without
    training, the directions are the principal axes of the second moments of all descriptors.

    Parameters
    ----------
    n_components : int, default=64
        Number of directions. Those beyond the number of dimensions are random.
    normalize : {"power-l2", "l2"}, default=None
        "power-l2" takes square roots and scales to unit length; "l2" only scales.
    n_jobs : int, default=None
        Number of threads; None for 1, -1 for all cores. It does not change the result.
    device : str or list of str, default=None
        "cpu", "cuda", "cuda:<index>", "cuda:all" or "auto", or several devices in a list;
        by default where the descriptors are.
    random_state : int, RandomState instance or None, default=None
        Seed of random directions.

    Attributes
    ----------
    directions_ : ndarray of shape (n_components, n_features)
    n_features_in_ : int
        Width of a descriptor.

    See Also
    --------
    SecondOrderPooling : All second moments.
    CompactBilinearPooling : A sketch of them.

    References
    ----------
    .. [1] Kong and Fowlkes (2017), Low-rank bilinear pooling for fine-grained classification.

    Examples
    --------
    >>> import numpy as np
    >>> from skfisher import LowRankBilinearPooling
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.normal(size=(rng.integers(20, 40), 3)) for _ in range(10)]
    >>> encoder = LowRankBilinearPooling(2).fit(bags)
    >>> energies = encoder.transform(bags)
    >>> np.allclose(energies[0], ((bags[0] @ encoder.directions_.T) ** 2).mean(axis=0))
    True
    """

    _parameter_constraints: dict = {
        **CodebookEncoder._encoder_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "normalize": [StrOptions({"power-l2", "l2"}), None],
    }

    def __init__(
        self,
        n_components=64,
        *,
        normalize=None,
        n_jobs=None,
        device=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.normalize = normalize
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

    @all_or_nothing(unless="directions_")
    @_fit_context(prefer_skip_nested_validation=True)
    @reads_input
    def fit(self, X, y=None):
        """Find the principal axes of the second moments of all descriptors.

        Parameters
        ----------
        X : Bags, list of arrays of shape (n_descriptors, n_features), or array
        y : None
            Ignored.

        Returns
        -------
        self : LowRankBilinearPooling
        """
        parse_device(self.device)
        bags = check_bags(self, X, reset=True)
        moments = second_moments(bags, Where(self.n_jobs, self.device), products=True)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        layer = self.pooling()
        vars(self).update(layer.attributes(layer.start_from(moments, seed)))
        return self

    def _parameters(self, bags):
        return self.pooling().parameters(vars(self))

    def _why_not_finite(self, bags, i):
        largest = np.abs(to_host(bags[i])).max()
        return (
            f"X[{i}] has a descriptor with an entry of size {largest:.0e}: its square overflows "
            f"{bags.dtype}. Is it a fill value? Drop it, or rescale the descriptors."
        )

    @property
    def _n_features_out(self):
        return len(self.directions_)

    def _names(self, dimensions):
        return self.pooling().names(self.pooling().parameters(vars(self)))

    def pooling(self):
        """Return the layer that :class:`JointClassifier` trains.

        Returns
        -------
        layer : EnergyPooling
        """
        return EnergyPooling(self.n_components, "l2" if self.normalize == "l2" else "power-l2")

    def __sklearn_is_fitted__(self):
        return hasattr(self, "directions_")

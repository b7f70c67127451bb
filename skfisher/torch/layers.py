"""The pooling layers of this package as modules of PyTorch."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from skfisher.codebooks.em import Mixture
from skfisher.codebooks.mixture import DiagonalGaussianMixture
from skfisher.encoders.compact_bilinear import CompactBilinearPooling
from skfisher.encoders.fisher import FisherVectorEncoder
from skfisher.encoders.second_order import SecondOrderPooling as SecondOrderEncoder
from skfisher.encoders.vlad import VLADEncoder
from skfisher.layers.fisher import FisherPooling
from skfisher.layers.sketch import SketchPooling
from skfisher.torch.pooling import Pooling

__all__ = ["VLAD", "CompactBilinear", "FisherVector", "SecondOrderPooling"]


class FisherVector(Pooling):
    r"""Fisher vectors of bags of descriptors, under a mixture that is trained.

    The mixture of K diagonal Gaussians has the unconstrained parameters ``weight_logits``,
    ``means`` and ``log_variances``: weights are their softmax, variances
    :math:`v = \varepsilon + e^\zeta`. Encodings are those of :class:`skfisher.FisherVectorEncoder`,
    in its order. Put `PowerL2` and ``torch.nn.Linear`` after the module.

    Parameters
    ----------
    n_components : int
    n_features : int
        Width of a descriptor.
    include_weights : bool, default=True
        Whether the gradients with respect to the weights are part of the encodings.
    max_iter : int, default=2
        Iterations of EM, in `start`.
    variance_floor : float, default=0.3
        Smallest variance in EM, as a share of the global variance. In training, the floor is a
        tenth of it.
    device, dtype
        Device and dtype of the parameters.

    See Also
    --------
    skfisher.FisherVectorEncoder : The same without PyTorch.

    References
    ----------
    Sánchez, Perronnin, Mensink and Verbeek (2013), equations (16)-(18); trained, Wieschollek, Groh
    and Lensch (2017).
    """

    def __init__(
        self,
        n_components,
        n_features,
        *,
        include_weights=True,
        max_iter=2,
        variance_floor=0.3,
        device=None,
        dtype=None,
    ):
        layer = FisherPooling(
            n_components=n_components,
            include_weights=include_weights,
            max_iter=max_iter,
            variance_floor=variance_floor,
        )
        super().__init__(layer, n_features, n_entries=n_components, device=device, dtype=dtype)

    _estimator = FisherVectorEncoder

    @classmethod
    def _read(cls, encoder):
        mixture = Mixture(encoder.weights_, encoder.means_, encoder.variances_)
        layer = FisherPooling(
            n_components=len(mixture.weights),
            include_weights=encoder.include_weights,
            max_iter=encoder.max_iter,
            variance_floor=encoder.variance_floor,
        )
        return layer, layer.free(mixture, layer.constants_of(mixture))

    def to_estimator(self):
        """Return a fitted encoder of the same mixture.

        Returns
        -------
        encoder : FisherVectorEncoder
        """
        layer = self._operation.layer
        weights, means, variances = layer.mixture_of(self._parameters_now())
        mixture = GaussianMixture(len(weights), covariance_type="diag")
        mixture.weights_, mixture.means_, mixture.covariances_ = weights, means, variances
        mixture.precisions_cholesky_ = 1 / np.sqrt(variances)
        encoder = FisherVectorEncoder(
            len(weights),
            include_weights=layer.include_weights,
            mixture=DiagonalGaussianMixture.from_sklearn(mixture),
            max_iter=layer.max_iter,
            variance_floor=layer.variance_floor,
        )
        return encoder.fit([means])


class VLAD(Pooling):
    r"""Summed residuals of descriptors from the centres that they are assigned to: NetVLAD.

    .. math:: V_k = \sum_t a_{tk} (x_t - c_k), \qquad a_t = \operatorname{softmax}(W x_t + b)

    If tied, :math:`W = 2 \alpha c` and :math:`b = -\alpha |c|^2`: descriptors are assigned by their
    distances to the same centres that residuals are taken from. Put
    ``PowerL2(1, None, blocks=module.blocks())`` after the module for intra-normalisation, or
    `PowerL2` for the power.

    Parameters
    ----------
    n_components : int
    n_features : int
        Width of a descriptor.
    ratio : float, default=100.0
        Ratio of the weights of the nearest centre and the second nearest, at the start.
    tied : bool, default=False
        Whether assignment keeps depending on the distances to the centres.
    metric : {"diagonal"}, default=None
        With tied assignment, each word has a diagonal metric of its own, which is trained.
    moments : {1, 2}, default=1
        2 adds the squares of the residuals, which is NetFV in its simple form.
    device, dtype
        Device and dtype of the parameters.

    See Also
    --------
    skfisher.VLADEncoder : The same without PyTorch.

    References
    ----------
    Arandjelović, Gronat, Torii, Pajdla and Sivic (2016), equations (1)-(4).
    """

    _estimator = VLADEncoder

    def __init__(
        self,
        n_components,
        n_features,
        *,
        ratio=100.0,
        tied=False,
        metric=None,
        moments=1,
        device=None,
        dtype=None,
    ):
        layer = VLADEncoder(
            n_components, ratio=ratio, tied=tied, metric=metric, moments=moments, normalize=None
        ).pooling()
        super().__init__(layer, n_features, n_entries=n_components, device=device, dtype=dtype)

    @classmethod
    def _read(cls, encoder):
        layer = replace(encoder.pooling(), codebook=None, normalize=None)
        layer = replace(layer, n_components=len(encoder.cluster_centers_))
        return layer, layer.free(encoder.cluster_centers_, encoder.scale_)

    def to_estimator(self):
        """Return a fitted encoder of the same words.

        Returns
        -------
        encoder : VLADEncoder

        Raises
        ------
        ValueError
            If assignment is not by distances, as encoders have no other.
        """
        layer = self._operation.layer
        if not layer.tied or layer.metric is not None:
            raise ValueError(
                "an encoder assigns by distances to its words, but this module has learnt an "
                "assignment of its own: make it with tied=True and metric=None."
            )
        attributes = layer.attributes(self._parameters_now())
        centers = attributes["cluster_centers_"]
        encoder = VLADEncoder(
            len(centers),
            assignment=layer.assignment,
            ratio=layer.ratio,
            moments=layer.moments,
            normalize=None,
            codebook=centers,
        ).fit([centers])
        if "scale_" in attributes:
            encoder.scale_ = attributes["scale_"].item()
        return encoder

    def blocks(self):
        """Return the labels of the columns, one for each word.

        Returns
        -------
        labels : int tensor of shape (n_features_out,)
        """
        return torch.from_numpy(self._operation.layer.blocks(self._parameters_now()))


class SecondOrderPooling(Pooling):
    r"""Covariances, second moments or Gaussians of bags, through a function of their eigenvalues.

    Parameters
    ----------
    n_features : int
        Width of a descriptor.
    statistic : {"gaussian", "covariance", "second_moment"}, default="gaussian"
    n_components : int, default=None
        Project descriptors to this many dimensions; the projection is trained.
    standardize : bool, default=False
        Divide dimensions by the deviations that `start` finds; by default descriptors stay as they
        are, as those before a network learns its scales.
    device, dtype
        Device and dtype of the parameters.
    **settings
        `function`, `power`, `n_iter`, `prescale`, `ridge` and `norm` of
        :class:`skfisher.SecondOrderPooling`: ``function="newton_schulz"`` with
        ``statistic="covariance"`` is iSQRT-COV.

    See Also
    --------
    skfisher.SecondOrderPooling : The same without PyTorch.

    References
    ----------
    Li, Xie, Wang and Gao (2018), iSQRT-COV; Wang, Li and Zhang (2017), G2DeNet.
    """

    _estimator = SecondOrderEncoder

    def __init__(
        self,
        n_features,
        statistic="gaussian",
        *,
        n_components=None,
        standardize=False,
        device=None,
        dtype=None,
        **settings,
    ):
        encoder = SecondOrderEncoder(
            statistic, n_components=n_components, standardize=standardize, **settings
        )
        encoder._validate_params()
        super().__init__(
            encoder.pooling(), n_features, n_entries=n_features, device=device, dtype=dtype
        )

    @classmethod
    def _read(cls, encoder):
        layer = encoder.pooling()
        return layer, layer.parameters(vars(encoder))

    def to_estimator(self):
        """Return a fitted encoder of the same constants and projection.

        Returns
        -------
        encoder : SecondOrderPooling
        """
        layer = self._operation.layer
        names = SecondOrderEncoder._get_param_names()
        settings = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        encoder = SecondOrderEncoder(**settings | {"normalize": None})
        n_rows = 2 + self._operation.n_features
        encoder.fit(np.eye(n_rows, self._operation.n_features)[None])
        del encoder._moments  # of no descriptors: `partial_fit` begins anew
        vars(encoder).update(layer.attributes(self._parameters_now()))
        return encoder


class CompactBilinear(Pooling):
    """Sketches of the second moments of bags, without anything to train.

    Parameters
    ----------
    n_components : int
        Number of entries of the sketch.
    n_features : int
        Width of a descriptor.
    degree : int, default=2
        The power that is sketched, or with `gamma`, the highest.
    gamma : float, default=None
        Sketch the polynomial of a Gaussian kernel of this width, of descriptors of unit length:
        kernel pooling.
    device, dtype
        Device and dtype of the module.

    See Also
    --------
    skfisher.CompactBilinearPooling : The same without PyTorch.

    References
    ----------
    Gao, Beijbom, Zhang and Darrell (2016); Cui et al. (2017).
    """

    _estimator = CompactBilinearPooling

    def __init__(self, n_components, n_features, *, degree=2, gamma=None, device=None, dtype=None):
        layer = SketchPooling(n_components, degree, gamma, normalize=None)
        super().__init__(layer, n_features, device=device, dtype=dtype)

    @classmethod
    def _read(cls, encoder):
        layer = replace(encoder.pooling(), normalize=None)
        return layer, layer.parameters(vars(encoder))

    def to_estimator(self):
        """Return a fitted encoder of the same hashes.

        Returns
        -------
        encoder : CompactBilinearPooling
        """
        layer, p = self._operation.layer, self._parameters_now()
        encoder = CompactBilinearPooling(
            layer.n_components,
            degree=layer.degree,
            kernel=None if layer.gamma is None else "rbf",
            gamma=1.0 if layer.gamma is None else layer.gamma,
        ).fit(np.zeros((1, 1, self._operation.n_features)))
        vars(encoder).update(layer.attributes(p))
        return encoder

"""The part of joint estimators that is about the encoder that they are given."""

import copy

from skfisher._compat import HasMethods, StrOptions, copy_without_callbacks
from skfisher.joint.continuing import encoder_form
from skfisher.layers.layer import lacks
from skfisher.training.recipe import SAMPLERS

__all__ = ["ENCODER_CONSTRAINTS", "TrainsAnyEncoder"]

ENCODER_CONSTRAINTS = {
    "encoder": [HasMethods(["fit"])],
    "center": ["boolean"],
    "sampling": [StrOptions(set(SAMPLERS)), HasMethods(["begin", "draw", "observe"])],
}


class TrainsAnyEncoder:
    """Takes the pooling layer of the parameter `encoder`, whatever encoder that is."""

    def _pooling(self):
        """Return the layer of the encoder, as it was when the model was fitted."""
        encoder = getattr(self, "_encoder", self.encoder)
        if isinstance(encoder, type):
            raise TypeError(f"encoder is the class {encoder.__name__}: pass an instance of it.")
        name = type(encoder).__name__
        if not hasattr(encoder, "pooling"):
            raise TypeError(
                f"encoder={name}() cannot be trained jointly, as it has no method pooling: pass an "
                "encoder such as FisherVectorEncoder."
            )
        if hasattr(encoder, "_parameter_constraints"):
            encoder._validate_params()
        pooling = encoder.pooling()
        if missing := lacks(pooling):
            raise TypeError(
                f"encoder={name}() cannot be trained jointly: what its method pooling returns, "
                f"{type(pooling).__name__}, lacks {', '.join(missing)}."
            )
        return pooling

    def _forget_encoder(self):
        vars(self).pop("_encoder", None)

    def _fit_whitening(self, bags):
        # A copy, which unlike a clone keeps a mixture or a codebook that was fitted before.
        self._encoder = copy.deepcopy(copy_without_callbacks(self.encoder))
        return super()._fit_whitening(bags)

    def _pooling_form(self, attributes=None):
        return encoder_form(self.encoder)

"""Fisher vectors and their relatives for scikit-learn."""

import importlib

from .bags.bags import Bags
from .codebooks.mixture import DiagonalGaussianMixture
from .descriptors.patches import ImagePatches
from .descriptors.positions import PositionAppender
from .descriptors.transformer import DescriptorTransformer
from .display.fisher_vector import FisherVectorDisplay
from .display.joint_training import JointTrainingDisplay
from .display.mixture import MixtureDisplay
from .encoders.average import MeanPooling
from .encoders.bag_of_words import BagOfWordsEncoder
from .encoders.compact_bilinear import CompactBilinearPooling
from .encoders.deep_fisher import DeepFisherEncoder
from .encoders.fisher import FisherVectorEncoder
from .encoders.gated import GatedSecondOrderPooling
from .encoders.low_rank import LowRankBilinearPooling
from .encoders.mixture_second_order import MixtureSecondOrderPooling
from .encoders.normalization import PowerL2Normalizer
from .encoders.second_order import SecondOrderPooling
from .encoders.vlad import VLADEncoder
from .gradient_features.dense_head import DenseHead
from .gradient_features.kernel import GradientFeatureKernel
from .gradient_features.map import GradientFeatureMap
from .joint.classifier import JointClassifier
from .joint.fisher_svc import JointFisherSVC
from .show_versions import show_versions
from .svm.linear_sdca import LinearSDCA
from .training.importance import LossSampling
from .version import __version__ as __version__

__all__ = [
    "BagOfWordsEncoder",
    "Bags",
    "CompactBilinearPooling",
    "DeepFisherEncoder",
    "DenseHead",
    "DescriptorTransformer",
    "DiagonalGaussianMixture",
    "FisherVectorDisplay",
    "FisherVectorEncoder",
    "GatedSecondOrderPooling",
    "GradientFeatureKernel",
    "GradientFeatureMap",
    "ImagePatches",
    "JointClassifier",
    "JointFisherSVC",
    "JointTrainingDisplay",
    "LinearSDCA",
    "LossSampling",
    "LowRankBilinearPooling",
    "MeanPooling",
    "MixtureDisplay",
    "MixtureSecondOrderPooling",
    "PositionAppender",
    "PowerL2Normalizer",
    "SecondOrderPooling",
    "VLADEncoder",
    "show_versions",
]

# Imported when first asked for: they load what few programs need.
_SUBMODULES = {"datasets"}


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_SUBMODULES})

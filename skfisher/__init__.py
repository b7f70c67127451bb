"""Fisher vectors and their relatives for scikit-learn."""

__version__ = "0.1.0"

from .bags import Bags
from .encoding import FisherVectorEncoder
from .gradient_kernel import GradientFeatureKernel
from .gradient_map import GradientFeatureMap
from .mixture import DiagonalGaussianMixture
from .networks import DenseHead
from .show_versions import show_versions

__all__ = [
    "Bags",
    "DenseHead",
    "DiagonalGaussianMixture",
    "FisherVectorEncoder",
    "GradientFeatureKernel",
    "GradientFeatureMap",
    "show_versions",
]

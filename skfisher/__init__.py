"""Fisher vectors and their relatives for scikit-learn."""

__version__ = "0.1.0"

from .bags import Bags
from .gradient_kernel import GradientFeatureKernel
from .networks import DenseHead
from .show_versions import show_versions

__all__ = [
    "Bags",
    "DenseHead",
    "GradientFeatureKernel",
    "show_versions",
]

"""Fisher vectors and their relatives for scikit-learn."""

__version__ = "0.1.0"

from .gradient_kernel import GradientFeatureKernel
from .networks import DenseHead

__all__ = [
    "DenseHead",
    "GradientFeatureKernel",
]

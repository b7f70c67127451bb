"""Fisher vectors and their relatives for scikit-learn."""

import importlib

from .version import __version__ as __version__

# The module of each public name. A module is imported when one of its names is first asked for:
# few programs need all of scikit-learn that the whole package does.
_HOMES = {
    "BagOfWordsEncoder": "encoders.bag_of_words",
    "Bags": "bags.bags",
    "CompactBilinearPooling": "encoders.compact_bilinear",
    "ComponentDisplay": "display.components",
    "DeepFisherEncoder": "encoders.deep_fisher",
    "DenseHead": "gradient_features.dense_head",
    "DenseSIFT": "descriptors.sift",
    "DescriptorTransformer": "descriptors.transformer",
    "DiagonalGaussianMixture": "codebooks.mixture",
    "EncodingDisplay": "display.encodings",
    "FisherVectorDisplay": "display.fisher_vector",
    "FisherVectorEncoder": "encoders.fisher",
    "GatedSecondOrderPooling": "encoders.gated",
    "GradientFeatureKernel": "gradient_features.kernel",
    "GradientFeatureMap": "gradient_features.map",
    "ImagePatches": "descriptors.patches",
    "JointClassifier": "joint.classifier",
    "JointFisherSVC": "joint.fisher_svc",
    "JointRegressor": "joint.regressor",
    "JointTrainingDisplay": "display.joint_training",
    "LinearSDCA": "svm.linear_sdca",
    "LossSampling": "training.importance",
    "LowRankBilinearPooling": "encoders.low_rank",
    "MFCC": "descriptors.recordings",
    "MeanPooling": "encoders.average",
    "MixtureDisplay": "display.mixture",
    "MixtureSecondOrderPooling": "encoders.mixture_second_order",
    "PositionAppender": "descriptors.positions",
    "PowerL2Normalizer": "encoders.normalization",
    "SecondOrderPooling": "encoders.second_order",
    "ShardedBags": "bags.sharded",
    "SpatialPyramid": "encoders.pyramid",
    "SpectrumDisplay": "display.spectrum",
    "VLADEncoder": "encoders.vlad",
    "Windows": "descriptors.series",
    "show_versions": "environment",
}
_SUBMODULES = {"dask", "datasets", "descriptors", "torch"}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # the next time it is found at once
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOMES, *_SUBMODULES})

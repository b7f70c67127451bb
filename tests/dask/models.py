"""Models that the tests fit to shards, and what they have in common."""

import os
import pickle

import joblib
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("distributed")

from skfisher import (
    BagOfWordsEncoder,
    DeepFisherEncoder,
    DescriptorTransformer,
    DiagonalGaussianMixture,
    FisherVectorEncoder,
    SecondOrderPooling,
    SpatialPyramid,
    VLADEncoder,
)
from skfisher.dask.workers import Workers

POSIX = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
ENCODER = FisherVectorEncoder(4, max_iter=3, random_state=0)


def mixture(**parameters):
    settings = {"max_iter": 3, "tol": 0.0, "random_state": 0, **parameters}
    return DiagonalGaussianMixture(3, **settings)


DEEP = {"max_windows": 100, "max_iter": 1, "random_state": 0}
MODELS = {
    "Fisher vectors": ENCODER,
    "mixture": mixture(max_iter=30, tol=1e-2),
    "drawn": FisherVectorEncoder(4, max_descriptors=5000, random_state=0),
    "online": mixture(max_iter=30, tol=0.05, batch_size=300),
    "VLAD": VLADEncoder(4, random_state=0),
    "words": BagOfWordsEncoder(4, random_state=0),
    "second order": SecondOrderPooling(n_components=3),
    "pyramid": SpatialPyramid(ENCODER, cells=((1, 1), (2, 2))),
    "deep, of series": DeepFisherEncoder((3, 2), **DEEP),
    "deep, in the plane": DeepFisherEncoder((3, 2), n_positions=2, **DEEP),
    "whitening": DescriptorTransformer(PCA(3, whiten=True), max_descriptors=None),
    "sample": DescriptorTransformer(PCA(3), max_descriptors=1000, random_state=0),
    "pipeline": make_pipeline(
        DescriptorTransformer(StandardScaler(), max_descriptors=None),
        DescriptorTransformer(PCA(3), max_descriptors=None),
        ENCODER,
    ),
}


def digest(model):
    """Return a hash of all that a fit sets, to the last bit."""
    return joblib.hash(pickle.loads(pickle.dumps(model)))


def at(monkeypatch, pass_number, act, *, after=0):
    """Let something happen in a pass over the data, after so many of its results."""
    original, passes = Workers.map, []

    def map_(self, function, tasks):
        passes.append(1)
        for i, result in enumerate(original(self, function, tasks)):
            if len(passes) == pass_number and i == after:
                act()
            yield result

    monkeypatch.setattr(Workers, "map", map_)


def interrupt():
    raise KeyboardInterrupt

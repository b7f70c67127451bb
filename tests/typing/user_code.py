"""What a type checker makes of programs that use the package.

Each comment below is needed: mypy says so where one is not.
"""

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import skfisher
from skfisher import Bags, FisherVectorEncoder, JointFisherSVC, JointRegressor, PowerL2Normalizer

version: str = skfisher.__version__
bags = Bags.from_list([np.zeros((5, 2)), np.zeros((3, 2))])
bags = bags[:1]
encoder = FisherVectorEncoder(16, variance_floor=0.1, random_state=0)
pipe = make_pipeline(encoder, PowerL2Normalizer(), LinearSVC())
pipe.fit(bags, [0])
encodings = encoder.fit(bags).transform(bags)
model = JointFisherSVC(16, max_iter=2)
regressor = JointRegressor(encoder, loss="epsilon_insensitive", epsilon=0.1)
skfisher.show_versions()

FisherVectorEncoder(n_component=16)  # type: ignore[call-arg]
JointRegressor(encoder, class_weight="balanced")  # type: ignore[call-arg]
FisherVectorEncoder(16, 0.1)  # type: ignore[call-arg]
Bags.from_lists([])  # type: ignore[attr-defined]
skfisher.FisherVectorEncodr()  # type: ignore[attr-defined]
skfisher.show_version()  # type: ignore[attr-defined]

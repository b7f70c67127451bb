"""
Who said seven? Digits of an unseen speaker
===========================================

A recording of a spoken digit is a bag of short-time frames, a hundred a second, each described by
its mel-frequency cepstrum and how that changes. Recordings differ in length, and bags may. How well
does a classifier know the digits of a speaker it never heard?

The Free Spoken Digit Dataset has six speakers. Five of them teach, the sixth is the test, each in
turn. Fisher vectors meet a bag of words, which counts how many frames are nearest to each centre
of k-means. The data are read from the folder that the environment variable SKFISHER_DATA names.
"""

# sphinx_gallery_thumbnail_path = "_static/examples/plot_spoken_digits-2026-11-29.png"

import sys
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import (
    BagOfWordsEncoder,
    DescriptorTransformer,
    FisherVectorEncoder,
    PositionAppender,
    PowerL2Normalizer,
)
from skfisher.datasets import load_fsdd

try:
    recordings = load_fsdd()
except FileNotFoundError as error:
    print(error)
    sys.exit()
X, y, speakers = recordings.data, recordings.target, recordings.groups
print(X)

# %%
# Frames are standardised, so that loudness, the first coefficient, does not outweigh the rest. The
# square root that `PowerL2Normalizer` takes is as good for counts as for Fisher vectors. With the
# position of a frame in its recording appended, a mixture can tell the *s* that begins "six" from
# the *s* that ends it; the larger the position's scale, the more the clusters that start the
# mixture follow time.


def chain(encoder, *, time=None):
    """Return a classifier of bags of frames."""
    steps = [DescriptorTransformer(StandardScaler())]
    if time is not None:
        steps.append(PositionAppender(scale=time))
    return make_pipeline(*steps, encoder, PowerL2Normalizer(), LinearSVC(C=1))


def words(n_words, seed):
    """Return a bag of words: which share of the frames is nearest to each centre."""
    return BagOfWordsEncoder(n_words, normalize=None, max_descriptors=20_000, random_state=seed)


chains = {
    "bag of 64 words": lambda seed: chain(words(64, seed)),
    "bag of 1024 words": lambda seed: chain(words(1024, seed)),
    "bag of 1024 words, time": lambda seed: chain(words(1024, seed), time=3.5),
    "Fisher vector, K = 8": lambda seed: chain(FisherVectorEncoder(8, random_state=seed)),
    "Fisher vector, K = 8, time": lambda seed: chain(
        FisherVectorEncoder(8, random_state=seed), time=28.0
    ),
}

# %%
# Clusters depend on where they start, so each classifier is trained from three seeds. The spread
# given is that over seeds, of the mean over speakers.

names = np.unique(speakers)
accuracy, guesses = {}, {}
for name, make in chains.items():
    start = perf_counter()
    by_seed = []
    for seed in range(3):
        guess = cross_val_predict(
            make(seed), X, y, groups=speakers, cv=LeaveOneGroupOut(), n_jobs=2
        )
        by_seed.append([(guess == y)[speakers == speaker].mean() for speaker in names])
    accuracy[name], guesses[name] = np.mean(by_seed, axis=0), guess
    means = np.mean(by_seed, axis=1)
    seconds = perf_counter() - start
    print(f"{name:28s} {means.mean():.1%} ± {means.std():.1%}   ({seconds:.0f} s)")

# %%
# Some speakers are harder than others, whatever the method, and the digits confused sound alike.

figure, (ax_speakers, ax_confusion) = plt.subplots(
    1, 2, figsize=(12.5, 5), width_ratios=[1.3, 1], layout="constrained"
)
colors = ["0.8", "0.6", "0.45", "tab:blue", "tab:orange"]
for i, (name, values) in enumerate(accuracy.items()):
    place = np.arange(len(names)) + (i - 2) * 0.16
    ax_speakers.bar(
        place, values, width=0.15, color=colors[i], label=f"{name}: {values.mean():.1%}"
    )
ax_speakers.set_xticks(range(len(names)), names)
ax_speakers.set(ylim=(0.3, 1), xlabel="the speaker left out", ylabel="accuracy")
ax_speakers.spines[["top", "right"]].set_visible(False)
ax_speakers.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.22))
ConfusionMatrixDisplay.from_predictions(
    y, guesses["Fisher vector, K = 8, time"], ax=ax_confusion, cmap="Blues", colorbar=False
)
ax_confusion.set_title("Fisher vector, K = 8, time")
plt.show()

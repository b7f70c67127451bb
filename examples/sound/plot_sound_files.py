"""
Which instrument? From WAV files to a classifier
================================================

Recordings are files of different lengths. `MFCC` reads them and describes each by its short-time
frames, a hundred a second, each by its mel-frequency cepstrum and how that changes: a recording is
a bag of frames. The classifier is given paths, and nothing else.

The sounds are made here: single notes of four instruments that nobody ever built, of any pitch,
length and loudness, with noise.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.io import wavfile
from scipy.signal import lfilter
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import MFCC, DescriptorTransformer, FisherVectorEncoder, MeanPooling

RATE = 8000


def note(instrument, rng):
    """Return a note of 0.4 to 1.2 seconds as 16-bit samples."""
    seconds, pitch = rng.uniform(0.4, 1.2), rng.uniform(180, 700)
    t = np.arange(int(seconds * RATE)) / RATE
    attack = np.minimum(t / 0.03, 1)
    if instrument == "flute":  # few harmonics, trembling, and breath
        phase = 2 * np.pi * pitch * t + 2 * np.sin(2 * np.pi * 5 * t)
        sound = np.sin(phase) + 0.2 * np.sin(2 * phase) + 0.1 * rng.normal(size=len(t))
    elif instrument == "reed":  # odd harmonics
        sound = sum(np.sin(2 * np.pi * n * pitch * t) / n for n in (1, 3, 5, 7))
    elif instrument == "bell":  # partials that are no harmonics, and fade
        partials = [(0.5, 1), (1, 1.2), (1.19, 1.5), (1.5, 2), (2, 2.5), (2.76, 4)]
        sound = sum(np.exp(-d * t) * np.sin(2 * np.pi * f * pitch * t) for f, d in partials)
    else:  # a plucked string: noise that goes round, smoothed each time
        n = int(RATE / pitch)
        start = np.zeros(len(t))
        start[:n] = rng.uniform(-1, 1, size=n)
        sound = lfilter([1], [1, *np.zeros(n - 1), -0.498, -0.498], start)
    sound = attack * sound / np.abs(sound).max() + 0.02 * rng.normal(size=len(t))
    return (8000 * rng.uniform(0.3, 1) * sound).clip(-32768, 32767).astype(np.int16)


folder = tempfile.TemporaryDirectory()
rng = np.random.default_rng(0)
names = ["bell", "flute", "reed", "string"]
y = np.repeat(names, 50)
paths = []
for i, instrument in enumerate(y):
    paths.append(str(Path(folder.name) / f"{i:03d}.wav"))
    wavfile.write(paths[-1], RATE, note(instrument, rng))

# %%
# What a file becomes: 13 coefficients and their changes for each frame.

bags = MFCC(n_coefficients=13, deltas=1).fit_transform(paths)
print(bags)

# %%
# The chain from files to instruments. Coefficients are standardised, so that loudness, the first
# of them, does not outweigh the rest. The mean of all frames, an encoder too, is what Fisher
# vectors have to beat.

guesses = {}
for encoder in (MeanPooling("mean"), FisherVectorEncoder(8, normalize="power-l2", random_state=0)):
    model = make_pipeline(
        MFCC(n_coefficients=13, deltas=1, n_jobs=2),
        DescriptorTransformer(StandardScaler()),
        encoder,
        LinearSVC(random_state=0),
    )
    name = type(encoder).__name__
    guesses[name] = cross_val_predict(model, paths, y, cv=5)
    print(f"{name:20s} {(guesses[name] == y).mean():.1%}")

# %%
# The cepstra of a note of each instrument, and what the notes were taken for.

figure, axes = plt.subplot_mosaic(
    [["bell", "flute", "confusion"], ["reed", "string", "confusion"]],
    figsize=(11, 4.6), width_ratios=[1, 1, 1.5], layout="constrained",
)  # fmt: skip
for name in names:
    bag = bags[int(np.flatnonzero(y == name)[0])]
    place = (0, len(bag), 0.5, 12.5)
    axes[name].imshow(bag[:, 1:13].T, aspect="auto", origin="lower", extent=place)
    axes[name].set(title=name, xlabel="frame", ylabel="coefficient")
name = "FisherVectorEncoder"
ConfusionMatrixDisplay.from_predictions(
    y, guesses[name], ax=axes["confusion"], cmap="Blues", colorbar=False
)
axes["confusion"].set_title(f"Fisher vectors: {(guesses[name] == y).mean():.1%}")
plt.show()

"""
Sensor series of different lengths, as data frames
==================================================

A recording of a sensor on the wrist is a table, a row every twentieth of a second, and no two
recordings have the same length. `Windows` cuts each into short overlapping windows. A recording is
the bag of its windows: when something happened plays no role, what happened does.

The recordings are made here: three ways to move, by twelve people, each with a pace and a strength
of their own, and with a sensor that never sits the same way. Eight people teach at a time, the
other four are the test.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfisher import DescriptorTransformer, EncodingDisplay, FisherVectorEncoder, Windows

ACTIVITIES = ["walking", "stairs", "sweeping"]


def recording(activity, pace, strength, rng):
    """Return 5 to 20 seconds of acceleration along three axes, in g."""
    t = np.arange(rng.integers(100, 400)) / 20
    phase = 2 * np.pi * (pace * t + rng.uniform())
    swing, beat = np.sin(phase), np.sin(2 * phase + 0.5)
    if activity == "walking":
        axes = [0.4 * swing, 0.3 * beat, 1 + 0.3 * beat]
    elif activity == "stairs":  # slower, with a thrust at each step
        phase *= 0.8
        axes = [0.35 * np.sin(phase), 0.25 * beat, 1 + 0.6 * np.maximum(np.sin(2 * phase), 0) ** 3]
    else:  # strokes, now and then a pause
        resting = np.sin(2 * np.pi * 0.13 * t + rng.uniform(0, 6)) > 0.6
        axes = [np.where(resting, 0, 0.6 * swing**3), 0.3 * swing, 1 + 0.25 * beat]
    askew = np.linalg.qr(np.eye(3) + 0.25 * rng.normal(size=(3, 3)))[0]
    askew *= np.sign(np.diag(askew))
    values = strength * np.transpose(axes) @ askew + 0.2 * rng.normal(size=(len(t), 3))
    return pd.DataFrame(values, columns=["x", "y", "z"])


rng = np.random.default_rng(0)
series, y, people = [], [], []
for person in range(12):
    pace, strength = rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.3)
    for activity in ACTIVITIES * 6:
        series.append(recording(activity, pace, strength, rng))
        y.append(activity)
        people.append(person)
y = np.array(y)
print(f"{len(series)} recordings of {min(map(len, series))} to {max(map(len, series))} rows")
print(series[0].head(3))

# %%
# Windows of one second, half a second apart. The names of the columns are known all the way.

windows = Windows(20, step=10).fit(series)
print(windows.transform(series))
print(windows.get_feature_names_out()[:5])

# %%
# A Fisher vector of the windows, against the same classifier on the mean and the standard deviation
# of each axis over a recording.

fisher = make_pipeline(
    Windows(20, step=10),
    DescriptorTransformer(PCA(10, random_state=0)),
    FisherVectorEncoder(8, normalize="power-l2", random_state=0),
)
statistics = np.array([[*s.mean(), *s.std()] for s in series])
folds = {"groups": people, "cv": GroupKFold(3)}
svm = LinearSVC(random_state=0, max_iter=10_000)
for name, model, X in [
    ("Fisher vectors", make_pipeline(fisher, svm), series),
    ("mean and deviation", make_pipeline(StandardScaler(), svm), statistics),
]:
    scores = cross_val_score(model, X, y, **folds)
    print(f"{name:18s} {scores.mean():.1%} ± {scores.std():.1%} over folds of people")

# %%
# Ten seconds of each, and all recordings by the two principal axes of their Fisher vectors.

figure, axes = plt.subplot_mosaic(
    [["walking", "encodings"], ["stairs", "encodings"], ["sweeping", "encodings"]],
    figsize=(11, 4.8), layout="constrained",
)  # fmt: skip
for activity in ACTIVITIES:
    i = next(i for i in np.flatnonzero(y == activity) if len(series[i]) > 200)
    axes[activity].plot(np.arange(200) / 20, series[i][:200])
    axes[activity].set_title(activity, loc="left")
    axes[activity].spines[["top", "right"]].set_visible(False)
axes["sweeping"].set_xlabel("seconds")
axes["walking"].legend(
    ["x", "y", "z"], ncols=3, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.95)
)
EncodingDisplay.from_estimator(fisher.fit(series), series, y, ax=axes["encodings"])
plt.show()

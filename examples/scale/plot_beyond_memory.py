"""
How does one learn from more than fits memory?
==============================================

From descriptors to predictions in files: a stream of bags becomes shards, the workers of a Dask
cluster fit whitening and mixture and encode, and a linear classifier learns from one file of
encodings at a time. The digits of scikit-learn would fit memory a thousand times; nothing here
would change if they did not. On a real cluster, ``Client`` is given the address of its scheduler.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from distributed import Client, LocalCluster
from sklearn.decomposition import PCA
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from skfisher import DescriptorTransformer, FisherVectorEncoder, ShardedBags
from skfisher.dask import fit, transform
from skfisher.datasets import load_digits_patches

digits = load_digits_patches()
order = np.random.default_rng(0).permutation(len(digits.data))
print(digits.DESCR)

# %%
# A stream to shards
# ------------------
# A generator makes one bag after the other; a shard of 100 bags is all that memory holds. If this
# is killed and run again, finished shards are kept. Labels lie beside the descriptors of each
# shard.

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)


def write(name, images):
    stream = (digits.data[i].astype(np.float32) for i in images)
    shards = ShardedBags.write(stream, folder / name, bags_per_shard=100)
    for first, path in zip(range(0, len(images), 100), shards.paths, strict=True):
        np.save(Path(path) / "labels.npy", digits.target[images[first : first + 100]])
    return shards


train, test = write("train", order[:1400]), write("test", order[1400:])
print(train)

# %%
# Whitening, mixture, encodings
# -----------------------------
# The workers read the shards by their paths, and write the encodings of each to a file. The model
# is an ordinary one, the same to the last bit as if it were fitted here.

model = make_pipeline(
    DescriptorTransformer(PCA(12, whiten=True), max_descriptors=None),
    FisherVectorEncoder(16, normalize="power-l2", random_state=0),
)
cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
client = Client(cluster)
fit(model, train, client=client, verbose=True)
encodings = transform(model, train, folder / "encodings", client=client, verbose=True)

# %%
# A classifier, file by file
# --------------------------
# ``partial_fit`` sees one file at a time, in a new order each time through.


def read(i):
    return np.load(encodings[i]), np.load(Path(train.paths[i]) / "labels.npy")


test_encodings, test_labels = model.transform(test), digits.target[order[1400:]]
classifier = SGDClassifier(alpha=1e-5, average=True, random_state=0)
rng, accuracies = np.random.default_rng(0), []
for _ in range(12):
    for i in rng.permutation(train.n_shards):
        classifier.partial_fit(*read(i), classes=np.arange(10))
    accuracies.append(classifier.score(test_encodings, test_labels))
print(f"Accuracy after 12 times through the files: {accuracies[-1]:.1%}")

# %%
# Predictions
# -----------
# The whole chain predicts shard by shard. Called again, it keeps what is finished, because model
# and shards are the same: no task is left.

chain = make_pipeline(*(step for _, step in model.steps), classifier)
for _ in range(2):
    paths = transform(
        chain, test, folder / "predictions", client=client, method="predict", verbose=True
    )
predicted = np.concatenate([np.load(path) for path in paths])
print(f"Accuracy of the predictions in files: {np.mean(predicted == test_labels):.1%}")
client.close()
cluster.close()

# %%
# What memory would have given
# ----------------------------

at_once = LinearSVC(C=1, random_state=0).fit(model.transform(train), digits.target[order[:1400]])
limit = at_once.score(test_encodings, test_labels)
temporary.cleanup()

fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.axhline(100 * limit, color="0.6", label="LinearSVC, all encodings in memory")
ax.plot(np.arange(1, 13), 100 * np.array(accuracies), "o-", label="SGDClassifier, a file at a time")
ax.set(xlabel="times through the files", ylabel="correct digits, per cent")
ax.legend(loc="lower right")
plt.show()

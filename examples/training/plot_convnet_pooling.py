"""
Pooling a convolutional network
===============================

Most networks for images end in an average over the places of their last maps. Any module of
``skfisher.torch`` can stand there instead: the places are a bag of descriptors. Here each of them
ends the same small network, and all are trained on 300 digits for as many epochs. It needs PyTorch.
"""

# sphinx_gallery_thumbnail_path = "_static/examples/plot_convnet_pooling-2026-11-29.png"

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skfisher.torch import VLAD, CompactBilinear, FisherVector, PowerL2, SecondOrderPooling

torch.set_num_threads(1)
images, labels = load_digits(return_X_y=True)
x = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16 - 0.3
train_x, test_x, train_y, test_y = train_test_split(
    x, torch.from_numpy(labels), train_size=300, stratify=labels, random_state=0
)

# %%
# Below are two convolutions. Their 32 maps have 8 x 8 places, so that a bag has 64 descriptors of
# 32 numbers, standardised over batches. Encodings of some 500 numbers pass a signed square root and
# are scaled to unit length, by `PowerL2`, which is short for a linear layer: a factor that is
# learnt comes in between.

N_MAPS = 32


class Scale(nn.Module):
    """A factor that is learnt."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return self.factor * x


def network(pooling, width):
    """Return the network, and what of it comes before the pooling."""
    below = nn.Sequential(
        nn.Conv2d(1, N_MAPS, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(N_MAPS, N_MAPS, 3, padding=1),
        nn.BatchNorm2d(N_MAPS),
    )
    return nn.Sequential(below, pooling, Scale(), nn.Linear(width, 10)), below


poolings = {
    "average": lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "FisherVector": lambda: FisherVector(8, N_MAPS),
    "VLAD": lambda: VLAD(16, N_MAPS),
    "SecondOrderPooling": lambda: SecondOrderPooling(
        N_MAPS, "covariance", function="newton_schulz", ridge=1e-3
    ),
    "CompactBilinear": lambda: CompactBilinear(528, N_MAPS),
}

# %%
# Codebooks start from the maps of the first weights, by ``start``; then everything is trained by
# the labels, down to the first convolution.

N_EPOCHS = 12
accuracies = {}
for name, make in poolings.items():
    torch.manual_seed(0)
    pool = make()
    width = getattr(pool, "n_features_out", N_MAPS)
    normalized = pool if name == "average" else nn.Sequential(pool, PowerL2())
    net, below = network(normalized, width)
    if hasattr(pool, "start"):
        pool.start(train_x.split(100), of=below)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, weight_decay=1e-4)
    accuracies[name] = []
    for _ in range(N_EPOCHS):
        net.train()
        for batch in torch.randperm(len(train_x)).split(25):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            right = (net(test_x).argmax(1) == test_y).float().mean()
        accuracies[name].append(100 * float(right))
    print(f"{name:20} {width:4} numbers: {accuracies[name][-1]:.1f} per cent right")

# %%
# One seed on one small set says little about which is best. Five of them, here and on photographs
# of scenes, are in the guide, :ref:`torch`.

fig, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for name, right in accuracies.items():
    ax.plot(range(1, N_EPOCHS + 1), right, marker=".", label=name)
ax.set(xlabel="epoch", ylabel="per cent of 1497 digits right", ylim=(80, 100))
ax.legend(fontsize=8, loc="lower right")
plt.show()

"""
Fisher vectors of two layers of a network
=========================================

What a network has computed half-way is a bag of descriptors, as its last maps are. Pooling layers
can stand at any of them: here Fisher vectors are taken of the maps of two convolutions at once,
side by side, and network, both mixtures and the linear layer are trained together. It needs
PyTorch.
"""

# sphinx_gallery_thumbnail_path = "_static/examples/plot_two_layers-2026-11-29.png"

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skfisher.torch import FisherVector, PowerL2

torch.set_num_threads(1)
images, labels = load_digits(return_X_y=True)
x = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16 - 0.3
train_x, test_x, train_y, test_y = train_test_split(
    x, torch.from_numpy(labels), train_size=300, stratify=labels, random_state=0
)

# %%
# The first convolution makes 64 descriptors of 16 numbers of an image, the second one 16 of 32
# numbers, each of which sees a larger part of the image.


class Network(nn.Module):
    """Two convolutions, and Fisher vectors of the maps of some of them."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.second = nn.Sequential(
            nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32)
        )
        self.pools = nn.ModuleDict({"1": FisherVector(8, 16), "2": FisherVector(8, 32)})
        self.normalize, self.scale = PowerL2(), nn.Parameter(torch.tensor(10.0))
        width = sum(self.pools[layer].n_features_out for layer in layers)
        self.linear = nn.Linear(width, 10)

    def maps(self, x):
        """Return the maps of both convolutions."""
        first = self.first(x)
        return {"1": first, "2": self.second(first)}

    def start(self, x):
        """Fit both mixtures to the maps of the first weights."""
        for layer, pool in self.pools.items():
            pool.start(x.split(100), of=lambda batch, layer=layer: self.maps(batch)[layer])

    def forward(self, x):
        maps = self.maps(x)
        vectors = [self.normalize(self.pools[layer](maps[layer])) for layer in self.layers]
        return self.linear(self.scale * torch.cat(vectors, dim=1))


# %%
# Three networks differ in nothing but where they are read.

N_EPOCHS = 15
accuracies = {}
for name, layers in {"first layer": "1", "second layer": "2", "both": "12"}.items():
    torch.manual_seed(0)
    net = Network(layers)
    net.start(train_x)
    # what the mixture of a layer that is not read has to learn is nothing
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
    n_numbers = net.linear.in_features
    print(f"{name:12} {n_numbers:4} numbers: {accuracies[name][-1]:.1f} per cent right")

# %%
# Gradients arrive at the first convolution on two ways, from its own Fisher vector and through the
# second convolution. PyTorch adds them up, as it does for any of its own layers.

fig, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for name, right in accuracies.items():
    ax.plot(range(1, N_EPOCHS + 1), right, marker=".", label=name)
ax.set(xlabel="epoch", ylabel="per cent of 1497 digits right", ylim=(60, 100))
ax.legend(fontsize=8, loc="lower right")
plt.show()

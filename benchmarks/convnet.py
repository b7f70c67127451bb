"""A small convolutional network with each pooling module in place of its average pooling.

    python benchmarks/convnet.py digits scenes --log convnet.jsonl
    python benchmarks/convnet.py --save convnet.jsonl

Per cent of unseen images that are classified correctly, after as many epochs of Adam at the same
rate for every line. A seed is one for everything: the split, the first weights, the order of
images; so lines are compared within seeds. Nothing was tuned by line.

Digits: 8 x 8 pixels, 300 to train. Scenes: the 1500 training images of 15-Scene, averaged to
48 x 48 pixels, 1000 to train. What is pooled are the maps of the last convolution, standardised
over batches: 32 or 48 numbers at 64 or 144 places. Encodings have about 512 or 1200 numbers, but
for the plain average, of rectified maps. "average, wider" has as many: a 1 x 1 convolution and
another rectifier come before the average.

Images of scenes are read from the folder that SKFISHER_DATA names. With ``--save`` a table goes to
``results`` and a picture to the guide.
"""

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skfisher.datasets import load_scene15
from skfisher.torch import VLAD, CompactBilinear, FisherVector, PowerL2, SecondOrderPooling

HERE = Path(__file__).parent
SEEDS, RATE, BATCH = range(5), 2e-3, 25
N_TRAIN, EPOCHS = {"digits": 300, "scenes": 1000}, {"digits": 30, "scenes": 12}


def digits():
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16, labels


def scenes():
    data = load_scene15()
    images = [torch.from_numpy(np.array(image, dtype=np.float32)) for image in data.images]
    small = [nn.functional.adaptive_avg_pool2d(image[None], 48) for image in images]
    labels = np.unique(data.target, return_inverse=True)[1]
    return torch.stack(small) / 255, labels


def convolutions(name):
    if name == "digits":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32),
        ), 32  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1), nn.BatchNorm2d(48),
    ), 48  # fmt: skip


class Scale(nn.Module):
    """A number that is learnt: encodings of unit length are short for a linear layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return self.scale * x


def average(*before):
    return nn.Sequential(nn.ReLU(), *before, nn.AdaptiveAvgPool2d(1), nn.Flatten())


POOLINGS = {
    "average": lambda d: average(),
    "average, wider": lambda d: average(nn.Conv2d(d, d * (d + 1) // 2, 1), nn.ReLU()),
    "FisherVector": lambda d: FisherVector(d // 4, d),
    "VLAD": lambda d: VLAD(d // 2, d),
    "SecondOrderPooling": lambda d: SecondOrderPooling(
        d, "covariance", function="newton_schulz", ridge=1e-3
    ),
    "CompactBilinear": lambda d: CompactBilinear(d * (d + 1) // 2, d),
}


def network(name, pooling, images, n_classes):
    """Return the network, its codebook fitted to the maps of its first weights."""
    below, d = convolutions(name)
    pool = POOLINGS[pooling](d)
    normalize = nn.Identity() if pooling.startswith("average") else PowerL2()
    if hasattr(pool, "start"):
        pool.start(images.split(100), of=below)
    with torch.no_grad():
        width = pool(below(images[:2])).shape[1]
    above = Scale(), nn.Linear(width, n_classes)
    return nn.Sequential(below, pool, normalize, *above), width


def trained(name, images, labels, pooling, seed):
    """Return the width of the encodings, the share of unseen images that is right, and seconds."""
    y = torch.from_numpy(labels)
    rows, unseen = train_test_split(
        np.arange(len(y)), train_size=N_TRAIN[name], stratify=labels, random_state=seed
    )
    scale = images[rows].std()
    x = (images - images[rows].mean()) / scale
    torch.manual_seed(seed)
    net, width = network(name, pooling, x[rows], len(np.unique(labels)))
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, weight_decay=1e-4)
    n_epochs = EPOCHS[name]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)
    start = time.process_time()
    for _ in range(n_epochs):
        net.train()
        for batch in torch.from_numpy(rows)[torch.randperm(len(rows))].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        schedule.step()
    seconds = (time.process_time() - start) / n_epochs
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(part).argmax(1) for part in x[unseen].split(500)])
    return width, 100 * float((found == y[unseen]).float().mean()), seconds


def run(path, name):
    """Train what the log does not have yet."""
    done = {tuple(key) for key, _ in map(json.loads, read(path))}
    images, labels = {"digits": digits, "scenes": scenes}[name]()
    for seed in SEEDS:
        for pooling in POOLINGS:
            if (name, pooling, seed) in done:
                continue
            found = trained(name, images, labels, pooling, seed)
            with path.open("a") as file:
                file.write(json.dumps([[name, pooling, seed], found]) + "\n")


def read(path):
    return path.read_text().splitlines() if path.exists() else []


def collected(path, name):
    """Return for each line its width, its per cent of each seed that all have, and seconds."""
    runs = {tuple(key): value for key, value in map(json.loads, read(path))}
    seeds = [seed for seed in SEEDS if all((name, line, seed) in runs for line in POOLINGS)]
    found = {}
    for pooling in POOLINGS if len(seeds) > 1 else ():
        widths, right, seconds = np.transpose([runs[name, pooling, seed] for seed in seeds])
        found[pooling] = int(widths[0]), right, float(np.median(seconds))
    return found


def table(name, found):
    """Return the lines of a table."""
    lines = [
        f"| {name}, {len(found['average'][1])} seeds | numbers | per cent right | less the average "
        "(won/lost) | s an epoch |",
        "| --- | --- | --- | --- | --- |",
    ]
    reference = found["average"][1]
    for pooling, (width, right, seconds) in found.items():
        gain, gap = "", right - reference
        if pooling != "average":
            counts = f"{(gap > 0).sum()}/{(gap < 0).sum()}"
            gain = f"{gap.mean():+.1f} ± {gap.std(ddof=1):.1f} ({counts})"
        mean = f"{right.mean():.1f} ± {right.std(ddof=1):.1f}"
        lines.append(f"| {pooling} | {width} | {mean} | {gain} | {seconds:.2f} |")
    return lines


def draw(of_data, path):
    """Draw the per cent of every seed, and their means."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "convnet"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(of_data), figsize=(9, 2.6), sharey=True, layout="constrained", squeeze=False
    )
    for ax, (name, found) in zip(axes[0], of_data.items(), strict=True):
        for place, (_, right, _) in enumerate(found.values()):
            ax.plot(right, np.full(len(right), place), "o", color="#9db4c0", markersize=4)
            ax.plot(right.mean(), place, "|", color="#1d5c77", markersize=16, markeredgewidth=2)
        ax.axvline(found["average"][1].mean(), color="#c3ccd4", lw=0.8, zorder=0)
        ax.set(title=name, xlabel="per cent of unseen images right", yticks=range(len(found)))
        ax.set_yticklabels(found)
    axes[0, 0].invert_yaxis()
    figure.savefig(path, metadata={"Date": None})


def save(path):
    of_data = {name: found for name in N_TRAIN if (found := collected(path, name))}
    parts = ["\n".join(table(name, found)) for name, found in of_data.items()]
    text = (
        f"# Pooling in a small convolutional network\n\n{platform.machine()}, {os.cpu_count()} "
        f"cores; one thread; torch {torch.__version__}. Command: `python benchmarks/convnet.py "
        f"{' '.join(of_data)}`, then `--save`. Mean and standard deviation over seeds; "
        "a seed has its own split and first weights.\n\n"
    )
    result = HERE / "results" / f"convnet-{datetime.date.today()}.md"
    result.write_text(text + "\n\n".join(parts) + "\n")
    draw(of_data, HERE.parent / "docs" / "_static" / "convnet.svg")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", nargs="*", choices=[[], *N_TRAIN], default=[])
    parser.add_argument("--log", type=Path, default=Path("convnet.jsonl"))
    parser.add_argument("--save", type=Path, help="write the table and the picture of this log")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.data:
        run(arguments.log, name)
        print("\n".join(table(name, collected(arguments.log, name))))
    if arguments.save:
        save(arguments.save)


if __name__ == "__main__":
    main()

"""
How does one use a GPU?
=======================

What changes is one parameter, ``device``. Bags go in as NumPy arrays and encodings come out as
NumPy arrays, whichever device did the work. Where there is no GPU, this example says so and
measures the CPU alone.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

from skfisher import Bags, FisherVectorEncoder

rng = np.random.default_rng(0)
bags = Bags.from_list([rng.standard_normal((1000, 64), dtype=np.float32) for _ in range(100)])

# %%
# An encoder for a device that cannot be used tells why, before any work. Where there is a GPU, this
# first small fit also compiles the kernels, which takes some seconds once.

devices = ["cpu"]
try:
    FisherVectorEncoder(2, device="cuda", random_state=0).fit(bags[:2]).transform(bags[:2])
    devices.append("cuda")
except ValueError as error:
    print(error)
print("Devices measured:", *devices)

# %%
# The same encoder on each device. ``device="auto"`` takes a GPU if there is one, and
# ``device="cuda:all"`` takes all of them. Encodings agree to rounding.

sizes = [16, 32, 64, 128]
seconds = {device: np.empty((2, len(sizes))) for device in devices}
for column, n_components in enumerate(sizes):
    encodings = {}
    for device in devices:
        encoder = FisherVectorEncoder(n_components, device=device, random_state=0)
        times = [perf_counter()]
        encoder.fit(bags)
        times.append(perf_counter())
        encodings[device] = encoder.transform(bags)
        times.append(perf_counter())
        seconds[device][:, column] = np.diff(times)
        print(f"{device:4s} K = {n_components:3d}: fit and encode in {times[2] - times[0]:.2f} s")
        np.testing.assert_allclose(encodings[device], encodings["cpu"], atol=1e-3)

# %%
# A fit and the encoding of 100 000 descriptors. A GPU gains most where there is much work for each
# number that is copied to it: with many components, and in fits, which read descriptors many times.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True, layout="constrained")
for row, (ax, title) in enumerate(zip(axes, ("fit", "encode"), strict=True)):
    for device, marker in zip(devices, "os", strict=False):
        ax.plot(sizes, seconds[device][row], marker=marker, label=device)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, sizes)
    ax.set(title=title, xlabel="number of Gaussians", ylabel="seconds", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
plt.show()

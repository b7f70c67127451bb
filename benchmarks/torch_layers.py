"""Pooling modules against the same layers written in operations of PyTorch: time and memory.

    python benchmarks/torch_layers.py [--repeats N] [--save]

Forward and backward with respect to descriptors and parameters, on one thread; the times of both
alternate in one process, and memory is what a fresh process needs at most beyond its input.
"""

import argparse
import datetime
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from skfisher.torch import FisherVector

RESULTS = Path(__file__).parent / "results"
CASES = {
    "24 x 10000 x 64, K=32": (24, 10_000, 64, 32),
    "32 x 1000 x 64, K=64": (32, 1000, 64, 64),
    "32 x 300 x 32, K=16": (32, 300, 32, 16),
    "32 x 49 x 64, K=16": (32, 49, 64, 16),
}


class PlainFisherVector(torch.nn.Module):
    """Fisher vectors in operations of PyTorch, as one would write them."""

    def __init__(self, module):
        super().__init__()
        for name in ("weight_logits", "means", "log_variances"):
            self.register_parameter(
                name, torch.nn.Parameter(getattr(module, name).detach().clone())
            )
        self.register_buffer("floor", module.variance_floor.detach().clone())

    def forward(self, x):
        w, mu = torch.softmax(self.weight_logits, 0), self.means
        v = self.floor + torch.exp(self.log_variances)
        logits = torch.log(w) - 0.5 * (torch.log(v) + mu**2 / v).sum(1)
        logits = logits + x @ (mu / v).T - 0.5 * x**2 @ (1 / v).T
        gamma = torch.softmax(logits, 2).transpose(1, 2)
        s0, s1, s2 = gamma.sum(2, keepdim=True), gamma @ x, gamma @ x**2
        root, length = torch.sqrt(w)[:, None], x.shape[1]
        f_w = (s0[:, :, 0] - length * w) / (length * root[:, 0])
        f_mu = (s1 - mu * s0) / (length * root * torch.sqrt(v))
        f_v = (s2 - 2 * mu * s1 + (mu**2 - v) * s0) / (length * math.sqrt(2) * root * v)
        return torch.cat([f_w, f_mu.flatten(1), f_v.flatten(1)], 1)


def problem(name):
    n_bags, length, d, k = CASES[name]
    torch.manual_seed(0)
    x = torch.randn(n_bags, length, d, requires_grad=True)
    module = FisherVector(k, d)
    return x, {"skfisher": module, "plain": PlainFisherVector(module)}


def step(module, x):
    """Go forward and back, and a little downhill: parameters are new in each step of training."""
    x.grad = None
    module.zero_grad()
    module(x).square().sum().backward()
    with torch.no_grad():
        for p in module.parameters():
            p.sub_(p.grad, alpha=1e-6)


def seconds(name, repeats):
    x, modules = problem(name)
    found = {kind: [] for kind in modules}
    for _ in range(repeats + 1):
        for kind, module in modules.items():
            start = time.process_time()
            step(module, x)
            found[kind].append(time.process_time() - start)
    return {kind: sorted(times[1:])[len(times) // 2 - 1] for kind, times in found.items()}


def peak(name, kind):
    """Return the bytes that a step needs beyond input and modules, in this fresh process."""
    x, modules = problem(name)
    step(modules[kind], x[:1].detach().requires_grad_())
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak_of_process()
    step(modules[kind], x)
    return _peak_of_process() - before


def _peak_of_process():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def fresh_peak(name, kind):
    command = [sys.executable, __file__, "--peak", name, kind]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        print(peak(*arguments.peak))
        return
    lines = [
        "| bags | skfisher, ms | plain PyTorch, ms | ratio | skfisher, MiB | plain, MiB |",
        "| --- |" + " --- |" * 5,
    ]
    for name in CASES:
        times = seconds(name, arguments.repeats)
        ours, plain = (1e3 * times[kind] for kind in ("skfisher", "plain"))
        mib = (fresh_peak(name, kind) / 2**20 for kind in ("skfisher", "plain"))
        cells = [
            name,
            f"{ours:.2f}",
            f"{plain:.2f}",
            f"{plain / ours:.2f}",
            *map("{:.0f}".format, mib),
        ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    if arguments.save:
        path = RESULTS / f"torch_layers-{datetime.date.today()}.md"
        path.write_text(
            f"# Modules of PyTorch\n\n{platform.processor() or platform.machine()}, "
            f"{os.cpu_count()} cores; one thread; torch {torch.__version__}. Command: "
            f"`python benchmarks/torch_layers.py --save --repeats {arguments.repeats}`. Forward, "
            "backward and a step of the parameters, median CPU time; memory beyond the input, of "
            "which the gradient by the descriptors is as large.\n\n" + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    main()

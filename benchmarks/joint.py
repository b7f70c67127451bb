"""How fast a step of joint training is, and how little memory it takes.

    python benchmarks/joint.py [--torch PYTHON] [--save]

The case of Wieschollek, Groh and Lensch (2017, table 1): 24 bags of 10^4 descriptors, 64 wide,
K = 32, 20 classes, float32, one thread. A step is the forward pass (tanh map, Fisher vectors,
normalisation, decision values), the backward pass by every parameter, and the update by Adam.

The peer is the same model in PyTorch, by its own differentiation, in the interpreter that
``--torch`` names (by default this one). Both run in fresh processes of their own. Times are the
least of several, in CPU seconds, which other work on the machine disturbs least; memory is the
largest resident size beyond that of the loaded libraries and the input. Losses and gradients
must agree. ``--save`` writes the table to ``benchmarks/results/``.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

SHAPES = {"24 x 10^4 x 64, K=32": (24, 10_000, 64, 32), "32 x 300 x 32, K=16": (32, 300, 32, 16)}
N_CLASSES = 20


def problem(n_bags, length, d, k):
    """Return descriptors, and parameters of a chain that starts near the identity."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_bags * length, d), dtype=np.float32)
    x *= 0.3
    parameters = {
        "map_weight": np.eye(d) + 0.01 * rng.normal(size=(d, d)),
        "map_bias": 0.01 * rng.normal(size=d),
        "weight_logits": 0.1 * rng.normal(size=k),
        "means": 0.1 * rng.normal(size=(k, d)),
        "log_variances": np.log(rng.uniform(0.03, 0.08, size=(k, d))),
        "coef": rng.normal(size=(N_CLASSES, k * (2 * d + 1))),
        "intercept": np.zeros(N_CLASSES),
    }
    signs = np.where(np.arange(n_bags)[:, None] % N_CLASSES == np.arange(N_CLASSES), 1.0, -1.0)
    return x, parameters, signs


def peak():
    """Return the largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(steps, repeats):
    """Return the least CPU seconds of each step, run in turn after a first round unmeasured."""
    seconds = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn:
                seconds[name].append(time.process_time() - began)
    return {name: min(s) for name, s in seconds.items()}


def ours(shape, repeats):
    from skfisher import Bags
    from skfisher.layers.chain import Chain
    from skfisher.layers.feature_map import FeatureMap
    from skfisher.layers.fisher import FisherPooling
    from skfisher.layers.normalization import PowerL2
    from skfisher.training.classification import Classification
    from skfisher.training.epochs import run_epoch
    from skfisher.training.objective import Problem, batch_gradient
    from skfisher.training.recipe import Recipe

    n_bags, length, d, _ = shape
    x, parameters, signs = problem(*shape)
    bags = Bags.from_lengths(x, np.full(n_bags, length))
    chain = Chain((FeatureMap("tanh"),), FisherPooling(), (PowerL2(0.5, 1e-4),))
    parameters |= {"variance_floor": np.full(d, 1e-3), "global_variance": np.ones(d)}
    groups = "features", "mixture", "classifier"
    recipe = Recipe(
        train=groups, task=Classification(), solver="adam",
        learning_rate=dict.fromkeys(groups, 1e-2), schedule="constant",
        clip_norm=1.0, batch_size=n_bags, max_iter=1, max_descriptors=None, alpha=0.02, seed=0,
    )  # fmt: skip
    whole = Problem(bags, signs, None)
    model = recipe.start(parameters)
    rows = bags.values, bags.starts, bags.stops
    steps = {
        "forward": lambda: chain.forward(chain.prepare(parameters, bags.dtype), *rows),
        # without what an epoch does after its last step
        "step": lambda: run_epoch(chain, recipe, model, whole, 0, check=False),
    }
    before = peak()
    with threadpool_limits(1, user_api="blas"):
        seconds = timed(steps, repeats)
    result = batch_gradient(chain, recipe, parameters, whole)
    norms = {name: float(np.linalg.norm(g)) for name, g in result[1].items()}
    return seconds | {"MiB": peak() - before, "loss": result[0], "norms": norms}


def theirs(shape, repeats):
    import torch

    torch.set_num_threads(1)
    n_bags, length, d, _ = shape
    x, parameters, signs = problem(*shape)
    x = torch.from_numpy(x).reshape(n_bags, length, d)
    signs = torch.from_numpy(signs).float()
    parameters = {
        name: torch.tensor(p, dtype=torch.float32, requires_grad=True)
        for name, p in parameters.items()
    }
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-2)

    def forward():
        p = parameters
        h = torch.tanh(x @ p["map_weight"].T + p["map_bias"])
        w, mu = torch.softmax(p["weight_logits"], 0), p["means"]
        v = 1e-3 + torch.exp(p["log_variances"])
        h2 = h * h
        logits = h @ (mu / v).T + h2 @ (-0.5 / v).T
        logits = logits + (torch.log(w) - 0.5 * (torch.log(v) + mu**2 / v).sum(1))
        gamma = torch.softmax(logits, 2).transpose(1, 2)
        s0, s1, s2 = gamma.sum(2), gamma @ h, gamma @ h2
        root = torch.sqrt(w)
        f_w = (s0 - length * w) / (length * root)
        s0, column = s0[:, :, None], root[:, None]
        f_mu = (s1 - mu * s0) / (length * column * torch.sqrt(v))
        f_v = ((s2 - 2 * mu * s1 + mu**2 * s0) / v - s0) / (length * 2**0.5 * column)
        f = torch.cat([f_w, f_mu.flatten(1), f_v.flatten(1)], 1)
        u = f * (f * f + 1e-8) ** -0.25
        return u / u.norm(dim=1, keepdim=True)

    def loss():
        decision = forward() @ parameters["coef"].T + parameters["intercept"]
        terms = torch.clamp(1 - signs * decision, min=0) ** 2
        return terms.sum(1).mean() + 0.02 * (parameters["coef"] ** 2).sum()

    def gradients():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    before = peak()
    value = float(gradients().detach())
    norms = {name: float(p.grad.norm()) for name, p in parameters.items()}

    def step():
        gradients()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()

    def frozen():
        with torch.no_grad():
            forward()

    seconds = timed({"forward": frozen, "step": step}, repeats)
    return seconds | {"MiB": peak() - before, "loss": value, "norms": norms}


def measured(who, name, repeats, python):
    """Run one side in a process of its own."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [python, __file__, "--worker", who, "--shape", name, "--repeats", str(repeats)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def table(results):
    lines = [
        "| case | forward, s | step, s | step / forward | memory beyond input, MiB | "
        "PyTorch forward, s | PyTorch step, s | its memory, MiB | step, PyTorch / ours | "
        "memory, ours / PyTorch |",
        "| --- |" + " --- |" * 9,
    ]
    for name, (mine, other) in results.items():
        row = (
            f"| {name} | {mine['forward']:.4f} | {mine['step']:.4f} "
            f"| {mine['step'] / mine['forward']:.2f} | {mine['MiB']:.0f} "
        )
        if other is None:
            row += "| | | | | |"
        else:
            row += (
                f"| {other['forward']:.4f} | {other['step']:.4f} | {other['MiB']:.0f} "
                f"| {other['step'] / mine['step']:.2f} | {mine['MiB'] / other['MiB']:.3f} |"
            )
        lines.append(row)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--torch", default=sys.executable, help="interpreter that has PyTorch")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--worker", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=list(SHAPES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work = {"ours": ours, "theirs": theirs}[arguments.worker]
        print(json.dumps(work(SHAPES[arguments.shape], arguments.repeats)))
        return
    results = {}
    for name in SHAPES:
        mine = measured("ours", name, arguments.repeats, sys.executable)
        try:
            other = measured("theirs", name, arguments.repeats, arguments.torch)
        except subprocess.CalledProcessError as error:
            print(f"No PyTorch: {error.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            other = None
        else:
            assert np.isclose(mine["loss"], other["loss"], rtol=1e-4), "the models differ"
            for parameter, norm in mine["norms"].items():
                assert np.isclose(norm, other["norms"][parameter], rtol=1e-2), parameter
        results[name] = (mine, other)
    text = table(results)
    print(text)
    if arguments.save:
        from importlib.metadata import version

        import skfisher

        date = datetime.date.today().isoformat()
        path = Path(__file__).parent / "results" / f"joint-{date}.md"
        path.write_text(
            f"# A step of joint training, {date}\n\n"
            f"Command: `python benchmarks/joint.py --save --repeats {arguments.repeats}`. "
            f"Hardware: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, one "
            f"thread used. Python {platform.python_version()}, NumPy {np.__version__}, "
            f"scikit-learn {version('scikit-learn')}, skfisher {skfisher.__version__}.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()

"""The benchmark of GPUs works, and its figures mean what they say, where there is no GPU."""

import contextlib
import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def gpu(load, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    return load("gpu")


class Event:
    """A CUDA event of a device that works at once."""

    def record(self):
        self.seconds = time.perf_counter()

    def synchronize(self):
        assert self.seconds


class NumPyAsCuPy(ModuleType):
    """What the benchmark asks of CuPy, answered by NumPy."""

    ndarray = type("ndarray", (), {})
    __version__ = "0"
    cuda = SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda start, stop: (stop.seconds - start.seconds) * 1e3,
        Device=lambda index: SimpleNamespace(use=lambda: None),
        runtime=SimpleNamespace(
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 13000,
            getDeviceProperties=lambda index: {"name": b"A (Made-Up) GPU", "l2CacheSize": 2**16},
        ),
    )

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=lambda: None)

    def __getattr__(self, name):
        return getattr(np, name)


def test_work_and_floors_of_the_case_of_the_paper(load):
    work = load("gpu_work")
    case = work.PAPER
    # 4 x 240 000 x 32 x 64 multiply-adds at 33.5e12 a second
    ceilings = work.Ceilings(33.5e12, 4.3e12)
    assert work.multiply_adds(case, "forward") == 1_966_080_000
    seconds, limit = work.floor(case, "forward", ceilings)
    assert seconds == pytest.approx(58.7e-6, rel=1e-3)
    assert limit == "arithmetic"
    # 240 000 x 64 numbers read, and 24 x 4128 written
    assert work.bytes_moved(case, "forward") == 61_440_000 + 396_288
    assert work.bytes_moved(case, "EM iteration") == 61_440_000
    assert work.bytes_moved(case, "VJP, both") == 2 * 61_440_000 + 396_288
    assert work.floor(case, "VJP, descriptors", ceilings)[0] == pytest.approx(117.4e-6, rel=1e-2)
    seconds, limit = work.floor(work.Case(10_000, 10, 64, 32), "forward", ceilings)
    assert limit == "memory"
    assert seconds == pytest.approx((25_600_000 + 165_120_000) / 4.3e12)
    assert work.floor(case, "forward", work.Ceilings()) == (None, None)


def test_every_case_and_every_pass_runs(gpu, capsys):
    gpu.main(["--dry-run"])
    text = capsys.readouterr().out
    shapes = {(32, 64), (64, 24), (64, 128), (256, 64), (256, 512), (32, 768)}
    assert {(case.k, case.d) for case in gpu.CASES} == shapes
    assert text.count(": nothing timed\n") == 5 * len(gpu.CASES)


def test_targets_are_there_before_anything_is_measured(gpu, load, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    gpu.main(["--dry-run", "--cases", "^1 x .* x 24", "--save"])
    text = (tmp_path / "gpu.md").read_text("utf-8")
    for work, most in load("gpu_page").TARGETS.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {work} |"))
        assert f"| {most * 1e6:.0f} |" in line
        assert line.count("not measured") == 3
    assert "| met |" not in text
    assert text == (BENCHMARKS / "results" / "gpu.md").read_text("utf-8")


def test_without_a_gpu_it_says_why_and_stops(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "cuda_usable", lambda: (0, "CuPy is not installed."))
    with pytest.raises(SystemExit, match=r"needs CuPy and a visible NVIDIA GPU; CuPy is not inst"):
        gpu.main([])
    monkeypatch.setattr(gpu, "cuda_usable", lambda: (2, ""))
    with pytest.raises(SystemExit, match="there is no device 2, 2 are visible"):
        gpu.main(["--device", "2"])


@pytest.fixture
def small(gpu, monkeypatch, tmp_path):
    """Let the benchmark take NumPy for a GPU, and the first case, made small, for all cases."""
    monkeypatch.setitem(sys.modules, "cupy", NumPyAsCuPy("cupy"))
    monkeypatch.setattr(gpu, "cuda_usable", lambda: (1, ""))
    monkeypatch.setattr(gpu, "to_device", lambda x, device: x)
    monkeypatch.setattr(gpu.Problem, "passes_from_host", passes_in_place)
    for name, value in {"SIDE": 16, "PATIENCE": 0, "CALLS": 2, "RESULTS": tmp_path}.items():
        monkeypatch.setattr(gpu, name, value)
    case = gpu.Case(2, 30, 5, 3)
    monkeypatch.setattr(gpu, "CASES", [case])
    return case


def passes_in_place(problem, device):
    return problem.passes(problem.bags.values, problem.g)


def test_a_page_of_figures(gpu, small, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "in_tf32", lambda case, arguments: {"forward": 1e-3})
    gpu.main(["--save"])
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("gpu-a-made-up-gpu-")
    text = path.read_text("utf-8")
    assert "A (Made-Up) GPU; driver for CUDA 13.1, CUDA 13.0, CuPy 0" in text
    forward, em = (
        next(line for line in text.splitlines() if line.startswith(f"| {small} | {work} |"))
        for work in ("forward", "EM iteration")
    )
    # no kernels ran on NumPy's arrays, so only they have no figure
    assert forward.count("not measured") == 3
    assert "| 1000 |" in forward  # in TF32
    assert em.count("not measured") == 4
    assert "scikit-learn on CuPy" in text


def test_times_in_tf32_come_from_a_process_of_its_own(gpu, load, small, capsys, monkeypatch):
    def run(command, env, **options):
        assert env["CUPY_TF32"] == "1"
        gpu.main(command[2:])
        return SimpleNamespace(stdout=capsys.readouterr().out)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    seconds = gpu.in_tf32(small, gpu.parse(["--quick"]))
    assert seconds.keys() == load("gpu_work").WORK.keys()
    assert min(seconds.values()) > 0


def test_launches_are_recorded_and_repeated(gpu, monkeypatch):
    launched = []
    monkeypatch.setattr(gpu.module, "kernel", lambda name, shared: launched.append)
    launches = gpu.launches_of(lambda: [gpu.module.kernel(n, 0)(n) for n in ("score", "moments")])
    assert launched == ["score", "moments"]
    launches()
    assert launched == ["score", "moments"] * 2
    launches.of("moments")()
    assert launched == ["score", "moments"] * 2 + ["moments"]
    assert list(launches.names()) == ["score", "moments"]
    assert not gpu.launches_of(lambda: None)
    with contextlib.suppress(ZeroDivisionError):
        gpu.launches_of(lambda: 1 / 0)
    gpu.module.kernel("finish", 0)("finish")  # put back, also after an error
    assert launched[-1] == "finish"


def test_array_code_is_chosen_and_left(gpu, monkeypatch):
    monkeypatch.setenv("SKFISHER_FUSED", "1")
    with gpu.array_code():
        assert os.environ["SKFISHER_FUSED"] == "0"
    assert os.environ["SKFISHER_FUSED"] == "1"
    monkeypatch.delenv("SKFISHER_FUSED")
    with gpu.array_code():
        pass
    assert "SKFISHER_FUSED" not in os.environ


def test_wrong_results_are_not_timed(gpu):
    case, right = gpu.CASES[0], np.array([1.0, 2.0])
    gpu.check(case, (right + 1e-5, None), (right, None))
    with pytest.raises(AssertionError, match="result 0: off by 5"):
        gpu.check(case, (right + 1e-3,), (right,))

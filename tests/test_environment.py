import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn

import skfisher
from skfisher import environment, show_versions


def test_it_names_what_a_bug_report_needs(capsys):
    show_versions()
    text = capsys.readouterr().out
    for line in (
        f"    skfisher: {skfisher.__version__}",
        f"    numpy: {np.__version__}",
        f"    scikit-learn: {sklearn.__version__}",
        f"    executable: {sys.executable}",
    ):
        assert line in text.splitlines()
    assert "threads" in text.split("BLAS and OpenMP:")[1].split("CUDA:")[0]
    assert "    unknown: " not in text


def test_the_package_as_a_program_prints_them():
    done = subprocess.run(
        [sys.executable, "-m", "skfisher"], capture_output=True, text=True, check=True
    )
    assert f"    skfisher: {skfisher.__version__}" in done.stdout.splitlines()


def test_a_missing_gpu_is_explained(capsys, monkeypatch):
    monkeypatch.setattr(environment, "cuda_usable", lambda: (0, "CuPy is not installed."))
    show_versions()
    assert "    not usable: CuPy is not installed." in capsys.readouterr().out


def test_devices_are_listed(capsys, monkeypatch):
    runtime = SimpleNamespace(
        driverGetVersion=lambda: 13010,
        runtimeGetVersion=lambda: 12080,
        getDeviceProperties=lambda i: {
            "name": b"Some GPU", "totalGlobalMem": (i + 1) * 2**30, "major": 9, "minor": i,
        },
    )  # fmt: skip
    monkeypatch.setenv("SKFISHER_FUSED", "0")
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.setattr(environment, "cuda_usable", lambda: (2, ""))
    show_versions()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "    driver supports CUDA: 13.1",
        "    CuPy runs CUDA: 12.8",
        "    device 0: Some GPU, 1.0 GiB, compute capability 9.0",
        "    device 1: Some GPU, 2.0 GiB, compute capability 9.1",
        "    SKFISHER_FUSED: 0",
    ]


def test_it_says_which_code_serves_on_the_cpu(capsys, monkeypatch):
    monkeypatch.setenv("SKFISHER_NATIVE", "0")
    show_versions()
    assert "    CPU: NumPy serves" in capsys.readouterr().out


@pytest.mark.gpu
def test_the_gpu_at_hand_is_listed(capsys, cupy):
    show_versions()
    assert "device 0:" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["threadpool_info", "cuda_usable"])
def test_a_broken_machine_still_gets_its_report(capsys, monkeypatch, name):
    def broken():
        raise OSError("driver mismatch")

    monkeypatch.setattr(environment, name, broken)
    show_versions()
    text = capsys.readouterr().out
    assert "    unknown: OSError: driver mismatch" in text
    assert "    skfisher: " in text

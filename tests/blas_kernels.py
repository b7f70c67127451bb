"""Runs the numerical tests under one kernel of OpenBLAS after another.

    python -m tests.blas_kernels Haswell SkylakeX Prescott [-- options of pytest]

Results may differ between kernels by rounding, promises and tests must not. OpenBLAS chooses its
kernel by the CPU unless the environment names one; those that this CPU cannot run are left out,
and said to be. The native kernels are switched off, so that float32 too goes through BLAS.
"""

import os
import subprocess
import sys

FOLDERS = [
    f"tests/{room}"
    for room in (
        "ops", "codebooks", "encoders", "layers", "training", "svm", "joint",
        "gradient_features", "descriptors", "test_docstrings.py",
    )
]  # fmt: skip

# Their tests of other things than numbers, which take the longest.
OTHERS = "memory or pickle or pipeline or import or interrupt or callback or message"

# Prints the kernels in use, once they have multiplied: what the CPU lacks dies of it.
PROBE = """
import numpy
from scipy.linalg import blas
from threadpoolctl import threadpool_info
for dtype in ("f", "d"):
    a = numpy.ones((300, 300), dtype)
    for product in a @ a, blas.get_blas_funcs("gemm", [a])(1, a, a):
        assert (product == 300).all()
pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
print(*{pool.get("architecture", pool["internal_api"]) for pool in pools})
"""
# What OpenBLAS calls a kernel where it differs from the name it goes by in the environment.
ALIASES = {"Katmai": "Prescott"}


def environment(kernel):
    """Return the environment in which OpenBLAS takes a kernel."""
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | one_thread | {"OPENBLAS_CORETYPE": kernel, "SKFISHER_NATIVE": "0"}


def kernels_in_use(kernel):
    """Return the names of the kernels that NumPy and SciPy use when asked for one, or None."""
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment(kernel), capture_output=True, text=True
    )
    if probe.returncode:
        return None
    return {ALIASES.get(name, name) for name in probe.stdout.split()}


def main(kernels, options):
    """Run the tests; return how many kernels they failed under."""
    failed = []
    for kernel in kernels:
        found = kernels_in_use(kernel)
        if found != {kernel}:
            uses = "it cannot" if found is None else f"it takes {', '.join(sorted(found))}"
            print(f"{kernel}: left out, this machine does not run it ({uses})", flush=True)
            continue
        print(f"{kernel}: the numerical tests", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-k", f"not ({OTHERS})"]
        if subprocess.run([*command, *options, *FOLDERS], env=environment(kernel)).returncode:
            failed.append(kernel)
    if failed:
        print(f"tests failed under {', '.join(failed)}", flush=True)
    return len(failed)


if __name__ == "__main__":
    arguments = [*sys.argv[1:], "--"]
    border = arguments.index("--")
    sys.exit(main(arguments[:border], arguments[border + 1 : -1]))

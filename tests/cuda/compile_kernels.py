"""Compile CUDA kernels with NVRTC, no GPU needed, and print what each costs.

    python -m tests.cuda.compile_kernels --arch 75 80 90 100 [--cubin DIR] [--match TEXT]

Compiles the kernels of all configurations of the package, or those whose expression contains
the text. Exit status 1 if anything fails to compile or spills. Needs the PyPI wheel
nvidia-cuda-nvrtc (sm_75 and later) or nvidia-cuda-nvrtc-cu12 in this environment.
"""

import argparse
import ctypes
import re
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from skfisher.cuda.module import source

ARCHITECTURES = ["75", "80", "90", "100"]


class Usage(NamedTuple):
    """What a kernel costs on an architecture, as ptxas reports it; memory in bytes."""

    expression: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


def find_nvrtc():
    """Return the path of the NVRTC library of this environment, or None."""
    folders = Path(sysconfig.get_paths()["purelib"], "nvidia").glob("*/lib")
    found = [path for folder in folders for path in folder.glob("libnvrtc.so.*")]
    return max((path for path in found if ".alt." not in path.name), default=None)


class Nvrtc:
    """The compiler of CUDA C++ that NVIDIA ships as a library."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compile(self, code, expressions, arch):
        """Compile kernels for one architecture, "90" for sm_90.

        Returns
        -------
        cubin : bytes
        usages : list of Usage
            One for each expression, in their order.
        """
        options = [f"--gpu-architecture=sm_{arch}", "--ptxas-options=-v", "--std=c++17"]
        program = ctypes.c_void_p()
        text = code.encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, b"kernels.cu", 0, None, None)
        try:
            for expression in expressions:
                self._call("nvrtcAddNameExpression", program, expression.encode())
            array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            failed = self._library.nvrtcCompileProgram(program, len(options), array)
            log = self._text(program, "ProgramLog").rstrip(b"\0").decode()
            if failed:
                raise RuntimeError(f"sm_{arch}: does not compile\n{log}")
            usages = [_usage(log, name, self._lowered(program, name)) for name in expressions]
            return self._text(program, "CUBIN"), usages
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _call(self, name, *args):
        status = getattr(self._library, name)(*args)
        if status:
            message = self._library.nvrtcGetErrorString(status).decode()
            raise RuntimeError(f"{name}: {message}")

    def _lowered(self, program, expression):
        mangled = ctypes.c_char_p()
        self._call("nvrtcGetLoweredName", program, expression.encode(), ctypes.byref(mangled))
        return mangled.value.decode()

    def _text(self, program, what):
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, data)
        return data.raw


def _usage(log, expression, mangled):
    """Read the report of one kernel in the compiler's log."""
    _, found, rest = log.partition(f"Compiling entry function '{mangled}'")
    if not found:
        raise RuntimeError(f"no resource report for {expression}")
    report = rest.partition("Compiling entry function")[0]

    def number(pattern):
        match = re.search(pattern, report)
        return int(match[1]) if match else 0

    return Usage(
        expression,
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill stores"),
        number(r"(\d+) bytes spill loads"),
    )


def main():
    from skfisher.cuda.configurations import all_configurations

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES)
    parser.add_argument("--cubin", metavar="DIR", type=Path)
    parser.add_argument("--match", metavar="TEXT", default="")
    args = parser.parse_args()
    path = find_nvrtc()
    if path is None:
        sys.exit("no libnvrtc found: pip install nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12)")
    nvrtc = Nvrtc(path)
    expressions = [configuration.expression for configuration in all_configurations()]
    wanted = [expression for expression in expressions if args.match in expression]
    spilled = False
    print(f"{'arch':>6} {'regs':>5} {'stack':>6} {'spill':>11}  kernel")
    for arch in args.arch:
        cubin, usages = nvrtc.compile(source(), wanted, arch)
        if args.cubin:
            args.cubin.mkdir(parents=True, exist_ok=True)
            (args.cubin / f"sm_{arch}.cubin").write_bytes(cubin)
        for u in usages:
            spilled |= u.spill_stores > 0
            spill = f"{u.spill_stores}/{u.spill_loads}"
            print(f"sm_{arch:>3} {u.registers:5d} {u.stack:6d} {spill:>11}  {u.expression}")
    return int(spilled)


if __name__ == "__main__":
    sys.exit(main())

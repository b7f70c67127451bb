"""A stand-in for ``cupy.RawModule`` that compiles CUDA kernels for the CPU.

>>> module = HostModule(code, name_expressions=("scale<4>",))
>>> kernel = module.get_function("scale<4>")
>>> kernel((blocks,), (threads,), (array, np.int32(n)), shared_mem=0)

Arguments are NumPy arrays (C-contiguous, or None for a null pointer) and NumPy scalars, of
exactly the types the kernel declares. Each array is copied to memory that ends at protected
pages, and back unless the kernel declares it const.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
FLAGS = (
    "-O2", "-std=c++17", "-march=native", "-ffp-contract=off", "-U_FORTIFY_SOURCE",
    "-fno-gnu-unique", "-shared", "-fPIC", "-w",
)  # fmt: skip
LAUNCHERS = """
extern "C" int launch_{i}(const unsigned* grid_, const unsigned* block_, size_t shared_,
                          void** args_, char* error_, size_t size_)
{{ return cuda_on_cpu::launch(&{name}, grid_, block_, shared_, args_, error_, size_); }}
extern "C" int signature_{i}(char* out_, size_t size_)
{{ return cuda_on_cpu::signature(&{name}, out_, size_); }}
"""
ENTRIES = """
extern "C" void set_schedule(unsigned s) { cuda_on_cpu::schedule() = s; }
extern "C" void* alloc(size_t n, size_t o, void** h) { return cuda_on_cpu_alloc(n, o, h); }
extern "C" void release(void* h) { cuda_on_cpu_free(h); }
"""
_ONE_LAUNCH = threading.Lock()  # faults are caught by signal handlers, which threads share


class HostModule:
    """Kernels compiled for the CPU, kept on disk by content.

    Parameters
    ----------
    code : str
    name_expressions : sequence of str
    flags : sequence of str
        More options for the compiler; also those of the variable SKFISHER_HOST_FLAGS.
    """

    def __init__(self, code, *, name_expressions, flags=()):
        flags = (*FLAGS, *flags, *os.environ.get("SKFISHER_HOST_FLAGS", "").split())
        unit = "\n".join(
            [
                f'#include "{HEADER}"',
                code,
                *(LAUNCHERS.format(i=i, name=name) for i, name in enumerate(name_expressions)),
                ENTRIES,
            ]
        )
        self._library = ctypes.CDLL(_compiled(unit, flags))
        self._library.alloc.restype = ctypes.c_void_p
        self._names = list(name_expressions)

    def set_schedule(self, number):
        """Order of the threads of a block: 0 ascending, 1 descending, 2 rotating."""
        self._library.set_schedule(number)

    def get_function(self, name):
        return HostKernel(self._library, name, self._names.index(name))


def _compiled(unit, flags):
    """Return the path of the shared library of a source text; compile it at most once."""
    key = hashlib.sha256("\0".join([unit, HEADER.read_text(), COMPILER, *flags]).encode())
    folder = Path(tempfile.gettempdir(), f"skfisher-cuda-on-cpu-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else: code from there is not run.")
    library = folder / f"{key.hexdigest()[:20]}.so"
    with open(library.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be compiling the same
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                source, built = Path(work, "kernels.cpp"), Path(work, "kernels.so")
                source.write_text(unit)
                command = [COMPILER, *flags, source, "-o", built]
                # what is preloaded for the kernels, such as a sanitizer, is not for the compiler
                without = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
                done = subprocess.run(command, capture_output=True, text=True, env=without)
                if done.returncode:
                    raise RuntimeError(f"the kernels do not compile for the CPU:\n{done.stderr}")
                built.replace(library)
    return library


class HostKernel:
    """A kernel, launched as CuPy's RawKernel is."""

    max_dynamic_shared_size_bytes = 48 * 1024  # as on the GPU: raise it before asking for more

    def __init__(self, library, name, number):
        text = ctypes.create_string_buffer(4000)
        getattr(library, f"signature_{number}")(text, ctypes.c_size_t(4000))
        self.name, self.types = name, text.value.decode().split()
        self._library, self._launch = library, getattr(library, f"launch_{number}")

    def __call__(self, grid, block, args, *, shared_mem=0):
        if len(args) != len(self.types):
            raise TypeError(f"{self.name} takes {len(self.types)} arguments, got {len(args)}")
        if min((*grid, *block)) < 1:
            raise RuntimeError(f"{self.name}: grid {grid} or block {block} is empty")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError(
                f"{self.name}: {shared_mem} bytes of shared memory, "
                f"max_dynamic_shared_size_bytes is {self.max_dynamic_shared_size_bytes}"
            )
        copies = []
        try:
            cells = [
                self._cell(position, value, want, copies)
                for position, (value, want) in enumerate(zip(args, self.types, strict=True))
            ]
            pointers = (ctypes.c_void_p * len(cells))(*map(ctypes.addressof, cells))
            error = ctypes.create_string_buffer(500)
            sizes = ctypes.c_size_t(shared_mem), pointers, error, ctypes.c_size_t(500)
            with _ONE_LAUNCH:
                failed = self._launch(_three(grid), _three(block), *sizes)
            if failed:
                raise RuntimeError(f"{self.name}, {error.value.decode()}")
            for array, address, _, constant in copies:
                if not constant:
                    ctypes.memmove(array.ctypes.data, address, array.nbytes)
        finally:
            for _, _, handle, _ in copies:
                self._library.release(handle)

    def _cell(self, position, value, want, copies):
        """Return a ctypes object that holds an argument."""
        if want.endswith("*"):
            return ctypes.c_void_p(self._pointer(position, value, want, copies))
        if isinstance(value, np.generic) and value.dtype == np.dtype(want):
            return np.ctypeslib.as_ctypes_type(value.dtype)(value.item())
        raise TypeError(
            f"{self.name}, argument {position}: wants a NumPy scalar {want}, got {value!r}"
        )

    def _pointer(self, position, value, want, copies):
        if value is None:
            return None
        constant, dtype = want.startswith("c"), np.dtype(want.lstrip("c").rstrip("*"))
        fits = isinstance(value, np.ndarray) and value.dtype == dtype and value.flags.c_contiguous
        if not fits:
            found = getattr(value, "dtype", type(value)), getattr(value, "strides", "")
            raise TypeError(
                f"{self.name}, argument {position}: wants a C-contiguous {dtype} array, got {found}"
            )
        if not (constant or value.flags.writeable):
            raise TypeError(f"{self.name}, argument {position} is read-only, but not const")
        for array, address, _, read_only in copies:  # the same array twice is the same memory
            same = array.ctypes.data == value.ctypes.data and array.nbytes == value.nbytes
            if same and read_only == constant:
                return address
        handle = ctypes.c_void_p()
        address = self._library.alloc(
            ctypes.c_size_t(max(value.nbytes, 1)),
            ctypes.c_size_t(value.ctypes.data % 16),  # a misaligned view stays one
            ctypes.byref(handle),
        )
        ctypes.memmove(address, value.ctypes.data, value.nbytes)
        copies.append((value, address, handle, constant))
        return address


def _three(shape):
    return (ctypes.c_uint * 3)(*(*shape, 1, 1, 1)[:3])

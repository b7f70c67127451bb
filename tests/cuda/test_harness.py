"""The harness itself: it finds the faults it promises to find."""

import numpy as np
import pytest

from .conftest import need_a_compiler
from .cuda_on_cpu import HostModule

CODE = """
__global__ void scale(const float* x, int n, float factor, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = factor * x[i];
}

template <bool BARRIER> __global__ void reverse(float* x) {
  DYNAMIC_SHARED(shared);
  shared[threadIdx.x] = x[threadIdx.x];
  if (BARRIER) __syncthreads();
  x[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void sum_of_lanes(float* x) {
  float sum = x[threadIdx.x];
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  x[threadIdx.x] = sum;
}

__global__ void misread(const float* x, int i, float* y) { y[0] = x[i]; }

__global__ void read_vector(const float* x, float* y) {
  *reinterpret_cast<float4*>(y) = *reinterpret_cast<const float4*>(x);
}

__global__ void read_shared(int i, float* y) { DYNAMIC_SHARED(shared); y[0] = shared[i]; }

__global__ void lonely_barrier() { if (threadIdx.x < 3) __syncthreads(); }

__global__ void lonely_shuffle(float* x) {
  if (threadIdx.x < 3) x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}
"""
NAMES = [
    "scale", "reverse<true>", "reverse<false>", "sum_of_lanes", "misread", "read_vector",
    "read_shared", "lonely_barrier", "lonely_shuffle",
]  # fmt: skip


@pytest.fixture(scope="module")
def host():
    need_a_compiler()
    return HostModule(CODE, name_expressions=NAMES)


def test_a_kernel_runs_on_every_thread_of_every_block(host):
    x = np.arange(100, dtype=np.float32)
    y = np.full(100, np.nan, np.float32)
    host.get_function("scale")((4,), (32,), (x, np.int32(100), np.float32(3), y))
    np.testing.assert_array_equal(y, 3 * x)


@pytest.mark.parametrize("schedule", [0, 1, 2])
def test_shuffles_and_barriers_work_in_every_order(host, schedule):
    host.set_schedule(schedule)
    x = np.arange(64, dtype=np.float32)
    host.get_function("reverse<true>")((1,), (64,), (x,), shared_mem=256)
    np.testing.assert_array_equal(x, np.arange(64)[::-1])
    host.get_function("sum_of_lanes")((1,), (64,), (x,))
    np.testing.assert_array_equal(x, np.repeat([1520, 496], 32))


def test_a_missing_barrier_shows_in_some_order(host):
    results = []
    for schedule in (0, 1, 2):
        host.set_schedule(schedule)
        x = np.arange(64, dtype=np.float32)
        host.get_function("reverse<false>")((1,), (64,), (x,), shared_mem=256)
        results.append(x.tolist())
    assert any(result != results[0] for result in results)


@pytest.mark.parametrize("index", [4, 4096])
def test_reading_past_an_argument_is_reported(host, index):
    x, y = np.zeros((2, 4), np.float32)
    with pytest.raises(RuntimeError, match="thread 0 used memory outside an argument"):
        host.get_function("misread")((1,), (1,), (x, np.int32(index), y))


def test_reading_past_shared_memory_is_reported_and_inside_it_is_nan(host):
    y = np.zeros(1, np.float32)
    kernel = host.get_function("read_shared")
    kernel((1,), (1,), (np.int32(3), y), shared_mem=16)
    assert np.isnan(y[0])
    with pytest.raises(RuntimeError, match="16 bytes of shared memory"):
        kernel((1,), (1,), (np.int32(4), y), shared_mem=16)


def test_a_misaligned_vector_is_reported(host):
    x, y = np.arange(8, dtype=np.float32), np.zeros(4, np.float32)
    kernel = host.get_function("read_vector")
    kernel((1,), (1,), (x[4:], y))
    np.testing.assert_array_equal(y, x[4:])
    with pytest.raises(RuntimeError, match="misaligned"):
        kernel((1,), (1,), (x[1:5], y))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lonely_barrier", (), "__syncthreads was not reached by 29 of 32 threads"),
        ("lonely_shuffle", (np.zeros(32, np.float32),), "reached by 3 of 32 lanes of warp 0"),
    ],
)
def test_a_barrier_or_shuffle_not_reached_by_all_is_reported(host, name, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        host.get_function(name)((1,), (32,), arguments)


FLOATS = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FLOATS, np.int32(4), np.float32(1)), "takes 4 arguments, got 3"),
        ((FLOATS, 4, np.float32(1), FLOATS), "argument 1: wants a NumPy scalar i4, got 4"),
        ((FLOATS, np.int64(4), np.float32(1), FLOATS), "argument 1"),
        ((FLOATS, np.int32(4), 1.0, FLOATS), "argument 2: wants a NumPy scalar f4"),
        ((FLOATS.astype(float), np.int32(4), np.float32(1), FLOATS), "argument 0"),
        ((np.zeros(8, np.float32)[::2], np.int32(4), np.float32(1), FLOATS), "C-contiguous"),
    ],
)
def test_arguments_must_be_of_the_declared_types(host, arguments, message):
    with pytest.raises(TypeError, match=message):
        host.get_function("scale")((1,), (32,), arguments)


def test_shared_memory_beyond_48_kib_must_be_asked_for(host):
    kernel = host.get_function("reverse<true>")
    x = np.zeros(64, np.float32)
    with pytest.raises(RuntimeError, match="max_dynamic_shared_size_bytes"):
        kernel((1,), (64,), (x,), shared_mem=50_000)
    kernel.max_dynamic_shared_size_bytes = 50_000
    kernel((1,), (64,), (x,), shared_mem=50_000)


def test_what_does_not_compile_says_why():
    need_a_compiler()
    with pytest.raises(RuntimeError, match="no_such_thing"):
        HostModule("__global__ void f() { no_such_thing(); }", name_expressions=["f"])

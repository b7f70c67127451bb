// Run CUDA kernels on the CPU, for tests on machines without a GPU (Linux, g++, C++17).
//
// Every CUDA thread of a block is a fiber; blocks run one after another. A fiber runs until it
// reaches a barrier or a shuffle, so the order is known, and set_schedule() changes it: a kernel
// whose result depends on the order has a race. Dynamic shared memory starts as NaN and ends at
// protected pages, as do the arguments: reading or writing past an end is reported, as is a barrier
// or shuffle that not all threads reach.
//
// Kernels are included unchanged after this header, except that dynamic shared memory is declared
// by DYNAMIC_SHARED(name), which on the GPU means
//     extern __shared__ __align__(16) float name[]
#pragma once
#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local
#define DYNAMIC_SHARED(name) float* name = reinterpret_cast<float*>(cuda_on_cpu::block.shared)

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float rsqrtf(float v) { return 1.f / std::sqrt(v); }
template <class T> inline T __ldg(const T* p) { return *p; }

namespace cuda_on_cpu {

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
  jmp_buf resume;
  ucontext_t start;
  char* stack = nullptr;
  bool started = false;
  State state = READY;
  dim3 index;
  unsigned linear = 0, shuffles = 0;
};

struct Block {
  dim3 grid, size, index;
  unsigned char* shared = nullptr;
  std::vector<Fiber> fibers;
  std::vector<uint64_t> slots;  // two per thread: successive shuffles alternate
  jmp_buf scheduler;
  sigjmp_buf fault;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  std::string error;
};
inline thread_local Block block;
inline thread_local Fiber* now = nullptr;
constexpr size_t STACK = 64 << 10;

// ---- memory whose end is followed by protected pages

struct Guarded { char *area, *start; size_t length; };
constexpr size_t GUARD = 1 << 20;

// The start lies `offset` bytes past a multiple of 16.
inline Guarded guarded_alloc(size_t bytes, size_t offset = 0) {
  const size_t page = sysconf(_SC_PAGESIZE);
  const size_t used = (bytes + offset + 15) / 16 * 16, room = (used + page - 1) / page * page;
  char* area = static_cast<char*>(mmap(nullptr, room + GUARD, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(area + room, GUARD, PROT_NONE);
  return {area, area + room - used + offset, room + GUARD};
}
inline void guarded_free(const Guarded& g) { munmap(g.area, g.length); }
inline void on_fault(int) { siglongjmp(block.fault, 1); }

// ---- fibers

inline void enter() {
  block.body(block.argument);
  now->state = DONE;
  _longjmp(block.scheduler, 1);
}

inline void run(Fiber& f) {
  now = &f;
  if (_setjmp(block.scheduler) != 0) return;
  if (f.started) _longjmp(f.resume, 1);
  f.started = true;
  getcontext(&f.start);
  f.start.uc_stack.ss_sp = f.stack;
  f.start.uc_stack.ss_size = STACK;
  f.start.uc_link = nullptr;
  makecontext(&f.start, enter, 0);
  setcontext(&f.start);
}

inline void wait(State at) {
  now->state = at;
  if (_setjmp(now->resume) == 0) _longjmp(block.scheduler, 1);
}

inline unsigned& schedule() { static unsigned s = 0; return s; }
inline unsigned pick(unsigned i, unsigned n, unsigned visit) {
  if (schedule() == 0) return i;
  if (schedule() == 1) return n - 1 - i;
  return (i + visit * 7 + 5) % n;  // a rotation that changes from one visit to the next
}

// Runs the lanes of a warp up to the next barrier; false if they part at a shuffle.
inline bool run_warp(unsigned warp, unsigned lanes) {
  Fiber* const fibers = &block.fibers[warp * 32];
  for (unsigned turn = 0;; ++turn) {
    for (unsigned l = 0; l < lanes; ++l) {
      Fiber& f = fibers[pick(l, lanes, turn)];
      if (f.state == READY) run(f);
    }
    unsigned at_warp = 0;
    for (unsigned l = 0; l < lanes; ++l) at_warp += fibers[l].state == AT_WARP;
    if (!at_warp) return true;
    if (at_warp < lanes) {
      block.error = "a warp shuffle or __syncwarp was reached by " + std::to_string(at_warp) +
                    " of " + std::to_string(lanes) + " lanes of warp " + std::to_string(warp);
      return false;
    }
    for (unsigned l = 0; l < lanes; ++l) fibers[l].state = READY;
  }
}

inline void run_block() {
  const unsigned threads = block.size.x * block.size.y * block.size.z, warps = (threads + 31) / 32;
  for (unsigned visit = 0;; ++visit) {
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned warp = pick(w, warps, visit);
      if (!run_warp(warp, min(32u, threads - warp * 32))) return;
    }
    unsigned done = 0;
    for (unsigned t = 0; t < threads; ++t) done += block.fibers[t].state == DONE;
    if (done == threads) return;
    if (done) {
      block.error = "__syncthreads was not reached by " + std::to_string(done) + " of " +
                    std::to_string(threads) + " threads";
      return;
    }
    for (unsigned t = 0; t < threads; ++t) block.fibers[t].state = READY;
  }
}

template <class T> T shuffle(T value, unsigned source_lane) {
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  const unsigned first = now->linear / 32 * 32, parity = now->shuffles++ & 1;
  std::memcpy(&block.slots[2 * now->linear + parity], &value, sizeof(T));
  wait(AT_WARP);
  T out;
  std::memcpy(&out, &block.slots[2 * (first + source_lane) + parity], sizeof(T));
  return out;
}

// ---- launch: the same arguments as cuLaunchKernel

inline void reset_fibers(const unsigned* b, const Guarded& stacks) {
  for (unsigned t = 0; t < block.fibers.size(); ++t) {
    Fiber& f = block.fibers[t];
    f.stack = stacks.start + STACK * t;
    f.started = false;
    f.state = READY;
    f.shuffles = 0;
    f.linear = t;
    f.index = {t % b[0], t / b[0] % b[1], t / (b[0] * b[1])};
  }
}

template <class... A, size_t... I>
int launch(void (*kernel)(A...), const unsigned* g, const unsigned* b, size_t shared_bytes,
           void** args, char* error, size_t error_size, std::index_sequence<I...>) {
  auto body = [&] { kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...); };
  block.body = [](void* f) { (*static_cast<decltype(body)*>(f))(); };
  block.argument = &body;
  block.grid = {g[0], g[1], g[2]};
  block.size = {b[0], b[1], b[2]};
  block.error.clear();
  const unsigned threads = b[0] * b[1] * b[2];
  if (threads > 1024) block.error = "more than 1024 threads in a block";
  if (shared_bytes > 227 * 1024) block.error = "more than 227 KiB of shared memory in a block";
  if (g[1] > 65535 || g[2] > 65535) block.error = "more than 65535 blocks along y or z";
  const Guarded shared = guarded_alloc(shared_bytes), stacks = guarded_alloc(STACK * threads);
  block.shared = reinterpret_cast<unsigned char*>(shared.start);
  block.fibers.assign(threads, Fiber());
  block.slots.assign(2 * threads, 0);
  struct sigaction action {}, old_segv, old_bus;
  action.sa_handler = on_fault;
  action.sa_flags = SA_NODEFER;
  sigaction(SIGSEGV, &action, &old_segv);
  sigaction(SIGBUS, &action, &old_bus);
  if (sigsetjmp(block.fault, 1) == 0) {
    for (size_t i = 0; i < size_t(g[0]) * g[1] * g[2] && block.error.empty(); ++i) {
      block.index = {unsigned(i % g[0]), unsigned(i / g[0] % g[1]), unsigned(i / g[0] / g[1])};
      std::memset(block.shared, 0xff, shared_bytes);  // NaN
      reset_fibers(b, stacks);
      run_block();
    }
  } else {
    block.error = "thread " + std::to_string(now->linear) +
                  " used memory outside an argument or the " + std::to_string(shared_bytes) +
                  " bytes of shared memory, or a misaligned float4";
  }
  sigaction(SIGSEGV, &old_segv, nullptr);
  sigaction(SIGBUS, &old_bus, nullptr);
  guarded_free(shared);
  guarded_free(stacks);
  if (block.error.empty()) return 0;
  std::snprintf(error, error_size, "block (%u, %u, %u): %s", block.index.x, block.index.y,
                block.index.z, block.error.c_str());
  return 1;
}

template <class... A>
int launch(void (*kernel)(A...), const unsigned* g, const unsigned* b, size_t shared, void** args,
           char* error, size_t size) {
  return launch(kernel, g, b, shared, args, error, size, std::index_sequence_for<A...>());
}

// ---- signature, in NumPy's words: "f4*" a float array, "cf4*" one only read, "i4" an int

template <class T> std::string type_name() {
  if constexpr (std::is_pointer_v<T>) {
    using V = std::remove_pointer_t<T>;
    return (std::is_const_v<V> ? "c" : "") + type_name<std::remove_cv_t<V>>() + "*";
  } else {
    const char* kind = std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u";
    return kind + std::to_string(sizeof(T));
  }
}
template <class... A> int signature(void (*)(A...), char* out, size_t size) {
  std::string all;
  ((all += type_name<std::remove_cv_t<A>>() + " "), ...);
  return std::snprintf(out, size, "%s", all.c_str());
}

}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::now->index)
#define blockIdx (cuda_on_cpu::block.index)
#define blockDim (cuda_on_cpu::block.size)
#define gridDim (cuda_on_cpu::block.grid)
#define __syncthreads() cuda_on_cpu::wait(cuda_on_cpu::AT_BLOCK)
#define __syncwarp(...) cuda_on_cpu::wait(cuda_on_cpu::AT_WARP)
template <class T> inline T __shfl_sync(unsigned, T v, int lane) {
  return cuda_on_cpu::shuffle(v, lane & 31);
}
template <class T> inline T __shfl_xor_sync(unsigned, T v, int mask) {
  return cuda_on_cpu::shuffle(v, (cuda_on_cpu::now->linear & 31) ^ mask);
}
template <class T> inline T __shfl_down_sync(unsigned, T v, int by) {
  const unsigned lane = cuda_on_cpu::now->linear & 31;
  return cuda_on_cpu::shuffle(v, lane + by > 31 ? lane : lane + by);
}

extern "C" inline void* cuda_on_cpu_alloc(size_t bytes, size_t offset, void** handle) {
  auto* g = new cuda_on_cpu::Guarded(cuda_on_cpu::guarded_alloc(bytes, offset));
  *handle = g;
  return g->start;
}
extern "C" inline void cuda_on_cpu_free(void* handle) {
  auto* g = static_cast<cuda_on_cpu::Guarded*>(handle);
  cuda_on_cpu::guarded_free(*g);
  delete g;
}

// What all kernels share: tiles of rows and of parameters in shared memory, and sums over the
// lanes of a row.
//
// A block computes with tiles: some rows of x by some dimensions, and some dimensions by some
// components. Threads first copy ("stage") them into shared memory together, four floats at a
// time, then every thread works on a small rectangle of results that stays in its registers.
//
// Arguments that many kernels have in common, in this order:
//   x           descriptors, n_features to a row, of which `shift` is subtracted: a constant of
//               the model near its means, so that no digits cancel
//   params      the mixture, [Dp] dimensions by [Kp] components, padded with zeros:
//                 inv_std[Dp][Kp]       a = 1 / sigma
//                 scaled_mean[Dp][Kp]   b = (mu - shift) / sigma
//                 log_const[Kp]         log w - sum_d log sigma - D/2 log 2 pi; -3e38 if padded
//   chunks      [n_chunks][3]: bag, first row, row after the last; a block works on one chunk
//   width       row length of arrays of n rows by K components: K rounded up to a multiple of 4
#pragma once

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

namespace skfisher {

// N floats at an address that is a multiple of 16 bytes, four at a time.
template <int N>
__device__ __forceinline__ void load(float (&to)[N], const float* from) {
  static_assert(N % 4 == 0, "vectors hold four floats");
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const float4 v = *reinterpret_cast<const float4*>(from + i);
    to[i] = v.x; to[i + 1] = v.y; to[i + 2] = v.z; to[i + 3] = v.w;
  }
}

template <int N>
__device__ __forceinline__ void store(float* to, const float (&from)[N]) {
  static_assert(N % 4 == 0, "vectors hold four floats");
#pragma unroll
  for (int i = 0; i < N; i += 4)
    *reinterpret_cast<float4*>(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
}

// Copies the rows first .. first + ROWS - 1 of x, less shift, and of these the dimensions
// column .. column + WIDTH - 1, into a tile whose rows are LD floats apart. Zeros stand where
// rows reach `stop` or dimensions n_features: a neighbour is read there and multiplied by zero, so
// that no load waits behind a branch, and several are on their way at once.
template <int ROWS, int WIDTH, int LD, int THREADS>
__device__ __forceinline__ void stage_rows(float* tile, const float* x, int n_features,
                                           const float* shift, int first, int stop, int column) {
  constexpr int VECTORS = WIDTH / 4, STEP = THREADS / VECTORS;  // rows that are copied at once
  static_assert(THREADS % VECTORS == 0 && ROWS % STEP == 0, "every thread copies the same");
  const int own = threadIdx.x % VECTORS * 4;  // a thread keeps its dimensions
  if (n_features % 4 == 0) {
    const int d = min(column + own, n_features - 4);
    float origin[4];
    load(origin, shift + d);
#pragma unroll 4
    for (int i = 0; i < ROWS / STEP; ++i) {
      const int r = threadIdx.x / VECTORS + i * STEP;
      float v[4];
      load(v, x + (long long)min(first + r, stop - 1) * n_features + d);
      const float inside = first + r < stop && column + own < n_features ? 1.f : 0.f;
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] = (v[j] - origin[j]) * inside;
      store(tile + r * LD + own, v);
    }
    return;
  }
  int d[4];
  float origin[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    d[j] = min(column + own + j, n_features - 1);
    origin[j] = shift[d[j]];
  }
#pragma unroll 2
  for (int i = 0; i < ROWS / STEP; ++i) {
    const int r = threadIdx.x / VECTORS + i * STEP;
    const float* from = x + (long long)min(first + r, stop - 1) * n_features;
    float v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = from[d[j]];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float inside = first + r < stop && column + own + j < n_features ? 1.f : 0.f;
      v[j] = (v[j] - origin[j]) * inside;
    }
    store(tile + r * LD + own, v);
  }
}

// Copies WIDTH columns, from `column` on, of ROWS rows of a table with `ld` floats to a row.
// The table is padded: all of it exists.
template <int ROWS, int WIDTH, int LD, int THREADS>
__device__ __forceinline__ void stage_table(float* tile, const float* table, int ld, int row,
                                            int column) {
  constexpr int VECTORS = WIDTH / 4, STEP = THREADS / VECTORS;
  static_assert(THREADS % VECTORS == 0 && ROWS % STEP == 0, "every thread copies the same");
  const int own = threadIdx.x % VECTORS * 4;
#pragma unroll
  for (int i = 0; i < ROWS / STEP; ++i) {
    const int r = threadIdx.x / VECTORS + i * STEP;
    float v[4];
    load(v, table + (long long)(row + r) * ld + column + own);
    store(tile + r * LD + own, v);
  }
}

// Largest value and sum over LANES neighbouring lanes of a warp, the same bits in each of them.
template <int LANES>
__device__ __forceinline__ float max_over_lanes(float value) {
#pragma unroll
  for (int step = LANES / 2; step; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

template <int LANES>
__device__ __forceinline__ float sum_over_lanes(float value) {
#pragma unroll
  for (int step = LANES / 2; step; step /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

}  // namespace skfisher

// Power and L2 normalisation of rows, forward and backward, each row read from cache after the
// first time.
//
//     u = sign(x) |x|^power        or, smooth,        u = x (x^2 + eps^2)^((power - 1) / 2)
//     y = u / |u|                  d_u = (g - <g, y> y) / |u|,        d_x = u'(x) d_u
//
// One block computes one row; its threads take every THREADS-th entry. As in the array code, the
// largest entry of a row is made 1 first, so that squares neither overflow nor vanish: the exact
// power is taken of x / scale, the smooth one, whose eps has the units of x, is divided by scale.

namespace skfisher {

// The sum (or the largest) of the values of all threads, combined in one order, for every thread.
template <int THREADS, bool LARGEST>
__device__ __forceinline__ float over_block(float value, float* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, value, step);
    value = LARGEST ? fmaxf(value, other) : value + other;
  }
  __syncthreads();  // the results of the call before have been read
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = scratch[0];
  for (int w = 1; w < THREADS / 32; ++w) {
    value = LARGEST ? fmaxf(value, scratch[w]) : value + scratch[w];
  }
  return value;
}

struct PowerOf {
  float power;
  float squared_eps;  // negative: the exact power
  float floor;        // least size in the derivative of the exact power

  __device__ __forceinline__ bool smooth() const { return squared_eps >= 0.f; }

  __device__ __forceinline__ float value(float x) const {
    if (power == 1.f) return x;
    if (smooth()) return x * powf(x * x + squared_eps, 0.5f * (power - 1.f));
    const float size = fabsf(x);
    return copysignf(power == 0.5f ? sqrtf(size) : powf(size, power), x);
  }

  __device__ __forceinline__ float slope(float x) const {
    if (power == 1.f) return 1.f;
    if (smooth()) {
      const float size = x * x + squared_eps;
      return powf(size, 0.5f * (power - 1.f)) * ((power * x * x + squared_eps) / size);
    }
    if (x == 0.f) return 0.f;
    const float size = fmaxf(fabsf(x), floor);
    return power * (power == 0.5f ? 1.f / sqrtf(size) : powf(size, power - 1.f));
  }
};

// A row as the power sees it, divided by `before`, and as the norm does, by `after` once more.
struct Scale {
  float largest, before, after;

  template <int THREADS>
  __device__ __forceinline__ void find(const float* x, int n_columns, const PowerOf& power,
                                       float* scratch) {
    largest = 0.f;
    for (int i = threadIdx.x; i < n_columns; i += THREADS) {
      largest = fmaxf(largest, fabsf(power.smooth() ? power.value(x[i]) : x[i]));
    }
    largest = over_block<THREADS, true>(largest, scratch);
    const float scale = largest == 0.f ? 1.f : largest;  // zeros stay zeros
    before = power.smooth() ? 1.f : scale;
    after = power.smooth() ? scale : 1.f;
  }
};

// The length of a row whose largest entry is 1; of a row of zeros 1. Keeps NaN.
__device__ __forceinline__ float length_of(float squares) {
  return squares <= 1.f ? 1.f : sqrtf(squares);
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS)
power_l2_normalize(const float* all_x, int n_columns, float exponent, float squared_eps,
                   float* all_y) {
  DYNAMIC_SHARED(scratch);
  const float* x = all_x + (long long)blockIdx.x * n_columns;
  float* y = all_y + (long long)blockIdx.x * n_columns;
  const PowerOf power = {exponent, squared_eps, 0.f};
  Scale scale;
  scale.find<THREADS>(x, n_columns, power, scratch);
  float squares = 0.f;
  for (int i = threadIdx.x; i < n_columns; i += THREADS) {
    const float u = power.value(x[i] / scale.before) / scale.after;
    squares = fmaf(u, u, squares);
  }
  const float length = length_of(over_block<THREADS, false>(squares, scratch));
  for (int i = threadIdx.x; i < n_columns; i += THREADS) {
    y[i] = power.value(x[i] / scale.before) / scale.after / length;
  }
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS)
power_l2_normalize_vjp(const float* all_g, const float* all_x, int n_columns, float exponent,
                       float squared_eps, float floor, float* all_d_x) {
  DYNAMIC_SHARED(scratch);
  const float* g = all_g + (long long)blockIdx.x * n_columns;
  const float* x = all_x + (long long)blockIdx.x * n_columns;
  float* d_x = all_d_x + (long long)blockIdx.x * n_columns;
  const PowerOf power = {exponent, squared_eps, floor};
  Scale scale;
  scale.find<THREADS>(x, n_columns, power, scratch);
  float squares = 0.f, along = 0.f;
  for (int i = threadIdx.x; i < n_columns; i += THREADS) {
    const float u = power.value(x[i] / scale.before) / scale.after;
    squares = fmaf(u, u, squares);
    along = fmaf(g[i], u, along);
  }
  const float length = length_of(over_block<THREADS, false>(squares, scratch));
  along = over_block<THREADS, false>(along, scratch) / length;  // <g, y>
  for (int i = threadIdx.x; i < n_columns; i += THREADS) {
    const float z = x[i] / scale.before;
    const float y = power.value(z) / scale.after / length;
    const float d_u = (g[i] - along * y) / length;
    // a row of zeros has no direction, hence no gradient
    d_x[i] = scale.largest == 0.f ? 0.f : power.slope(z) * d_u / scale.before / scale.after;
  }
}

}  // namespace skfisher

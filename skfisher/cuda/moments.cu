// Weighted moments of a chunk of descriptors y = x - shift, the weights q being posteriors, or
// any other numbers of a descriptor and a component:
//
//   S0_k = sum_n q_nk,   S1_kd = sum_n q_nk y_nd,   S2_kd = sum_n q_nk y_nd^2.
//
// CENTRED puts u_kd = y_d a_kd - b_kd in the place of y_d: two more operations, and no digits
// lost where components lie many deviations from the shift.
//
// A block takes one chunk, KTILE components and DTILE dimensions, and runs through the chunk's
// rows 64 at a time. A thread holds both moments of PK components by PD dimensions: one row
// at a time, PK weights and PD numbers meet in 2 PK PD multiply-adds. S0 is summed where weights
// are staged: each thread copies 4 columns of them.
//
// Grid: chunks, ceil(K / KTILE), ceil(D / DTILE).
// Result: partial [n_chunks][width + 2 K depth], S0, S1 and S2 of each chunk; width and depth
// are K and D rounded up to multiples of 4, and what is beyond K or D holds zeros.
namespace skfisher {

template <int KTILE, int DTILE, int PK, int PD, bool CENTRED>
__global__ void __launch_bounds__(KTILE / PK * (DTILE / PD), 512 / (KTILE / PK * (DTILE / PD)))
moments(const float* x, int n_features, const float* shift, const float* params, int Kp, int Dp,
        int K, const int* chunks, const float* q, int width, float* partial) {
  constexpr int LANES = DTILE / PD, THREADS = KTILE / PK * LANES, ROWS = 64;
  constexpr int UNROLL = PK * PD < 32 ? 4 : 2;  // as many rows as registers allow
  constexpr int VECTORS = KTILE / 4, STEP = THREADS / VECTORS;
  DYNAMIC_SHARED(shared);
  float* qs = shared;              // [ROWS][KTILE]
  float* ys = qs + ROWS * KTILE;   // [ROWS][DTILE]
  const int k0 = blockIdx.y * KTILE, d0 = blockIdx.z * DTILE;
  const int td = threadIdx.x % LANES * PD, tk = threadIdx.x / LANES * PK;
  const int own = threadIdx.x % VECTORS * 4;  // the columns of q that this thread copies
  const int start = chunks[3 * blockIdx.x + 1], stop = chunks[3 * blockIdx.x + 2];

  float a[CENTRED ? PK : 1][PD], b[CENTRED ? PK : 1][PD];
  if (CENTRED) {
#pragma unroll
    for (int i = 0; i < PK; ++i)
#pragma unroll
      for (int j = 0; j < PD; ++j) {
        const long long at = (long long)(d0 + td + j) * Kp + k0 + tk + i;
        a[CENTRED ? i : 0][j] = params[at];
        b[CENTRED ? i : 0][j] = params[(long long)Dp * Kp + at];
      }
  }

  float s0[4] = {}, s1[PK][PD] = {}, s2[PK][PD] = {};
  for (int first = start; first < stop; first += ROWS) {
    __syncthreads();
#pragma unroll 4
    for (int i = 0; i < ROWS / STEP; ++i) {  // as stage_rows does
      const int r = threadIdx.x / VECTORS + i * STEP;
      float v[4];
      load(v, q + (long long)min(first + r, stop - 1) * width + min(k0 + own, width - 4));
      const float inside = first + r < stop && k0 + own < width ? 1.f : 0.f;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        v[j] *= inside;
        s0[j] += v[j];
      }
      store(qs + r * KTILE + own, v);
    }
    stage_rows<ROWS, DTILE, DTILE, THREADS>(ys, x, n_features, shift, first, stop, d0);
    __syncthreads();
    const int rows = min(ROWS, stop - first);
    for (int n0 = 0; n0 < rows; n0 += UNROLL) {  // the last may include rows of zeros
#pragma unroll
      for (int n = n0; n < n0 + UNROLL; ++n) {
        float w[PK], y[PD];
        load(w, qs + n * KTILE + tk);
        load(y, ys + n * DTILE + td);
        if (CENTRED) {
#pragma unroll
          for (int i = 0; i < PK; ++i)
#pragma unroll
            for (int j = 0; j < PD; ++j) {
              const float u = fmaf(y[j], a[CENTRED ? i : 0][j], -b[CENTRED ? i : 0][j]);
              const float wu = w[i] * u;
              s1[i][j] += wu;
              s2[i][j] = fmaf(wu, u, s2[i][j]);
            }
        } else {
          float squares[PD];
#pragma unroll
          for (int j = 0; j < PD; ++j) squares[j] = y[j] * y[j];
#pragma unroll
          for (int i = 0; i < PK; ++i)
#pragma unroll
            for (int j = 0; j < PD; ++j) {
              s1[i][j] = fmaf(w[i], y[j], s1[i][j]);
              s2[i][j] = fmaf(w[i], squares[j], s2[i][j]);
            }
        }
      }
    }
  }

  const int depth = (n_features + 3) / 4 * 4;
  float* out = partial + blockIdx.x * (width + 2ll * K * depth);
  if (d0 + td < depth) {
#pragma unroll
    for (int i = 0; i < PK; ++i) {
      if (k0 + tk + i >= K) break;
      float* to = out + width + (long long)(k0 + tk + i) * depth + d0 + td;
      store(to, s1[i]);
      store(to + (long long)K * depth, s2[i]);
    }
  }
  if (blockIdx.z > 0) return;  // S0 has no dimensions
  __syncthreads();
  store(qs + threadIdx.x / VECTORS * KTILE + own, s0);
  __syncthreads();
  if (threadIdx.x < KTILE && k0 + threadIdx.x < width) {
    float sum = 0.f;
#pragma unroll
    for (int r = 0; r < STEP; ++r) sum += qs[r * KTILE + threadIdx.x];
    out[k0 + threadIdx.x] = sum;
  }
}

}  // namespace skfisher

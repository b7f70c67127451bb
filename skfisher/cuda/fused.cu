// Posteriors and moments in one kernel, for mixtures small enough: K up to KTILE components in
// up to DTILE dimensions. The equations are those of score.cu and moments.cu; here posteriors
// never leave the multiprocessor.
//
// A block takes one chunk and runs through its rows, ROWS at a time. First a thread holds TR rows
// by 4 components of the squares, as in `score`, and writes posteriors to shared memory; then it
// holds both moments of PK components by PD dimensions, as in `moments`, and adds up the tile.
// The parameters stay in shared memory throughout.
//
// Grid: chunks. Results: partial [n_chunks][width + 2 K depth], as of `moments`; and, unless
// null, log_likelihood [n_chunks].
namespace skfisher {

template <int KTILE, int DTILE, int TR, int PK, int PD>
__global__ void __launch_bounds__(KTILE / PK * (DTILE / PD), 512 / (KTILE / PK * (DTILE / PD)))
fused_moments(const float* x, int n_features, const float* shift, const float* params, int Kp,
              int Dp, int K, const int* chunks, int width, float* partial,
              double* log_likelihood) {
  constexpr int DIM_LANES = DTILE / PD, THREADS = KTILE / PK * DIM_LANES, UNROLL = 4;
  constexpr int TK = 4, LANES = KTILE / TK, ROW_STEP = THREADS / LANES, ROWS = ROW_STEP * TR;
  DYNAMIC_SHARED(shared);
  float* as = shared;                // [DTILE][KTILE]
  float* bs = as + DTILE * KTILE;    // [DTILE][KTILE]
  float* ys = bs + DTILE * KTILE;    // [ROWS][DTILE]
  float* qs = ys + ROWS * DTILE;     // [ROWS][KTILE]
  const int sk = threadIdx.x % LANES * TK, sr = threadIdx.x / LANES;              // first half
  const int td = threadIdx.x % DIM_LANES * PD, tk = threadIdx.x / DIM_LANES * PK;  // second half
  const int start = chunks[3 * blockIdx.x + 1], stop = chunks[3 * blockIdx.x + 2];

  stage_table<DTILE, KTILE, KTILE, THREADS>(as, params, Kp, 0, 0);
  stage_table<DTILE, KTILE, KTILE, THREADS>(bs, params + (long long)Dp * Kp, Kp, 0, 0);
  float constant[TK];
  load(constant, params + 2ll * Dp * Kp + sk);

  double likelihood = 0.;
  float s0[TK] = {}, s1[PK][PD] = {}, s2[PK][PD] = {};
  for (int first = start; first < stop; first += ROWS) {
    __syncthreads();
    stage_rows<ROWS, DTILE, DTILE, THREADS>(ys, x, n_features, shift, first, stop, 0);
    __syncthreads();

    float squares[TR][TK] = {};
#pragma unroll 2
    for (int d = 0; d < n_features; d += 4) {  // the last vector may include zeros
      float y[TR][4];
#pragma unroll
      for (int i = 0; i < TR; ++i) load(y[i], ys + (sr + i * ROW_STEP) * DTILE + d);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float a[TK], b[TK];
        load(a, as + (d + j) * KTILE + sk);
        load(b, bs + (d + j) * KTILE + sk);
#pragma unroll
        for (int i = 0; i < TR; ++i)
#pragma unroll
          for (int k = 0; k < TK; ++k) {
            const float u = fmaf(y[i][j], a[k], -b[k]);
            squares[i][k] = fmaf(u, u, squares[i][k]);
          }
      }
    }
#pragma unroll
    for (int i = 0; i < TR; ++i) {
      const int row = sr + i * ROW_STEP;
      float q[TK], largest = -3e38f, total = 0.f;
#pragma unroll
      for (int k = 0; k < TK; ++k) {
        q[k] = fmaf(-0.5f, squares[i][k], constant[k]);
        largest = fmaxf(largest, q[k]);
      }
      largest = max_over_lanes<LANES>(largest);
#pragma unroll
      for (int k = 0; k < TK; ++k) total += q[k] = expf(q[k] - largest);
      total = sum_over_lanes<LANES>(total);
      if (!(largest > -1e38f)) total = nanf("");  // the squares have overflown
      const bool inside = first + row < stop;
      const float inverse = 1.f / total;
#pragma unroll
      for (int k = 0; k < TK; ++k) {
        q[k] = inside ? q[k] * inverse : 0.f;
        s0[k] += q[k];
      }
      store(qs + row * KTILE + sk, q);
      if (log_likelihood && inside && sk == 0) likelihood += (double)largest + (double)logf(total);
    }
    __syncthreads();

    const int rows = min(ROWS, stop - first);
    for (int n0 = 0; n0 < rows; n0 += UNROLL) {  // the last may include rows of zeros
#pragma unroll
      for (int n = n0; n < n0 + UNROLL; ++n) {
        float w[PK], y[PD], square[PD];
        load(w, qs + n * KTILE + tk);
        load(y, ys + n * DTILE + td);
#pragma unroll
        for (int j = 0; j < PD; ++j) square[j] = y[j] * y[j];
#pragma unroll
        for (int i = 0; i < PK; ++i)
#pragma unroll
          for (int j = 0; j < PD; ++j) {
            s1[i][j] = fmaf(w[i], y[j], s1[i][j]);
            s2[i][j] = fmaf(w[i], square[j], s2[i][j]);
          }
      }
    }
  }

  const int depth = (n_features + 3) / 4 * 4;
  float* out = partial + blockIdx.x * (width + 2ll * K * depth);
  if (td < depth) {
#pragma unroll
    for (int i = 0; i < PK; ++i) {
      if (tk + i >= K) break;
      float* to = out + width + (long long)(tk + i) * depth + td;
      store(to, s1[i]);
      store(to + (long long)K * depth, s2[i]);
    }
  }
  __syncthreads();
  store(qs + sr * KTILE + sk, s0);
#pragma unroll
  for (int step = 16; step; step /= 2)
    likelihood += __shfl_xor_sync(0xffffffffu, likelihood, step);
  double* likelihoods = reinterpret_cast<double*>(ys);  // of warps
  if (threadIdx.x % 32 == 0) likelihoods[threadIdx.x / 32] = likelihood;
  __syncthreads();
  if (threadIdx.x < width) {
    float sum = 0.f;
#pragma unroll
    for (int r = 0; r < ROW_STEP; ++r) sum += qs[r * KTILE + threadIdx.x];
    out[threadIdx.x] = sum;
  }
  if (log_likelihood && threadIdx.x == 0) {
    double sum = 0.;
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += likelihoods[warp];
    log_likelihood[blockIdx.x] = sum;
  }
}

}  // namespace skfisher

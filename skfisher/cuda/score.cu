// Posteriors of the components, one row per descriptor:
//
//   l_k = log_const_k - 1/2 sum_d u_kd^2,   u_kd = x_d a_kd - b_kd = (x_d - mu_kd) / sigma_kd,
//   posterior_k = exp(l_k - largest) / sum_j exp(l_j - largest),   largest = max_j l_j.
//
// Two multiply-adds a term, and no expanded square: nothing cancels.
//
// A block takes ROWS descriptors and, one after another, tiles of KTILE components; for each it
// runs through the dimensions in slabs of 32. A thread holds TR rows by 4 components, and the
// threads of one row are neighbours in a warp, so that the maximum and the sum over components
// need no shared memory. With more than one tile, both are kept up to date from tile to tile,
// and the log densities wait in the result until the last tile is seen.
//
// Grid: ceil(n_rows / ROWS) blocks of 256 threads.
// Results: posterior [n_rows][width], zeros in the columns from K on; row_norm [n_rows][2], the
// largest l and the logarithm of the sum, whose sum is log p(x): apart they keep their digits.
namespace skfisher {

template <int KTILE, int TR>
__global__ void __launch_bounds__(256, 2)
score(const float* x, int n_features, const float* shift, const float* params, int Kp, int Dp,
      int K, int n_rows, int width, float* posterior, float* row_norm) {
  constexpr int THREADS = 256, TK = 4, LANES = KTILE / TK, ROW_STEP = THREADS / LANES;
  constexpr int ROWS = ROW_STEP * TR, SLAB = 32, LDX = SLAB + 4;  // padded: no bank conflicts
  DYNAMIC_SHARED(shared);
  float* xs = shared;               // [ROWS][LDX]
  float* as = xs + ROWS * LDX;      // [SLAB][KTILE]
  float* bs = as + SLAB * KTILE;    // [SLAB][KTILE]
  const int tk = threadIdx.x % LANES * TK, tr = threadIdx.x / LANES;
  const int first = blockIdx.x * ROWS;
  const float* inv_std = params;
  const float* scaled_mean = inv_std + (long long)Dp * Kp;
  const float* log_const = scaled_mean + (long long)Dp * Kp;

  float l[TR][TK], largest[TR], total[TR];
#pragma unroll
  for (int i = 0; i < TR; ++i) largest[i] = -3e38f, total[i] = 0.f;

  for (int k0 = 0; k0 < K; k0 += KTILE) {
    float squares[TR][TK] = {};
    for (int d0 = 0; d0 < n_features; d0 += SLAB) {
      __syncthreads();
      stage_rows<ROWS, SLAB, LDX, THREADS>(xs, x, n_features, shift, first, n_rows, d0);
      stage_table<SLAB, KTILE, KTILE, THREADS>(as, inv_std, Kp, d0, k0);
      stage_table<SLAB, KTILE, KTILE, THREADS>(bs, scaled_mean, Kp, d0, k0);
      __syncthreads();
      const int dims = min(SLAB, n_features - d0);  // the last vector may include zeros
#pragma unroll 2
      for (int d = 0; d < dims; d += 4) {
        float xv[TR][4];
#pragma unroll
        for (int i = 0; i < TR; ++i) load(xv[i], xs + (tr + i * ROW_STEP) * LDX + d);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float a[TK], b[TK];
          load(a, as + (d + j) * KTILE + tk);
          load(b, bs + (d + j) * KTILE + tk);
#pragma unroll
          for (int i = 0; i < TR; ++i)
#pragma unroll
            for (int k = 0; k < TK; ++k) {
              const float u = fmaf(xv[i][j], a[k], -b[k]);
              squares[i][k] = fmaf(u, u, squares[i][k]);
            }
        }
      }
    }
    float constant[TK];
    load(constant, log_const + k0 + tk);
#pragma unroll
    for (int i = 0; i < TR; ++i) {
      const float before = largest[i];
      float largest_here = before;
#pragma unroll
      for (int k = 0; k < TK; ++k) {
        l[i][k] = fmaf(-0.5f, squares[i][k], constant[k]);
        largest_here = fmaxf(largest_here, l[i][k]);
      }
      largest[i] = max_over_lanes<LANES>(largest_here);
      float e[TK], sum = 0.f;
#pragma unroll
      for (int k = 0; k < TK; ++k) sum += e[k] = expf(l[i][k] - largest[i]);
      total[i] = fmaf(total[i], expf(before - largest[i]), sum_over_lanes<LANES>(sum));
      const int row = first + tr + i * ROW_STEP;
      if (K <= KTILE) {
#pragma unroll
        for (int k = 0; k < TK; ++k) l[i][k] = e[k];
      } else if (row < n_rows && k0 + tk < width) {
        store(posterior + (long long)row * width + k0 + tk, l[i]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < TR; ++i) {
    const int row = first + tr + i * ROW_STEP;
    if (row >= n_rows) continue;
    // Beyond -1e38 the squares have overflown: the row is said to have no posteriors, not to
    // belong to a padded component.
    const float sum = largest[i] > -1e38f ? total[i] : nanf("");
    const float inverse = 1.f / sum;
    if (threadIdx.x % LANES == 0) {
      row_norm[2ll * row] = largest[i];
      row_norm[2ll * row + 1] = logf(sum);
    }
    for (int k = tk; k < width; k += KTILE) {
      float* to = posterior + (long long)row * width + k;
      if (K > KTILE) {
        load(l[i], to);
#pragma unroll
        for (int j = 0; j < TK; ++j) l[i][j] = expf(l[i][j] - largest[i]);
      }
#pragma unroll
      for (int j = 0; j < TK; ++j) l[i][j] *= inverse;
      store(to, l[i]);
    }
  }
}

}  // namespace skfisher

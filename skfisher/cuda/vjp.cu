// The backward pass of Fisher vectors, and of any loss of a bag's moments. With
//
//   u_kd = x_d a_kd - b_kd = (x_d - mu_kd) / sigma_kd,   q_k the posteriors of a descriptor,
//   G1 = c G_mu,   G2 = c G_v / sqrt 2,   G0 = c G_w - sum_d G2,   c_k = 1 / (T sqrt w_k),
//
// where G_w, G_mu and G_v are the gradient arriving at the blocks of the bag's Fisher vector,
//
//   d_q_k = G0_k + sum_d u_kd (G1_kd + u_kd G2_kd)                  at the posteriors,
//   d_l_k = q_k (d_q_k - sum_j q_j d_q_j / sum_j q_j)               at the log densities,
//   d_x_d = sum_k q_k (a_kd G1_kd + 2 v_kd G2_kd) - d_l_k v_kd      at the descriptor, v = a u.
//
// `posterior_vjp` computes q and d_l, `descriptor_vjp` d_x; the sums of d_l, d_l y and d_l y^2
// that the parameters' gradients need are the work of `moments`.
//
// Arguments that both have in common, beside those of tiles.cuh:
//   chunks      of at most as many rows as a block takes
//   g           [n_bags][(K) + 2 K D]: G_w, unless weights are left out, G_mu and G_v
//   factor      [n_bags][Kp]: c, zero where padded
namespace skfisher {

constexpr float SQRT_HALF = 0.70710678f;

// The blocks G_mu and G_v of one bag, [K][D] each.
struct GradientOfBag {
  const float* means;
  const float* variances;

  __device__ __forceinline__ GradientOfBag(const float* g, int bag, int include_weights, int K,
                                           int D) {
    const int first = include_weights ? K : 0;
    means = g + bag * (first + 2ll * K * D) + first;
    variances = means + (long long)K * D;
  }
};

// Copies G1 and G2 of KTILE components, from k0 on, by SLAB dimensions, from d0 on, into tiles
// of a row per dimension, LD floats apart. Zeros stand beyond K and n_features.
//
// A warp copies 4 components by 8 dimensions: it reads whole sectors of 32 bytes, and with
// LD = 4 modulo 32 writes to 32 different banks.
template <int KTILE, int SLAB, int LD, int THREADS>
__device__ __forceinline__ void stage_transposed(float* g1, float* g2, const GradientOfBag& g,
                                                 const float* factor, int K, int n_features,
                                                 int k0, int d0) {
  constexpr int AT_ONCE = THREADS / 8;  // components
  static_assert(LD % 32 == 4 && KTILE % AT_ONCE == 0 && SLAB % 8 == 0, "no bank conflicts");
  const int own_k = threadIdx.x % 4 + threadIdx.x / 32 * 4, own_d = threadIdx.x / 4 % 8;
#pragma unroll
  for (int i = 0; i < KTILE / AT_ONCE; ++i) {
    const int k = own_k + i * AT_ONCE;
    const float c = factor[k0 + k];
#pragma unroll
    for (int j = 0; j < SLAB / 8; ++j) {
      // As in stage_rows: a neighbour is read in the place of what there is not.
      const int d = own_d + j * 8;
      const long long at =
          (long long)min(k0 + k, K - 1) * n_features + min(d0 + d, n_features - 1);
      const float g_mean = g.means[at], g_variance = g.variances[at];
      const bool inside = k0 + k < K && d0 + d < n_features;
      g1[d * LD + k] = inside ? c * g_mean : 0.f;
      g2[d * LD + k] = inside ? c * SQRT_HALF * g_variance : 0.f;
    }
  }
}

// A block takes one chunk of ROWS descriptors and, one after another, tiles of KTILE components;
// for each it runs through the dimensions in slabs of 32. A thread holds TR rows by 4 components
// of both sums over dimensions, and the threads of one row are neighbours in a warp. With more
// than one tile, log densities and d_q wait in the results until the last tile is seen: then
// the posteriors are known, and every thread mends what it wrote.
//
// Four multiply-adds a term. Grid: chunks. Results: posterior and d_log_joint [n_rows][width],
// zeros in the columns from K on.
template <int KTILE, int TR>
__global__ void __launch_bounds__(256, 2)
posterior_vjp(const float* x, int n_features, const float* shift, const float* params, int Kp,
              int Dp, int K, const int* chunks, const float* g, int include_weights,
              const float* factor, const float* g0, int width, float* posterior,
              float* d_log_joint) {
  constexpr int THREADS = 256, TK = 4, LANES = KTILE / TK, ROW_STEP = THREADS / LANES;
  constexpr int ROWS = ROW_STEP * TR, SLAB = 32, LDX = SLAB + 4, LDG = KTILE + 4;
  DYNAMIC_SHARED(shared);
  float* xs = shared;                // [ROWS][LDX]
  float* as = xs + ROWS * LDX;       // [SLAB][KTILE]
  float* bs = as + SLAB * KTILE;     // [SLAB][KTILE]
  float* g1s = bs + SLAB * KTILE;    // [SLAB][LDG]
  float* g2s = g1s + SLAB * LDG;     // [SLAB][LDG]
  const int tk = threadIdx.x % LANES * TK, tr = threadIdx.x / LANES;
  const int bag = chunks[3 * blockIdx.x], start = chunks[3 * blockIdx.x + 1];
  const int stop = chunks[3 * blockIdx.x + 2];
  const GradientOfBag of_bag(g, bag, include_weights, K, n_features);
  const float* scaled_mean = params + (long long)Dp * Kp;
  const float* log_const = scaled_mean + (long long)Dp * Kp;
  factor += (long long)bag * Kp;
  g0 += (long long)bag * Kp;

  // The sums of this thread's own components, about the largest log density of the whole row.
  float l[TR][TK], dq[TR][TK], largest[TR], total[TR], along[TR];
#pragma unroll
  for (int i = 0; i < TR; ++i) largest[i] = -3e38f, total[i] = along[i] = 0.f;

  for (int k0 = 0; k0 < K; k0 += KTILE) {
#pragma unroll
    for (int i = 0; i < TR; ++i) {
      load(dq[i], g0 + k0 + tk);
#pragma unroll
      for (int k = 0; k < TK; ++k) l[i][k] = 0.f;
    }
    for (int d0 = 0; d0 < n_features; d0 += SLAB) {
      __syncthreads();
      stage_rows<ROWS, SLAB, LDX, THREADS>(xs, x, n_features, shift, start, stop, d0);
      stage_table<SLAB, KTILE, KTILE, THREADS>(as, params, Kp, d0, k0);
      stage_table<SLAB, KTILE, KTILE, THREADS>(bs, scaled_mean, Kp, d0, k0);
      stage_transposed<KTILE, SLAB, LDG, THREADS>(g1s, g2s, of_bag, factor, K,
                                                  n_features, k0, d0);
      __syncthreads();
      const int dims = min(SLAB, n_features - d0);  // the last vector may include zeros
#pragma unroll 1  // two would spill on sm_100
      for (int d = 0; d < dims; d += 4) {
        float xv[TR][4];
#pragma unroll
        for (int i = 0; i < TR; ++i) load(xv[i], xs + (tr + i * ROW_STEP) * LDX + d);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float a[TK], b[TK], g1[TK], g2[TK];
          load(a, as + (d + j) * KTILE + tk);
          load(b, bs + (d + j) * KTILE + tk);
          load(g1, g1s + (d + j) * LDG + tk);
          load(g2, g2s + (d + j) * LDG + tk);
#pragma unroll
          for (int i = 0; i < TR; ++i)
#pragma unroll
            for (int k = 0; k < TK; ++k) {
              const float u = fmaf(xv[i][j], a[k], -b[k]);
              l[i][k] = fmaf(u, u, l[i][k]);
              dq[i][k] = fmaf(u, fmaf(u, g2[k], g1[k]), dq[i][k]);
            }
        }
      }
    }
    float constant[TK];
    load(constant, log_const + k0 + tk);
#pragma unroll
    for (int i = 0; i < TR; ++i) {
      const float before = largest[i];
#pragma unroll
      for (int k = 0; k < TK; ++k) {
        l[i][k] = fmaf(-0.5f, l[i][k], constant[k]);
        largest[i] = fmaxf(largest[i], l[i][k]);
      }
      largest[i] = max_over_lanes<LANES>(largest[i]);
      const float fading = expf(before - largest[i]);
      total[i] *= fading;
      along[i] *= fading;
      const long long at = (long long)(start + tr + i * ROW_STEP) * width + k0 + tk;
      const bool inside = start + tr + i * ROW_STEP < stop && k0 + tk < width;
      if (K > KTILE && inside) {
        store(posterior + at, l[i]);
        store(d_log_joint + at, dq[i]);
      }
#pragma unroll
      for (int k = 0; k < TK; ++k) {
        l[i][k] = expf(l[i][k] - largest[i]);
        total[i] += l[i][k];
        along[i] = fmaf(l[i][k], dq[i][k], along[i]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < TR; ++i) {
    // As in `score`: where all squares have overflown, there are no posteriors.
    const float sum = sum_over_lanes<LANES>(total[i]);
    const float inverse = largest[i] > -1e38f ? 1.f / sum : nanf("");
    const float mean = sum_over_lanes<LANES>(along[i]) / sum;
    const int row = start + tr + i * ROW_STEP;
    if (row >= stop) continue;
    for (int k = tk; k < width; k += KTILE) {
      const long long at = (long long)row * width + k;
      if (K > KTILE) {
        load(l[i], posterior + at);
        load(dq[i], d_log_joint + at);
#pragma unroll
        for (int j = 0; j < TK; ++j) l[i][j] = expf(l[i][j] - largest[i]);
      }
#pragma unroll
      for (int j = 0; j < TK; ++j) {
        l[i][j] *= inverse;
        dq[i][j] = l[i][j] * (dq[i][j] - mean);
      }
      store(posterior + at, l[i]);
      store(d_log_joint + at, dq[i]);
    }
  }
}

// Copies a^2, a b, h1 = a G1 and h2 = 2 G2 of SLAB components, from k0 on, by DTILE dimensions, from
// d0 on, into four tiles of a row per component. `tables` holds a and b, [Kp][Dp] each.
template <int SLAB, int DTILE, int THREADS>
__device__ __forceinline__ void stage_slopes(float* tiles, const float* tables, int Kp, int Dp,
                                             const GradientOfBag& g, const float* factor, int K,
                                             int n_features, int k0, int d0) {
  constexpr int TILE = SLAB * DTILE, STEP = THREADS / DTILE;
  static_assert(THREADS % DTILE == 0 && SLAB % STEP == 0, "a thread keeps its dimension");
  const int d = threadIdx.x % DTILE;
#pragma unroll
  for (int i = 0; i < SLAB / STEP; ++i) {
    const int k = threadIdx.x / DTILE + i * STEP;
    const long long table = (long long)(k0 + k) * Dp + d0 + d;
    const long long at = (long long)min(k0 + k, K - 1) * n_features + min(d0 + d, n_features - 1);
    const float g_mean = g.means[at], g_variance = g.variances[at];
    const bool inside = k0 + k < K && d0 + d < n_features;
    const float a = tables[table], b = tables[(long long)Kp * Dp + table], c = factor[k0 + k];
    float* to = tiles + k * DTILE + d;
    to[0] = a * a;
    to[TILE] = a * b;
    to[2 * TILE] = inside ? a * c * g_mean : 0.f;
    to[3 * TILE] = inside ? 2.f * SQRT_HALF * c * g_variance : 0.f;
  }
}

// Copies the weights of ROWS descriptors, from row `first` on, for SLAB components into a tile.
// Neighbours stand where there are no rows, which nobody reads, or no components.
template <int ROWS, int SLAB, int LD, int THREADS>
__device__ __forceinline__ void stage_weights(float* tile, const float* weights, int first,
                                              int stop, int width, int k0) {
  constexpr int VECTORS = SLAB / 4, STEP = THREADS / VECTORS;
  const int own = threadIdx.x % VECTORS * 4;
  const int k = min(k0 + own, width - 4);
#pragma unroll
  for (int i = 0; i < ROWS / STEP; ++i) {
    const int r = threadIdx.x / VECTORS + i * STEP;
    float v[4];
    load(v, weights + (long long)min(first + r, stop - 1) * width + k);
    store(tile + r * LD + own, v);
  }
}

// A block takes one chunk of ROWS descriptors by DTILE dimensions, and runs through the components
// in slabs of 32. A thread holds TR rows by 4 dimensions of x and of the result.
//
// With v = x a^2 - a b a term is q (h1 + h2 v) - d_l v: four multiply-adds. Grid: chunks,
// ceil(D / DTILE). `tables` holds a and b with a row per component, [2][Kp][Dp].
// Result: d_x, like x; only the rows of the chunks are written.
template <int DTILE, int TR>
__global__ void __launch_bounds__(256, 2)
descriptor_vjp(const float* x, int n_features, const float* shift, const float* tables, int Kp,
               int Dp, int K, const int* chunks, const float* g, int include_weights,
               const float* factor, int width, const float* posterior, const float* d_log_joint,
               float* d_x) {
  constexpr int THREADS = 256, TD = 4, LANES = DTILE / TD, ROW_STEP = THREADS / LANES;
  constexpr int ROWS = ROW_STEP * TR, SLAB = 32, LDQ = SLAB + 4, TILE = SLAB * DTILE;
  DYNAMIC_SHARED(shared);
  float* qs = shared;                // [ROWS][LDQ]
  float* dls = qs + ROWS * LDQ;      // [ROWS][LDQ]
  float* tiles = dls + ROWS * LDQ;   // a^2, a b, h1 and h2, [SLAB][DTILE] each
  const int td = threadIdx.x % LANES * TD, tr = threadIdx.x / LANES, d0 = blockIdx.y * DTILE;
  const int bag = chunks[3 * blockIdx.x], start = chunks[3 * blockIdx.x + 1];
  const int stop = chunks[3 * blockIdx.x + 2];
  const GradientOfBag of_bag(g, bag, include_weights, K, n_features);
  factor += (long long)bag * Kp;

  // x passes through shared memory, where every thread reads back what it wrote itself.
  constexpr int LDX = DTILE + 4;
  static_assert(ROWS * LDX <= 2 * ROWS * LDQ + 4 * TILE, "the tile of x fits");
  stage_rows<ROWS, DTILE, LDX, THREADS>(shared, x, n_features, shift, start, stop, d0);
  float xv[TR][TD], out[TR][TD] = {};
#pragma unroll
  for (int i = 0; i < TR; ++i) load(xv[i], shared + (tr + i * ROW_STEP) * LDX + td);

  for (int k0 = 0; k0 < K; k0 += SLAB) {
    __syncthreads();
    stage_weights<ROWS, SLAB, LDQ, THREADS>(qs, posterior, start, stop, width, k0);
    stage_weights<ROWS, SLAB, LDQ, THREADS>(dls, d_log_joint, start, stop, width, k0);
    stage_slopes<SLAB, DTILE, THREADS>(tiles, tables, Kp, Dp, of_bag, factor, K,
                                       n_features, k0, d0);
    __syncthreads();
    const int components = min(SLAB, width - k0);
    for (int k = 0; k < components; k += 4) {
      float q[TR][4], dl[TR][4];
#pragma unroll
      for (int i = 0; i < TR; ++i) {
        load(q[i], qs + (tr + i * ROW_STEP) * LDQ + k);
        load(dl[i], dls + (tr + i * ROW_STEP) * LDQ + k);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float aa[TD], ab[TD], h1[TD], h2[TD];
        const float* from = tiles + (k + j) * DTILE + td;
        load(aa, from);
        load(ab, from + TILE);
        load(h1, from + 2 * TILE);
        load(h2, from + 3 * TILE);
#pragma unroll
        for (int i = 0; i < TR; ++i)
#pragma unroll
          for (int d = 0; d < TD; ++d) {
            const float v = fmaf(xv[i][d], aa[d], -ab[d]);
            out[i][d] = fmaf(q[i][j], fmaf(h2[d], v, h1[d]), out[i][d]);
            out[i][d] = fmaf(-dl[i][j], v, out[i][d]);
          }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < TR; ++i) {
    const int row = start + tr + i * ROW_STEP;
    if (row >= stop || d0 + td >= n_features) continue;
    float* to = d_x + (long long)row * n_features + d0 + td;
    if (n_features % 4 == 0) {
      store(to, out[i]);
    } else {
#pragma unroll
      for (int d = 0; d < TD; ++d)
        if (d0 + td + d < n_features) to[d] = out[i][d];
    }
  }
}

}  // namespace skfisher

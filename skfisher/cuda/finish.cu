// From the partial moments of chunks to sums and Fisher vectors of bags, in double precision.
//
// Sums are taken in an order that follows from a bag alone: 32 chunks make a block, summed from
// the first to the last, and then the blocks are summed from the first to the last. A bag of many
// blocks would be long work for one thread, so `add_chunks` sums the blocks beforehand; the
// order, and with it every bit of the result, is the same.
//
// Moments of y turn into those of any u = alpha y + beta, alpha and beta of a component and a
// dimension, without another look at the descriptors:
//
//   sum q u = alpha S1 + beta S0,
//   sum q u^2 = alpha (alpha S2 + beta S1) + beta (alpha S1 + beta S0).
namespace skfisher {

constexpr int CHUNKS_IN_BLOCK = 32;

// Sums numbers `size` apart, those of chunks first .. last - 1 block by block (T = float), or
// those of the blocks first .. last - 1 (T = double).
template <class T>
__device__ __forceinline__ double sum_in_order(const T* terms, long long size, int first, int last) {
  const int step = sizeof(T) == sizeof(float) ? CHUNKS_IN_BLOCK : last - first;
  double total = 0.;
  for (int block = first; block < last; block += step) {
    const int end = min(block + step, last);
    double sum = 0.;
#pragma unroll 8
    for (int i = block; i < end; ++i) sum += terms[i * size];
    total += sum;
  }
  return total;
}

// Sums the chunks, or the blocks, ranges[g] .. ranges[g + 1] - 1 of every group g.
// Grid: groups, ceil(size / 256). Result: sums [groups][size].
template <class T>
__global__ void __launch_bounds__(256, 2)
add_chunks(const T* terms, long long size, const int* ranges, double* sums) {
  const long long at = blockIdx.y * 256ll + threadIdx.x;
  if (at < size)
    sums[blockIdx.x * size + at] =
        sum_in_order(terms + at, size, ranges[blockIdx.x], ranges[blockIdx.x + 1]);
}

// The log-likelihood of every chunk: the sum over its rows of both numbers in row_norm.
// Grid: chunks, of 32 threads.
__global__ void __launch_bounds__(32)
chunk_log_likelihood(const int* chunks, const float* row_norm, double* log_likelihood) {
  const int stop = chunks[3 * blockIdx.x + 2];
  double sum = 0.;
  for (int row = chunks[3 * blockIdx.x + 1] + threadIdx.x; row < stop; row += 32)
    sum += (double)row_norm[2ll * row] + (double)row_norm[2ll * row + 1];
#pragma unroll
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x == 0) log_likelihood[blockIdx.x] = sum;
}

struct Moments {
  double s0, s1, s2;
};

// The moments of u = alpha y + beta, from those of y.
__device__ __forceinline__ Moments in_coordinates(double s0, double y1, double y2, double alpha,
                                                  double beta) {
  const double s1 = alpha * y1 + beta * s0;
  return {s0, s1, alpha * (alpha * y2 + beta * y1) + beta * s1};
}

// The moments of u = alpha y + beta of component k and dimension d: of one group, whose terms
// begin at range[0] and end before range[1].
template <class T>
__device__ __forceinline__ Moments moments_of(const T* terms, const int* range, double alpha,
                                              double beta, int K, int D, int k, int d) {
  const int width = (K + 3) / 4 * 4, depth = (D + 3) / 4 * 4;
  const long long size = width + 2ll * K * depth, at = width + (long long)k * depth + d;
  const int first = range[0], last = range[1];
  const double s0 = sum_in_order(terms + k, size, first, last);
  const double y1 = sum_in_order(terms + at, size, first, last);
  const double y2 = sum_in_order(terms + at + (long long)K * depth, size, first, last);
  return in_coordinates(s0, y1, y2, alpha, beta);
}

// Sums S0 [bags][K], S1 and S2 [bags][K][D] about u = alpha y + beta.
// Grid: bags, ceil(K D / 256); alpha and beta [2][K][D].
template <class T>
__global__ void __launch_bounds__(256, 2)
bag_sums(const T* terms, const int* ranges, const double* affine, int K, int D, double* s0,
         double* s1, double* s2) {
  const int at = blockIdx.y * 256 + threadIdx.x, k = at / D;
  if (at >= K * D) return;
  const Moments m =
      moments_of(terms, ranges + blockIdx.x, affine[at], affine[K * D + at], K, D, k, at % D);
  const long long to = (long long)blockIdx.x * K * D + at;
  s1[to] = m.s1;
  s2[to] = m.s2;
  if (at % D == 0) s0[(long long)blockIdx.x * K + k] = m.s0;
}

// Fisher vectors [bags][(K) + 2 K D], with u = (x - mu) / sigma and T descriptors in the bag:
//
//   F_w = (S0 - T w) / (T sqrt w),   F_mu = sum q u / (T sqrt w),
//   F_v = (sum q u^2 - S0) / (T sqrt(2 w)),   all 0 where w = 0.
//
// Grid: bags, ceil(K D / 256); mixture: alpha and beta [2][K][D], then w and w^(-1/2) [2][K];
// share: 1 / T of every bag.
template <class T>
__global__ void __launch_bounds__(256, 2)
bag_vectors(const T* terms, const int* ranges, const double* share, const double* mixture, int K,
            int D, int include_weights, float* encodings) {
  const int at = blockIdx.y * 256 + threadIdx.x, k = at / D;
  if (at >= K * D) return;
  const Moments m =
      moments_of(terms, ranges + blockIdx.x, mixture[at], mixture[K * D + at], K, D, k, at % D);
  const double w = mixture[2ll * K * D + k], inverse_sqrt = mixture[2ll * K * D + K + k];
  const double c = inverse_sqrt * share[blockIdx.x];
  constexpr double sqrt_half = 0.70710678118654752440;
  const int first = include_weights ? K : 0;
  float* to = encodings + blockIdx.x * (first + 2ll * K * D);
  if (include_weights && at % D == 0) to[k] = (float)(c * m.s0 - inverse_sqrt * w);
  to[first + at] = (float)(c * m.s1);
  to[first + (long long)K * D + at] = (float)(c * sqrt_half * (m.s2 - m.s0));
}

}  // namespace skfisher

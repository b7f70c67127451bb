// From the sums of bags to gradients by the parameters, in double precision.
//
// Sums over bags, like those over chunks in finish.cu, are taken in an order that is the same
// however a batch is split: 32 bags make a block, counted from the first bag of the batch. Bags
// are added to their block one after another, in several launches if need be; blocks are added
// up at the end.
//
// The sums of bags are [n_bags][size]: T = float where every bag is one chunk, else double.
namespace skfisher {

constexpr int BAGS_IN_BLOCK = 32;

// The bags of one block among those of this launch, which are `n_bags` from `first_bag` on.
struct BagsOfBlock {
  int block, first, last;  // counted within the launch

  __device__ __forceinline__ BagsOfBlock(int first_bag, int n_bags) {
    block = first_bag / BAGS_IN_BLOCK + blockIdx.x;
    first = max(block * BAGS_IN_BLOCK - first_bag, 0);
    last = min((block + 1) * BAGS_IN_BLOCK - first_bag, n_bags);
  }
};

// Adds the sums of bags to their blocks.
// Grid: blocks of bags, ceil(size / 256). Result: totals [blocks of the batch][size].
template <class T>
__global__ void __launch_bounds__(256, 2)
add_bags(const T* sums, long long size, int first_bag, int n_bags, double* totals) {
  const long long at = blockIdx.y * 256ll + threadIdx.x;
  if (at >= size) return;
  const BagsOfBlock bags(first_bag, n_bags);
  double total = totals[bags.block * size + at];
#pragma unroll 8
  for (int bag = bags.first; bag < bags.last; ++bag) total += sums[bag * size + at];
  totals[bags.block * size + at] = total;
}

// Adds what the parameters contribute to the gradient with the sums of bags held fixed. With F the
// blocks of a bag's Fisher vector and G the gradient arriving there,
//
//   weights     sum over bags of   1/2 (G_w (c S0 + sqrt w) + sum_d (G_mu F_mu + G_v F_v)),
//   means       sum over bags of   c S0 G_mu + sqrt 2 G_v F_mu,
//   variances   sum over bags of   1/2 G_mu F_mu + G_v (F_v + c S0 / sqrt 2),
//
// of which the gradients are -1 / w, -1 / sigma and -1 / v times.
//
// Grid: blocks of bags, ceil(K D / 256). g [n_bags][(K) + 2 K D]; factor [n_bags][K]: c; mixture:
// alpha and beta of finish.cu, [2][K][D], and sqrt w [K].
// Result: totals [blocks of the batch][K + 3 K D]: G_w (c S0 + sqrt w); G_mu F_mu + G_v F_v, not
// yet summed over d; the terms of the means; those of the variances.
template <class T>
__global__ void __launch_bounds__(256, 2)
add_direct_gradients(const T* sums, const double* factor, const float* g, const double* mixture,
                     int K, int D, int include_weights, int first_bag, int n_bags,
                     double* totals) {
  constexpr double SQRT_TWO = 1.4142135623730951, HALF_SQRT_TWO = 0.7071067811865476;
  const int at = blockIdx.y * 256 + threadIdx.x, k = at / D, d = at % D;
  const int width = (K + 3) / 4 * 4, depth = (D + 3) / 4 * 4;
  const long long KD = (long long)K * D, size = width + 2ll * K * depth;
  const long long at_s1 = width + (long long)k * depth + d, at_s2 = at_s1 + (long long)K * depth;
  if (at >= KD) return;
  const BagsOfBlock bags(first_bag, n_bags);
  const double alpha = mixture[at], beta = mixture[KD + at], root = mixture[2 * KD + k];
  const int first = include_weights ? K : 0;
  double* to = totals + bags.block * (K + 3 * KD);
  double by_weight = d == 0 ? to[k] : 0.;
  double along = to[K + at], by_mean = to[K + KD + at], by_variance = to[K + 2 * KD + at];
#pragma unroll 2
  for (int bag = bags.first; bag < bags.last; ++bag) {
    const T* of_bag = sums + bag * size;
    const Moments m = in_coordinates(of_bag[k], of_bag[at_s1], of_bag[at_s2], alpha, beta);
    const double c = factor[(long long)bag * K + k], share = c * m.s0;
    const double f_mean = c * m.s1, f_variance = HALF_SQRT_TWO * (c * m.s2 - share);
    const float* g_bag = g + bag * (first + 2 * KD);
    const double g_mean = g_bag[first + at], g_variance = g_bag[first + KD + at];
    if (include_weights && d == 0) by_weight += g_bag[k] * (share + root);
    along += g_mean * f_mean + g_variance * f_variance;
    by_mean += share * g_mean + SQRT_TWO * g_variance * f_mean;
    by_variance += 0.5 * g_mean * f_mean + g_variance * (f_variance + HALF_SQRT_TWO * share);
  }
  if (d == 0) to[k] = by_weight;
  to[K + at] = along;
  to[K + KD + at] = by_mean;
  to[K + 2 * KD + at] = by_variance;
}

}  // namespace skfisher

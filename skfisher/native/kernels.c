/* Kernels for the CPU: every instruction set, each for float32 and float64, and the choice.

   Nothing here knows Python: arrays come as addresses, checked by the launchers beside this file.
   A kernel returns 0, or 1 if there is no memory for its workspace. */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef ptrdiff_t size;
typedef float unaligned_float __attribute__((aligned(1), may_alias));
typedef int16_t unaligned_int16 __attribute__((aligned(1), may_alias));
typedef uint16_t unaligned_uint16 __attribute__((aligned(1), may_alias));

/* Bytes of bool are 0 or 1. */
enum kind { FLOAT32, INT8, UINT8, INT16, UINT16, BOOL };

#define SQRT_2 1.4142135623730951
#define TILE 65536           /* numbers of a tile: y, y^2 and posteriors */
#define LARGEST_TILE 4194304 /* the same, where rows are so long that few fit */
#define CARRY 256  /* rows whose sums are float32 */

/* Descriptors, where bags lie among them, and how they are assigned. Field by field the same as
   `Problem` in library.py. */
struct problem {
    const char *const *rows;           /* (n_bags,), where the first row of each bag lies */
    int64_t kind;                      /* of the numbers in rows */
    int64_t row_stride, column_stride; /* in bytes */
    const int64_t *starts, *stops; /* (n_bags,), as bags are counted where gradients go */
    int64_t n_bags, n_rows;        /* rows of all bags */
    int64_t k, d;
    int64_t order;         /* of the highest moment wanted: 0, 1 or 2 */
    int64_t hard;          /* assign to the largest logit alone */
    const void *linear;    /* (k, d), as all that follows of the kind of numbers computed in */
    const void *quadratic; /* (k, d), or null */
    const void *constant;  /* (k,) */
    const void *shift, *inverse_scale; /* (d,), or null */
};

/* What turns sums into Fisher vectors. Field by field the same as `Fisher` in library.py. */
struct fisher {
    const double *weights, *inverse_sqrt; /* (k,) */
    const double *terms;                  /* (k, 5, d): factors of s1, s0; s2, s1, s0 */
    int64_t include_weights;
    int64_t normalize; /* by power 1/2 and length */
    float *out;        /* rows `stride` numbers apart */
    int64_t stride;
};

/* What arrives at sums, or at Fisher vectors, and where it goes to. Field by field the same as
   `Gradient` in library.py. */
struct gradient {
    const void *c0, *c1, *c2;    /* at the sums of bags: (n_bags, k), twice (n_bags, k, d); or */
    const struct fisher *fisher; /* null, and */
    const float *g;              /* at Fisher vectors, rows `stride` numbers apart */
    int64_t stride;
    float *d_x;                                   /* rows of d numbers, added to; or null */
    double *d_linear, *d_quadratic, *d_constant;  /* or null */
    double *d_weights, *d_means, *d_variances;    /* as `add_direct` says, added to; or null */
};

/* Support vector machines on the way to their optimum. Field by field the same as `Ascent` in
   library.py. */
struct ascent {
    const void *x;          /* (n, d), as theta of the kind of numbers computed in */
    int64_t n, d, k;        /* samples, features, classes */
    int64_t squared;        /* whether losses are squared hinges */
    double bias;            /* what the constant feature adds to products of samples */
    const double *diagonal; /* (n,), products of samples with themselves, bias included */
    const double *signs, *costs, *ridge, *rate, *lower, *upper; /* (n, k) */
    double *b;              /* (n, k) */
    void *theta;            /* (k, d), which follows from b */
    double *intercept;      /* (k,), the same */
};

/* Descriptors that are worked on together: whole bags, or a part of a long one. */
struct tile {
    size bag, last;  /* the bags, from the first to before the last */
    size begin, n;   /* of the part: its first row in the bag; rows of all */
    int whole, ends; /* whether bags are whole; whether the part is the last of its bag */
};

/* Moves on to the next tile, of `most` rows at most; returns whether there is one. */
static int next_tile(const struct problem *q, size most, struct tile *t)
{
    if (t->n && !t->whole && !t->ends) {
        t->begin += t->n;
    } else {
        t->bag = t->last;
        t->n = t->begin = 0;
        if (t->bag >= q->n_bags)
            return 0;
        while (t->last < q->n_bags && t->n + q->stops[t->last] - q->starts[t->last] <= most) {
            t->n += q->stops[t->last] - q->starts[t->last];
            t->last++;
        }
        t->whole = t->last > t->bag;
        if (t->whole)
            return 1;
        t->last = t->bag + 1;
    }
    size length = q->stops[t->bag] - q->starts[t->bag] - t->begin;
    t->n = length < most ? length : most;
    t->ends = t->n == length;
    return 1;
}

/* The kernels of one instruction set and one kind of numbers. */
struct kernels {
    int (*bag_statistics)(
        const struct problem *, double *s0, double *s1, double *s2, const struct fisher *);
    int (*total_statistics)(
        const struct problem *, double *s0, double *s1, double *s2, double *log_likelihood);
    int (*statistics_vjp)(const struct problem *, const struct gradient *);
    void (*fisher_from_sums)(
        size n, size k, size d, const double *s0, const double *s1, const double *s2,
        const int64_t *counts, const struct fisher *);
    void (*power_l2)(const float *x, float *y, size n, size width);
    void (*power_l2_vjp)(
        const float *g, const float *x, float *d_x, size n, size width, double floor);
    int (*ascent_pass)(const struct ascent *, const int64_t *order, size n_visits);
    int (*ascent_sweeps)(
        const struct ascent *, const int64_t *order, size n_visits, size n_sweeps);
    int (*ascent_objectives)(const struct ascent *, double *primal, double *dual);
};

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define SHUFFLED(v, h) __builtin_shuffle(v, (I){LANES(h)})
#else
#define SHUFFLED(v, h) __builtin_shufflevector(v, v, LANES(h))
#endif
#define FOLD_BY(v, f, h)                \
    {                                   \
        V other = SHUFFLED(v, h);       \
        v = f;                          \
    }
#define UNROLL _Pragma("GCC unroll 16")
#define JOIN_(x, set, bits) x##_##set##_##bits
#define JOIN(x, set, bits) JOIN_(x, set, bits)

#if defined(__x86_64__) || defined(__i386__)
#define X86 1
#define SET avx512
#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma")))
#define BYTES 64
#define PRODUCT_ROWS 8
#define SUMS_ROWS 8
#include "instruction_set.h"
#define SET avx2
#define TARGET __attribute__((target("avx2,fma")))
#define BYTES 32
#define PRODUCT_ROWS 4
#define SUMS_ROWS 4
#include "instruction_set.h"
#endif
#define SET base
#define TARGET
#define BYTES 16
#define PRODUCT_ROWS 4
#define SUMS_ROWS 4
#include "instruction_set.h"

#define KERNELS(set, bits)                                                                 \
    {                                                                                      \
        JOIN(bag_statistics, set, bits), JOIN(total_statistics, set, bits),                \
        JOIN(statistics_vjp, set, bits), JOIN(fisher_from_sums, set, bits),                \
        JOIN(power_l2, set, 32), JOIN(power_l2_vjp, set, 32),                              \
        JOIN(ascent_pass, set, bits), JOIN(ascent_sweeps, set, bits),                  \
        JOIN(ascent_objectives, set, bits),                                            \
    }

/* From the plainest on. */
static const struct kernels kernels[][2] = {
    {KERNELS(base, 32), KERNELS(base, 64)},
#if X86
    {KERNELS(avx2, 32), KERNELS(avx2, 64)},
    {KERNELS(avx512, 32), KERNELS(avx512, 64)},
#endif
};

#define EXPORT __attribute__((visibility("default")))

/* The number of the best instruction set that this machine has. */
EXPORT int skfisher_best(void)
{
#if X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
        return wide ? 2 : 1;
    }
#endif
    return 0;
}

/* Changes with the arguments of what follows. */
EXPORT int skfisher_interface(void)
{
    return 5;
}

EXPORT int skfisher_bag_statistics(
    int set, int wide, const struct problem *q, double *s0, double *s1, double *s2,
    const struct fisher *f)
{
    return kernels[set][wide].bag_statistics(q, s0, s1, s2, f);
}

EXPORT int skfisher_total_statistics(
    int set, int wide, const struct problem *q, double *s0, double *s1, double *s2,
    double *log_likelihood)
{
    return kernels[set][wide].total_statistics(q, s0, s1, s2, log_likelihood);
}

EXPORT int skfisher_statistics_vjp(
    int set, int wide, const struct problem *q, const struct gradient *g)
{
    return kernels[set][wide].statistics_vjp(q, g);
}

EXPORT int skfisher_fisher_from_sums(
    int set, int wide, int64_t n, int64_t k, int64_t d, const double *s0, const double *s1,
    const double *s2, const int64_t *counts, const struct fisher *f)
{
    kernels[set][wide].fisher_from_sums(n, k, d, s0, s1, s2, counts, f);
    return 0;
}

EXPORT int skfisher_power_l2(int set, int wide, const float *x, float *y, int64_t n, int64_t width)
{
    kernels[set][wide].power_l2(x, y, n, width);
    return 0;
}

EXPORT int skfisher_power_l2_vjp(
    int set, int wide, const float *g, const float *x, float *d_x, int64_t n, int64_t width,
    double floor)
{
    kernels[set][wide].power_l2_vjp(g, x, d_x, n, width, floor);
    return 0;
}

EXPORT int skfisher_ascent_pass(
    int set, int wide, const struct ascent *q, const int64_t *order, int64_t n_visits)
{
    return kernels[set][wide].ascent_pass(q, order, n_visits);
}

EXPORT int skfisher_ascent_sweeps(
    int set, int wide, const struct ascent *q, const int64_t *order, int64_t n_visits,
    int64_t n_sweeps)
{
    return kernels[set][wide].ascent_sweeps(q, order, n_visits, n_sweeps);
}

EXPORT int skfisher_ascent_objectives(
    int set, int wide, const struct ascent *q, double *primal, double *dual)
{
    return kernels[set][wide].ascent_objectives(q, primal, dual);
}

/* One instruction set and one kind of numbers: what the kernels are written in.

   The includer defines TARGET, BYTES of a vector, PRODUCT_ROWS, SUMS_ROWS and SET, and WIDE for
   float64. Vectors are those of GCC and Clang, which compile to the registers of any machine. */

#if WIDE
#define REAL double
#define INTEGER int64_t
#define UNSIGNED uint64_t
#define NAME(x) JOIN(x, SET, 64)
#define W (BYTES / 8)
#define LEAST -667.0 /* 1e-290 */
#define HUGE_REAL 1e300
#define MANTISSA 52
#define ROUNDER 6755399441055744.0 /* 1.5 x 2^52: adding it rounds to whole numbers */
#define LOG_2_HIGH 0.693147180369123816490
#define LOG_2_LOW 1.90821492927058770002e-10
#define LAST_TERM (1 / 6227020800.0)
#define TERM_BEFORE (1 / 479001600.0)
#define EXPONENTIAL_SERIES(s, r)  \
    s = s * r + 1 / 39916800.0;   \
    s = s * r + 1 / 3628800.0;    \
    s = s * r + 1 / 362880.0;     \
    s = s * r + 1 / 40320.0;      \
    s = s * r + 1 / 5040.0;       \
    s = s * r + 1 / 720.0;        \
    s = s * r + 1 / 120.0;        \
    s = s * r + 1 / 24.0;         \
    s = s * r + 1 / 6.0;          \
    s = s * r + 0.5;              \
    s = s * r + 1.0;              \
    s = s * r + 1.0
#else
#define REAL float
#define INTEGER int32_t
#define UNSIGNED uint32_t
#define NAME(x) JOIN(x, SET, 32)
#define W (BYTES / 4)
#define LEAST -69.0f /* 1e-30 */
#define HUGE_REAL 1e37f
#define MANTISSA 23
#define ROUNDER 12582912.0f /* 1.5 x 2^23 */
#define LOG_2_HIGH 0.693359375f
#define LOG_2_LOW -2.12194440e-4f
#define LAST_TERM (1 / 5040.0f)
#define TERM_BEFORE (1 / 720.0f)
#define EXPONENTIAL_SERIES(s, r) \
    s = s * r + 1 / 120.0f;      \
    s = s * r + 1 / 24.0f;       \
    s = s * r + 1 / 6.0f;        \
    s = s * r + 0.5f;            \
    s = s * r + 1.0f;            \
    s = s * r + 1.0f
#endif
#define NARROW(x) JOIN(x, SET, 32)
#define PADDED_LOGIT (-HUGE_REAL)

#define V NAME(vector)
#define I NAME(integers)
#define U NAME(unsigned)
typedef REAL V __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef INTEGER I __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
typedef UNSIGNED U __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define ZERO ((V){0})
#define LOAD(p) (*(const V *)(p))
#define STORE(p, v) (*(V *)(p) = (v))

/* Lanes change places with those a distance away; FOLD takes all distances, in one order. */
#if W == 16
#define LANES(h) h, 1 ^ h, 2 ^ h, 3 ^ h, 4 ^ h, 5 ^ h, 6 ^ h, 7 ^ h, 8 ^ h, 9 ^ h, 10 ^ h, 11 ^ h, \
                 12 ^ h, 13 ^ h, 14 ^ h, 15 ^ h
#elif W == 8
#define LANES(h) h, 1 ^ h, 2 ^ h, 3 ^ h, 4 ^ h, 5 ^ h, 6 ^ h, 7 ^ h
#elif W == 4
#define LANES(h) h, 1 ^ h, 2 ^ h, 3 ^ h
#else
#define LANES(h) h, 1 ^ h
#endif
#if W == 16
#define FOLD(v, f) FOLD_BY(v, f, 8) FOLD_BY(v, f, 4) FOLD_BY(v, f, 2) FOLD_BY(v, f, 1)
#elif W == 8
#define FOLD(v, f) FOLD_BY(v, f, 4) FOLD_BY(v, f, 2) FOLD_BY(v, f, 1)
#elif W == 4
#define FOLD(v, f) FOLD_BY(v, f, 2) FOLD_BY(v, f, 1)
#else
#define FOLD(v, f) FOLD_BY(v, f, 1)
#endif

#include "products.h"
#include "softmax.h"
#if !WIDE
#include "normalization.h" /* of results, which are float32 */
#endif
#include "statistics.h"
#include "vjp.h"
#include "ascent.h"

#undef REAL
#undef INTEGER
#undef UNSIGNED
#undef NAME
#undef W
#undef LEAST
#undef HUGE_REAL
#undef MANTISSA
#undef ROUNDER
#undef LOG_2_HIGH
#undef LOG_2_LOW
#undef LAST_TERM
#undef TERM_BEFORE
#undef EXPONENTIAL_SERIES
#undef NARROW
#undef PADDED_LOGIT
#undef V
#undef I
#undef U
#undef ZERO
#undef LOAD
#undef STORE
#undef LANES
#undef FOLD
#undef CONVERT

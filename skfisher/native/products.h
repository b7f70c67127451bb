/* The two matrix products that everything rests on, and the layout of what they read.

       product:  P = c + Y M      (n, width) from rows Y (n, columns), M (columns, width)
       sums:     S += P' Y        (k, width) from P (n, k), Y (n, width)

   Both keep a block of the result in registers and read the rest once from the nearest cache.
   Rows are padded with zeros to whole vectors, and blocks of rows to a multiple of ROWS, so no
   loop has a tail: what is computed beyond the result is not read.

   M is packed in panels of two vectors of columns, the last of one if that is what is left. */

/* How many lanes of REAL numbers hold n, and no less than sums takes at a time. */
static size NAME(padded)(size n)
{
    size lanes = W > SUMS_ROWS ? W : SUMS_ROWS;
    return (n + lanes - 1) / lanes * lanes;
}

/* Packs a (k, columns) matrix as the transpose of it, or, of a stack of them, behind column
   `first`: row j of `a` becomes column j of the panels. */
static TARGET void NAME(pack_transposed)(
    const REAL *a, size k, size d, REAL factor, size first, size columns, size width, REAL *m)
{
    for (size w = 0; w < width; w += 2 * W) {
        size lanes = width - w < 2 * W ? width - w : 2 * W;
        for (size j = 0; j < lanes; j++)
            for (size i = 0; i < d; i++)
                m[w * columns + (first + i) * lanes + j] = w + j < k ? factor * a[(w + j) * d + i] : 0;
    }
}

/* Packs row j of a (k, columns) matrix as row first + j of the panels, from column `at` on. */
static TARGET void NAME(pack_rows)(
    const REAL *a, size k, size d, REAL factor, size first, size at, size columns, size width,
    REAL *m)
{
    for (size w = 0; w < width; w += 2 * W) {
        size lanes = width - w < 2 * W ? width - w : 2 * W;
        size low = w > at ? w : at, high = w + lanes < at + d ? w + lanes : at + d;
        for (size j = 0; j < k; j++)
            for (size i = low; i < high; i++)
                m[w * columns + (first + j) * lanes + i - w] = factor * a[j * d + i - at];
    }
}

#define PRODUCT(name, N)                                                                         \
    static inline TARGET void NAME(name)(                                                        \
        const REAL *y, size ldy, size n, size columns, const REAL *m, const REAL *c, REAL *p, \
        size ldp)                                                                               \
    {                                                                                            \
        for (size t = 0; t < n; t += PRODUCT_ROWS) {                                            \
            V a[PRODUCT_ROWS][N];                                                                \
            const REAL *yt = y + t * ldy, *md = m;                                               \
            UNROLL for (int r = 0; r < PRODUCT_ROWS; r++)                                        \
                UNROLL for (int v = 0; v < N; v++)                                               \
                    a[r][v] = ZERO;                                                            \
            for (size d = 0; d < columns; d++, md += N * W)                                     \
                UNROLL for (int r = 0; r < PRODUCT_ROWS; r++) {                                  \
                    REAL b = yt[r * ldy + d];                                                    \
                    UNROLL for (int v = 0; v < N; v++)                                           \
                        a[r][v] += b * LOAD(md + W * v);                                         \
                }                                                                                \
            UNROLL for (int r = 0; r < PRODUCT_ROWS; r++)                                        \
                UNROLL for (int v = 0; v < N; v++)                                               \
                    STORE(p + (t + r) * ldp + W * v, a[r][v] + (c ? LOAD(c + W * v) : ZERO));     \
        }                                                                                        \
    }

PRODUCT(product_of_two, 2)
PRODUCT(product_of_one, 1)

/* n is rounded up to a multiple of ROWS. */
static TARGET void NAME(product)(
    const REAL *y, size ldy, size n, size columns, const REAL *m, const REAL *c, size width,
    REAL *p, size ldp)
{
    size w = 0;
    for (; w + 2 * W <= width; w += 2 * W)
        NAME(product_of_two)(y, ldy, n, columns, m + w * columns, c ? c + w : 0, p + w, ldp);
    if (w < width)
        NAME(product_of_one)(y, ldy, n, columns, m + w * columns, c ? c + w : 0, p + w, ldp);
}

#define SUMS(name, N)                                                                            \
    static inline TARGET void NAME(name)(                                                        \
        const REAL *p, size ldp, const REAL *y, size ldy, size n, size k, REAL *s, size lds)\
    {                                                                                            \
        for (size j = 0; j < k; j += SUMS_ROWS) {                                               \
            V a[SUMS_ROWS][N];                                                                   \
            const REAL *pt = p + j, *yt = y;                                                     \
            UNROLL for (int i = 0; i < SUMS_ROWS; i++)                                           \
                UNROLL for (int v = 0; v < N; v++)                                               \
                    a[i][v] = LOAD(s + (j + i) * lds + W * v);                                   \
            for (size t = 0; t < n; t++, pt += ldp, yt += ldy)                                  \
                UNROLL for (int i = 0; i < SUMS_ROWS; i++)                                       \
                    UNROLL for (int v = 0; v < N; v++)                                           \
                        a[i][v] += pt[i] * LOAD(yt + W * v);                                     \
            UNROLL for (int i = 0; i < SUMS_ROWS; i++)                                           \
                UNROLL for (int v = 0; v < N; v++)                                               \
                    STORE(s + (j + i) * lds + W * v, a[i][v]);                                   \
        }                                                                                        \
    }

SUMS(sums_of_two, 2)
SUMS(sums_of_one, 1)

static TARGET void NAME(sums)(
    const REAL *p, size ldp, const REAL *y, size ldy, size n, size k, size width, REAL *s,
    size lds)
{
    size w = 0;
    for (; w + 2 * W <= width; w += 2 * W)
        NAME(sums_of_two)(p, ldp, y + w, ldy, n, k, s + w, lds);
    if (w < width)
        NAME(sums_of_one)(p, ldp, y + w, ldy, n, k, s + w, lds);
}

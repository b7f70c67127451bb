/* Soft and hard assignment: what becomes of a row of logits. */

static inline TARGET V NAME(larger)(V a, V b)
{
    I mask = a > b;
    return (V)((mask & (I)a) | (~mask & (I)b));
}

/* Every lane of the result holds the largest, or the sum, of all lanes. */
static inline TARGET V NAME(largest_lane)(V v)
{
    FOLD(v, NAME(larger)(v, other));
    return v;
}

static inline TARGET V NAME(sum_of_lanes)(V v)
{
    FOLD(v, v + other);
    return v;
}

/* exp of x <= 0. What is below LEAST counts as LEAST: products with denormal numbers take many
   times longer. NaN stays NaN. With n = round(x / log 2) and |r| <= log(2) / 2, exp(x) = 2^n exp(r);
   n sits in the low bits of t, and the series of exp(r) ends where it no longer counts. */
static inline TARGET V NAME(exponential)(V x)
{
    I low = x < LEAST;
    x = (V)((low & (I)(ZERO + LEAST)) | (~low & (I)x));
    V t = x * (REAL)1.4426950408889634 + ROUNDER, n = t - ROUNDER;
    V r = x - n * LOG_2_HIGH - n * LOG_2_LOW;
    V series = r * LAST_TERM + TERM_BEFORE;
    EXPONENTIAL_SERIES(series, r);
    return series * (V)(((U)t << MANTISSA) + (U)(ZERO + 1));
}

/* Turns n rows of logits into posteriors. Where asked for, `largest` gets the largest logit of a row
   and `total` the sum of exponentials relative to it. */
static TARGET void NAME(softmax)(
    REAL *p, size ldp, size n, size width, REAL *largest, REAL *total)
{
    for (size t = 0; t < n; t++, p += ldp) {
        V most = LOAD(p);
        for (size k = W; k < width; k += W)
            most = NAME(larger)(LOAD(p + k), most);
        most = NAME(largest_lane)(most);
        /* No component is this far from a descriptor that can be represented: the logits
           overflowed. Padding is not to win then. */
        if (!(most[0] > -HUGE_REAL))
            most = ZERO + (REAL)NAN;
        V sum = ZERO;
        for (size k = 0; k < width; k += W) {
            V e = NAME(exponential)(LOAD(p + k) - most);
            STORE(p + k, e);
            sum += e;
        }
        sum = NAME(sum_of_lanes)(sum);
        REAL inverse = 1 / sum[0];
        for (size k = 0; k < width; k += W)
            STORE(p + k, LOAD(p + k) * inverse);
        if (largest) {
            largest[t] = most[0];
            total[t] = sum[0];
        }
    }
}

/* Writes the first of the largest logits of each row. */
static TARGET void NAME(hard)(
    const REAL *p, size ldp, size n, size k, size width, int32_t *chosen)
{
    for (size t = 0; t < n; t++, p += ldp) {
        V most = LOAD(p);
        for (size j = W; j < width; j += W)
            most = NAME(larger)(LOAD(p + j), most);
        REAL largest = NAME(largest_lane)(most)[0];
        size first = 0;
        while (first < k && p[first] != largest)
            first++;
        chosen[t] = first < k ? (int32_t)first : 0; /* none is equal to NaN */
    }
}

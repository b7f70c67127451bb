/* Power 1/2 and L2 in one: with S the sum of all |x|, y = sign(x) sqrt(|x| / S), because the squares
   of the roots add up to S. */

/* The sum and the largest of |x|, the sum in float64 over blocks of 64 vectors. */
static TARGET double NAME(sum_of_sizes)(const float *x, size n, float *largest)
{
    double total = 0;
    V most = ZERO;
    size i = 0;
    while (i + W <= n) {
        V sum = ZERO;
        for (size j = 0; j < 64 && i + W <= n; j++, i += W) {
            V a = LOAD(x + i);
            a = NAME(larger)(a, -a);
            most = NAME(larger)(a, most);
            sum += a;
        }
        total += NAME(sum_of_lanes)(sum)[0];
    }
    float tail = 0, top = NAME(largest_lane)(most)[0];
    for (; i < n; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        tail += a;
        top = a > top ? a : top;
    }
    *largest = top;
    return total + tail;
}

static double NAME(scaled_sum)(const float *x, size n, float scale)
{
    double sum = 0;
    for (size i = 0; i < n; i++)
        sum += fabs((double)x[i] * scale);
    return sum;
}

/* A power of two that takes the largest to where neither sums nor inverses leave the range. */
static float NAME(rescaling)(float largest)
{
    return largest < 1e-30f ? 0x1p100f : largest > 1e30f ? 0x1p-100f : 1;
}

/* y may be x. */
static TARGET void NAME(roots)(const float *x, float *y, size n, float scale, float inverse)
{
    for (size i = 0; i < n; i++) {
        float a = (x[i] < 0 ? -x[i] : x[i]) * scale;
        y[i] = copysignf(sqrtf(a * inverse), x[i]);
    }
}

/* y may be x. Rows of zeros stay zero. */
static TARGET void NAME(normalize)(const float *x, float *y, size n)
{
    float largest;
    double sum = NAME(sum_of_sizes)(x, n, &largest);
    float scale = NAME(rescaling)(largest);
    if (scale != 1)
        sum = NAME(scaled_sum)(x, n, scale);
    NAME(roots)(x, y, n, scale, sum == 0 ? 0 : (float)(1 / sum));
}

static TARGET void NAME(power_l2)(const float *x, float *y, size n, size width)
{
    for (size i = 0; i < n; i++)
        NAME(normalize)(x + i * width, y + i * width, width);
}

/* Of one row: d_x = (g - <g, y> y) / (2 sqrt(S |x|)), where |x| counts as no less than the share
   `floor` of the largest, and 0 where x is. */
static TARGET void NAME(normalize_vjp)(
    const float *restrict g, const float *restrict x, float *restrict d_x, size n, double floor)
{
    float largest;
    double sum = NAME(sum_of_sizes)(x, n, &largest), dot = 0;
    float scale = NAME(rescaling)(largest);
    if (scale != 1)
        sum = NAME(scaled_sum)(x, n, scale);
    NAME(roots)(x, d_x, n, scale, sum == 0 ? 0 : (float)(1 / sum));
    size i = 0;
    double lanes[8] = {0};
    for (; i + 8 <= n; i += 8)
        for (size j = 0; j < 8; j++)
            lanes[j] += (double)g[i + j] * d_x[i + j];
    for (size j = 0; j < 8; j++)
        dot += lanes[j];
    for (; i < n; i++)
        dot += (double)g[i] * d_x[i];
    const float half = sum == 0 ? 0 : (float)(0.5 * scale / sqrt(sum)), radial = (float)dot;
    const float least = (float)floor * largest * scale;
    for (i = 0; i < n; i++) {
        float a = (x[i] < 0 ? -x[i] : x[i]) * scale;
        float slope = half / sqrtf(a > least ? a : least);
        d_x[i] = x[i] == 0 ? 0 : slope * (g[i] - radial * d_x[i]);
    }
}

static TARGET void NAME(power_l2_vjp)(
    const float *g, const float *x, float *d_x, size n, size width, double floor)
{
    for (size i = 0; i < n; i++)
        NAME(normalize_vjp)(g + i * width, x + i * width, d_x + i * width, width, floor);
}

/* Dual coordinate ascent, all classes at once, as in svm/sdca.py: a pass over the samples,

       b_i <- clip((y_i - theta' x_i + K_ii b_i) r_i),   theta += (change of b_i) x_i,

   and the objectives P and D with theta = sum_i b_i x_i computed anew.

   One sample after the other. Lanes hold features; the weights theta, and the sample, are copied to
   where rows are padded with zeros to whole vectors. The weights are read once for the scores of a
   sample, and once more for those classes alone whose dual variable changes: at a bound most do
   not. */

/* Writes the products of a sample with the weights of N classes; A vectors of each are summed apart,
   so that no sum waits for the one before. */
#define SCORES(name, N, A)                                                                   \
    static inline TARGET void NAME(name)(                                                    \
        const REAL *x, const REAL *theta, size width, double *scores)                        \
    {                                                                                        \
        V sums[N][A];                                                                        \
        size j = 0;                                                                          \
        UNROLL for (int c = 0; c < N; c++)                                                   \
            UNROLL for (int a = 0; a < A; a++)                                               \
                sums[c][a] = ZERO;                                                           \
        for (; j + A * W <= width; j += A * W)                                               \
            UNROLL for (int a = 0; a < A; a++) {                                             \
                V v = LOAD(x + j + a * W);                                                   \
                UNROLL for (int c = 0; c < N; c++)                                           \
                    sums[c][a] += v * LOAD(theta + c * width + j + a * W);                   \
            }                                                                                \
        for (; j < width; j += W) {                                                          \
            V v = LOAD(x + j);                                                               \
            UNROLL for (int c = 0; c < N; c++)                                               \
                sums[c][0] += v * LOAD(theta + c * width + j);                               \
        }                                                                                    \
        UNROLL for (int c = 0; c < N; c++) {                                                 \
            V sum = sums[c][0];                                                              \
            UNROLL for (int a = 1; a < A; a++)                                               \
                sum += sums[c][a];                                                           \
            scores[c] = NAME(sum_of_lanes)(sum)[0];                                          \
        }                                                                                    \
    }

SCORES(scores_of_four, 4, 2)
SCORES(scores_of_one, 1, 4)

/* Weights of all classes and one sample, rows padded, and two numbers for each class. */
struct NAME(ascent_workspace) {
    size width;
    REAL *theta, *x;
    double *scores, *change;
};

/* Returns 0 if there is no memory. */
static TARGET int NAME(open_ascent)(const struct ascent *q, struct NAME(ascent_workspace) *w)
{
    const size k = q->k, width = (q->d + W - 1) / W * W;
    w->width = width;
    w->theta = calloc((k + 1) * width, sizeof(REAL));
    w->scores = calloc(2 * k, sizeof(double));
    w->x = w->theta + k * width;
    w->change = w->scores + k;
    if (w->theta && w->scores)
        return 1;
    free(w->theta);
    free(w->scores);
    return 0;
}

static TARGET void NAME(close_ascent)(const struct ascent *q, const struct NAME(ascent_workspace) *w)
{
    for (size c = 0; c < q->k; c++)
        memcpy((REAL *)q->theta + c * q->d, w->theta + c * w->width, q->d * sizeof(REAL));
    free(w->theta);
    free(w->scores);
}

static TARGET void NAME(read_sample)(
    const struct ascent *q, size i, const struct NAME(ascent_workspace) *w)
{
    memcpy(w->x, (const REAL *)q->x + i * q->d, q->d * sizeof(REAL));
}

/* Scores of the sample that was read. */
static TARGET void NAME(score_sample)(const struct ascent *q, const struct NAME(ascent_workspace) *w)
{
    size c = 0;
    for (; c + 4 <= q->k; c += 4)
        NAME(scores_of_four)(w->x, w->theta + c * w->width, w->width, w->scores + c);
    for (; c < q->k; c++)
        NAME(scores_of_one)(w->x, w->theta + c * w->width, w->width, w->scores + c);
    for (c = 0; c < q->k; c++)
        w->scores[c] += q->intercept[c];
}

/* Adds a multiple of the sample that was read to the weights of each class. */
static TARGET void NAME(add_sample)(
    const struct ascent *q, const double *multiples, const struct NAME(ascent_workspace) *w)
{
    for (size c = 0; c < q->k; c++) {
        if (multiples[c] == 0)
            continue;
        const REAL multiple = (REAL)multiples[c];
        REAL *theta = w->theta + c * w->width;
        for (size j = 0; j < w->width; j += W)
            STORE(theta + j, LOAD(theta + j) + multiple * LOAD(w->x + j));
        q->intercept[c] += q->bias * multiples[c];
    }
}

static TARGET int NAME(ascent_pass)(const struct ascent *q, const int64_t *order)
{
    struct NAME(ascent_workspace) w;
    if (!NAME(open_ascent)(q, &w))
        return 1;
    for (size c = 0; c < q->k; c++)
        memcpy(w.theta + c * w.width, (REAL *)q->theta + c * q->d, q->d * sizeof(REAL));
    for (size t = 0; t < q->n; t++) {
        const size i = order[t], at = i * q->k;
        const double *signs = q->signs + at, *rate = q->rate + at;
        const double *lower = q->lower + at, *upper = q->upper + at;
        double *b = q->b + at;
        NAME(read_sample)(q, i, &w);
        NAME(score_sample)(q, &w);
        for (size c = 0; c < q->k; c++) {
            double new = (signs[c] - w.scores[c] + q->diagonal[i] * b[c]) * rate[c];
            new = new < lower[c] ? lower[c] : new;
            new = new > upper[c] ? upper[c] : new;
            w.change[c] = new - b[c];
            b[c] = new;
        }
        NAME(add_sample)(q, w.change, &w);
    }
    NAME(close_ascent)(q, &w);
    return 0;
}

static TARGET int NAME(ascent_objectives)(const struct ascent *q, double *primal, double *dual)
{
    const size k = q->k;
    struct NAME(ascent_workspace) w;
    if (!NAME(open_ascent)(q, &w))
        return 1;
    for (size c = 0; c < k; c++)
        q->intercept[c] = primal[c] = dual[c] = 0;
    for (size i = 0; i < q->n; i++) {
        NAME(read_sample)(q, i, &w);
        NAME(add_sample)(q, q->b + i * k, &w);
    }
    for (size i = 0; i < q->n; i++) {
        const double *signs = q->signs + i * k, *costs = q->costs + i * k;
        const double *ridge = q->ridge + i * k, *b = q->b + i * k;
        NAME(read_sample)(q, i, &w);
        NAME(score_sample)(q, &w);
        for (size c = 0; c < k; c++) {
            const double shortfall = 1 - signs[c] * w.scores[c], a = fabs(b[c]);
            const double loss = shortfall < 0 ? 0 : q->squared ? shortfall * shortfall : shortfall;
            const double penalty = b[c] * w.scores[c] / 2;
            primal[c] += penalty + costs[c] * loss;
            dual[c] += a - a * a * ridge[c] / 2 - penalty;
        }
    }
    NAME(close_ascent)(q, &w);
    return 0;
}

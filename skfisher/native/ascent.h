/* Dual coordinate ascent, all classes at once, as in svm/sdca.py: a pass over the samples,

       b_i <- clip((y_i - theta' x_i + K_ii b_i) r_i),   theta += (change of b_i) x_i,

   sweeps over the variables between their bounds, and the objectives P and D with theta = sum_i b_i x_i computed anew.

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

/* Weights of all classes and one sample, rows padded, and its scores. */
struct NAME(ascent_workspace) {
    size width;
    REAL *theta, *x;
    double *scores;
};

/* Reads the weights; returns 0 if there is no memory. */
static TARGET int NAME(open_ascent)(const struct ascent *q, struct NAME(ascent_workspace) *w)
{
    const size k = q->k, width = (q->d + W - 1) / W * W;
    w->width = width;
    w->theta = calloc((k + 1) * width, sizeof(REAL));
    w->scores = malloc(k * sizeof(double));
    w->x = w->theta + k * width;
    if (!w->theta || !w->scores) {
        free(w->theta);
        free(w->scores);
        return 0;
    }
    for (size c = 0; c < k; c++)
        memcpy(w->theta + c * width, (const REAL *)q->theta + c * q->d, q->d * sizeof(REAL));
    return 1;
}

/* Writes the weights back. */
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

/* Scores of the sample that was read, without intercepts. */
static TARGET void NAME(score_sample)(const struct ascent *q, const struct NAME(ascent_workspace) *w)
{
    size c = 0;
    for (; c + 4 <= q->k; c += 4)
        NAME(scores_of_four)(w->x, w->theta + c * w->width, w->width, w->scores + c);
    for (; c < q->k; c++)
        NAME(scores_of_one)(w->x, w->theta + c * w->width, w->width, w->scores + c);
}

/* Adds a multiple of the sample that was read to the weights of a class. */
static TARGET void NAME(add_sample)(
    const struct ascent *q, size c, double multiple, const struct NAME(ascent_workspace) *w)
{
    if (multiple == 0)
        return;
    REAL *theta = w->theta + c * w->width;
    for (size j = 0; j < w->width; j += W)
        STORE(theta + j, LOAD(theta + j) + (REAL)multiple * LOAD(w->x + j));
    q->intercept[c] += q->bias * multiple;
}

/* Sets the dual variable of a class and the sample that was read to its optimum. */
static inline TARGET void NAME(maximize)(
    const struct ascent *q, size i, size c, double score, const struct NAME(ascent_workspace) *w)
{
    const size at = i * q->k + c;
    const double old = q->b[at], low = q->lower[at], high = q->upper[at];
    double b = (q->signs[at] - score - q->intercept[c] + q->diagonal[i] * old) * q->rate[at];
    b = b < low ? low : b;
    b = b > high ? high : b;
    q->b[at] = b;
    NAME(add_sample)(q, c, b - old, w);
}

/* Visits all variables of samples in an order. */
static TARGET int NAME(ascent_pass)(const struct ascent *q, const int64_t *order, size n_visits)
{
    struct NAME(ascent_workspace) w;
    if (!NAME(open_ascent)(q, &w))
        return 1;
    for (size t = 0; t < n_visits; t++) {
        NAME(read_sample)(q, order[t], &w);
        NAME(score_sample)(q, &w);
        for (size c = 0; c < q->k; c++)
            NAME(maximize)(q, order[t], c, w.scores[c], &w);
    }
    NAME(close_ascent)(q, &w);
    return 0;
}

/* Visits those variables of samples, in an order, that are at no bound: again and again. */
static TARGET int NAME(ascent_sweeps)(
    const struct ascent *q, const int64_t *order, size n_visits, size n_sweeps)
{
    struct NAME(ascent_workspace) w;
    if (!NAME(open_ascent)(q, &w))
        return 1;
    for (size s = 0; s < n_sweeps; s++)
        for (size t = 0; t < n_visits; t++) {
            const size i = order[t];
            NAME(read_sample)(q, i, &w);
            for (size c = 0; c < q->k; c++) {
                const size at = i * q->k + c;
                if (!(q->lower[at] < q->b[at] && q->b[at] < q->upper[at]))
                    continue;
                double score;
                NAME(scores_of_one)(w.x, w.theta + c * w.width, w.width, &score);
                NAME(maximize)(q, i, c, score, &w);
            }
        }
    NAME(close_ascent)(q, &w);
    return 0;
}

/* Computes the weights and the objectives of all classes. */
static TARGET int NAME(ascent_objectives)(const struct ascent *q, double *primal, double *dual)
{
    const size k = q->k;
    struct NAME(ascent_workspace) w;
    if (!NAME(open_ascent)(q, &w))
        return 1;
    memset(w.theta, 0, k * w.width * sizeof(REAL));
    for (size c = 0; c < k; c++)
        q->intercept[c] = primal[c] = dual[c] = 0;
    for (size i = 0; i < q->n; i++) {
        NAME(read_sample)(q, i, &w);
        for (size c = 0; c < k; c++)
            NAME(add_sample)(q, c, q->b[i * k + c], &w);
    }
    for (size i = 0; i < q->n; i++) {
        const double *signs = q->signs + i * k, *costs = q->costs + i * k;
        const double *ridge = q->ridge + i * k, *b = q->b + i * k;
        NAME(read_sample)(q, i, &w);
        NAME(score_sample)(q, &w);
        for (size c = 0; c < k; c++) {
            const double score = w.scores[c] + q->intercept[c], a = fabs(b[c]);
            const double shortfall = 1 - signs[c] * score, penalty = b[c] * score / 2;
            const double loss = shortfall < 0 ? 0 : q->squared ? shortfall * shortfall : shortfall;
            primal[c] += penalty + costs[c] * loss;
            dual[c] += a - a * a * ridge[c] / 2 - penalty;
        }
    }
    NAME(close_ascent)(q, &w);
    return 0;
}

/* The way back: from gradients at the sums of bags, or at their Fisher vectors, to descriptors and
   parameters.

   With A, B, a0 the gradients at S1, S2, S0 of a bag, g the posteriors and M1, M2 the coefficients,

       q = A y + B y^2 + a0,   r = g (q - <g, q>),
       d_y = A' g + M1' r + 2 y (B' g + M2' r),   d_coefficients = sums of r, r y', r (y^2)'.

   Posteriors are computed again; a row of p holds g, then q, which r replaces. */

struct NAME(way_back) {
    size ldd;               /* of d_y */
    REAL *a, *b, *a0;       /* of one bag, (k, d), (k, d), (width,) */
    REAL *ma, *mb, *d_y;    /* packed: columns by width, [g, r] by d_y; rows of d_y */
    REAL *r, *r0;           /* sums of r, since they were last carried */
    double *sums, *sums0;   /* the same, of all bags */
    size since;
};

static size NAME(lay_out_way_back)(
    const struct problem *q, struct NAME(workspace) *w, struct NAME(way_back) *b, size n)
{
    size kd = q->k * q->d;
    b->ldd = NAME(padded)(2 * q->d);
#define ARRAY(name, numbers)                                     \
    b->name = w->block ? (void *)((char *)w->block + n) : 0;     \
    n += (((numbers) * (size)sizeof(*b->name)) + 63) / 64 * 64
    ARRAY(a, kd);
    ARRAY(b, kd);
    ARRAY(a0, w->width);
    ARRAY(ma, w->columns * w->width);
    ARRAY(mb, 2 * w->width * b->ldd);
    ARRAY(d_y, (w->rows + 8) * b->ldd);
    ARRAY(r, w->width * w->ldy);
    ARRAY(r0, w->width);
    ARRAY(sums, w->width * w->ldy);
    ARRAY(sums0, w->width);
#undef ARRAY
    return n;
}

/* Packs [A; 2 B] or [M1; 2 M2] as rows first.. of what [g, r] is multiplied with. */
static TARGET void NAME(pack_slopes)(
    const struct problem *q, const struct NAME(workspace) *w, struct NAME(way_back) *b,
    const REAL *linear, const REAL *quadratic, size first)
{
    NAME(pack_rows)(linear, q->k, q->d, 1, first, 0, 2 * w->width, b->ldd, b->mb);
    NAME(pack_rows)(quadratic, q->k, q->d, 2, first, q->d, 2 * w->width, b->ldd, b->mb);
}

/* Reads the gradient at the sums of a bag, or takes it back from its Fisher vector. */
static TARGET void NAME(gradient_of_bag)(
    const struct problem *q, struct NAME(way_back) *b, const struct gradient *g, size bag)
{
    size k = q->k, d = q->d;
    if (!g->fisher) {
        memcpy(b->a0, (const REAL *)g->c0 + bag * k, k * sizeof(REAL));
        memcpy(b->a, (const REAL *)g->c1 + bag * k * d, k * d * sizeof(REAL));
        memcpy(b->b, (const REAL *)g->c2 + bag * k * d, k * d * sizeof(REAL));
        return;
    }
    const struct fisher *f = g->fisher;
    const float *restrict gw = g->g + bag * g->stride;
    const float *gm = f->include_weights ? gw + k : gw, *gv = gm + k * d;
    double share = 1.0 / (double)(q->stops[bag] - q->starts[bag]);
    for (size j = 0; j < k; j++, gm += d, gv += d) {
        const double *a = f->terms + 5 * j * d, *t = a + d, *c = t + d, *e = c + d, *h = e + d;
        REAL *restrict oa = b->a + j * d, *restrict ob = b->b + j * d;
        double lanes[8] = {0};
        size i = 0;
        for (; i < d; i++) {
            oa[i] = (REAL)((gm[i] * a[i] - gv[i] * e[i]) * share);
            ob[i] = (REAL)(gv[i] * c[i] * share);
        }
        for (i = 0; i + 8 <= d; i += 8)
            for (size l = 0; l < 8; l++)
                lanes[l] += gv[i + l] * h[i + l] - gm[i + l] * t[i + l];
        for (; i < d; i++)
            lanes[0] += gv[i] * h[i] - gm[i] * t[i];
        double a0 = f->include_weights ? gw[j] * f->inverse_sqrt[j] : 0;
        for (size l = 0; l < 8; l++)
            a0 += lanes[l];
        b->a0[j] = (REAL)(a0 * share);
    }
}

/* Adds, for one bag, the gradients by the parameters with its sums held fixed, but for factors:

       weights:   G_w (F_w / 2 + sqrt w) + 1/2 <G_mu, F_mu> + 1/2 <G_v, F_v>
       means:     c S0 G_mu + sqrt2 G_v F_mu
       variances: 1/2 G_mu F_mu + G_v F_v + c S0 G_v / sqrt2      with c = 1 / (T sqrt w). */
static TARGET void NAME(add_direct)(
    const struct problem *q, const struct NAME(workspace) *w, const struct gradient *g, size bag)
{
    const struct fisher *f = g->fisher;
    size k = q->k, d = q->d;
    const float *gw = g->g + bag * g->stride;
    const float *restrict gm = f->include_weights ? gw + k : gw, *restrict gv = gm + k * d;
    double share = 1.0 / (double)(q->stops[bag] - q->starts[bag]);
    for (size j = 0; j < k; j++, gm += d, gv += d) {
        const double s0 = w->sums0[j], factor = s0 * share * f->inverse_sqrt[j];
        const double *restrict s1 = w->sums + j * w->ldy, *restrict s2 = s1 + d;
        const double *restrict a = f->terms + 5 * j * d, *restrict t = a + d, *restrict c = t + d;
        const double *restrict e = c + d, *restrict h = e + d;
        double *restrict d_m = g->d_means + j * d, *restrict d_v = g->d_variances + j * d;
        double lanes[8] = {0};
        for (size i = 0; i < d; i++) {
            double fm = (s1[i] * a[i] - s0 * t[i]) * share;
            double fv = (s2[i] * c[i] - s1[i] * e[i] + s0 * h[i]) * share;
            d_m[i] += factor * gm[i] + SQRT_2 * gv[i] * fm;
            d_v[i] += 0.5 * gm[i] * fm + gv[i] * fv + factor * gv[i] * (1 / SQRT_2);
            lanes[i % 8] += 0.5 * (gm[i] * fm + gv[i] * fv);
        }
        double by_weight = 0;
        for (size l = 0; l < 8; l++)
            by_weight += lanes[l];
        if (f->include_weights) {
            double fw = (s0 * share - f->weights[j]) * f->inverse_sqrt[j];
            by_weight += gw[j] * (fw / 2 + sqrt(f->weights[j]));
        }
        g->d_weights[j] += by_weight;
    }
}

/* Replaces q by r. Divided by the sum of g, 1 to rounding: r sums to 0 over components. */
static TARGET void NAME(residuals)(REAL *p, size ldp, size n, size width)
{
    for (size t = 0; t < n; t++, p += ldp) {
        V dot = ZERO, sum = ZERO;
        for (size k = 0; k < width; k += W) {
            V g = LOAD(p + k);
            dot += g * LOAD(p + width + k);
            sum += g;
        }
        REAL mean = NAME(sum_of_lanes)(dot)[0] / NAME(sum_of_lanes)(sum)[0];
        for (size k = 0; k < width; k += W)
            STORE(p + width + k, LOAD(p + k) * (LOAD(p + width + k) - mean));
    }
}

static TARGET void NAME(add_d_x)(
    const struct problem *q, const struct NAME(workspace) *w, const struct NAME(way_back) *b,
    float *d_x, size at, size n)
{
    size d = q->d;
    const REAL *inverse_scale = q->inverse_scale;
    for (size t = 0; t < n; t++, d_x += d) {
        const REAL *restrict y = w->y + (at + t) * w->ldy;
        REAL *restrict d_y = b->d_y + t * b->ldd;
        for (size i = 0; i < d; i++)
            d_y[i] += y[i] * d_y[d + i];
        if (inverse_scale)
            for (size i = 0; i < d; i++)
                d_y[i] *= inverse_scale[i];
        for (size i = 0; i < d; i++)
            d_x[i] += (float)d_y[i];
    }
}

static TARGET void NAME(carry_residuals)(
    const struct problem *q, struct NAME(workspace) *w, struct NAME(way_back) *b)
{
    NAME(widen)(b->r, b->sums, q->k * w->ldy, 1);
    NAME(widen)(b->r0, b->sums0, q->k, 1);
    b->since = 0;
}

static TARGET void NAME(add_residuals)(
    const struct problem *q, struct NAME(workspace) *w, struct NAME(way_back) *b, const REAL *r,
    size at, size n)
{
    for (size k = 0; k < w->width; k += W) {
        V sum = LOAD(b->r0 + k);
        for (size t = 0; t < n; t++)
            sum += LOAD(r + t * w->ldp + k);
        STORE(b->r0 + k, sum);
    }
    NAME(sums)(r, w->ldp, w->y + at * w->ldy, w->ldy, n, q->k, NAME(padded)(2 * q->d), b->r,
               w->ldy);
    b->since += n;
    if (b->since >= CARRY)
        NAME(carry_residuals)(q, w, b);
}

static TARGET int NAME(statistics_vjp)(const struct problem *q, const struct gradient *g)
{
    struct NAME(workspace) w = {0};
    struct NAME(way_back) b = {0};
    NAME(measure)(q, &w);
    size bytes = NAME(lay_out)(q, &w, 2 * w.width);
    void *memory = calloc(1, NAME(lay_out_way_back)(q, &w, &b, bytes) + 64);
    if (!memory)
        return 1;
    w.block = (char *)memory + (64 - (uintptr_t)memory % 64);
    NAME(lay_out)(q, &w, 2 * w.width);
    NAME(lay_out_way_back)(q, &w, &b, bytes);
    NAME(load)(q, &w);
    NAME(pack_slopes)(q, &w, &b, q->linear, q->quadratic, w.width);
    for (struct tile t = {0}; next_tile(q, w.rows, &t);) {
        NAME(read_tile)(q, &w, &t);
        NAME(assign)(q, &w, t.n, 0);
        for (size bag = t.bag, at = 0; bag < t.last; bag++) {
            size length = q->stops[bag] - q->starts[bag], rows = t.whole ? length : t.n;
            REAL *p = w.p + at * w.ldp, *y = w.y + at * w.ldy;
            if (t.begin == 0) {
                NAME(gradient_of_bag)(q, &b, g, bag);
                NAME(pack_transposed)(b.a, q->k, q->d, 1, 0, w.columns, w.width, b.ma);
                NAME(pack_transposed)(b.b, q->k, q->d, 1, q->d, w.columns, w.width, b.ma);
                if (g->d_x)
                    NAME(pack_slopes)(q, &w, &b, b.a, b.b, 0);
            }
            /* rows are filled up into the next bag's q, which is not there yet */
            NAME(product)(y, w.ldy, rows, w.columns, b.ma, b.a0, w.width, p + w.width, w.ldp);
            NAME(residuals)(p, w.ldp, rows, w.width);
            if (g->d_constant)
                NAME(add_residuals)(q, &w, &b, p + w.width, at, rows);
            if (g->d_x) {
                NAME(product)(p, w.ldp, rows, 2 * w.width, b.mb, 0, b.ldd, b.d_y, b.ldd);
                NAME(add_d_x)(q, &w, &b, g->d_x + (q->starts[bag] + t.begin) * q->d, at, rows);
            }
            if (g->d_weights) {
                NAME(add_rows)(q, &w, p, at, rows);
                if (!NAME(carry_at)(q, &w, &t, rows))
                    NAME(add_direct)(q, &w, g, bag);
            }
            at += rows;
        }
    }
    if (g->d_constant) {
        NAME(carry_residuals)(q, &w, &b);
        for (size k = 0; k < q->k; k++) {
            const double *sums = b.sums + k * w.ldy;
            g->d_constant[k] = b.sums0[k];
            memcpy(g->d_linear + k * q->d, sums, q->d * sizeof(double));
            memcpy(g->d_quadratic + k * q->d, sums + q->d, q->d * sizeof(double));
        }
    }
    free(memory);
    return 0;
}

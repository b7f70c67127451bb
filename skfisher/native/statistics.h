/* Sums of softly, or hardly, assigned descriptors: of each bag, or of all of them.

   Descriptors pass in tiles that fit the second cache: several whole short bags, or a part of a
   long one. Where a long bag is cut is counted from its first row, and a row's logits are computed
   alike wherever it stands in a tile, so a bag's sums follow from the bag alone. Sums over some
   hundred rows are of the kind REAL, sums of those float64. */

struct NAME(workspace) {
    size width, columns, ldy, ldp, rows; /* of posteriors, of y; of one row of each; of a tile */
    REAL *y, *p, *m, *c, *s, *s0, *largest, *total;
    double *sums, *sums0;
    int32_t *chosen;
    size since;  /* rows of this bag whose sums are of the kind REAL */
    int carried; /* whether sums of this bag are float64 already */
    void *block;
};

static void NAME(measure)(const struct problem *q, struct NAME(workspace) *w)
{
    w->width = NAME(padded)(q->k);
    w->columns = (q->quadratic || q->order == 2 ? 2 : 1) * q->d;
    w->ldy = NAME(padded)(w->columns);
    size rows = TILE / (w->columns + q->k) / 8 * 8;
    rows = rows < 32 ? 32 : rows > 256 ? 256 : rows;
    if (rows * (w->columns + q->k) > LARGEST_TILE)
        rows = 8;
    w->rows = rows < q->n_rows ? rows : (q->n_rows + 7) / 8 * 8;
}

/* Lays the arrays of a workspace out one behind the other; returns how many bytes they take. */
static size NAME(lay_out)(const struct problem *q, struct NAME(workspace) *w, size ldp)
{
    size rows = w->rows + 8, n = 0; /* a bag's last rows are filled up beyond those of the tile */
    w->ldp = ldp;
#define ARRAY(name, numbers)                                     \
    w->name = w->block ? (void *)((char *)w->block + n) : 0;     \
    n += (((numbers) * (size)sizeof(*w->name)) + 63) / 64 * 64
    ARRAY(y, rows * w->ldy);
    ARRAY(p, rows * w->ldp);
    ARRAY(m, w->columns * w->width);
    ARRAY(c, w->width);
    ARRAY(s, w->width * w->ldy);
    ARRAY(s0, w->width);
    ARRAY(sums, w->width * w->ldy);
    ARRAY(sums0, w->width);
    ARRAY(largest, rows);
    ARRAY(total, rows);
    ARRAY(chosen, q->hard ? rows : 0);
#undef ARRAY
    return n;
}

/* Packs the coefficients of the logits. */
static TARGET void NAME(load)(const struct problem *q, struct NAME(workspace) *w)
{
    const REAL *constant = q->constant;
    size columns = (q->quadratic ? 2 : 1) * q->d;
    NAME(pack_transposed)(q->linear, q->k, q->d, 1, 0, columns, w->width, w->m);
    if (q->quadratic)
        NAME(pack_transposed)(q->quadratic, q->k, q->d, 1, q->d, columns, w->width, w->m);
    for (size k = 0; k < w->width; k++)
        w->c[k] = k < q->k ? constant[k] : PADDED_LOGIT;
}

#define CONVERT(type)                                              \
    do {                                                           \
        if (step == sizeof(type))                                  \
            for (size i = 0; i < d; i++)                           \
                y[i] = (REAL)((const type *)from)[i];              \
        else                                                       \
            for (size i = 0; i < d; i++)                           \
                y[i] = (REAL) * (const type *)(from + i * step);   \
    } while (0)

static TARGET void NAME(convert)(const struct problem *q, const char *from, REAL *restrict y)
{
    size d = q->d, step = q->column_stride;
    switch (q->kind) {
    case FLOAT32:
        CONVERT(unaligned_float);
        break;
    case INT8:
        CONVERT(int8_t);
        break;
    case INT16:
        CONVERT(unaligned_int16);
        break;
    case UINT16:
        CONVERT(unaligned_uint16);
        break;
    default:
        CONVERT(uint8_t);
    }
}

/* Reads n descriptors from row `first` of a bag as y, and y^2 if wanted, from row `at` of the tile
   on. */
static TARGET void NAME(read)(
    const struct problem *q, struct NAME(workspace) *w, size bag, size first, size n, size at)
{
    size d = q->d;
    const REAL *shift = q->shift, *inverse_scale = q->inverse_scale;
    for (size t = 0; t < n; t++) {
        const char *from = q->rows[bag] + (first + t) * q->row_stride;
        REAL *restrict y = w->y + (at + t) * w->ldy;
        NAME(convert)(q, from, y);
        if (shift)
            for (size i = 0; i < d; i++)
                y[i] = (y[i] - shift[i]) * inverse_scale[i];
        if (w->columns > d)
            for (size i = 0; i < d; i++)
                y[d + i] = y[i] * y[i];
    }
}

static void NAME(read_tile)(
    const struct problem *q, struct NAME(workspace) *w, const struct tile *t)
{
    if (!t->whole) {
        NAME(read)(q, w, t->bag, t->begin, t->n, 0);
        return;
    }
    for (size bag = t->bag, at = 0; bag < t->last; bag++) {
        size length = q->stops[bag] - q->starts[bag];
        NAME(read)(q, w, bag, 0, length, at);
        at += length;
    }
}

/* Computes the posteriors of the rows of a tile, or which component each belongs to. */
static TARGET void NAME(assign)(
    const struct problem *q, struct NAME(workspace) *w, size n, int with_likelihood)
{
    size columns = (q->quadratic ? 2 : 1) * q->d;
    NAME(product)(w->y, w->ldy, n, columns, w->m, w->c, w->width, w->p, w->ldp);
    if (q->hard)
        NAME(hard)(w->p, w->ldp, n, q->k, w->width, w->chosen);
    else
        NAME(softmax)(w->p, w->ldp, n, w->width,
                      with_likelihood ? w->largest : 0, with_likelihood ? w->total : 0);
}

/* Adds rows of the tile to the sums of the kind REAL, `p` of them by their posteriors. */
static TARGET void NAME(add_rows)(
    const struct problem *q, struct NAME(workspace) *w, const REAL *p, size at, size n)
{
    if (q->hard) {
        for (size t = at; t < at + n; t++) {
            const REAL *y = w->y + t * w->ldy;
            REAL *restrict s = w->s + w->chosen[t] * w->ldy;
            w->s0[w->chosen[t]] += 1;
            for (size i = 0; i < q->order * q->d; i++)
                s[i] += y[i];
        }
        return;
    }
    for (size k = 0; k < w->width; k += W) {
        V sum = LOAD(w->s0 + k);
        for (size t = 0; t < n; t++)
            sum += LOAD(p + t * w->ldp + k);
        STORE(w->s0 + k, sum);
    }
    if (q->order)
        NAME(sums)(p, w->ldp, w->y + at * w->ldy, w->ldy, n, q->k, NAME(padded)(q->order * q->d),
                   w->s, w->ldy);
}

static TARGET void NAME(widen)(REAL *restrict s, double *restrict sums, size n, int add)
{
    if (add)
        for (size i = 0; i < n; i++)
            sums[i] += s[i];
    else
        for (size i = 0; i < n; i++)
            sums[i] = s[i];
    memset(s, 0, n * sizeof(REAL));
}

/* Moves sums of the kind REAL to those of float64. */
static TARGET void NAME(carry)(const struct problem *q, struct NAME(workspace) *w, int add)
{
    NAME(widen)(w->s0, w->sums0, q->k, add);
    if (q->order)
        NAME(widen)(w->s, w->sums, q->k * w->ldy, add);
}

/* After so many rows of a bag: carries what is due, and tells whether more of the bag follows. */
static int NAME(carry_at)(
    const struct problem *q, struct NAME(workspace) *w, const struct tile *t, size rows)
{
    int more = !t->whole && !t->ends;
    w->since += rows;
    if (!more || w->since >= CARRY) {
        NAME(carry)(q, w, w->carried);
        w->since = 0;
        w->carried = more;
    }
    return more;
}

static void NAME(write_sums)(
    const struct problem *q, const struct NAME(workspace) *w, double *s0, double *s1, double *s2)
{
    for (size k = 0; k < q->k; k++) {
        const double *sums = w->sums + k * w->ldy;
        s0[k] = w->sums0[k];
        if (q->order > 0)
            memcpy(s1 + k * q->d, sums, q->d * sizeof(double));
        if (q->order > 1)
            memcpy(s2 + k * q->d, sums + q->d, q->d * sizeof(double));
    }
}

/* Turns the sums of a bag of n descriptors into a Fisher vector: linear in them, in float64. Those
   of a component are `step` numbers behind those of the one before. */
static TARGET void NAME(finish)(
    size k, size d, const double *sums0, const double *sums1, const double *sums2, size step,
    const struct fisher *f, size n, float *restrict out)
{
    double share = 1.0 / (double)n;
    if (f->include_weights) {
        for (size j = 0; j < k; j++)
            out[j] = (float)((sums0[j] * share - f->weights[j]) * f->inverse_sqrt[j]);
        out += k;
    }
    float *restrict out2 = out + k * d;
    for (size j = 0; j < k; j++) {
        const double s0 = sums0[j];
        const double *restrict s1 = sums1 + j * step, *restrict s2 = sums2 + j * step;
        const double *restrict a = f->terms + 5 * j * d, *restrict b = a + d, *restrict c = b + d;
        const double *restrict e = c + d, *restrict g = e + d;
        for (size i = 0; i < d; i++)
            out[j * d + i] = (float)((s1[i] * a[i] - s0 * b[i]) * share);
        for (size i = 0; i < d; i++)
            out2[j * d + i] = (float)((s2[i] * c[i] - s1[i] * e[i] + s0 * g[i]) * share);
    }
}

/* The Fisher vectors of n bags, for their sums and their numbers of descriptors. */
static TARGET void NAME(fisher_from_sums)(
    size n, size k, size d, const double *s0, const double *s1, const double *s2,
    const int64_t *counts, const struct fisher *f)
{
    for (size bag = 0; bag < n; bag++)
        NAME(finish)(k, d, s0 + bag * k, s1 + bag * k * d, s2 + bag * k * d, d, f, counts[bag],
                     f->out + bag * f->stride);
}

static size NAME(width)(const struct problem *q, const struct fisher *f)
{
    return q->k * (2 * q->d + (f->include_weights ? 1 : 0));
}

/* The sums of each bag, or their Fisher vectors if `f` is given. */
static TARGET int NAME(bag_statistics)(
    const struct problem *q, double *s0, double *s1, double *s2, const struct fisher *f)
{
    struct NAME(workspace) w = {0};
    NAME(measure)(q, &w);
    void *memory = calloc(1, NAME(lay_out)(q, &w, w.width) + 64);
    if (!memory)
        return 1;
    w.block = (char *)memory + (64 - (uintptr_t)memory % 64);
    NAME(lay_out)(q, &w, w.width);
    NAME(load)(q, &w);
    size kd = q->k * q->d;
    for (struct tile t = {0}; next_tile(q, w.rows, &t);) {
        NAME(read_tile)(q, &w, &t);
        NAME(assign)(q, &w, t.n, 0);
        for (size bag = t.bag, at = 0; bag < t.last; bag++) {
            size length = q->stops[bag] - q->starts[bag], rows = t.whole ? length : t.n;
            NAME(add_rows)(q, &w, w.p + at * w.ldp, at, rows);
            at += rows;
            if (NAME(carry_at)(q, &w, &t, rows))
                continue;
            if (f) {
                float *out = f->out + bag * f->stride;
                NAME(finish)(q->k, q->d, w.sums0, w.sums, w.sums + q->d, w.ldy, f, length, out);
                if (f->normalize)
                    NARROW(normalize)(out, out, NAME(width)(q, f));
            } else {
                NAME(write_sums)(q, &w, s0 + bag * q->k, s1 + bag * kd, s2 + bag * kd);
            }
        }
    }
    free(memory);
    return 0;
}

/* The sums of all descriptors, whatever bag they are of, and their log-likelihood. */
static TARGET int NAME(total_statistics)(
    const struct problem *q, double *s0, double *s1, double *s2, double *log_likelihood)
{
    struct NAME(workspace) w = {0};
    NAME(measure)(q, &w);
    void *memory = calloc(1, NAME(lay_out)(q, &w, w.width) + 64);
    if (!memory)
        return 1;
    w.block = (char *)memory + (64 - (uintptr_t)memory % 64);
    NAME(lay_out)(q, &w, w.width);
    NAME(load)(q, &w);
    double likelihood = 0, product = 1;
    size bag = 0, begin = 0, since = 0;
    while (bag < q->n_bags) {
        size n = 0;
        while (bag < q->n_bags && n < w.rows) {
            size left = q->stops[bag] - q->starts[bag] - begin;
            size rows = left < w.rows - n ? left : w.rows - n;
            NAME(read)(q, &w, bag, begin, rows, n);
            n += rows;
            begin += rows;
            if (rows == left) {
                bag++;
                begin = 0;
            }
        }
        NAME(assign)(q, &w, n, 1);
        NAME(add_rows)(q, &w, w.p, 0, n);
        for (size t = 0; t < n; t++) {
            likelihood += w.largest[t];
            product *= w.total[t]; /* at most k */
            if (product > 1e200) {
                likelihood += log(product);
                product = 1;
            }
        }
        since += n;
        if (since >= CARRY) {
            NAME(carry)(q, &w, 1);
            since = 0;
        }
    }
    NAME(carry)(q, &w, 1);
    NAME(write_sums)(q, &w, s0, s1, s2);
    *log_likelihood = likelihood + log(product);
    free(memory);
    return 0;
}

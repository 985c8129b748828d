/* SAM's attention with its position, in float32 on a CPU: softmax(q kᵀ / √d + rows + columns) v.

grid_attention.py says what the parts are, and compiled_attention.py calls this. No matrix of all pairs of patches exists:
TILE queries meet KEYS keys at a time, and their logits stay in the nearest cache. The largest logit of a query so far,
the sum of its weights and the weighted sum of the values go along (Milakov and Gimelshein 2018; FlashAttention, Dao et
al. 2022). */

#include "vectors.h"

#include <math.h>
#include <stdlib.h>

#define TILE 12            /* queries at once */
#define SIDE 2             /* vectors at once: TILE * SIDE sums stay in registers */
#define WIDTH (LANES * SIDE)
#define KEYS 512           /* at once: a multiple of WIDTH */
#define TILES 4            /* that meet the same keys while these are near */
#define AHEAD 1024         /* numbers that the processor should fetch in advance */

/* TILE queries of a head. */
struct tile {
    float *queries;      /* k TILE, times the scale */
    float *sums;         /* TILE k: of the weighted values */
    floats totals[TILE]; /* of the weights, in LANES parts */
    float most[TILE];    /* the largest logit */
};

/* What a thread has of one head. */
struct work {
    float *keys;   /* m/32 k 32: number 0 of 32 keys, then number 1 of them, and so on */
    float *values; /* k/32 m 32 */
    _Alignas(floats) float logits[TILE][KEYS];
    struct tile tiles[TILES];
};

/* Put a query into a tile as its row r. It has met no key yet. */
static void begin(struct tile *t, int r, const float *query, float scale, long k) {
    for (long c = 0; c < k; c++) t->queries[c * TILE + r] = query[c] * scale, t->sums[r * k + c] = 0;
    t->totals[r] = (floats){0}, t->most[r] = -1e30f;
}

/* Begin the logits of a query with its position: what it adds for the row and for the column of each key. */
static void set_position(float *logits, const float *row, const float *column, long first, long count, long side) {
    for (long j = 0; j < count;) {
        const long i = (first + j) / side, at = (first + j) % side, left = side - at < count - j ? side - at : count - j;
        if (i >= side) { /* behind the last key */
            for (; j < count; j++) logits[j] = -1e30f;
            return;
        }
        for (long l = 0; l < left; l++) logits[j + l] = (row[i] + column[at + l]) * LOG2_E;
        j += left;
    }
}

/* logits[r][j] += query r · key first + j, for `count` keys */
static void multiply_keys(struct work *w, const struct tile *t, long first, long count, long k) {
    for (long j = 0; j < count; j += WIDTH) {
        const float *keys = w->keys + (first + j) * k, *queries = t->queries;
        floats sums[TILE][SIDE];
        UNROLL for (int r = 0; r < TILE; r++)
            UNROLL for (int s = 0; s < SIDE; s++) sums[r][s] = (floats)load(w->logits[r] + j + s * LANES);
        for (long c = 0; c < k; c++, keys += WIDTH, queries += TILE) {
            const floats a = (floats)load(keys), b = (floats)load(keys + LANES);
            __builtin_prefetch(keys + AHEAD), __builtin_prefetch(keys + AHEAD + LANES);
            UNROLL for (int r = 0; r < TILE; r++) sums[r][0] += a * queries[r], sums[r][1] += b * queries[r];
        }
        UNROLL for (int r = 0; r < TILE; r++)
            UNROLL for (int s = 0; s < SIDE; s++) store(w->logits[r] + j + s * LANES, sums[r][s]);
    }
}

/* Turn the logits of a query into weights, 2^(logit - the largest so far), and scale what was summed before. */
static void weigh(struct tile *t, int r, float *logits, long count, long k) {
    const float before = t->most[r];
    floats tops = (floats){0} + before;
    for (long j = 0; j < count; j += LANES) tops = larger(tops, (floats)load(logits + j));
    for (int l = 0; l < LANES; l++) t->most[r] = tops[l] > t->most[r] ? tops[l] : t->most[r];
    const floats factor = power_of_two((floats){0} + (before - t->most[r]));
    t->totals[r] *= factor;
    for (long j = 0; j < count; j += LANES) {
        const floats weights = power_of_two((floats)load(logits + j) - t->most[r]);
        t->totals[r] += weights;
        store(logits + j, weights);
    }
    for (long c = 0; c < k; c += LANES) store(t->sums + r * k + c, (floats)load(t->sums + r * k + c) * factor);
}

/* sums[r] += Σ weight · value first + j, for `count` values with the weights logits[r][j] */
static void multiply_values(const struct work *w, struct tile *t, long first, long count, long k, long m) {
    for (long c = 0; c < k; c += WIDTH) {
        const float *values = w->values + c * m + first * WIDTH;
        floats sums[TILE][SIDE];
        UNROLL for (int r = 0; r < TILE; r++)
            UNROLL for (int s = 0; s < SIDE; s++) sums[r][s] = (floats)load(t->sums + r * k + c + s * LANES);
        for (long j = 0; j < count; j++, values += WIDTH) {
            const floats a = (floats)load(values), b = (floats)load(values + LANES);
            __builtin_prefetch(values + AHEAD), __builtin_prefetch(values + AHEAD + LANES);
            UNROLL for (int r = 0; r < TILE; r++) {
                const float weight = w->logits[r][j];
                sums[r][0] += a * weight, sums[r][1] += b * weight;
            }
        }
        UNROLL for (int r = 0; r < TILE; r++)
            UNROLL for (int s = 0; s < SIDE; s++) store(t->sums + r * k + c + s * LANES, sums[r][s]);
    }
}

/* out (pages, side², heads, width) = the attention of each head.

q, k and v are `pages` x `heads` x side² rows of `width` numbers. Their next page, head and row are strides[0], [1] and [2]
numbers away. `rows` and `columns` are pages x heads x side² x side. */
void attend_on_grid(const float *q, const float *k, const float *v, const float *rows, const float *columns, float *out,
                    const long strides[3], long pages, long heads, long side, long width, int threads) {
    const long n = side * side, m = (n + WIDTH - 1) / WIDTH * WIDTH, tiles = (n + TILE - 1) / TILE;
    const long splits = (4 * threads + pages * heads - 1) / (pages * heads); /* of the queries of a head, for all threads */
    const float scale = LOG2_E / sqrtf(width);
#pragma omp parallel num_threads(threads)
    {
        struct work w;
        w.keys = aligned_alloc(sizeof(floats), 2 * (m + TILES * TILE) * width * sizeof(float));
        w.values = w.keys + m * width;
        for (int i = 0; i < TILES; i++) {
            w.tiles[i].queries = w.values + (m + 2 * i * TILE) * width;
            w.tiles[i].sums = w.tiles[i].queries + TILE * width;
        }
        memset(w.keys, 0, 2 * m * width * sizeof(float));
#pragma omp for schedule(dynamic)
        for (long unit = 0; unit < pages * heads * splits; unit++) {
            const long page = unit / splits / heads, head = unit / splits % heads, split = unit % splits;
            const long start = page * strides[0] + head * strides[1], last = tiles * (split + 1) / splits;
            for (long j = 0; j < n; j++) {
                const float *key = k + start + j * strides[2], *value = v + start + j * strides[2];
                float *keys = w.keys + j / WIDTH * WIDTH * width + j % WIDTH;
                for (long c = 0; c < width; c++) keys[c * WIDTH] = key[c];
                for (long c = 0; c < width; c += WIDTH)
                    memcpy(w.values + c * m + j * WIDTH, value + c, WIDTH * sizeof(float));
            }
            for (long first = tiles * split / splits; first < last; first += TILES) {
                const long here = last - first < TILES ? last - first : TILES;
                long query[TILES][TILE]; /* their numbers; behind the last query, that one is repeated */
                for (int i = 0; i < here; i++)
                    for (int r = 0; r < TILE; r++) {
                        const long number = (first + i) * TILE + r;
                        query[i][r] = number < n ? number : n - 1;
                        begin(w.tiles + i, r, q + start + query[i][r] * strides[2], scale, width);
                    }
                for (long at = 0; at < m; at += KEYS) {
                    const long some = m - at < KEYS ? m - at : KEYS;
                    for (int i = 0; i < here; i++) {
                        for (int r = 0; r < TILE; r++) {
                            const long logits = ((page * heads + head) * n + query[i][r]) * side;
                            set_position(w.logits[r], rows + logits, columns + logits, at, some, side);
                        }
                        multiply_keys(&w, w.tiles + i, at, some, width);
                        for (int r = 0; r < TILE; r++) weigh(w.tiles + i, r, w.logits[r], some, width);
                        multiply_values(&w, w.tiles + i, at, some, width, m);
                    }
                }
                for (int i = 0; i < here; i++)
                    for (int r = 0; r < TILE; r++) {
                        const struct tile *t = w.tiles + i;
                        float *to = out + ((page * n + query[i][r]) * heads + head) * width, total = 0;
                        for (int l = 0; l < LANES; l++) total += t->totals[r][l];
                        for (long c = 0; c < width; c += LANES)
                            store(to + c, (floats)load(t->sums + r * width + c) / total);
                    }
            }
        }
        free(w.keys);
    }
}

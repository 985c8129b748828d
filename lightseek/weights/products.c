/* Products with a matrix, y = x Wᵀ, on a CPU. compiled.py compiles this file and calls it.

A step of generation reads each weight once, so the memory is its limit. These loops reach that limit, and they are fast
with many rows of x too. The weights are packed (compiled.py): a block has LANES rows of W, and each of its words of 32
bits holds as many neighbours of one row as fit:

    float32    1 number
    bfloat16   2 numbers: the upper half of a float32 is a bfloat16, so one shift or mask widens it
    8 bits     4 numbers from 0 to 255, which stand for -128 to 127
    4 bits     8 numbers from 0 to 15: numbers 0 to 3 are the lower halves of the four bytes, 4 to 7 the upper halves

A row of x becomes float32 for the first two kinds. For the others it becomes integers from -127 to 127 with a step: one
step for the row with 8 bits, and one for each group of 64 numbers with 4 bits. Then the sums of products are exact. Each
row gets the numbers that it would get alone, because the order of its sums does not depend on the other rows.

The types are those of vectors.h. */

#include "vectors.h"

#include <math.h>
#include <stdlib.h>
#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

#define SIDE 2             /* blocks of W that are multiplied at once */
#define WIDTH (LANES * SIDE)
#define ROWS 12            /* rows of x that are multiplied at once: ROWS * SIDE sums stay in registers */
#define GROUP 64           /* numbers of 4 bits that share a scale */
#define NEAR (1 << 18)     /* bytes of x that stay in the cache of a core while many rows of W pass */
#define PART 256           /* numbers of a row that are put into a tile before those of the next row */
#define AHEAD 4096         /* bytes of a block that the processor should fetch in advance */

enum kind { FLOAT32, BFLOAT16, INT8, INT4 };
static const int NUMBERS[] = {1, 2, 4, 8}; /* in a word */

/* A packed matrix with o rows of i numbers. */
struct matrix {
    enum kind kind;
    long o, i;
    const char *words;
    const char *scales; /* INT8: o floats; INT4: for each block and group, LANES pairs of bfloat16 (scale, zero) */
};

/* Up to ROWS rows of x, side by side: first number 0 of all rows, then number 1 of all rows, and so on. */
struct tile {
    long first, expert;
    int count;
    float *floats;     /* i x count, for FLOAT32 and BFLOAT16 */
    int32_t *integers; /* i/4 x count, four integers in each, for the others */
    float *steps;      /* groups x count */
    int32_t *sums;     /* groups x count: those of the integers */
};

/* Fetch what will be read soon. Blocks of `block` bytes are read SIDE at once, so the next ones lie behind all of these. */
INLINE void fetch(const char *blocks, long at, long block) {
    const long next = at + AHEAD;
    __builtin_prefetch(blocks + next + (next < block ? 0 : (SIDE - 1) * block));
}

INLINE float widen(uint16_t bfloat) {
    const uint32_t word = (uint32_t)bfloat << 16;
    float number;
    memcpy(&number, &word, 4);
    return number;
}

INLINE uint16_t narrow(float number) { /* to the nearest bfloat16, and to the even one of two */
    uint32_t word;
    memcpy(&word, &number, 4);
    if (number != number) return (uint16_t)(word >> 16 | 64);
    return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

/* Read or write LANES numbers: bfloat16 where `half`, and otherwise float32. */
INLINE floats get(const void *from, long at, int half) {
    if (!half) return (floats)load((const float *)from + at);
    words v;
    for (int l = 0; l < LANES; l++) v[l] = (uint32_t)((const uint16_t *)from)[at + l] << 16;
    return (floats)v;
}

INLINE void put(void *to, long at, floats numbers, int half) {
    if (!half) store((float *)to + at, numbers);
    else for (int l = 0; l < LANES; l++) ((uint16_t *)to)[at + l] = narrow(numbers[l]);
}

/* sum + Σ of 4 products in each lane: the bytes of w, 0 to 255, with those of x, -128 to 127 */
INLINE ints dot4(ints sum, words w, int32_t x) {
#ifdef __AVX512VNNI__
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
#else
    for (int k = 0; k < 4; k++) sum += (ints)(w >> 8 * k & 255) * (int32_t)(int8_t)(x >> 8 * k);
    return sum;
#endif
}

enum activation { NONE, GELU, QUICK_GELU };

INLINE floats sigmoid(floats x) { return 1 / (1 + power_of_two(x * -LOG2_E)); }

/* x times the share of a normal distribution that is below x. Abramowitz and Stegun, formula 7.1.26: 1.5e-7 from erf. */
INLINE floats gelu(floats x) {
    const floats z = (floats)((words)x & 0x7fffffffu) * 0.70710678f, t = 1 / (1 + 0.3275911f * z);
    const float terms[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    floats sum = (floats){0} + 1.061405429f;
    for (int k = 0; k < 4; k++) sum = sum * t + terms[k];
    const floats above = 0.5f * sum * t * power_of_two(z * z * -LOG2_E); /* the share above |x| */
    const ints positive = x > 0;
    return x * (floats)(((ints)(1 - above) & positive) | ((ints)above & ~positive));
}

/* The products: out[r] = row r of the tile · (the WIDTH rows of W from `row` on) */

INLINE void multiply_floats(enum kind kind, const struct matrix *m, long row, const struct tile *x, int count,
                            floats out[ROWS][SIDE]) {
    const long block = m->i / NUMBERS[kind] * sizeof(words);
    const char *w = m->words + row / LANES * block;
    const float *from = x->floats;
    floats sums[ROWS][SIDE] = {0};
    for (long at = 0; at < block; at += sizeof(words), from += NUMBERS[kind] * count) {
        floats first[SIDE], second[SIDE]; /* the numbers of each word: two of bfloat16, or one */
        UNROLL for (int s = 0; s < SIDE; s++) {
            fetch(w + s * block, at, block);
            const words v = load(w + s * block + at);
            first[s] = (floats)(kind == FLOAT32 ? v : v << 16);
            second[s] = (floats)(v & 0xffff0000u);
        }
        UNROLL for (int r = 0; r < count; r++)
            UNROLL for (int s = 0; s < SIDE; s++) sums[r][s] += first[s] * from[r];
        if (kind == FLOAT32) continue;
        UNROLL for (int r = 0; r < count; r++)
            UNROLL for (int s = 0; s < SIDE; s++) sums[r][s] += second[s] * from[count + r];
    }
    memcpy(out, sums, sizeof sums);
}

INLINE void multiply_int8(const struct matrix *m, long row, const struct tile *x, int count, floats out[ROWS][SIDE]) {
    const long block = m->i / NUMBERS[INT8] * sizeof(words);
    const char *w = m->words + row / LANES * block;
    const int32_t *from = x->integers;
    ints sums[ROWS][SIDE] = {0};
    for (long at = 0; at < block; at += sizeof(words), from += count)
        UNROLL for (int s = 0; s < SIDE; s++) {
            fetch(w + s * block, at, block);
            const words v = load(w + s * block + at);
            UNROLL for (int r = 0; r < count; r++) sums[r][s] = dot4(sums[r][s], v, from[r]);
        }
    UNROLL for (int s = 0; s < SIDE; s++) {
        const floats scale = (floats)load(m->scales + (row + s * LANES) * sizeof(float));
        UNROLL for (int r = 0; r < count; r++)
            out[r][s] = __builtin_convertvector(sums[r][s] - 128 * x->sums[r], floats) * x->steps[r] * scale;
    }
}

INLINE void multiply_int4(const struct matrix *m, long row, const struct tile *x, int count, floats out[ROWS][SIDE]) {
    const long block = m->i / NUMBERS[INT4] * sizeof(words), groups = m->i / GROUP, pairs = groups * sizeof(words);
    const char *w = m->words + row / LANES * block, *scales = m->scales + row / LANES * pairs;
    const int32_t *from = x->integers;
    floats sums[ROWS][SIDE] = {0};
    for (long g = 0, at = 0; g < groups; g++) {
        ints part[ROWS][SIDE] = {0};
        UNROLL for (int c = 0; c < GROUP; c += 8, at += sizeof(words), from += 2 * count)
            UNROLL for (int s = 0; s < SIDE; s++) {
                fetch(w + s * block, at, block);
                const words v = load(w + s * block + at), low = v & 0x0f0f0f0fu, high = v >> 4 & 0x0f0f0f0fu;
                UNROLL for (int r = 0; r < count; r++)
                    part[r][s] = dot4(dot4(part[r][s], low, from[r]), high, from[count + r]);
            }
        UNROLL for (int s = 0; s < SIDE; s++) {
            fetch(scales + s * pairs, g * sizeof(words), pairs);
            const words pair = load(scales + s * pairs + g * sizeof(words));
            const floats scale = (floats)(pair << 16), zero = (floats)(pair & 0xffff0000u);
            UNROLL for (int r = 0; r < count; r++) { /* W = (q - 8) scale + zero */
                const float step = x->steps[g * count + r], sum = step * x->sums[g * count + r];
                sums[r][s] += (__builtin_convertvector(part[r][s], floats) * step - 8 * sum) * scale + zero * sum;
            }
        }
    }
    memcpy(out, sums, sizeof sums);
}

INLINE void multiply_count(enum kind kind, const struct matrix *m, long row, const struct tile *x, int count,
                           floats out[ROWS][SIDE]) {
    if (kind == INT8) multiply_int8(m, row, x, count, out);
    else if (kind == INT4) multiply_int4(m, row, x, count, out);
    else multiply_floats(kind, m, row, x, count, out);
}

/* The compiler makes a copy for each kind and each number of rows, so that the sums stay in registers. */
#define CASE(KIND, COUNT) case COUNT: multiply_count(KIND, m, row, x, COUNT, out); break;
#define COPIES(NAME, KIND)                                                                                          \
    static void NAME(const struct matrix *m, long row, const struct tile *x, floats out[ROWS][SIDE]) {              \
        switch (x->count) {                                                                                         \
            CASE(KIND, 1) CASE(KIND, 2) CASE(KIND, 3) CASE(KIND, 4) CASE(KIND, 5) CASE(KIND, 6)                     \
            CASE(KIND, 7) CASE(KIND, 8) CASE(KIND, 9) CASE(KIND, 10) CASE(KIND, 11) CASE(KIND, 12)                  \
        }                                                                                                           \
    }
COPIES(multiply_float32, FLOAT32)
COPIES(multiply_bfloat16, BFLOAT16)
COPIES(multiply_by_int8, INT8)
COPIES(multiply_by_int4, INT4)
static void (*const MULTIPLY[])(const struct matrix *, long, const struct tile *, floats[ROWS][SIDE]) = {
    multiply_float32, multiply_bfloat16, multiply_by_int8, multiply_by_int4};

/* Rows of x. The caller frees `tiles` and `memory`. */
struct rows {
    long i, groups, count; /* of tiles */
    int integers;
    struct tile *tiles;
    void *memory;
};

/* Return the tiles of `all` rows: those of each of `experts` experts end before `ends[e]`. `near` of them exist at a time,
and the next ones take their place. */
static struct rows new_rows(const struct matrix *m, long all, const long *ends, long experts, long near) {
    struct rows x = {m->i, m->kind == INT4 ? m->i / GROUP : 1, 0, m->kind >= INT8, 0, 0};
    const long held = near < (all + ROWS - 1) / ROWS ? near * ROWS : all;
    x.tiles = malloc((all / ROWS + experts + 1) * sizeof(struct tile));
    x.memory = malloc(held * (x.integers ? x.i + 8 * x.groups : 4 * x.i) + 64);
    int32_t *free_part = x.memory;
    for (long e = 0; e < experts; e++)
        for (long first = e ? ends[e - 1] : 0; first < ends[e]; first += ROWS) {
            const long count = ends[e] - first < ROWS ? ends[e] - first : ROWS;
            struct tile t = {first, e, count, 0, 0, 0, 0};
            if (x.count % near == 0) free_part = x.memory;
            if (x.integers) {
                t.integers = free_part, t.steps = (float *)(t.integers + x.i / 4 * count);
                t.sums = (int32_t *)(t.steps + x.groups * count), free_part = t.sums + x.groups * count;
            } else
                t.floats = (float *)free_part, free_part += x.i * count;
            x.tiles[x.count++] = t;
        }
    return x;
}

/* Put a row of floats into a tile as its row r, as integers. There is room for a row at `rounded`. */
static void set_integers(const struct rows *x, const struct tile *t, int r, const float *row, int8_t *rounded) {
    const long size = x->i / x->groups;
    for (long g = 0; g < x->groups; g++) {
        words tops = {0}; /* as integers, floats without a sign have the same order */
        for (long j = g * size; j < (g + 1) * size; j += LANES) {
            const words absolute = load(row + j) & 0x7fffffffu, larger = (words)(absolute > tops);
            tops = (absolute & larger) | (tops & ~larger);
        }
        float most = 1e-30f;
        for (int l = 0; l < LANES; l++) most = fmaxf(most, ((floats)tops)[l]);
        const float step = most / 127;
        int32_t sum = 0;
        for (long j = g * size; j < (g + 1) * size; j++) sum += rounded[j] = (int8_t)rintf(row[j] / step);
        t->steps[g * t->count + r] = step;
        t->sums[g * t->count + r] = sum;
    }
    for (long j = 0; j < x->i / 4; j++) memcpy(t->integers + j * t->count + r, rounded + 4 * j, 4);
}

/* Put rows of floats, or of bfloat16 where `half`, into a tile. `scratch` has room for two rows. */
static void set_tile(const struct rows *x, const struct tile *t, const void *const from[ROWS], int half, float *scratch) {
    if (x->integers) {
        for (int r = 0; r < t->count; r++) {
            const float *row = from[r];
            if (half) {
                for (long j = 0; j < x->i; j++) scratch[j] = widen(((const uint16_t *)from[r])[j]);
                row = scratch;
            }
            set_integers(x, t, r, row, (int8_t *)(scratch + x->i));
        }
        return;
    }
    for (long part = 0; part < x->i; part += PART)
        for (int r = 0; r < t->count; r++) {
            const uint16_t *halves = from[r];
            const float *row = from[r];
            float *to = t->floats + r;
            const long end = part + PART < x->i ? part + PART : x->i;
            if (half) for (long j = part; j < end; j++) to[j * t->count] = widen(halves[j]);
            else for (long j = part; j < end; j++) to[j * t->count] = row[j];
        }
}

/* All threads together put the tiles from `part` to `end` in order. `x` has the first of their rows. */
static void set_tiles(const struct rows *rows, long part, long end, const void *x, int half, float *scratch) {
#pragma omp for
    for (long t = part; t < end; t++) {
        const struct tile *tile = rows->tiles + t;
        const void *from[ROWS];
        for (int r = 0; r < tile->count; r++)
            from[r] = (const char *)x + (tile->first - rows->tiles[part].first + r) * rows->i * (half ? 2 : 4);
        set_tile(rows, tile, from, half, scratch);
    }
}

/* All threads together multiply the tiles from `part` to `end`. `y` gets the first of their results. */
static void multiply_tiles(const struct rows *rows, long part, long end, const struct matrix *m, const float *bias,
                           enum activation activation, void *y, int half) {
#pragma omp for
    for (long row = 0; row < m->o; row += WIDTH)
        for (long t = part; t < end; t++) {
            const struct tile *tile = rows->tiles + t;
            const long first = tile->first - rows->tiles[part].first;
            floats out[ROWS][SIDE];
            for (int r = 0; r < tile->count; r++) /* otherwise each of them would wait for the memory */
                for (int s = 0; s < SIDE; s++)
                    __builtin_prefetch((char *)y + ((first + r) * m->o + row + s * LANES) * (half ? 2 : 4), 1);
            MULTIPLY[m->kind](m, row, tile, out);
            for (int r = 0; r < tile->count; r++)
                for (int s = 0; s < SIDE; s++) {
                    floats v = out[r][s];
                    if (bias) v += (floats)load(bias + row + s * LANES);
                    if (activation == GELU) v = gelu(v);
                    if (activation == QUICK_GELU) v *= sigmoid(1.702f * v);
                    put(y, (first + r) * m->o + row + s * LANES, v, half);
                }
        }
}

/* Return how many tiles of this matrix fit the cache: a multiple of the threads. */
static long near_tiles(const struct matrix *m, int threads) {
    const long fit = NEAR / (ROWS * m->i * (m->kind >= INT8 ? 1 : 4)) + 1;
    return (fit + threads - 1) / threads * threads;
}

/* y (n x o) = x (n x i) Wᵀ + bias, if there is one. Where `half`, x and y are bfloat16, and otherwise float32. */
void product(struct matrix m, const void *x, const float *bias, void *y, long n, int half, int threads) {
    const long size = half ? 2 : 4, near = near_tiles(&m, threads);
    struct rows rows = new_rows(&m, n, &n, 1, near);
#pragma omp parallel num_threads(threads)
    {
        float *scratch = malloc(2 * m.i * sizeof(float));
        for (long part = 0; part < rows.count; part += near) {
            const long end = part + near < rows.count ? part + near : rows.count, first = rows.tiles[part].first;
            set_tiles(&rows, part, end, (const char *)x + first * m.i * size, half, scratch);
            multiply_tiles(&rows, part, end, &m, bias, NONE, (char *)y + first * m.o * size, half);
        }
        free(scratch);
    }
    free(rows.tiles), free(rows.memory);
}

/* y (n x o) = second(activation(first(x))): two products with their biases. The hidden rows never leave the caches. */
void mlp(struct matrix first, struct matrix second, const void *x, const float *first_bias, const float *second_bias,
         void *y, long n, enum activation activation, int half, int threads) {
    const long size = half ? 2 : 4, near = near_tiles(&first, threads);
    struct rows rows = new_rows(&first, n, &n, 1, near), hidden = new_rows(&second, n, &n, 1, near);
    float *wide = malloc((n < near * ROWS ? n : near * ROWS) * first.o * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        float *scratch = malloc(2 * (first.i > second.i ? first.i : second.i) * sizeof(float));
        for (long part = 0; part < rows.count; part += near) {
            const long end = part + near < rows.count ? part + near : rows.count, start = rows.tiles[part].first;
            set_tiles(&rows, part, end, (const char *)x + start * first.i * size, half, scratch);
            multiply_tiles(&rows, part, end, &first, first_bias, activation, wide, 0);
            set_tiles(&hidden, part, end, wide, 0, scratch);
            multiply_tiles(&hidden, part, end, &second, second_bias, NONE, (char *)y + start * second.o * size, half);
        }
        free(scratch);
    }
    free(rows.tiles), free(rows.memory), free(hidden.tiles), free(hidden.memory), free(wide);
}

INLINE struct matrix of_expert(struct matrix m, long e) {
    m.words += e * m.o * m.i * 4 / NUMBERS[m.kind];
    if (m.kind == INT8) m.scales += e * m.o * 4;
    if (m.kind == INT4) m.scales += e * m.o * m.i / GROUP * 4;
    return m;
}

/* y (n x d) = Σ weight · down_e(silu(gate_e x) · up_e x) over the k experts e that each of the n rows chose.

`gate_up` and `down` are those of expert 0, and the others follow. A slot is a row at one of its experts. `slots` has
them sorted by expert, and those of expert e end before `ends[e]`. So an expert's slots are multiplied together. */
void experts(struct matrix gate_up, struct matrix down, const void *x, const int64_t *chosen, const float *weights, void *y,
             long n, long k, long experts, int half, int threads) {
    const long d = gate_up.i, f = down.i, all = n * k, size = half ? 2 : 4;
    long *ends = calloc(experts + 1, sizeof(long)), *slots = malloc(all * sizeof(long));
    for (long s = 0; s < all; s++) ends[chosen[s] + 1]++;
    for (long e = 0; e < experts; e++) ends[e + 1] += ends[e];
    for (long s = 0; s < all; s++) slots[ends[chosen[s]]++] = s; /* ends[e] was the start of e, and becomes its end */
    struct rows rows = new_rows(&gate_up, all, ends, experts, all), hidden = new_rows(&down, all, ends, experts, all);
    float *wide = malloc(all * f * sizeof(float));
#pragma omp parallel num_threads(threads)
    {
        float *scratch = malloc(2 * (d > f ? d : f) * sizeof(float)), *sums = malloc(n * WIDTH * sizeof(float));
#pragma omp for
        for (long t = 0; t < rows.count; t++) {
            const void *from[ROWS];
            for (int r = 0; r < rows.tiles[t].count; r++)
                from[r] = (const char *)x + slots[rows.tiles[t].first + r] / k * d * size;
            set_tile(&rows, rows.tiles + t, from, half, scratch);
        }
#pragma omp for collapse(2)
        for (long t = 0; t < rows.count; t++)
            for (long row = 0; row < f; row += WIDTH) {
                const struct tile *tile = rows.tiles + t;
                const struct matrix m = of_expert(gate_up, tile->expert);
                floats gate[ROWS][SIDE], up[ROWS][SIDE];
                MULTIPLY[m.kind](&m, row, tile, gate);
                MULTIPLY[m.kind](&m, f + row, tile, up);
                for (int r = 0; r < tile->count; r++)
                    for (int s = 0; s < SIDE; s++)
                        put(wide, (tile->first + r) * f + row + s * LANES, gate[r][s] * sigmoid(gate[r][s]) * up[r][s], 0);
            }
#pragma omp for
        for (long t = 0; t < hidden.count; t++) {
            const void *from[ROWS];
            for (int r = 0; r < hidden.tiles[t].count; r++) from[r] = wide + (hidden.tiles[t].first + r) * f;
            set_tile(&hidden, hidden.tiles + t, from, 0, scratch);
        }
#pragma omp for
        for (long row = 0; row < d; row += WIDTH) {
            memset(sums, 0, n * WIDTH * sizeof(float));
            for (long t = 0; t < hidden.count; t++) {
                const struct tile *tile = hidden.tiles + t;
                const struct matrix m = of_expert(down, tile->expert);
                floats out[ROWS][SIDE];
                MULTIPLY[m.kind](&m, row, tile, out);
                for (int r = 0; r < tile->count; r++)
                    for (int s = 0; s < SIDE; s++) {
                        const long slot = slots[tile->first + r];
                        float *sum = sums + slot / k * WIDTH + s * LANES;
                        put(sum, 0, (floats)load(sum) + weights[slot] * out[r][s], 0);
                    }
            }
            for (long r = 0; r < n; r++)
                for (int s = 0; s < SIDE; s++)
                    put(y, r * d + row + s * LANES, (floats)load(sums + r * WIDTH + s * LANES), half);
        }
        free(scratch), free(sums);
    }
    free(rows.tiles), free(rows.memory), free(hidden.tiles), free(hidden.memory);
    free(ends), free(slots), free(wide);
}

/* y (n x d) = weight · x / √(mean of x² + eps), row by row. Where `half`, all three are bfloat16, and otherwise float32. */
void rms_norm(const void *x, const void *weight, void *y, long n, long d, float eps, int half, int threads) {
#pragma omp parallel for num_threads(threads) if (n >= ROWS)
    for (long row = 0; row < n; row++) {
        floats squares = {0};
        for (long j = 0; j < d; j += LANES) {
            const floats v = get(x, row * d + j, half);
            squares += v * v;
        }
        float sum = 0;
        for (int l = 0; l < LANES; l++) sum += squares[l];
        const float scale = 1 / sqrtf(sum / d + eps);
        for (long j = 0; j < d; j += LANES) {
            put(y, row * d + j, get(x, row * d + j, half) * scale, half); /* rounded, as in decoder.py */
            put(y, row * d + j, get(y, row * d + j, half) * get(weight, j, half), half);
        }
    }
}

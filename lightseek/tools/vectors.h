/* Vectors of 16 numbers, for the files of C.

The types are vectors of GCC and Clang. A CPU with shorter vectors runs each operation in several parts. */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define LANES 16           /* words in a vector */
#define LOG2_E 1.44269504f /* powers of two are faster than those of e */

typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));

INLINE words load(const void *from) {
    words v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(void *to, floats v) { memcpy(to, &v, sizeof v); }

/* The larger number of each lane. */
INLINE floats larger(floats a, floats b) {
    const ints which = a > b;
    return (floats)(((ints)a & which) | ((ints)b & ~which));
}

/* 2 to the power of x, with a relative error below 3e-7: a polynomial for the fraction, and the rest in the exponent. */
INLINE floats power_of_two(floats x) {
    const ints low = x < -126, high = x > 127;
    x = (floats)(((ints)x & ~(low | high)) | (low & (ints)((floats){0} - 126)) | (high & (ints)((floats){0} + 127)));
    const floats large = x + 1.5f * (1 << 23), f = x - (large - 1.5f * (1 << 23)); /* f is from -0.5 to 0.5 */
    const float terms[] = {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f};
    floats sum = (floats){0} + 1.5403530e-4f;
    for (int t = 0; t < 6; t++) sum = sum * f + terms[t];
    return (floats)((ints)sum + ((ints)large << 23)); /* the lowest bits of `large` are the whole part of x */
}

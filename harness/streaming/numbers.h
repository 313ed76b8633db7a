/* Tiles: short runs of float32 that stay in the first cache, and what is done to them, written so that compilers
   vectorize it. Sums have a fixed number of lanes, so that they are the same whatever the width of the processor's
   vectors is; the library is built without contraction to fused multiply-adds, which are written out where they are meant. */

#ifndef STOCKPOT_NUMBERS_H
#define STOCKPOT_NUMBERS_H

#include <stdint.h>
#include <string.h>

#define TILE 1024
#define LANES 16
#define INFINITE 0x7f800000u /* the magnitude bits of infinity; those of NaN are larger */

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((unused, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE __attribute__((unused))
#endif

enum { F32, BF16, F16 };

static const int WIDTHS[] = {4, 2, 2}; /* bytes */

static inline __attribute__((always_inline)) uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline __attribute__((always_inline)) float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline __attribute__((always_inline)) float from_half(uint16_t half) {
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    uint32_t normal = magnitude + (112u << 23);
    uint32_t subnormal = bits_of(float_of(magnitude + (113u << 23)) - float_of(113u << 23));
    uint32_t bits = magnitude < (1u << 23) ? subnormal : normal;
    bits = magnitude >= (31u << 23) ? magnitude + (224u << 23) : bits;
    return float_of(bits | (uint32_t)(half & 0x8000) << 16);
}

/* To the nearest, to the even one of two, as torch does; what is too large becomes infinite, and NaN stays NaN. */
static inline __attribute__((always_inline)) uint16_t to_half(float value) {
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - (126u << 23);
    uint32_t half = magnitude < (113u << 23) ? subnormal : normal;
    half = magnitude >= (143u << 23) ? 0x7c00 : half;
    half = magnitude > INFINITE ? 0x7e00 : half;
    return (uint16_t)(half | (bits & 0x80000000u) >> 16);
}

static inline __attribute__((always_inline)) uint16_t to_brain(float value) {
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > INFINITE ? (bits >> 16) | 0x40 : rounded);
}

WIDE static void load(int type, const void *raw, float *to, int n) {
    const uint16_t *half = raw;
    if (type == F32)
        memcpy(to, raw, (size_t)n * 4);
    else if (type == BF16)
        for (int i = 0; i < n; i++) to[i] = float_of((uint32_t)half[i] << 16);
    else
        for (int i = 0; i < n; i++) to[i] = from_half(half[i]);
}

/* Whether all of what is stored is finite. */
WIDE static int store(int type, const float *from, void *raw, int n) {
    uint16_t *half = raw;
    uint32_t bad = 0;
    if (type == F32) {
        memcpy(raw, from, (size_t)n * 4);
        for (int i = 0; i < n; i++) bad |= (bits_of(from[i]) & INFINITE) == INFINITE;
    } else if (type == BF16) {
        for (int i = 0; i < n; i++) half[i] = to_brain(from[i]);
        for (int i = 0; i < n; i++) bad |= (half[i] & 0x7f80) == 0x7f80;
    } else {
        for (int i = 0; i < n; i++) half[i] = to_half(from[i]);
        for (int i = 0; i < n; i++) bad |= (half[i] & 0x7c00) == 0x7c00;
    }
    return !bad;
}

WIDE static int all_finite(const float *x, int n) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) bad |= (bits_of(x[i]) & INFINITE) == INFINITE;
    return !bad;
}

WIDE static void scale(float *to, const float *x, float factor, int n) {
    for (int i = 0; i < n; i++) to[i] = x[i] * factor;
}

WIDE static void add_scaled(float *to, const float *x, float factor, int n) {
    for (int i = 0; i < n; i++) to[i] += x[i] * factor;
}

/* Rounded once, as torch's addcmul does on processors that can. */
WIDE static void add_product(float *to, const float *x, float factor, int n) {
    for (int i = 0; i < n; i++) to[i] = __builtin_fmaf(x[i], factor, to[i]);
}

WIDE static void add(float *to, const float *x, int n) {
    for (int i = 0; i < n; i++) to[i] += x[i];
}

WIDE static void divide(float *to, float divisor, int n) {
    for (int i = 0; i < n; i++) to[i] /= divisor;
}

/* x - base in place; the largest magnitude bits of the result. */
WIDE static uint32_t subtract(float *x, const float *base, int n) {
    uint32_t largest = 0;
    for (int i = 0; i < n; i++) {
        x[i] -= base[i];
        uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* Compilers unroll loops over so few lanes before they would vectorize them, hence two explicit halves. */
#define HALF (LANES / 2)
typedef float Floats __attribute__((vector_size(4 * HALF)));
typedef uint32_t Words __attribute__((vector_size(4 * HALF)));
typedef double Doubles __attribute__((vector_size(8 * HALF)));

#define WIDENED(x) __builtin_convertvector(x, Doubles)

WIDE static void add_products(const float *x, const float *y, int n, double *lanes) {
    Doubles sums[2];
    Floats a[2], b[2];
    int i = 0;
    memcpy(sums, lanes, sizeof sums);
    for (; i + LANES <= n; i += LANES) {
        for (int h = 0; h < 2; h++) memcpy(a + h, x + i + h * HALF, sizeof *a), memcpy(b + h, y + i + h * HALF, sizeof *b);
        sums[0] += WIDENED(a[0]) * WIDENED(b[0]);
        sums[1] += WIDENED(a[1]) * WIDENED(b[1]);
    }
    memcpy(lanes, sums, sizeof sums);
    for (int j = 0; i < n; i++, j++) lanes[j] += (double)x[i] * (double)y[i];
}

WIDE static void add_magnitudes(const float *x, int n, double *lanes) {
    Doubles sums[2];
    Words bits[2];
    int i = 0;
    memcpy(sums, lanes, sizeof sums);
    for (; i + LANES <= n; i += LANES) {
        for (int h = 0; h < 2; h++) memcpy(bits + h, x + i + h * HALF, sizeof *bits);
        sums[0] += WIDENED((Floats)(bits[0] & 0x7fffffffu));
        sums[1] += WIDENED((Floats)(bits[1] & 0x7fffffffu));
    }
    memcpy(lanes, sums, sizeof sums);
    for (int j = 0; i < n; i++, j++) lanes[j] += (double)float_of(bits_of(x[i]) & 0x7fffffffu);
}

static inline double total(const double *lanes) {
    double sum = 0;
    for (int j = 0; j < LANES; j++) sum += lanes[j];
    return sum;
}

#endif

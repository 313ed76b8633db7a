/* What merges compute, from files to files, over a range of a tensor's elements: casts, weighted sums, inner products,
   and in vectors.c task vectors. Called from many threads at once; no state, and no memory but the caller's.

   ``scratch`` is a buffer of the calling thread of as many bytes as ``scratch_bytes`` says. Functions return 0, or -1
   with what went wrong. Ranges start at multiples of BLOCK, so that results do not depend on how a tensor is divided. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "vectors.h"

int64_t scratch_bytes(int sources) {
    return (int64_t)(sources + 1) * BLOCK * 4 + (int64_t)(sources + 5) * TILE * 4 +
           (int64_t)sources * COPIES * BINS * 4 + (int64_t)(sources + 2) * (sources + 2) * LANES * 8;
}

int block_elements(void) { return BLOCK; }

/* Whether a value that is finite has become infinite. */
static int overflows(int type, const float *from, const void *stored, int n) {
    float back[TILE];
    load(type, stored, back, n);
    for (int i = 0; i < n; i++)
        if (all_finite(from + i, 1) && !all_finite(back + i, 1)) return 1;
    return 0;
}

/* A copy in another type; what is not finite stays so. */
int convert(const Place *source, Place out, int64_t start, int64_t stop, char *scratch, Failure *failure) {
    char *raw = scratch, *made = raw + BLOCK * 4;
    float *tile = (float *)(made + BLOCK * 4);
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(source, 1, at, size, raw, failure)) return -1;
        EACH_TILE(size, first, n) {
            load_tile(source, 0, raw, first, tile, (int)n);
            char *stored = made + first * WIDTHS[out.type];
            if (!store(out.type, tile, stored, (int)n) && overflows(out.type, tile, stored, (int)n))
                return fail(failure, RESULT_INFINITE, 0, 0);
        }
        if (write_block(out, at, size, made, failure)) return -1;
    }
    return 0;
}

/* c_0 x_0 + c_1 x_1 + ..., then divided if the divisor is not 0. If ``fused``, from 0 on and rounded once a term. */
int weighted_sum(const Place *sources, int count, const float *coefficients, int fused, float divisor, Place out,
                 int64_t start, int64_t stop, char *scratch, Failure *failure) {
    char *raw = scratch, *made = raw + (int64_t)count * BLOCK * 4;
    float *tile = (float *)(made + BLOCK * 4), *sum = tile + TILE;
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, count, at, size, raw, failure)) return -1;
        EACH_TILE(size, first, n) {
            if (fused) memset(sum, 0, (size_t)n * 4);
            for (int s = 0; s < count; s++) {
                load_tile(sources, s, raw, first, tile, (int)n);
                if (fused)
                    add_product(sum, tile, coefficients[s], (int)n);
                else if (s == 0)
                    scale(sum, tile, coefficients[s], (int)n);
                else
                    add_scaled(sum, tile, coefficients[s], (int)n);
            }
            if (divisor != 0) divide(sum, divisor, (int)n);
            if (!store(out.type, sum, made + first * WIDTHS[out.type], (int)n))
                return blame(sources, count, raw, first, (int)n, failure);
        }
        if (write_block(out, at, size, made, failure)) return -1;
    }
    return 0;
}

/* Inner products [blocks, count, count] of the sources, or, if base >= 0, of their differences from it. */
int gram(const Place *sources, int count, int base, int64_t start, int64_t stop, char *scratch, double *products,
         Failure *failure) {
    char *raw = scratch;
    float *tiles = (float *)(raw + (int64_t)count * BLOCK * 4);
    double *lanes = (double *)(tiles + (int64_t)count * TILE);
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, count, at, size, raw, failure)) return -1;
        memset(lanes, 0, (size_t)count * count * LANES * 8);
        EACH_TILE(size, first, n) {
            for (int s = 0; s < count; s++) load_tile(sources, s, raw, first, tiles + s * TILE, (int)n);
            for (int s = 0; s < count; s++)
                if (base >= 0 && s != base) subtract(tiles + s * TILE, tiles + base * TILE, (int)n);
            if (base >= 0) memset(tiles + base * TILE, 0, (size_t)n * 4);
            for (int s = 0; s < count; s++)
                for (int t = s; t < count; t++)
                    add_products(tiles + s * TILE, tiles + t * TILE, (int)n, lanes + (s * count + t) * LANES);
            for (int s = 0; s < count; s++) {
                double square = total(lanes + (s * count + s) * LANES);
                if (square - square != 0) return blame(sources, count, raw, first, (int)n, failure);
            }
        }
        for (int s = 0; s < count; s++)
            for (int t = s; t < count; t++)
                products[s * count + t] = products[t * count + s] = total(lanes + (s * count + t) * LANES);
        products += count * count;
    }
    return 0;
}

/* (weight) b + (1 - weight) a with weight = t / |a - b|, from 0 to 1; a is the first source. */
WIDE static void near_tile(const float *a, float *b, float t, int n) {
    for (int i = 0; i < n; i++) {
        float apart = float_of(bits_of(a[i] - b[i]) & 0x7fffffffu);
        float weight = 1 / (apart < 1e-6f ? 1e-6f : apart) * t; /* as torch divides a number by a tensor */
        weight = weight < 0 ? 0 : weight > 1 ? 1 : weight;
        b[i] = weight * b[i] + (1 - weight) * a[i];
    }
}

int nearswap(const Place *sources, float t, Place out, int64_t start, int64_t stop, char *scratch, Failure *failure) {
    char *raw = scratch, *made = raw + 2 * BLOCK * 4;
    float *a = (float *)(made + BLOCK * 4), *b = a + TILE;
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, 2, at, size, raw, failure)) return -1;
        EACH_TILE(size, first, n) {
            load_tile(sources, 0, raw, first, a, (int)n);
            load_tile(sources, 1, raw, first, b, (int)n);
            near_tile(a, b, t, (int)n);
            if (!store(out.type, b, made + first * WIDTHS[out.type], (int)n))
                return blame(sources, 2, raw, first, (int)n, failure);
        }
        if (write_block(out, at, size, made, failure)) return -1;
    }
    return 0;
}

/* What is written from an offset on begins its way to the disk, so that less is left to wait for at the end. */
void begin_writeback(int fd, int64_t offset, int64_t bytes) {
#ifdef SYNC_FILE_RANGE_WRITE
    (void)sync_file_range(fd, offset, bytes, SYNC_FILE_RANGE_WRITE);
#else
    (void)fd, (void)offset, (void)bytes;
#endif
}

/* The functions are called through ctypes, which lets other threads run; the module itself is empty. */
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", "Compiled functions of harness.streaming", 0, 0};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }

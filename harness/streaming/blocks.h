/* Blocks: how runs of elements come from files and go to them, and what may be wrong with them.

   They are read by pread into buffers that are used again and stay in the second cache, not through memory maps: a
   file that is cut off under a map kills the process, and pages of maps count as resident memory. It is as quick: 14 to
   17 GB/s of cached files against 15 through maps, on one core. */

#ifndef STOCKPOT_BLOCKS_H
#define STOCKPOT_BLOCKS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "numbers.h"

#define BLOCK 65536 /* elements; sums are summed by blocks, which start at multiples of this */

/* A tensor in a file: its first element is at an offset of bytes. */
typedef struct {
    int32_t fd, type;
    int64_t offset;
} Place;

enum { FINE, NOT_READ, CUT_OFF, NOT_WRITTEN, SOURCE_INFINITE, RESULT_INFINITE };

typedef struct {
    int32_t kind, source, number; /* of the source, and errno */
} Failure;

static inline int fail(Failure *failure, int kind, int source, int number) {
    failure->kind = kind;
    failure->source = source;
    failure->number = number;
    return -1;
}

static inline int read_at(int fd, char *to, int64_t bytes, int64_t offset, int source, Failure *failure) {
    while (bytes > 0) {
        ssize_t got = pread(fd, to, (size_t)bytes, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(failure, NOT_READ, source, errno);
        if (got == 0) return fail(failure, CUT_OFF, source, 0);
        to += got, offset += got, bytes -= got;
    }
    return 0;
}

static inline int write_at(int fd, const char *from, int64_t bytes, int64_t offset, Failure *failure) {
    while (bytes > 0) {
        ssize_t put = pwrite(fd, from, (size_t)bytes, offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(failure, NOT_WRITTEN, 0, errno);
        from += put, offset += put, bytes -= put;
    }
    return 0;
}

/* Elements from ``start`` on of all of ``count`` sources, each to its own raw block. */
static inline int read_block(const Place *sources, int count, int64_t start, int64_t n, char *raw, Failure *failure) {
    for (int s = 0; s < count; s++) {
        int width = WIDTHS[sources[s].type];
        int64_t offset = sources[s].offset + start * width;
        if (read_at(sources[s].fd, raw + (int64_t)s * BLOCK * 4, n * width, offset, s, failure)) return -1;
    }
    return 0;
}

static inline void load_tile(const Place *sources, int s, const char *raw, int64_t first, float *to, int n) {
    load(sources[s].type, raw + (int64_t)s * BLOCK * 4 + first * WIDTHS[sources[s].type], to, n);
}

static inline int write_block(Place out, int64_t start, int64_t n, const char *raw, Failure *failure) {
    int width = WIDTHS[out.type];
    return write_at(out.fd, raw, n * width, out.offset + start * width, failure);
}

/* Which source has a value that is not finite in this tile; if none has, the arithmetic made it. */
static inline int blame(const Place *sources, int count, const char *raw, int64_t first, int n, Failure *failure) {
    float tile[TILE];
    for (int s = 0; s < count; s++) {
        load_tile(sources, s, raw, first, tile, n);
        if (!all_finite(tile, n)) return fail(failure, SOURCE_INFINITE, s, 0);
    }
    return fail(failure, RESULT_INFINITE, 0, 0);
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#define EACH_BLOCK(first, last, at, n)                                                                       \
    for (int64_t at = (first), n = least(BLOCK, (last)-at); at < (last); at += n, n = least(BLOCK, (last)-at))

#define EACH_TILE(block, at, n)                                                                              \
    for (int64_t at = 0, n = least(TILE, (block)); at < (block); at += n, n = least(TILE, (block)-at))

#endif

/* Merges of task vectors: exact selection by magnitude, drops at random, rescaling, election of signs.

   sources[0] is the base, sources[1 + m] belongs to member m. */

#include "vectors.h"

enum { NOTHING, EVERYTHING, BETWEEN, DRAWN };

/* What is kept of a task vector, its weight, and the factor that makes up for what is dropped. */
typedef struct {
    int32_t keep;
    float weight, factor;
    uint32_t low, high;                           /* magnitude bits; those between, and of equals to either bound... */
    int64_t low_first, low_last, low_before;      /* ...the ranks [first, last), some of which come before the range */
    int64_t high_first, high_last, high_before;
    uint64_t key;                                 /* of the draws */
    uint32_t below;                               /* of 2^24 */
} Member;

static int differences(const Place *sources, int members, const char *raw, int64_t first, float *base, float *vectors,
                       int n, Failure *failure) {
    load_tile(sources, 0, raw, first, base, n);
    for (int m = 0; m < members; m++) {
        load_tile(sources, 1 + m, raw, first, vectors + m * TILE, n);
        if (subtract(vectors + m * TILE, base, n) >= INFINITE)
            return blame(sources, 1 + members, raw, first, n, failure);
    }
    return 0;
}

/* Count magnitudes by their high bits into totals [members, BINS], to which other threads add as well. */
int count_high(const Place *sources, int members, int64_t start, int64_t stop, char *scratch, int64_t *totals,
               Failure *failure) {
    char *raw = scratch;
    float *base = (float *)(raw + (int64_t)(1 + members) * BLOCK * 4), *vectors = base + TILE;
    uint32_t *counts = (uint32_t *)(vectors + (int64_t)members * TILE);
    memset(counts, 0, (size_t)members * COPIES * BINS * 4);
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, 1 + members, at, size, raw, failure)) return -1;
        EACH_TILE(size, first, n) {
            if (differences(sources, members, raw, first, base, vectors, (int)n, failure)) return -1;
            for (int m = 0; m < members; m++) {
                const float *x = vectors + m * TILE;
                uint32_t *own = counts + (int64_t)m * COPIES * BINS;
                int i = 0;
                for (; i + COPIES <= n; i += COPIES)
                    for (int c = 0; c < COPIES; c++) own[c * BINS + ((bits_of(x[i + c]) & 0x7fffffffu) >> 15)]++;
                for (; i < n; i++) own[(bits_of(x[i]) & 0x7fffffffu) >> 15]++;
            }
        }
    }
    for (int m = 0; m < members; m++)
        for (int b = 0; b < BINS; b++) {
            const uint32_t *own = counts + (int64_t)m * COPIES * BINS + b;
            int64_t sum = (int64_t)own[0] + own[BINS] + own[2 * BINS] + own[3 * BINS];
            if (sum) __atomic_fetch_add(totals + (int64_t)m * BINS + b, sum, __ATOMIC_RELAXED);
        }
    return 0;
}

WIDE static int equal_to(const float *x, uint32_t bits, int n) {
    int count = 0;
    for (int i = 0; i < n; i++) count += (bits_of(x[i]) & 0x7fffffffu) == bits;
    return count;
}

WIDE static int within_bin(const float *x, uint32_t bin, int n) {
    int count = 0;
    for (int i = 0; i < n; i++) count += (bits_of(x[i]) & 0x7fffffffu) >> 15 == bin;
    return count;
}

/* Count the low bits of magnitudes with the high bits ``bins[k]`` of member ``whose[k]`` into counts [bounds, LOW_BINS]. */
int count_low(const Place *sources, int members, const int32_t *whose, const uint32_t *bins, int bounds, int64_t start,
              int64_t stop, char *scratch, uint32_t *counts, Failure *failure) {
    char *raw = scratch;
    float *base = (float *)(raw + (int64_t)(1 + members) * BLOCK * 4), *vectors = base + TILE;
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, 1 + members, at, size, raw, failure)) return -1;
        EACH_TILE(size, first, n) {
            if (differences(sources, members, raw, first, base, vectors, (int)n, failure)) return -1;
            for (int k = 0; k < bounds; k++) {
                const float *x = vectors + whose[k] * TILE;
                uint32_t *own = counts + (int64_t)k * LOW_BINS;
                int lowest = equal_to(x, bins[k] << 15, (int)n);
                own[0] += (uint32_t)lowest; /* differences of 16-bit numbers mostly have no low bits */
                if (within_bin(x, bins[k], (int)n) == lowest) continue;
                for (int i = 0; i < n; i++) {
                    uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
                    if (magnitude >> 15 == bins[k] && magnitude & (LOW_BINS - 1)) own[magnitude & (LOW_BINS - 1)]++;
                }
            }
        }
    }
    return 0;
}

/* The bin with the k-th largest, k from 1, and how many are in higher ones. */
int find_high(const int64_t *counts, int64_t k, int64_t *above) {
    *above = 0;
    for (int b = BINS - 1; b >= 0; b--) {
        if (*above + counts[b] >= k) return b;
        *above += counts[b];
    }
    return -1;
}

/* The same of low bits that were counted in several ranges; also how many equal the k-th in each. */
int find_low(const uint32_t *const *counts, int ranges, int64_t k, int64_t *above, int64_t *equal) {
    *above = 0;
    for (int b = LOW_BINS - 1; b >= 0; b--) {
        int64_t here = 0;
        for (int r = 0; r < ranges; r++) here += counts[r][b];
        if (*above + here >= k) {
            for (int r = 0; r < ranges; r++) equal[r] = counts[r][b];
            return b;
        }
        *above += here;
    }
    return -1;
}

WIDE static void keep_between(float *x, uint32_t least_bits, uint32_t most_bits, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        x[i] = magnitude >= least_bits && magnitude <= most_bits ? x[i] : 0;
    }
}

WIDE static void keep_drawn(float *x, uint64_t key, int64_t index, uint32_t below, int n) {
    for (int i = 0; i < n; i++) {
        uint64_t z = key + ((uint64_t)index + (uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z = (z ^ (z >> 31)) >> 40;
        x[i] = (uint32_t)z < below ? x[i] : 0;
    }
}

/* Of equals to a bound that start at a rank: whether all are kept, or none (0), or only some (-1). */
static int all_kept(int64_t rank, int64_t equal, int64_t first, int64_t last) {
    if (equal == 0 || (rank >= first && rank + equal <= last)) return 1;
    return rank >= last || rank + equal <= first ? 0 : -1;
}

static void keep_ranked(float *x, Member *member, int n) {
    int lows = equal_to(x, member->low, n), highs = 0;
    int low_kept = all_kept(member->low_before, lows, member->low_first, member->low_last), high_kept = low_kept;
    if (member->high != member->low) {
        highs = equal_to(x, member->high, n);
        high_kept = all_kept(member->high_before, highs, member->high_first, member->high_last);
    }
    if (low_kept >= 0 && high_kept >= 0) {
        uint32_t least_bits = member->low + (low_kept ? 0 : 1), most_bits = member->high - (high_kept ? 0 : 1);
        if (member->high == 0 && !high_kept)
            memset(x, 0, (size_t)n * 4); /* all that is 0 */
        else
            keep_between(x, least_bits, most_bits, n);
        member->low_before += lows;
        member->high_before += highs;
        return;
    }
    for (int i = 0; i < n; i++) {
        uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        int kept = magnitude > member->low && magnitude < member->high;
        if (magnitude == member->low) {
            kept = member->low_before >= member->low_first && member->low_before < member->low_last;
            member->low_before++;
        } else if (magnitude == member->high) {
            kept = member->high_before >= member->high_first && member->high_before < member->high_last;
            member->high_before++;
        }
        if (!kept) x[i] = 0;
    }
}

static void keep(float *x, Member *member, int64_t index, int n) {
    if (member->keep == NOTHING)
        memset(x, 0, (size_t)n * 4);
    else if (member->keep == BETWEEN)
        keep_ranked(x, member, n);
    else if (member->keep == DRAWN)
        keep_drawn(x, member->key, index, member->below, n);
}

/* Sums of magnitudes [blocks, members, 2] before and after entries are dropped. The members' ranks are counted on. */
int sum_magnitudes(const Place *sources, Member *all, int members, int64_t start, int64_t stop, char *scratch,
                   double *sums, Failure *failure) {
    char *raw = scratch;
    float *base = (float *)(raw + (int64_t)(1 + members) * BLOCK * 4), *vectors = base + TILE;
    double *lanes = (double *)(vectors + (int64_t)members * TILE);
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, 1 + members, at, size, raw, failure)) return -1;
        memset(lanes, 0, (size_t)members * 2 * LANES * 8);
        EACH_TILE(size, first, n) {
            if (differences(sources, members, raw, first, base, vectors, (int)n, failure)) return -1;
            for (int m = 0; m < members; m++) {
                float *x = vectors + m * TILE;
                add_magnitudes(x, (int)n, lanes + 2 * m * LANES);
                keep(x, all + m, at + first, (int)n);
                add_magnitudes(x, (int)n, lanes + (2 * m + 1) * LANES);
            }
        }
        for (int m = 0; m < 2 * members; m++) *sums++ = total(lanes + m * LANES);
    }
    return 0;
}

/* The entries that agree with the sign of the sum of all, and the sum of their weights. */
WIDE static void elect(const float *vectors, const Member *all, int members, float *sum, float *weights, int n) {
    double votes[TILE];
    float signs[TILE];
    for (int i = 0; i < n; i++) votes[i] = 0, sum[i] = 0, weights[i] = 0;
    for (int m = 0; m < members; m++)
        for (int i = 0; i < n; i++) votes[i] += (double)vectors[m * TILE + i];
    for (int i = 0; i < n; i++) signs[i] = votes[i] >= 0 ? 1.0f : -1.0f;
    for (int m = 0; m < members; m++) {
        const float *x = vectors + m * TILE, weight = all[m].weight;
        for (int i = 0; i < n; i++) {
            int agrees = x[i] * signs[i] > 0;
            sum[i] += agrees ? x[i] : 0;
            weights[i] += agrees ? weight : 0;
        }
    }
}

WIDE static void divide_each(float *to, const float *divisors, int n) {
    for (int i = 0; i < n; i++) to[i] /= divisors[i] == 0 ? 1 : divisors[i];
}

/* The base and lambda times the sum of task vectors: of those that agree with the elected sign if there is an election,
   and divided by their weights if ``normalize``; without one divided by ``divisor``. */
int merge_vectors(const Place *sources, Member *all, int members, int election, int normalize, float divisor,
                  float lambda, Place out, int64_t start, int64_t stop, char *scratch, Failure *failure) {
    char *raw = scratch, *made = raw + (int64_t)(1 + members) * BLOCK * 4;
    float *base = (float *)(made + BLOCK * 4), *sum = base + TILE, *weights = sum + TILE, *vectors = weights + TILE;
    EACH_BLOCK(start, stop, at, size) {
        if (read_block(sources, 1 + members, at, size, raw, failure)) return -1;
        EACH_TILE(size, first, n) {
            if (differences(sources, members, raw, first, base, vectors, (int)n, failure)) return -1;
            for (int m = 0; m < members; m++) {
                float *x = vectors + m * TILE;
                keep(x, all + m, at + first, (int)n);
                if (all[m].factor != 1) scale(x, x, all[m].factor, (int)n);
                scale(x, x, all[m].weight, (int)n);
            }
            if (election) {
                elect(vectors, all, members, sum, weights, (int)n);
                if (normalize) divide_each(sum, weights, (int)n);
            } else {
                memset(sum, 0, (size_t)n * 4);
                for (int m = 0; m < members; m++) add(sum, vectors + m * TILE, (int)n);
                if (normalize) divide(sum, divisor, (int)n);
            }
            if (lambda != 1) scale(sum, sum, lambda, (int)n);
            add(base, sum, (int)n);
            if (!store(out.type, base, made + first * WIDTHS[out.type], (int)n))
                return blame(sources, 1 + members, raw, first, (int)n, failure);
        }
        if (write_block(out, at, size, made, failure)) return -1;
    }
    return 0;
}

/* Time, chance, and latencies. */

#ifndef KONG_PDK_BENCH_MEASURE_H
#define KONG_PDK_BENCH_MEASURE_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* A clock, nanoseconds. */
static inline uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* CPU time of this process. */
static inline double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Below a limit: xorshift, fast, and the same numbers in every run. */
static inline uint32_t random_below(uint32_t limit) {
    static uint64_t random_state = 88172645463325252u;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * limit >> 32);
}

/* All of them, not a histogram: percentiles are exact. */
struct latencies {
    uint32_t *tenths; /* of a microsecond */
    size_t count, size;
};

/* Keep one, in nanoseconds; 0 without memory. */
static inline int record(struct latencies *all, uint64_t taken) {
    if (all->count == all->size) {
        size_t size = all->size ? 2 * all->size : 1 << 20;
        uint32_t *tenths = realloc(all->tenths, size * sizeof *tenths);
        if (!tenths) return 0;
        all->tenths = tenths;
        all->size = size;
    }
    all->tenths[all->count++] = taken < 400000000000u ? (uint32_t)(taken / 100) : UINT32_MAX;
    return 1;
}

static inline int compare_tenths(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static inline void sort(struct latencies *all) {
    if (all->count) qsort(all->tenths, all->count, sizeof *all->tenths, compare_tenths);
}

/* Microseconds, of sorted ones; 0 if there are none. */
static inline double percentile(const struct latencies *all, double share) {
    if (!all->count) return 0;
    return all->tenths[(size_t)(share * (double)(all->count - 1) + 0.5)] / 10.0;
}

#endif

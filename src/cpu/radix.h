// One pass of a stable radix sort over keys, with the rows that they came from.
#ifndef SPCY_CPU_RADIX_H
#define SPCY_CPU_RADIX_H

#include <stdint.h>

static inline void spcy_histogram(const uint64_t* keys, int64_t begin, int64_t end, int shift, int digit_bits,
                                  int64_t* counts) {
    const uint64_t mask = (1ull << digit_bits) - 1;
    for (int64_t d = 0; d <= (int64_t)mask; ++d) counts[d] = 0;
    for (int64_t i = begin; i < end; ++i) ++counts[(keys[i] >> shift) & mask];
}

// Turn (part, digit) counts into the place where each part writes its first key of each digit.
static inline void spcy_digit_places(int64_t* counts, int parts, int digit_bits) {
    const int64_t digits = 1ll << digit_bits;
    int64_t place = 0;
    for (int64_t d = 0; d < digits; ++d)
        for (int p = 0; p < parts; ++p) {
            const int64_t count = counts[p * digits + d];
            counts[p * digits + d] = place;
            place += count;
        }
}

// rows == NULL: the keys stand in row order still.
static inline void spcy_scatter(const uint64_t* keys, const int32_t* rows, int64_t begin, int64_t end, int shift,
                                int digit_bits, int64_t* places, uint64_t* out_keys, int32_t* out_rows) {
    const uint64_t mask = (1ull << digit_bits) - 1;
    for (int64_t i = begin; i < end; ++i) {
        const int64_t place = places[(keys[i] >> shift) & mask]++;
        out_keys[place] = keys[i];
        out_rows[place] = rows ? rows[i] : (int32_t)i;
    }
}

#endif

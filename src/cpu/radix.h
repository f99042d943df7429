// One pass of a stable radix sort over keys, with the rows that they came from.
// A key and its row may be one word between the first pass and the last: less to move, and half as many places to
// write to at a time.
#ifndef SPCY_CPU_RADIX_H
#define SPCY_CPU_RADIX_H

#include <stdint.h>

// The digit is the one at `shift` of what is counted.
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

// What a pass reads and writes: keys and the rows that they came from; or words of both, the row in the lower bits.
enum { SPCY_KEYS, SPCY_KEYS_AND_ROWS, SPCY_WORDS };

// How a word is made up: of the row, and of as many bits of the key as follow; those above are common to what is
// sorted.
typedef struct {
    int row_bits, key_bits;
    uint64_t above;
} spcy_word_layout;

// Keys without rows stand in row order still.
template <int FROM, int TO>
static inline void spcy_scatter(const uint64_t* keys, const int32_t* rows, int64_t begin, int64_t end, int shift,
                                int digit_bits, spcy_word_layout word, int64_t* places, uint64_t* out_keys,
                                int32_t* out_rows) {
    const uint64_t mask = (1ull << digit_bits) - 1, row_mask = (1ull << word.row_bits) - 1;
    const uint64_t key_mask = (1ull << word.key_bits) - 1;
    for (int64_t i = begin; i < end; ++i) {
        const uint64_t value = keys[i], key = FROM == SPCY_WORDS ? value >> word.row_bits : value;
        const int64_t place = places[(key >> shift) & mask]++;
        if (TO == SPCY_WORDS) {
            out_keys[place] = FROM == SPCY_WORDS ? value : key << word.row_bits | (uint64_t)i;
        } else {
            out_keys[place] = FROM == SPCY_WORDS ? word.above | (key & key_mask) : key;
            out_rows[place] = FROM == SPCY_KEYS    ? (int32_t)i
                              : FROM == SPCY_WORDS ? (int32_t)(value & row_mask)
                                                   : rows[i];
        }
    }
}

#endif

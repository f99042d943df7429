// Keys: the one definition of how a site's coordinates become a 64-bit integer.
//
// A layout gives each column (batch, axis 0, .., axis D-1) a bit field: `low` is the column's least
// value, `shift` the place of its field. The first column has the highest field, so ascending keys
// are lexicographic coordinates, and adding an offset to a site is one integer addition as long as
// the layout's fields have room for the sum, which the caller sees to.
#ifndef SPCY_KEY_H
#define SPCY_KEY_H

#ifndef __CUDACC_RTC__
#include <stdint.h>
#define SPCY_HD static inline
#else
typedef int int32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define SPCY_HD static __device__ inline
#endif

// No site has this key: layouts use at most 63 bits.
#define SPCY_NO_KEY 0xFFFFFFFFFFFFFFFFull

SPCY_HD uint64_t spcy_pack(const int32_t* index, const int64_t* low, const int64_t* shift, int columns) {
    uint64_t key = 0;
    for (int c = 0; c < columns; ++c) key += (uint64_t)(index[c] - low[c]) << shift[c];
    return key;
}

// The value in column c of a key; the fields above it end where field c - 1 begins.
SPCY_HD int64_t spcy_unpack(uint64_t key, const int64_t* low, const int64_t* shift, int c) {
    if (c > 0) key &= (1ull << shift[c - 1]) - 1;
    return (int64_t)(key >> shift[c]) + low[c];
}

// The key in layout 1 of a key in layout 0.
SPCY_HD uint64_t spcy_repack(uint64_t key, const int64_t* low0, const int64_t* shift0, const int64_t* low1,
                             const int64_t* shift1, int columns) {
    uint64_t out = 0;
    for (int c = 0; c < columns; ++c) out += (uint64_t)(spcy_unpack(key, low0, shift0, c) - low1[c]) << shift1[c];
    return out;
}

#endif
